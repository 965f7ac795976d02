"""Group methods that judge whole episodes: GRPO and Dr.GRPO. Their relatives have files of their own.

The return of an episode is compared with the other rollouts of its start state, and the one number goes to every token
the policy wrote. Nothing is said about *which* turn earned it: credit is flat within an episode, and actions
taken after a reward are credited with it too. With one turn that is all there is to say; with many, `reinforce`
uses the same rollouts better.

A relative answers three questions differently, each in a method of its own: `judge` (how good was the episode), `surrogate`
(how does a token move) and `weight` (what does it count).

GRPO: Shao et al. 2024, arXiv 2402.03300. Dr.GRPO: Liu et al. 2025, arXiv 2503.20783.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from turnwise.algorithms.experience import Experience, Floats, improve_without_critic, recall, turn_rewards
from turnwise.algorithms.reference import kl_penalty, kl_to_reference
from turnwise.algorithms.settings import Surrogate
from turnwise.credit import group_relative, uniform
from turnwise.episode import Episode
from turnwise.objectives import (
    Objective,
    Weight,
    clipped,
    combine,
    constant,
    kl_loss,
    sequence_mean,
)
from turnwise.runs import Improvement

KL_LOSSES: Mapping[str, tuple[Literal["k1", "k2", "k3"], bool]] = {
    "k2": ("k2", False),
    "k3": ("k3", False),
    "weighted-k1": ("k1", True),
    "weighted-k3": ("k3", True),
}
"""Setting `kl_loss` -> estimator, and whether the probability ratio multiplies it."""


@dataclass(frozen=True)
class GRPO(Surrogate):
    """Group-relative policy optimisation on episode returns.

    Attributes:
        groups: Start states per iteration.
        group_size: Rollouts of each start state.
        clip_high: Trust region above 1, where it is not as wide as below; 0 makes it as wide.
        normalise: Divide a group's advantages by the standard deviation of its returns.
        spread: Whose standard deviation it is: the group's, or that of all returns of the iteration.
        kl_loss: Make the divergence a term of the loss, of weight kl_coef, instead of taking k1 off the reward: k2; k3 (as
            published); weighted-k1 or weighted-k3, times the probability ratio. k3 alone descends the forward divergence,
            and k1 alone nothing.
    """

    groups: int = 8
    group_size: int = 8
    clip_high: float = 0.0
    normalise: bool = True
    spread: Literal["group", "batch"] = "group"
    kl_loss: Literal["none", "k1", "k2", "k3", "weighted-k1", "weighted-k3"] = "none"

    def surrogate(self) -> Objective:
        """The clipped surrogate, token by token."""
        return clipped(self.clip, self.clip_high or None)

    def weight(self, learner: Any) -> Weight:
        """Tokens count by the mean of their episode, as published."""
        return sequence_mean

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """Groups of rollouts from common start states."""
        return source.rollouts(iteration, self.groups, self.group_size)

    def judge(self, scores: list[float], groups: list[str]) -> Floats:
        """(n_episodes,) advantage of each episode."""
        return group_relative(scores, groups, normalise=self.normalise, spread=self.spread)

    def advantages(self, rewards: list[Floats], groups: list[str]) -> list[Floats]:
        """Per episode (n_turns,): the episode's advantage at every turn."""
        judged = self.judge([float(reward.sum()) for reward in rewards], groups)
        return uniform(judged, [len(reward) for reward in rewards])

    def left_out(self, episodes: list[Episode]) -> Collection[int]:
        """Indices of episodes that take no part in the update."""
        return ()

    def experience(self, learner: Any, episodes: list[Episode]) -> Experience | None:
        """The episodes that take part, under the present weights."""
        return recall(learner, episodes, self.left_out(episodes))

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Assign credit and climb."""
        experience = self.experience(learner, episodes)
        if experience is None:
            return Improvement({})
        surrogate, reference = self.surrogate(), None
        if self.kl_loss == "none":
            penalty, kl = kl_penalty(learner, experience, self.kl_coef, self.kl_target)
            rewards = turn_rewards(experience, penalty)
        else:
            reference, coefficient, kl = kl_to_reference(learner, experience, self.kl_coef, self.kl_target)
            kl = {name: figure for name, figure in kl.items() if name != "kl"}  # the term of the loss reports its own
            kind, weighted = KL_LOSSES[self.kl_loss]
            surrogate = combine((1.0, surrogate), (coefficient, kl_loss(kind, weighted=weighted)))
            rewards = [episode.rewards for episode in experience.episodes]
        advantages = self.advantages(rewards, experience.groups)
        weight = self.weight(learner)
        return improve_without_critic(learner, experience, advantages, self, surrogate, weight, kl, reference=reference)


@dataclass(frozen=True)
class DrGRPO(GRPO):
    """GRPO done right: no division by a deviation, and every token divided by one constant.

    Attributes:
        budget: The constant, in tokens per episode; 0 takes the token budget of an action.
    """

    normalise: bool = False
    budget: int = 0

    def weight(self, learner: Any) -> Weight:
        """Every token counts one part of the budget, however long its episode."""
        return constant(self.budget or learner.policy.sampling.max_tokens)
