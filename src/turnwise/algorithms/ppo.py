"""Proximal policy optimisation over turns: GAE from turn to turn with a critic, and the clipped surrogate.

A step is a turn. The critic reads the context right before an action begins; the advantage of the turn goes to every
token of its action. An episode that ended by itself has no future; one that we stopped watching
bootstraps from the value of its last observation. `TokenPPO` makes every action token a step instead.

At one turn with a judge this is the PPO of RLHF. The KL to a reference, if asked for, is taken off the reward (k1).

Details that decide whether it works (Huang et al. 2022, "The 37 implementation details of PPO"; Andrychowicz et al.
2021): the value head starts at zero and reads the same trunk; rewards are scaled so that returns are of order one;
advantages are whitened over the batch; Adam's ε is 1e-5; the learning rate falls linearly to zero.

Schulman et al. 2017, arXiv 1707.06347; Schulman et al. 2016, arXiv 1506.02438.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from turnwise.algorithms.experience import Experience, Floats, climb, kl_penalty, recall, turn_rewards, with_streams
from turnwise.algorithms.settings import check_settings
from turnwise.batch import per_turn
from turnwise.credit import broadcast, explained_variance, gae_tokens, gae_turns, place_at_end, whiten
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError
from turnwise.metrics import merge
from turnwise.objectives import Weight, clipped, combine, entropy_bonus, token_mean, turn_start_mean, value_error
from turnwise.runs import Improvement


@dataclass(frozen=True)
class PPO:
    """PPO with turn-level GAE.

    Attributes:
        episodes: Episodes per iteration, each from its own start state.
        gamma: Discount per turn.
        lam: Trace decay λ of GAE per turn.
        clip: Trust region of the probability ratio.
        epochs: Passes over each iteration's experience.
        minibatch: Turns per optimizer step.
        value_coef: Weight of the critic's loss.
        entropy_coef: Weight of the entropy bonus.
        kl_coef: Reward taken off per nat of divergence from the reference (k1).
        reward_scale: Multiplies rewards, so that returns are of order one.
        needs_critic: The policy has to have a value head; no hyperparameter.
    """

    episodes: int = 64
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    epochs: int = 2
    minibatch: int = 128
    value_coef: float = 0.5
    entropy_coef: float = 0.0
    kl_coef: float = 0.0
    reward_scale: float = 0.1
    needs_critic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_settings(self)

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """Episodes from new start states."""
        return source.rollouts(iteration, self.episodes)

    def credit(self, experience: Experience, penalty: list[Floats]) -> tuple[list[Floats], list[Floats], Weight]:
        """Advantages and value targets per action token, and the tokens the critic is trained at."""
        rewards = [self.reward_scale * reward for reward in turn_rewards(experience, penalty)]
        values = per_turn(experience.values, experience.episodes)
        advantages, targets = gae_turns(rewards, values, experience.bootstrap, self.gamma, self.lam)
        lengths = experience.act_lengths
        return broadcast(whiten(advantages), lengths), broadcast(targets, lengths), turn_start_mean

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Assign credit and climb."""
        if learner.policy.value_head is None:
            raise TurnwiseError("ppo needs a critic: build the policy with value_head=True, or use reinforce")
        experience = recall(learner, episodes)
        if experience is None:
            return Improvement({})
        penalty, kl = kl_penalty(learner, experience, self.kl_coef)
        advantages, targets, value_weight = self.credit(experience, penalty)
        batch = with_streams(experience.batch, experience.episodes, {"advantage": advantages, "return": targets})
        objective = combine(
            (1.0, clipped(self.clip)), (self.value_coef, value_error()), (self.entropy_coef, entropy_bonus())
        )
        weights = {"weight": token_mean, "value_weight": value_weight}
        steps = climb(learner, batch, objective, epochs=self.epochs, turns=self.minibatch, weights=weights)
        at_turns = [per_turn(stream, experience.episodes) for stream in (advantages, experience.values, targets)]
        metrics = merge([experience.metrics, kl, explained_variance(at_turns[1], at_turns[2]), steps])
        values = [value / self.reward_scale for value in at_turns[1]]
        return Improvement(metrics, experience.for_record(advantage=at_turns[0], value=values))


@dataclass(frozen=True)
class TokenPPO(PPO):
    """PPO whose steps are action tokens: the turn's reward falls on its last token, and values are read at each.

    `gamma` and `lam` apply from turn to turn, not within one, so that the horizon does not shrink with the length of actions.
    """

    def credit(self, experience: Experience, penalty: list[Floats]) -> tuple[list[Floats], list[Floats], Weight]:
        """Advantages and value targets of every action token."""
        lengths = experience.act_lengths
        paid = place_at_end([episode.rewards for episode in experience.episodes], lengths)
        rewards = [self.reward_scale * (pay + tokens) for pay, tokens in zip(paid, penalty, strict=True)]
        advantages, targets = gae_tokens(
            rewards, experience.values, experience.bootstrap, lengths, self.gamma, self.lam, discount_turns=True
        )
        return [np.asarray(a) for a in whiten(advantages)], targets, token_mean
