"""Rejection sampling: sample several answers, keep the best, and learn to say it. Over many iterations, expert iteration.

The simplest method that improves on a judge: no ratio, no baseline, no divergence. The likelihood of what was kept goes up,
and what was dropped teaches nothing, so it cannot push a bad action down.

Best-of-n fine-tuning: Nakano et al. 2021, arXiv 2112.09332; Dong et al. 2023 (RAFT), arXiv 2304.06767. Expert iteration:
Anthony et al. 2017, arXiv 1705.08439; Singh et al. 2023 (ReST-EM), arXiv 2312.06585.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.algorithms.experience import climb
from turnwise.algorithms.settings import check_settings
from turnwise.batch import pack
from turnwise.credit.selection import best_of
from turnwise.episode import Episode
from turnwise.metrics import Metrics, merge
from turnwise.objectives import nll, token_mean
from turnwise.runs import Improvement

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RejectionSampling:
    """Supervised fine-tuning on the best rollout of each group.

    Attributes:
        groups: Start states per iteration.
        group_size: Rollouts of each start state, of which one is kept.
        threshold: Least return of a rollout that is kept; the default keeps the best of a group whatever it returned.
        epochs: Passes over what was kept.
        minibatch: Turns per optimizer step.
    """

    groups: int = 32
    group_size: int = 8
    threshold: float = -1e9
    epochs: int = 2
    minibatch: int = 32

    def __post_init__(self) -> None:
        check_settings(self)

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """Groups of rollouts from common start states."""
        return source.rollouts(iteration, self.groups, self.group_size)

    def select(self, episodes: list[Episode]) -> list[int]:
        """Indices of the episodes to learn from: the best of each group, if it reaches the threshold."""
        scores = [np.nan if one.failed or not one.turns else one.undiscounted_return for one in episodes]
        best = best_of(scores, [episode.group for episode in episodes])
        return [i for i in best if scores[i] >= self.threshold]

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Keep the best and raise its likelihood; say why when nothing is kept."""
        kept = [episodes[i] for i in self.select(episodes)]
        paid = [episode.undiscounted_return for episode in kept]
        figures: Metrics = {
            "selected/reward": (float(sum(paid)), float(len(kept))),
            "selected/share": (float(len(kept)), float(len({episode.group for episode in episodes}))),
        }
        if not kept:
            log.warning("no update: %s", self._why_none(episodes))
            return Improvement(figures)
        weights = {"weight": token_mean}
        steps = climb(learner, pack(kept), nll(), epochs=self.epochs, turns=self.minibatch, weights=weights)
        return Improvement(merge([figures, steps]))

    def _why_none(self, episodes: list[Episode]) -> str:
        returns = [one.undiscounted_return for one in episodes if one.turns and not one.failed]
        scored = [value for value in returns if not np.isnan(value)]
        if not scored:
            return f"none of the {len(episodes)} episodes has a score: all failed or could not be scored"
        return (
            f"the best of {len(scored)} episodes returned {max(scored):g}, below threshold={self.threshold:g}; lower the "
            "threshold, sample larger groups, or start from demonstrations"
        )
