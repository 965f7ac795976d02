"""CISPO: REINFORCE with a bounded importance weight. No token loses its gradient, however far its ratio has moved.

MiniMax-M1, arXiv 2506.13585.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from turnwise.algorithms.grpo import GRPO
from turnwise.objectives import Objective, Weight, clipped_weight, token_mean


@dataclass(frozen=True)
class CISPO(GRPO):
    """Group-relative REINFORCE whose importance weight is clipped.

    Attributes:
        clip: The weight is at least 1 − clip; 1 for no lower bound, as published.
        clip_high: The weight is at most 1 + clip_high.
    """

    clip: float = 1.0
    clip_high: float = 4.0

    def surrogate(self) -> Objective:
        """The log-probability, weighted."""
        return clipped_weight(self.clip_high or self.clip, self.clip)

    def weight(self, learner: Any) -> Weight:
        """Every token counts the same."""
        return token_mean
