"""Evidence whose answer is known: what a measure has to get right before it may measure anything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from turnwise.audit.evidence import Evidence
from turnwise.audit.measure import Measure, Measurement
from turnwise.episode import Episode, Source, Turn

Side = Literal["equal", "at least", "at most"]
"""On which side of the expected figure, give or take the tolerance, the measured one has to lie."""


@dataclass(frozen=True, slots=True)
class Control:
    """One known answer.

    Attributes:
        name: What is planted, in words.
        evidence: The evidence, or what makes it where that takes a while.
        expected: The figure, by construction or by arithmetic and never from the measure; None where the measure must
            answer "not measurable".
        tolerance: Largest distance from `expected` that is still right.
        side: Whether the figure has to equal `expected`, or may lie above or below it.
        figure: What of the measurement is compared; its value by default.
    """

    name: str
    evidence: Evidence | Callable[[], Evidence]
    expected: float | None
    tolerance: float = 1e-9
    side: Side = "equal"
    figure: Callable[[Measurement], float] | None = None

    def measured(self, measure: Measure) -> float | None:
        """What the measure says of the evidence; None where it declines."""
        answer = measure(self.evidence() if callable(self.evidence) else self.evidence)
        if not isinstance(answer, Measurement):
            return None
        return answer.value if self.figure is None else self.figure(answer)

    def is_met(self, measured: float | None) -> bool:
        """Whether an answer of `measured` is right."""
        return _is_met(measured, self.expected, self.tolerance, self.side)


@dataclass(frozen=True, slots=True)
class Trial:
    """A known answer that takes more than one piece of evidence, such as how often an interval holds the truth.

    Attributes:
        name: What is planted, in words.
        run: Repeats the measurement and counts.
        expected: The figure, by construction or by arithmetic.
        tolerance: Largest distance from `expected` that is still right.
        side: See `Control.side`.
        slow: It takes more than about a second: left out where a card is printed, run with all controls.
    """

    name: str
    run: Callable[[], float]
    expected: float
    tolerance: float = 1e-9
    side: Side = "equal"
    slow: bool = False

    def measured(self, measure: Measure) -> float | None:
        """What came out."""
        return self.run()

    def is_met(self, measured: float | None) -> bool:
        """Whether an answer of `measured` is right."""
        return _is_met(measured, self.expected, self.tolerance, self.side)


def _is_met(measured: float | None, expected: float | None, tolerance: float, side: Side) -> bool:
    if measured is None or expected is None:
        return measured is None and expected is None
    low, high = expected - tolerance, expected + tolerance
    return (side == "at most" or measured >= low) and (side == "at least" or measured <= high)


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
