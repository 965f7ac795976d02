"""Metrics are (sum, count) pairs, so that they add up over micro-batches, workers and steps without a bias.

The meaning of every name is documented in ``docs/metrics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

Metrics = Mapping[str, tuple[float, float]]
"""name -> (sum, count)."""


def merge(parts: Iterable[Metrics]) -> dict[str, tuple[float, float]]:
    """Add up metrics name by name."""
    total: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (value, count) in part.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = (before[0] + value, before[1] + count)
    return total


def means(metrics: Metrics) -> dict[str, float]:
    """name -> sum / count; NaN where nothing was counted."""
    return {name: value / count if count else math.nan for name, (value, count) in metrics.items()}
