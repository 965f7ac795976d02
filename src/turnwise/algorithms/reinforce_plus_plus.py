"""REINFORCE++: PPO's surrogate without a critic and without groups.

The KL to the reference is taken off each token's reward, the turn's reward falls on its last token, and the return-to-go of
every token is whitened over the whole batch. One rollout of each start state is enough; what is compared are tokens of
different tasks, so a hard task pulls down what was done in it.

Hu 2025, arXiv 2501.03262.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.algorithms.experience import Floats, improve_without_critic, recall
from turnwise.algorithms.reference import kl_penalty
from turnwise.algorithms.settings import Surrogate
from turnwise.credit import gae_tokens, place_at_end, whiten
from turnwise.episode import Episode
from turnwise.objectives import clipped, token_mean
from turnwise.runs import Improvement


@dataclass(frozen=True)
class ReinforcePlusPlus(Surrogate):
    """Token-level REINFORCE with a baseline and a scale of the whole batch.

    Attributes:
        episodes: Episodes per iteration, each from its own start state.
        gamma: Discount per turn.
    """

    episodes: int = 64
    gamma: float = 1.0

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """Episodes from new start states."""
        return source.rollouts(iteration, self.episodes)

    def advantages(self, episodes: list[Episode], penalty: list[Floats]) -> list[Floats]:
        """Per episode (n_action_tokens,): return-to-go with the token's share of the KL, whitened over the batch."""
        lengths = [episode.act_lengths for episode in episodes]
        paid = place_at_end([episode.rewards for episode in episodes], lengths)
        rewards = [pay + tokens for pay, tokens in zip(paid, penalty, strict=True)]
        # With values of zero and λ = 1 the advantage is the return.
        zeros = [np.zeros(len(reward)) for reward in rewards]
        returns, _ = gae_tokens(rewards, zeros, None, lengths, self.gamma, 1.0, discount_turns=True)
        return whiten(returns)

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Assign credit and climb."""
        experience = recall(learner, episodes)
        if experience is None:
            return Improvement({})
        penalty, kl = kl_penalty(learner, experience, self.kl_coef, self.kl_target)
        advantages = self.advantages(experience.episodes, penalty)
        everyone = ["batch"] * len(experience.episodes)
        return improve_without_critic(
            learner, experience, advantages, self, clipped(self.clip), token_mean, kl, groups=everyone
        )
