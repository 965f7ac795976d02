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
from turnwise.credit.selection import best_and_worst, best_of
from turnwise.episode import Episode, Stop
from turnwise.metrics import Metrics, merge
from turnwise.objectives import nll, token_mean
from turnwise.runs import Improvement

log = logging.getLogger(__name__)

ANY_RETURN = -1e9
"""The threshold that sets none."""


@dataclass(frozen=True)
class RejectionSampling:
    """Supervised fine-tuning on the best rollout of each group.

    What is imitated has to end: a rollout whose last action was cut at the token budget is never kept.

    Attributes:
        groups: Start states per iteration.
        group_size: Rollouts of each start state, of which one is kept.
        threshold: Least return of a rollout that is kept. The default sets none: it keeps the best of a group whatever that
            returned, if it is better than another of the group; of equals, all wrong or all right, nobody is best.
        epochs: Passes over what was kept.
        minibatch: Turns per optimizer step.
    """

    groups: int = 32
    group_size: int = 8
    threshold: float = ANY_RETURN
    epochs: int = 2
    minibatch: int = 32

    def __post_init__(self) -> None:
        check_settings(self)

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """Groups of rollouts from common start states."""
        return source.rollouts(iteration, self.groups, self.group_size)

    def select(self, episodes: list[Episode]) -> list[int]:
        """Indices of the episodes to learn from: of each group the best that came to its end, if it is good enough."""
        scores = [np.nan if one.failed or not one.turns else one.undiscounted_return for one in episodes]
        groups = [episode.group for episode in episodes]
        ended = [np.nan if _is_cut(one) else score for one, score in zip(episodes, scores, strict=True)]
        best = best_of(ended, groups)
        if self.threshold > ANY_RETURN:
            return [i for i in best if scores[i] >= self.threshold]
        worst = {groups[rejected]: scores[rejected] for _, rejected in best_and_worst(scores, groups)}
        return [i for i in best if scores[i] > worst.get(groups[i], np.inf)]

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
        scored = [e for e in episodes if e.turns and not e.failed and not np.isnan(e.undiscounted_return)]
        if not scored:
            return f"none of the {len(episodes)} episodes has a score: all failed or could not be scored"
        cut, best = sum(_is_cut(one) for one in scored), max(one.undiscounted_return for one in scored)
        said = f"the best of {len(scored)} episodes returned {best:g}, "
        if self.threshold > ANY_RETURN and best < self.threshold:
            said += f"below threshold={self.threshold:g}; lower the threshold"
        elif self.threshold > ANY_RETURN:
            said += "but no episode that came to its end reaches the threshold; raise the token budget"
        else:
            said += "but of those that came to their end none is better than another of its group; set a threshold"
        said += ", sample larger groups, or start from demonstrations"
        return said + (f". {cut} of them were cut at the token budget" if cut else "")


def _is_cut(episode: Episode) -> bool:
    return bool(episode.turns) and episode.turns[-1].stop is Stop.LENGTH
