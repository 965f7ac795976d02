"""A process reward model: is a step right, given those before it?

Each step is a turn and its reward is its label: 1 right, 0 wrong, between them where it was estimated by rolling out a
policy (`turnwise.rollout.MonteCarlo`), NaN where nobody knows. The figures of an iteration are taken before its update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from turnwise.algorithms.experience import climb
from turnwise.algorithms.settings import check_settings
from turnwise.batch import pack, unpack
from turnwise.credit import broadcast
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError
from turnwise.metrics import merge
from turnwise.objectives.scores import step_labels, step_mean
from turnwise.runs import Improvement
from turnwise.runs.scoring import step_report


@dataclass(frozen=True)
class ProcessRewardModel:
    """Right or wrong, step by step.

    Attributes:
        trains: What kind of model it moves; no hyperparameter.
        last_step_only: Learn from the label of each answer's last step alone: an outcome reward model.
        episodes: Answers per iteration.
        minibatch: Steps per optimizer step.
        samples: With a number, steps are those of the start model's own answers, each labelled by finishing the answer so
            many times and asking who judges it; 0 takes labelled steps from a file.
        label: A step is right if any continuation succeeds (hard), to the extent that they do (soft), or if more than half do
            (majority).
    """

    trains: ClassVar[str] = "process-reward-model"

    last_step_only: bool = False
    episodes: int = 32
    minibatch: int = 32
    samples: int = 0
    label: Literal["hard", "soft", "majority"] = "hard"

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def learns_from(self) -> str:
        """``steps`` in a file, or ``rollouts``."""
        return "rollouts" if self.samples else "steps"

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """The next answers."""
        return source.rollouts(iteration, self.episodes)

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """One pass over the labelled steps.

        Raises:
            TurnwiseError: a label outside [0, 1], or no label at all.
        """
        usable = [i for i, episode in enumerate(episodes) if episode.turns and not episode.failed]
        kept = [episodes[i] for i in usable]
        labels = [self._labels(episode) for episode in kept]
        if not any((~np.isnan(label)).any() for label in labels):
            raise TurnwiseError(
                f"none of {len(episodes)} episodes has a labelled step; the reward of each turn says whether it is right (1) "
                "or wrong (0)"
            )
        batch = pack(kept, {"label": broadcast(labels, [episode.act_lengths for episode in kept])})
        score = learner.evaluate(batch).score
        right = unpack(score.double().softmax(-1)[:, 1], kept)
        at_end = [p[np.cumsum(episode.act_lengths) - 1] for p, episode in zip(right, kept, strict=True)]
        streams = [np.full(len(episode.turns), np.nan) for episode in episodes]
        for i, p in zip(usable, at_end, strict=True):
            streams[i] = p
        seen = step_report(at_end, labels)
        figures = {"accuracy": seen.accuracy, "positives": seen.positives, "auc": seen.auc}
        metrics = {f"steps/{name}": (value, 1.0) for name, value in figures.items() if not np.isnan(value)}
        steps = climb(learner, batch, step_labels(), epochs=1, turns=self.minibatch, weights={"weight": step_mean})
        return Improvement(merge([metrics, steps]), {"right": streams})

    def _labels(self, episode: Episode) -> NDArray[np.float64]:
        labels = episode.rewards
        if ((labels < 0) | (labels > 1)).any():
            raise TurnwiseError(
                f"a step of group {episode.group!r} has the label {labels[(labels < 0) | (labels > 1)][0]:g}; "
                "a step is right (1), wrong (0), or somewhere between"
            )
        if self.last_step_only:
            labels[:-1] = np.nan
        return labels
