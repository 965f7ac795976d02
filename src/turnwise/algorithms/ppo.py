"""Proximal policy optimisation over turns: GAE from turn to turn with a critic, and the clipped surrogate.

A step is a turn. The critic reads the context right before an action begins; the advantage of the turn goes to every
token of its action. An episode that ended by itself has no future; one that we stopped watching
bootstraps from the value of its last observation. `TokenPPO` makes every action token a step instead.

At one turn with a judge this is the PPO of RLHF. The KL to a reference, if asked for, is taken off the reward (k1).

Details that decide whether it works (Huang et al. 2022, "The 37 implementation details of PPO"; Andrychowicz et al.
2021): the value head starts at zero and reads the same trunk; rewards are scaled so that returns are of order one;
advantages are whitened over the batch; Adam's ε is 1e-5; the learning rate falls linearly to zero.

Details of RLHF (Ziegler et al. 2019, arXiv 1909.08593; Stiennon et al. 2020, arXiv 2009.01325), each a setting: a KL
coefficient that follows a target, whitened rewards, clipped values, a critic that learns alone at first. What an answer
without a stop token costs is a reward (`turnwise.rewards.missing_eos`).

Schulman et al. 2017, arXiv 1707.06347; Schulman et al. 2016, arXiv 1506.02438.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from turnwise.algorithms.experience import (
    Experience,
    Floats,
    climb,
    recall,
    turn_rewards,
    value_head_alone,
    why_flat,
    with_streams,
)
from turnwise.algorithms.reference import kl_penalty
from turnwise.algorithms.settings import Surrogate
from turnwise.batch import per_turn
from turnwise.credit import (
    broadcast,
    explained_variance,
    gae_tokens,
    gae_turns,
    place_at_end,
    whiten,
    whiten_rewards,
)
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError
from turnwise.metrics import merge
from turnwise.objectives import Weight, clipped, combine, entropy_bonus, token_mean, turn_start_mean, value_error
from turnwise.runs import Improvement

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PPO(Surrogate):
    """PPO with turn-level GAE.

    Attributes:
        episodes: Episodes per iteration, each from its own start state.
        gamma: Discount per turn.
        lam: Trace decay λ of GAE per turn.
        value_coef: Weight of the critic's loss.
        value_clip: How far a value may gain by moving from what it was at collection time, in the unit of the scaled
            reward; 0 lets it move freely.
        reward_scale: Multiplies rewards, so that returns are of order one.
        whiten_rewards: Give the batch's scaled rewards, the divergence included, a standard deviation of one around the
            mean that they have. The record then holds no values, which would not be in the unit of the reward.
        critic_warmup: Iterations at the start of the run in which the value head alone learns; the policy stays as it is,
            and so does kl_coef.
        needs_critic: The policy has to have a value head; no hyperparameter.
    """

    epochs: int = 2
    minibatch: int = 128
    episodes: int = 64
    gamma: float = 0.99
    lam: float = 0.95
    value_coef: float = 0.5
    value_clip: float = 0.0
    reward_scale: float = 0.1
    whiten_rewards: bool = False
    critic_warmup: int = 0
    needs_critic: ClassVar[bool] = True

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """Episodes from new start states."""
        return source.rollouts(iteration, self.episodes)

    def scaled(self, rewards: list[Floats]) -> list[Floats]:
        """Rewards per turn or token in the unit of the critic."""
        scaled = [self.reward_scale * reward for reward in rewards]
        return whiten_rewards(scaled) if self.whiten_rewards else scaled

    def credit(self, experience: Experience, penalty: list[Floats]) -> tuple[list[Floats], list[Floats], Weight]:
        """Advantages and value targets per action token, and the tokens the critic is trained at."""
        rewards = self.scaled(turn_rewards(experience, penalty))
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
        warming = self.critic_warmup > 0 and learner.iteration < self.critic_warmup
        # A policy that stays as it is cannot answer to its coefficient, which therefore stays too.
        penalty, kl = kl_penalty(learner, experience, self.kl_coef, 0.0 if warming else self.kl_target)
        advantages, targets, value_weight = self.credit(experience, penalty)
        if not warming and not any(advantage.any() for advantage in advantages):
            log.warning("the policy stays as it is, only the critic learns: %s", why_flat(experience))
        streams = {"advantage": advantages, "return": targets, "old_value": experience.values}
        batch = with_streams(experience.batch, experience.episodes, streams)
        objective = combine(
            (0.0 if warming else 1.0, clipped(self.clip)),
            (self.value_coef, value_error(self.value_clip or None)),
            (0.0 if warming else self.entropy_coef, entropy_bonus()),
        )
        weights = {"weight": token_mean, "value_weight": value_weight}
        with value_head_alone(learner.policy) if warming else nullcontext():
            steps = climb(learner, batch, objective, epochs=self.epochs, turns=self.minibatch, weights=weights)
        at_turns = [per_turn(stream, experience.episodes) for stream in (advantages, experience.values, targets)]
        metrics = merge([experience.metrics, kl, explained_variance(at_turns[1], at_turns[2]), steps])
        # Whitening shifts rewards by a number of the batch, so what the critic says then is in no unit of the reward.
        known = {} if self.whiten_rewards else {"value": [value / self.reward_scale for value in at_turns[1]]}
        return Improvement(metrics, experience.for_record(advantage=at_turns[0], **known))


@dataclass(frozen=True)
class TokenPPO(PPO):
    """PPO whose steps are action tokens: the turn's reward falls on its last token, and values are read at each.

    Attributes:
        discount: Where `gamma` and `lam` apply: from turn to turn and not within one, so that the horizon does not shrink
            with the length of actions; or at every token, as in the PPO of RLHF (there with gamma 1 and lam 0.95).
    """

    discount: Literal["turns", "tokens"] = "turns"

    def credit(self, experience: Experience, penalty: list[Floats]) -> tuple[list[Floats], list[Floats], Weight]:
        """Advantages and value targets of every action token."""
        lengths = experience.act_lengths
        paid = place_at_end([episode.rewards for episode in experience.episodes], lengths)
        rewards = self.scaled([pay + tokens for pay, tokens in zip(paid, penalty, strict=True)])
        advantages, targets = gae_tokens(
            rewards,
            experience.values,
            experience.bootstrap,
            lengths,
            self.gamma,
            self.lam,
            discount_turns=self.discount == "turns",
        )
        return [np.asarray(a) for a in whiten(advantages)], targets, token_mean
