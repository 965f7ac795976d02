"""VESPO: group-relative REINFORCE that fades out with a sequence's distance from the old policy.

arXiv 2602.10693.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from turnwise.algorithms.grpo import GRPO
from turnwise.objectives import Objective, Weight, gamma_weight, token_mean


@dataclass(frozen=True)
class VESPO(GRPO):
    """Group-relative REINFORCE weighted by a kernel of the whole sequence's probability ratio.

    It has no clip range: `clip` and `clip_high` do nothing.
    """

    def surrogate(self) -> Objective:
        """The log-probability, weighted."""
        return gamma_weight()

    def weight(self, learner: Any) -> Weight:
        """Every token counts the same."""
        return token_mean
