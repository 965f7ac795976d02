"""Training through one's own frozen judge: a copy of the policy with a head that was trained on labelled answers, and then held.

Two ways to raise what the judge says. `backprop` differentiates through the judge into the policy, with straight-through
soft tokens: cheap, low in variance and biased (`turnwise.models.straight_through` says how). `reinforce` takes the judge's
score as a reward: unbiased and noisy. Both stay near a reference.

Either way the judge is a proxy. What it says (`judge/proxy`) is reported beside a gold reward that nobody trains on, where
there is one, and their difference over the square root of the divergence shows where the one stops following the
other (Gao et al. 2023, arXiv 2210.10760).

The judge is `learner.judge`; the source pays its score under the name ``judge`` and notes the gold reward among an
episode's figures as ``gold`` (`turnwise.rollout.measured.Measured`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from turnwise.algorithms.experience import (
    Experience,
    Floats,
    climb,
    improve_without_critic,
    recall,
    turn_rewards,
    with_streams,
)
from turnwise.algorithms.reference import kl_to_reference
from turnwise.algorithms.settings import check_settings
from turnwise.credit import leave_one_out, uniform
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError
from turnwise.metrics import Metrics, merge
from turnwise.models.straight_through import through_judge
from turnwise.objectives import clipped, combine, constant, entropy_bonus, kl_in_reward, kl_loss, token_mean
from turnwise.runs import Improvement

JUDGE, GOLD = "judge", "gold"
"""The reward that the judge pays, and the figure of an episode that holds what a gold reward would have paid."""


@dataclass(frozen=True)
class SelfJudge:
    """Raise the score of one's own frozen judge.

    Attributes:
        through: Back-propagate through the judge, or reinforce what it scores highly.
        groups: Prompts per iteration.
        group_size: Answers to each; the others of a group are the baseline of `reinforce`.
        kl_coef: Score given up per nat of divergence from the reference.
        clip: Trust region of the probability ratio, in `reinforce`.
        epochs: Passes over each iteration's answers.
        minibatch: Answers per optimizer step.
        entropy_coef: Weight of the entropy bonus.
        judge_passes: Passes over the labelled answers that the judge is trained with, before anything else.
        learns_from: Labelled answers, for the judge; no hyperparameter.
        needs_reference: The divergence is always reported; no hyperparameter.
        needs_judge: The run trains and holds a judge; no hyperparameter.
    """

    through: Literal["backprop", "reinforce"] = "backprop"
    groups: int = 16
    group_size: int = 8
    kl_coef: float = 0.1
    clip: float = 0.2
    epochs: int = 1
    minibatch: int = 64
    entropy_coef: float = 0.0
    judge_passes: int = 4
    learns_from: ClassVar[str] = "labels"
    needs_reference: ClassVar[bool] = True
    needs_judge: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_settings(self)

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """Groups of answers to common prompts."""
        return source.rollouts(iteration, self.groups, self.group_size)

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Climb the judge's score.

        Raises:
            TurnwiseError: the learner holds no judge, or no reference.
        """
        if learner.judge is None:
            raise TurnwiseError(
                "self-judge needs a frozen judge: build the learner with judge=Scorer, trained and frozen"
            )
        experience = recall(learner, episodes)
        if experience is None:
            return Improvement({})
        reference, coefficient, _ = kl_to_reference(learner, experience, self.kl_coef)
        seen = measured(experience, reference)
        if self.through == "reinforce":
            return self._reinforce(learner, experience, reference, seen)
        ends = [np.eye(1, len(logp), len(logp) - 1)[0] for logp in experience.logp]
        batch = with_streams(experience.batch, experience.episodes, {"reference_logp": reference, "judged": ends})
        objective = combine(
            (1.0, through_judge(learner.policy, learner.judge)),
            (coefficient, kl_loss("k2")),
            (self.entropy_coef, entropy_bonus()),
        )
        # Each answer's score once, and its divergence summed over its tokens: the mean over answers of score − β KL.
        weights = {"weight": constant(1.0)}
        steps = climb(learner, batch, objective, epochs=self.epochs, turns=self.minibatch, weights=weights)
        return Improvement(merge([experience.metrics, seen, steps]))

    def _reinforce(self, learner: Any, experience: Experience, reference: list[Floats], seen: Metrics) -> Improvement:
        penalty = kl_in_reward(experience.logp, reference, self.kl_coef)
        returns = [float(reward.sum()) for reward in turn_rewards(experience, penalty)]
        advantages = uniform(
            leave_one_out(returns, experience.groups), [len(episode.turns) for episode in experience.episodes]
        )
        return improve_without_critic(learner, experience, advantages, self, clipped(self.clip), token_mean, seen)


def measured(experience: Experience, reference: list[Floats]) -> Metrics:
    """What the judge says, what is true, and how far the policy has gone, before the update.

    ``judge/proxy``, the probability of a good answer by the judge, over the answers that it scored; ``judge/gold``, over those
    whose gold reward is known; ``judge/gap`` (gold − proxy), over those with both; ``judge/kl``, nats per answer (k1).
    """
    scores = [sum(turn.rewards.get(JUDGE, np.nan) for turn in episode.turns) for episode in experience.episodes]
    proxy = 1.0 / (1.0 + np.exp(-np.array(scores)))
    gold = np.array([episode.metrics.get(GOLD, np.nan) for episode in experience.episodes])
    nats = [float((own - other).sum()) for own, other in zip(experience.logp, reference, strict=True)]
    metrics = {"judge/kl": (float(np.sum(nats)), float(len(nats)))}
    for name, figures in (("judge/proxy", proxy), ("judge/gold", gold), ("judge/gap", gold - proxy)):
        known = figures[~np.isnan(figures)]
        if len(known):
            metrics[name] = (float(known.sum()), float(len(known)))
    return metrics
