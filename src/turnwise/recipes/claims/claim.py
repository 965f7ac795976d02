"""What a claim is: words, the comparisons that decide it, and the runs that give the figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from turnwise.recipes.parallel import Job

Learner = Literal["exact tabular", "language model"]
"""What learns: a table whose true values are computed, or a small language model."""
Relation = Literal["above", "below", "within"]
"""How a figure has to lie to another figure or a bound."""


@dataclass(frozen=True)
class Comparison:
    """A line of what a claim says of the figures, declared before they are measured.

    With d = left − right it asks for d > margin (``above``), d < −margin (``below``) or |d| < margin (``within``).

    Attributes:
        left: Name of a figure.
        relation: How it has to lie to `right`.
        right: Name of a figure of the same seed, or a number.
        margin: How much; a difference smaller than this says nothing in either direction.

    Raises:
        ValueError: a negative margin, or none for ``within``.
    """

    left: str
    relation: Relation
    right: str | float
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.margin < 0 or (self.relation == "within" and self.margin == 0):
            raise ValueError(f"{self.left} {self.relation} {self.right}: a margin of {self.margin:g} decides nothing")

    @property
    def region(self) -> tuple[float, float]:
        """The open interval that d has to lie in."""
        if self.relation == "above":
            return self.margin, math.inf
        if self.relation == "below":
            return -math.inf, -self.margin
        return -self.margin, self.margin

    @property
    def needs(self) -> str:
        """What is asked for, in words that follow "needed"."""
        right = self.right if isinstance(self.right, str) else f"{self.right:g}"
        if self.relation == "within":
            return f"within {self.margin:g} of {right}"
        if not self.margin:
            return f"{self.relation} {right}"
        return f"{self.relation} {right} by more than {self.margin:g}"


@dataclass(frozen=True)
class Curve:
    """A line behind the figures of one seed, for a plot.

    Attributes:
        chart: Title of the chart it is drawn in.
        line: Its name there. Lines of the same name are averaged over seeds and need the same `x`.
        x: (n,) places.
        y: (n,) values.
        x_label: What `x` counts.
    """

    chart: str
    line: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    x_label: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a job of a claim returns.

    Attributes:
        figures: Name -> figure; a name is what people read. Not-a-number where there is none: such a figure decides nothing.
        curves: For plots.
    """

    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    curves: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Figures drawn under each other, with their intervals over seeds.

    Attributes:
        title: Of the chart.
        figures: Names, from top to bottom.
        reference: A dashed line at this figure, or at the mean of the figure of this name.
        unit: ``share`` for figures between 0 and 1 that are written in per cent.
    """

    title: str
    figures: tuple[str, ...]
    reference: str | float | None = None
    unit: Literal["", "share"] = ""


@dataclass(frozen=True)
class Claim:
    """A claim of the debate as an experiment.

    Attributes:
        key: Its number, as in E1.
        title: In a few words.
        statement: The claim in words, and by whom or of what it is said.
        expected: What we expect to measure, said beforehand.
        learner: What learns.
        claimed: What the claim, as it is stated, says of the figures. All of it has to be met for "holds"; one that is
            refuted makes it "false as stated".
        found: What we expect instead or besides. Decided by the same rule and printed; it has no say in the verdict.
        how: How it is measured: world, learner, budget.
        jobs: From a seed, the quick form, and a folder of its own, the runs. Every job returns an `Outcome`; those of a seed
            are put together. Units should take about the same time in all claims, a second or so, for the time left to be
            right; ``after`` counts within the returned list.
        charts: What is drawn of the figures.
        seeds: Seeds of each master seed.
        quick_seeds: Of the quick form.
    """

    key: str
    title: str
    statement: str
    expected: str
    learner: Learner
    claimed: tuple[Comparison, ...]
    how: str
    jobs: Callable[[int, bool, Path], Sequence[Job]]
    found: tuple[Comparison, ...] = ()
    charts: tuple[Chart, ...] = ()
    seeds: int = 3
    quick_seeds: int = 3
