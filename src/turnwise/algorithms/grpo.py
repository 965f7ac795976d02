"""Group methods that judge whole episodes: GRPO and RLOO.

The return of an episode is compared with the other rollouts of its start state, and the one number goes to every token
the policy wrote. Nothing is said about *which* turn earned it: credit is flat within an episode, and actions
taken after a reward are credited with it too. With one turn that is all there is to say; with many, `reinforce`
uses the same rollouts better.

GRPO: Shao et al. 2024, arXiv 2402.03300. RLOO: Ahmadian et al. 2024, arXiv 2402.14740.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from turnwise.algorithms.experience import Floats, improve_without_critic, kl_penalty, recall, turn_rewards
from turnwise.algorithms.settings import SettingsError, check_settings
from turnwise.credit import group_relative, leave_one_out, uniform
from turnwise.episode import Episode
from turnwise.objectives import Weight, clipped, sequence_mean, token_mean
from turnwise.runs import Improvement


@dataclass(frozen=True)
class GRPO:
    """Group-relative policy optimisation on episode returns.

    Attributes:
        groups: Start states per iteration.
        group_size: Rollouts of each start state.
        clip: Trust region of the probability ratio.
        epochs: Passes over each iteration's experience.
        minibatch: Turns per optimizer step.
        entropy_coef: Weight of the entropy bonus.
        kl_coef: Reward taken off per nat of divergence from the reference (k1).
        normalise: Divide a group's advantages by the standard deviation of its returns.
    """

    groups: int = 8
    group_size: int = 8
    clip: float = 0.2
    epochs: int = 1
    minibatch: int = 256
    entropy_coef: float = 0.0
    kl_coef: float = 0.0
    normalise: bool = True

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def weight(self) -> Weight:
        """Tokens count by the mean of their episode, as published."""
        return sequence_mean

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """Groups of rollouts from common start states."""
        return source.rollouts(iteration, self.groups, self.group_size)

    def judge(self, scores: list[float], groups: list[str]) -> Floats:
        """(n_episodes,) advantage of each episode."""
        return group_relative(scores, groups, normalise=self.normalise)

    def advantages(self, rewards: list[Floats], groups: list[str]) -> list[Floats]:
        """Per episode (n_turns,): the episode's advantage at every turn."""
        judged = self.judge([float(reward.sum()) for reward in rewards], groups)
        return uniform(judged, [len(reward) for reward in rewards])

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Assign credit and climb."""
        experience = recall(learner, episodes)
        if experience is None:
            return Improvement({})
        penalty, kl = kl_penalty(learner, experience, self.kl_coef)
        advantages = self.advantages(turn_rewards(experience, penalty), experience.groups)
        return improve_without_critic(learner, experience, advantages, self, clipped(self.clip), self.weight, kl)


@dataclass(frozen=True)
class RLOO(GRPO):
    """REINFORCE leave-one-out: GRPO with the other rollouts' mean as baseline, no division, every token alike."""

    normalise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalise:
            raise SettingsError("RLOO: normalise=True: RLOO does not divide by a deviation; use GRPO, which does")

    @property
    def weight(self) -> Weight:
        """Every token counts the same."""
        return token_mean

    def judge(self, scores: list[float], groups: list[str]) -> Floats:
        """(n_episodes,) score minus the mean score of the others."""
        return leave_one_out(scores, groups)
