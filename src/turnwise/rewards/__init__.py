"""Rewards: who pays for a turn besides the environment.

A reward is a function from a list of episodes to one array per episode. `judged` puts several together and books each to
its own source.
"""

from turnwise.rewards.combine import judged
from turnwise.rewards.environment import ENVIRONMENT, environment
from turnwise.rewards.functions import EpisodeJudge, TurnJudge
from turnwise.rewards.length import missing_eos, overlong
from turnwise.rewards.reward import Reward, RewardError

__all__ = [
    "ENVIRONMENT",
    "EpisodeJudge",
    "Reward",
    "RewardError",
    "TurnJudge",
    "environment",
    "judged",
    "missing_eos",
    "overlong",
]
