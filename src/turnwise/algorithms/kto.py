"""KTO: learn from episodes that are known to be good or bad, one by one, without pairs.

A good episode is to become more likely than it is under the reference, a bad one less, each measured from the divergence
that the policy has anyway; and what is far on the right side counts ever less.

Ethayarajh et al. 2024, arXiv 2402.01306. Without the baseline it is APO-zero for single labels (arXiv 2408.06266).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from turnwise.algorithms.experience import climb
from turnwise.algorithms.preferences import kl_baseline, labelled, turns_of, with_reference
from turnwise.algorithms.settings import check_settings
from turnwise.batch import Batch
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError
from turnwise.metrics import Metrics, merge
from turnwise.objectives import kto, pair_mean
from turnwise.runs import Improvement

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KTO:
    """Kahneman–Tversky optimisation.

    Attributes:
        beta: Price of leaving the reference, in reward per nat: the smaller, the further the policy goes.
        desirable: Weight of good episodes. Times their number it should be 1 to 4/3 of the same product of the bad ones.
        undesirable: Weight of bad episodes.
        baseline: Measure from the divergence of the policy, estimated on prompts with answers to other prompts; without it
            from 0 (APO-zero).
        threshold: An episode whose return is above this is good.
        episodes: Episodes per iteration.
        minibatch: Episodes per optimizer step.
        online: Sample episodes from the policy and let the environment, a reward or a teacher pay for them.
    """

    beta: float = 0.1
    desirable: float = 1.0
    undesirable: float = 1.0
    baseline: bool = True
    threshold: float = 0.5
    episodes: int = 64
    minibatch: int = 32
    online: bool = False

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def learns_from(self) -> str:
        """``labels`` in a file, or ``rollouts``."""
        return "rollouts" if self.online else "labels"

    @property
    def needs_reference(self) -> bool:
        """Always: both labels are about what the reference would have done."""
        return True

    def check_stored(self, episodes: Sequence[Episode]) -> None:
        """Look at all stored episodes before a run.

        Raises:
            TurnwiseError: all of them are desirable, or none is.
        """
        _, good = self._labelled(episodes)
        if len(set(good)) < 2:
            raise TurnwiseError(self._one_kind(episodes, good))

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """The next stored episodes, or newly sampled ones."""
        return source.rollouts(iteration, self.episodes)

    def prepare(self, learner: Any, minibatch: Batch) -> Batch:
        """The baseline of a whole minibatch under the present weights."""
        if self.baseline:
            return kl_baseline(learner, minibatch)
        return replace(minibatch, seq={**minibatch.seq, "baseline": torch.zeros(len(minibatch))})

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Label the episodes by their returns, and descend."""
        usable, good = self._labelled(episodes)
        metrics: Metrics = {"labels/desirable": (float(sum(good)), float(len(good)))}
        if len(set(good)) < 2:
            log.warning("no update: %s", self._one_kind(episodes, good))
            return Improvement(metrics)
        batch = with_reference(learner, labelled(usable, good))
        objective = kto(self.beta, desirable=self.desirable, undesirable=self.undesirable)
        size = turns_of(batch, self.minibatch)
        steps = climb(
            learner, batch, objective, epochs=1, turns=size, weights={"weight": pair_mean}, prepare=self.prepare
        )
        return Improvement(merge([metrics, steps]))

    def _labelled(self, episodes: Sequence[Episode]) -> tuple[list[Episode], list[bool]]:
        """The episodes that have a label, and whether each is desirable."""
        known = [e for e in episodes if e.turns and not e.failed and not math.isnan(e.undiscounted_return)]
        return known, [episode.undiscounted_return > self.threshold for episode in known]

    def _one_kind(self, episodes: Sequence[Episode], good: list[bool]) -> str:
        kind = "have a label" if not good else f"are {'desirable' if good[0] else 'undesirable'}"
        return (
            f"{'all' if good else 'none'} of the {len(episodes)} episodes {kind} (return above threshold={self.threshold:g}); kto "
            "needs both kinds. From good examples alone learn with sft"
        )
