"""VESPO: group-relative REINFORCE that fades out with a sequence's distance from the old policy.

arXiv 2602.10693.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from turnwise.algorithms.grpo import GRPO
from turnwise.algorithms.settings import refuse_changed
from turnwise.objectives import Objective, Weight, gamma_weight, token_mean


@dataclass(frozen=True)
class VESPO(GRPO):
    """Group-relative REINFORCE weighted by a kernel of the whole sequence's probability ratio.

    It has no clip range, and refuses one. A sequence is what was read in one go: an episode, or a turn of it where nothing of
    the past is remembered.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_changed(self, ("clip", "clip_high"), "it has no clip range; its kernel says how soon it fades out")

    def surrogate(self) -> Objective:
        """The log-probability, weighted."""
        return gamma_weight()

    def weight(self, learner: Any) -> Weight:
        """Every token counts the same."""
        return token_mean
