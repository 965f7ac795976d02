"""A reward model: a score that says which of two episodes somebody prefers.

The best and the worst episode of each group are a pair, by their returns, which is where a label, a judge or a person
left what they think of an episode. The figures of an iteration are those of the weights before its update, on pairs that this
update has not seen: on the first pass over the data they are those of held-out pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turnwise.algorithms.experience import climb
from turnwise.algorithms.preferences import paired, turns_of
from turnwise.algorithms.settings import check_settings
from turnwise.batch import Batch, Outputs
from turnwise.credit import best_and_worst
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError
from turnwise.metrics import Metrics, merge
from turnwise.objectives import Objective, pair_mean
from turnwise.objectives.scores import bradley_terry, side_scores
from turnwise.rewards.calibration import Calibration, calibration
from turnwise.runs import Improvement

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RewardModel:
    """Bradley and Terry's model of preferences.

    Attributes:
        learns_from: What kind of data it needs.
        trains: What kind of model it moves.
        margin: Ask for a difference of scores of so much times the difference of the two returns; 0 asks for none.
        centre: Weight of the square of the sum of a pair's scores, which keeps their mean at zero; 0.01 is usual.
        groups: Pairs per iteration.
        minibatch: Pairs per optimizer step.
    """

    learns_from: ClassVar[str] = "preferences"
    trains: ClassVar[str] = "reward-model"

    margin: float = 0.0
    centre: float = 0.0
    groups: int = 32
    minibatch: int = 16

    def __post_init__(self) -> None:
        check_settings(self)

    def check_stored(self, episodes: Sequence[Episode]) -> None:
        """Look at all stored episodes before a run.

        Raises:
            TurnwiseError: nothing is better than anything else.
        """
        usable, _, pairs = _preferences(episodes)
        if not pairs:
            raise TurnwiseError(_no_preference(episodes, usable))

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """The next groups of episodes."""
        return source.rollouts(iteration, self.groups)

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Pair the best with the worst of each group, and raise the likelihood of the preferences; say where there are none."""
        usable, returns, pairs = _preferences(episodes)
        if not pairs:
            log.warning("no update: %s", _no_preference(episodes, usable))
            return Improvement({})
        batch = paired([episodes[i] for i in usable], pairs)
        margins = torch.tensor([returns[a] - returns[b] for a, b in pairs], dtype=torch.float32)
        batch = replace(batch, seq={**batch.seq, "margin": margins[batch.seq["unit"]]})
        objective, size = bradley_terry(self.margin, self.centre), turns_of(batch, self.minibatch)
        if len(pairs) > self.minibatch:
            said = torch.stack(side_scores(learner.evaluate(batch), batch), 1).double().numpy()
        else:
            # A single step sees all pairs with the weights that it starts from.
            said = np.full((len(pairs), 2), np.nan)
            objective = _noting(objective, said)
        steps = climb(learner, batch, objective, epochs=1, turns=size, weights={"weight": pair_mean})
        streams = [np.full(len(episode.turns), np.nan) for episode in episodes]
        for pair, scores in zip(pairs, said, strict=True):
            for side, score in zip(pair, scores, strict=True):
                streams[usable[side]][-1] = score
        lengths = np.array([[episodes[usable[side]].n_action_tokens for side in pair] for pair in pairs])
        seen = metrics_of(calibration(said[:, 0], said[:, 1], lengths[:, 0], lengths[:, 1]))
        return Improvement(merge([seen, steps]), {"score": streams})


def _noting(objective: Objective, said: NDArray[np.float64]) -> Objective:
    """The objective, which writes the scores of the chosen and the rejected side of each pair it sees into (n, 2) `said`."""

    def noting(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        scores = torch.stack(side_scores(outputs, batch), 1).detach()
        said[batch.seq["unit"].unique().cpu().numpy()] = scores.double().cpu().numpy()
        return objective(outputs, batch)

    return noting


def _preferences(episodes: Sequence[Episode]) -> tuple[list[int], NDArray[np.float64], list[tuple[int, int]]]:
    """Indices of the episodes that can train, (n,) their returns, and the pairs among those n."""
    usable = [i for i, episode in enumerate(episodes) if episode.turns and not episode.failed]
    returns = np.array([episodes[i].undiscounted_return for i in usable], np.float64)
    return usable, returns, best_and_worst(returns, [episodes[i].group for i in usable])


def _no_preference(episodes: Sequence[Episode], usable: list[int]) -> str:
    return (
        f"{len(usable)} episodes in {len({episodes[i].group for i in usable})} groups hold no preference: no group has "
        "two different returns. A reward model needs a chosen and a rejected episode for each prompt"
    )


def metrics_of(seen: Calibration) -> Metrics:
    """The figures of a run's log; those that are not defined are left out."""
    figures = {
        "scores/accuracy": seen.accuracy,
        "scores/calibration_error": seen.error,
        "scores/margin": seen.margin,
        "scores/chosen": seen.chosen_mean,
        "scores/chosen_std": seen.chosen_std,
        "scores/rejected": seen.rejected_mean,
        "scores/rejected_std": seen.rejected_std,
        "scores/length_correlation": seen.length_correlation,
        "scores/longer_is_chosen": seen.longer_is_chosen,
    }
    return {name: (value, 1.0) for name, value in figures.items() if not np.isnan(value)}
