"""Rewards: who pays for a turn besides the environment.

A reward is a function from a list of episodes to one array per episode. `judged` puts several together and books each to
its own source.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from turnwise.rewards.calibration import Calibration, calibration
from turnwise.rewards.combine import judged
from turnwise.rewards.environment import ENVIRONMENT, environment
from turnwise.rewards.functions import EpisodeJudge, TurnJudge
from turnwise.rewards.length import missing_eos, overlong
from turnwise.rewards.reward import Reward, RewardError

if TYPE_CHECKING:
    from turnwise.rewards.learned import ProcessReward, RewardModelReward, turn_scores

# They bring a model library along, which the other rewards do without.
_LEARNED = ("ProcessReward", "RewardModelReward", "turn_scores")

__all__ = [
    "ENVIRONMENT",
    "Calibration",
    "EpisodeJudge",
    "ProcessReward",
    "Reward",
    "RewardError",
    "RewardModelReward",
    "TurnJudge",
    "calibration",
    "environment",
    "judged",
    "missing_eos",
    "overlong",
    "turn_scores",
]


def __getattr__(name: str) -> Any:
    if name not in _LEARNED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("turnwise.rewards.learned"), name)
