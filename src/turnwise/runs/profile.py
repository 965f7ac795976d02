"""Where the wall-clock time of a run went, from its metrics: who was at work, and what for.

The parts of an iteration are those of ``docs/metrics.md``; they do not overlap. Time outside iterations (imports, loading the
model, the final model) is in no metric, and so not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnwise.runs.errors import RunError
from turnwise.runs.folder import RunFolder
from turnwise.runs.log import read_metrics

Seconds = NDArray[np.float64]
"""(n,) float64, seconds of each iteration."""


@dataclass(frozen=True)
class Part:
    """One kind of work.

    Attributes:
        name: What people read.
        seconds: (n,) of each iteration.
        within: Name of the part that it is a part of; empty for a part of the whole.
    """

    name: str
    seconds: Seconds
    within: str = ""

    @property
    def total(self) -> float:
        """Seconds over all iterations."""
        return float(self.seconds.sum())


@dataclass(frozen=True)
class Spending:
    """Where the time of a run, or of a phase of one, went.

    Attributes:
        name: Of the phase; empty for the run itself.
        iterations: Iterations counted.
        parts: Kinds of work. Those that are within no other add up to the time of the iterations.
        tokens: Name -> number: ``sampled``, and where the run says ``read`` and ``shared`` (see ``docs/metrics.md``).
    """

    name: str
    iterations: int
    parts: tuple[Part, ...]
    tokens: Mapping[str, float]

    @property
    def total(self) -> float:
        """Seconds of all iterations."""
        return sum(part.total for part in self.parts if not part.within)

    def part(self, name: str) -> Part | None:
        """The part of that name, if the run has it."""
        return next((part for part in self.parts if part.name == name), None)


def time_spent(run: str | Path) -> list[Spending]:
    """Where the time of a run went, that of the phases before its algorithm (a warm start, a judge) first.

    A run that is under way is read as far as it has come.

    Raises:
        RunError: there is no run, its metrics are damaged, or it has not finished an iteration.
    """
    folder = RunFolder.view(run)
    phases = [file.parent for file in folder.path.glob("*/config.json") if (file.parent / "metrics.jsonl").exists()]
    phases.sort(key=lambda path: (path / "config.json").stat().st_mtime_ns)
    found = [_spending(path.name, read_metrics(path / "metrics.jsonl")) for path in phases]
    found.append(_spending("", read_metrics(folder.metrics)))
    found = [spending for spending in found if spending.iterations]
    if not found:
        raise RunError(
            f"{folder.path} has not finished an iteration, so there is no time to account for. Wait for the first line of "
            f"{folder.metrics.name}, or go on with the run: turnwise train --resume {folder.path}"
        )
    return found


def _spending(name: str, lines: Sequence[Mapping[str, Any]]) -> Spending:
    def seconds(*names: str) -> Seconds:
        return sum((_figures(lines, f"time/{name}") for name in names), np.zeros(len(lines)))

    inside = [
        Part("environment", seconds("environment"), "rollout"),
        Part("engine", seconds("engine"), "rollout"),
        Part("rewards", seconds("reward"), "rollout"),
    ]
    known = sum((part.seconds for part in inside), np.zeros(len(lines)))
    rollout = seconds("rollout")
    told = known.any()
    inside.append(Part("bookkeeping", np.maximum(rollout - known, 0.0), "rollout"))
    parts = (
        Part("rollout", rollout),
        *(part for part in inside if told and part.total),
        Part("update", seconds("update")),
        Part("saving", seconds("saving")),
        Part("other", seconds("other")),
    )
    tokens = {
        label: float(_figures(lines, key).sum())
        for label, key in (("sampled", "tokens/action"), ("read", "tokens/read"), ("shared", "tokens/shared"))
        if any(key in line for line in lines)
    }
    return Spending(name, len(lines), parts, tokens)


def _figures(lines: Sequence[Mapping[str, Any]], name: str) -> Seconds:
    """(n,) of a metric, 0 where a line does not have it."""
    values = np.array([line.get(name) or 0.0 for line in lines], dtype=np.float64)
    return np.where(np.isfinite(values), values, 0.0)


def trend(values: Seconds, width: int) -> list[float]:
    """The means of at most `width` stretches of the values, in order and as even as they go."""
    if not len(values):
        return []
    return [float(part.mean()) for part in np.array_split(values, min(width, len(values)))]


def per_second(tokens: float, seconds: float) -> float:
    """Tokens per second; NaN where no time was spent."""
    return tokens / seconds if seconds > 0 else math.nan
