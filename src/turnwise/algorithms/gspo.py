"""GSPO and LUSPO: GRPO whose probability ratio is that of the sequence, the geometric mean of its tokens'.

A token's own ratio is a sample of one and mostly noise; what was judged is the sequence.

GSPO: Zheng et al. 2025, arXiv 2507.18071. LUSPO: arXiv 2602.05261.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from turnwise.algorithms.grpo import GRPO
from turnwise.objectives import Objective, Weight, constant, sequence_ratio


@dataclass(frozen=True)
class GSPO(GRPO):
    """GRPO with one length-normalised probability ratio per sequence, and a much narrower trust region.

    A sequence is what was read in one go: an episode, or a turn of it where nothing of the past is remembered.
    """

    clip: float = 3e-4
    clip_high: float = 4e-4

    def surrogate(self) -> Objective:
        """The clipped surrogate, sequence by sequence."""
        return sequence_ratio(self.clip, self.clip_high or self.clip)


@dataclass(frozen=True)
class LUSPO(GSPO):
    """GSPO without its length bias: a sequence counts as much as it has tokens."""

    def weight(self, learner: Any) -> Weight:
        """Every token counts one part of the number of episodes."""
        return constant(1)
