"""Evidence whose answer is known: what a measure has to get right before it may measure anything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.audit.evidence import Evidence
from turnwise.episode import Episode, Source, Turn


@dataclass(frozen=True, slots=True)
class Control:
    """One known answer.

    Attributes:
        name: What is planted, in words.
        evidence: The evidence.
        expected: The figure, by construction or by arithmetic and never from the measure; None where the measure must
            answer "not measurable".
        tolerance: Largest distance from `expected` that is still right.
    """

    name: str
    evidence: Evidence
    expected: float | None
    tolerance: float = 1e-9


def planted(
    rewards: Sequence[float], *, tokens: int = 2, version: int = 0, source: Source = Source.POLICY, seed: int = 0
) -> Episode:
    """An episode whose every figure is chosen: one turn of `tokens` action tokens for each reward."""
    turns = tuple(
        Turn(
            obs=np.array([1], dtype=np.int32),
            act=np.full(tokens, 2, dtype=np.int32),
            logp=np.full(tokens, -1.0, dtype=np.float32),
            reward=reward,
            version=version,
            fresh=t == 0,
            rewards={"environment": reward},
        )
        for t, reward in enumerate(rewards)
    )
    return Episode(
        f"planted/{seed}", turns, True, False, np.zeros(0, np.int32), env="planted", source=source, seed=seed
    )
