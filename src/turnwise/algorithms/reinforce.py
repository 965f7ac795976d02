"""REINFORCE with turn-level return-to-go and a leave-one-out baseline: multi-turn RL without a critic.

PPO minus the critic: a turn's advantage is the discounted return from that turn on, minus the mean return-to-go of the
other rollouts of the same start state that are still alive at that turn. The baseline depends on other rollouts only,
so the gradient is unbiased; a reward never reaches back past the action it followed.

At one turn this is RLOO, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from turnwise.algorithms.experience import Floats, improve_without_critic, recall, turn_rewards
from turnwise.algorithms.reference import kl_penalty
from turnwise.algorithms.settings import Surrogate
from turnwise.credit import leave_one_out_alive, returns, unit_scale
from turnwise.episode import Episode
from turnwise.objectives import clipped, token_mean
from turnwise.runs import Improvement


@dataclass(frozen=True)
class Reinforce(Surrogate):
    """Turn-level REINFORCE with a leave-one-out baseline over the rollouts still alive.

    Attributes:
        groups: Start states per iteration.
        group_size: Rollouts of each start state.
        gamma: Discount per turn.
        normalise: Divide advantages by their root mean square over the batch, without centring them again.
    """

    epochs: int = 2
    minibatch: int = 128
    groups: int = 8
    group_size: int = 8
    gamma: float = 0.99
    normalise: bool = True

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """Groups of rollouts from common start states."""
        return source.rollouts(iteration, self.groups, self.group_size)

    def advantages(self, rewards: list[Floats], groups: list[str], bootstrap: Floats | None = None) -> list[Floats]:
        """Per episode (n_turns,): return-to-go minus the leave-one-out mean over the rollouts alive at that turn."""
        return leave_one_out_alive(returns(rewards, self.gamma, bootstrap), groups)

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Assign credit and climb."""
        experience = recall(learner, episodes)
        if experience is None:
            return Improvement({})
        penalty, kl = kl_penalty(learner, experience, self.kl_coef, self.kl_target)
        advantages = self.advantages(turn_rewards(experience, penalty), experience.groups)
        if self.normalise:
            advantages = unit_scale(advantages)
        return improve_without_critic(learner, experience, advantages, self, clipped(self.clip), token_mean, kl)
