"""SAPO: GRPO that fades out with a token's distance from the old policy instead of clipping.

Gao et al. 2025, arXiv 2511.20347.
"""

from __future__ import annotations

from dataclasses import dataclass

from turnwise.algorithms.grpo import GRPO
from turnwise.algorithms.settings import refuse_changed
from turnwise.objectives import Objective, soft_gate


@dataclass(frozen=True)
class SAPO(GRPO):
    """GRPO with a soft gate around each token's probability ratio. It has no clip range, and refuses one.

    Attributes:
        gate_up: Temperature of the gate where the advantage is positive; a higher one fades out sooner.
        gate_down: Temperature of the gate elsewhere.
    """

    gate_up: float = 1.0
    gate_down: float = 1.05

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_changed(
            self, ("clip", "clip_high"), "it has no clip range; gate_up and gate_down say how soon it fades out"
        )

    def surrogate(self) -> Objective:
        """The gated ratio."""
        return soft_gate(self.gate_up, self.gate_down)
