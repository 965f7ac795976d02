"""From figures over seeds to a verdict: one rule for all claims.

Seeds come from master seeds, and the runs of each master seed are an experiment of their own. A comparison is met where the
95 % interval (Student's t over seeds) of the paired difference lies wholly inside what it asks for, refuted where it lies wholly
outside, and open otherwise. With several master seeds it is met or refuted only if each of them says so alone. A claim holds
if all its comparisons are met, is false as stated if one is refuted, and is undecided otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from turnwise.recipes.claims.claim import Claim, Comparison
from turnwise.runs import Estimate, across_runs

State = Literal["met", "refuted", "open"]
"""What the figures say of a comparison."""
Word = Literal["holds", "false as stated", "undecided"]
"""What the figures say of a claim."""
Figures = Mapping[str, float]
"""The figures of one seed."""


@dataclass(frozen=True)
class Finding:
    """A comparison and what was measured.

    Attributes:
        comparison: What was asked.
        state: What all master seeds agree on; "open" where they do not.
        states: What each master seed's runs say alone.
        left: The figure, over all seeds.
        right: What it is compared with; a number that was given has no interval.
        difference: left − right, paired by seed, over all seeds.
    """

    comparison: Comparison
    state: State
    states: tuple[State, ...]
    left: Estimate
    right: Estimate | float
    difference: Estimate

    def __str__(self) -> str:
        asked = self.comparison
        if not isinstance(self.right, Estimate):
            return f"{asked.left} is {shown(self.left)} (needed {asked.needs})"
        return (
            f"{asked.left} is {shown(self.left)}, {asked.right} {shown(self.right)}, difference {shown(self.difference)} "
            f"(needed {asked.needs})"
        )


@dataclass(frozen=True)
class Verdict:
    """What was found of a claim.

    Attributes:
        word: The verdict.
        sentence: With the figures, their intervals and n.
        claimed: The comparisons that decide.
        found: Those that do not.
    """

    word: Word
    sentence: str
    claimed: tuple[Finding, ...]
    found: tuple[Finding, ...]


def state(comparison: Comparison, runs: Sequence[Figures]) -> State:
    """What the seeds of one master seed say. One seed, or a figure that a seed lacks, leaves it open.

    Raises:
        ValueError: a figure that no seed has.
    """
    difference = across_runs(_differences(comparison, runs))
    low, high = comparison.region
    if not math.isfinite(difference.low) or not math.isfinite(difference.high):
        return "open"
    if low < difference.low and difference.high < high:
        return "met"
    if difference.high <= low or difference.low >= high:
        return "refuted"
    return "open"


def find(comparison: Comparison, halves: Sequence[Sequence[Figures]]) -> Finding:
    """Decide a comparison.

    Args:
        comparison: What is asked.
        halves: The runs of each master seed.
    """
    states: tuple[State, ...] = tuple(state(comparison, runs) for runs in halves)
    runs = [figures for half in halves for figures in half]
    right = comparison.right
    return Finding(
        comparison,
        states[0] if len(set(states)) == 1 else "open",
        states,
        across_runs([_figure(figures, comparison.left) for figures in runs]),
        across_runs([_figure(figures, right) for figures in runs]) if isinstance(right, str) else float(right),
        across_runs(_differences(comparison, runs)),
    )


def decide(claim: Claim, halves: Sequence[Sequence[Figures]]) -> Verdict:
    """The verdict on a claim.

    Args:
        claim: What is claimed.
        halves: The runs of each master seed.
    """
    claimed = tuple(find(comparison, halves) for comparison in claim.claimed)
    found = tuple(find(comparison, halves) for comparison in claim.found)
    refuted = [finding for finding in claimed if finding.state == "refuted"]
    open_ones = [finding for finding in claimed if finding.state == "open"]
    word: Word = "false as stated" if refuted else "undecided" if open_ones else "holds"
    told = refuted or open_ones or list(claimed)
    n, masters = sum(map(len, halves)), len(halves)
    seeds = f"n = {n} seed{'s' * (n > 1)}" + (f" from {masters} master seeds" if masters > 1 else "")
    parts = [f"{finding}{_split(finding)}" for finding in told]
    met = sum(finding.state == "met" for finding in claimed)
    rest = f" {met} of the claim's {len(claimed)} comparisons {'is' if met == 1 else 'are'} met."
    return Verdict(word, f"{word.capitalize()}: {'; '.join(parts)}; {seeds}.{rest}", claimed, found)


def shown(estimate: Estimate) -> str:
    """A mean with its interval; the mean alone where one seed gives none."""
    if not math.isfinite(estimate.low):
        return _digits(estimate.mean)
    return f"{_digits(estimate.mean)} [{_digits(estimate.low)}, {_digits(estimate.high)}]"


def _digits(value: float) -> str:
    # Rounding must not print a zero with a sign.
    value = round(value, 3) + 0.0
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _split(finding: Finding) -> str:
    if len(set(finding.states)) == 1:
        return ""
    return f" — the master seeds say {' and '.join(finding.states)}"


def _differences(comparison: Comparison, runs: Sequence[Figures]) -> list[float]:
    right = comparison.right
    return [
        _figure(figures, comparison.left) - (_figure(figures, right) if isinstance(right, str) else right)
        for figures in runs
    ]


def _figure(figures: Figures, name: str) -> float:
    if name not in figures:
        raise ValueError(f"no figure {name!r} was measured; there are {', '.join(figures)}")
    return figures[name]
