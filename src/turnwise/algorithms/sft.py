"""Supervised fine-tuning, which is behaviour cloning: raise the likelihood of actions that somebody else took.

The same loop as every other method with the reward left out: the source hands out stored episodes, and the loss is the
negative log-likelihood of their action tokens. Observations are context, never targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from turnwise.algorithms.experience import climb
from turnwise.algorithms.settings import check_settings
from turnwise.batch import pack
from turnwise.episode import Episode
from turnwise.objectives import nll, token_mean
from turnwise.runs import Improvement


@dataclass(frozen=True)
class SFT:
    """Supervised fine-tuning on stored episodes.

    Attributes:
        episodes: Episodes handed out per iteration.
        minibatch: Turns per optimizer step.
        learns_from: Stored dialogues; no hyperparameter.
    """

    episodes: int = 32
    minibatch: int = 32
    learns_from: ClassVar[str] = "demonstrations"

    def __post_init__(self) -> None:
        check_settings(self)

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """The next stored episodes."""
        return source.rollouts(iteration, self.episodes)

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """One pass of maximum likelihood over the episodes."""
        usable = [episode for episode in episodes if episode.turns and not episode.failed]
        if not usable:
            return Improvement({})
        metrics = climb(learner, pack(usable), nll(), epochs=1, turns=self.minibatch, weights={"weight": token_mean})
        return Improvement(metrics)
