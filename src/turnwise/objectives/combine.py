"""Sums of objectives."""

from __future__ import annotations

from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.metrics import Metrics, merge
from turnwise.objectives.objective import Objective


def combine(*terms: tuple[float, Objective]) -> Objective:
    """Σ coefficient · objective, e.g. ``combine((1.0, clipped()), (0.5, value_error()), (0.01, entropy_bonus()))``.

    Losses are multiplied by their coefficients; metrics are merged as they are. A term with coefficient 0 is only
    measured.

    Raises:
        ValueError: no term.
    """
    if not terms:
        raise ValueError("combine needs at least one (coefficient, objective) pair")

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        total: Tensor | None = None
        parts: list[Metrics] = []
        for coefficient, term in terms:
            loss, metrics = term(outputs, batch)
            parts.append(metrics)
            if coefficient != 0.0:
                total = coefficient * loss if total is None else total + coefficient * loss
        if total is None:
            # A zero that still reaches the parameters, so that `backward` of an all-measured step works.
            total = outputs.logp * 0.0
        return total, merge(parts)

    return objective
