"""The gap between the engine that sampled and the engine that trains.

Both evaluate the same weights, with other kernels and other precision, so that the tokens come from a slightly other
distribution than the gradient believes. `drift` measures it; importance weights w = π_train / π_rollout correct it,
truncated (a bias for a bound on the variance) or masked (what is too far off does not train).

Streams: ``behaviour_logp`` (recorded while sampling) and ``old_logp`` (the training engine before the first update).
"""

from __future__ import annotations

import torch
from torch import Tensor

from turnwise.batch import Batch
from turnwise.metrics import Metrics
from turnwise.objectives.objective import Unit, floats, log_ratio, sum_in_units, unit_index


def truncated_importance(batch: Batch, cap: float = 2.0, unit: Unit = "token") -> Tensor:
    """min(w, cap): truncated importance sampling (Espeholt et al. 2018, arXiv 1802.01561; "TIS" in LLM training).

    Args:
        batch: Everything that enters the step; store the result as stream ``importance``.
        cap: Upper bound, at least 1.
        unit: Over what w is the ratio; above ``"token"`` it is the product of its tokens' ratios.

    Returns:
        (A,) float32.

    Raises:
        ValueError: `cap` below 1.
    """
    if cap < 1.0:
        raise ValueError(f"cap={cap} would shrink the weight of engines that agree; use at least 1")
    return _ratio(batch, unit).clamp(max=cap)


def masked_importance(batch: Batch, low: float = 0.5, high: float = 2.0, unit: Unit = "token") -> Tensor:
    """w where low ≤ w ≤ high, else 0: masked importance sampling ("MIS").

    Args:
        batch: Everything that enters the step; store the result as stream ``importance``.
        low: Lower bound, at most 1.
        high: Upper bound, at least 1.
        unit: As in `truncated_importance`; a turn or sequence is kept or dropped as a whole.

    Returns:
        (A,) float32.

    Raises:
        ValueError: bounds that do not enclose 1.
    """
    if not 0.0 <= low <= 1.0 <= high:
        raise ValueError(f"low={low} and high={high} must enclose 1, the weight where the two engines agree")
    ratio = _ratio(batch, unit)
    return torch.where((ratio >= low) & (ratio <= high), ratio, 0.0)


def drift(batch: Batch) -> Metrics:
    """How far the training engine is from the rollout engine, over all action tokens of the batch.

    With Δ = log π_train − log π_rollout:

    - ``drift/mean_abs``: mean |Δ|;
    - ``drift/max_abs``: largest |Δ| of this batch, counted once (a mean over batches is a mean of maxima);
    - ``drift/k3``: mean of exp(Δ) − 1 − Δ, an estimate of KL(rollout‖train);
    - ``drift/ess``: (Σw)² / (A Σw²) with w = exp(Δ), the effective share of the sample, counted once.

    Call it once per batch of episodes, not per micro-batch.
    """
    raw = (batch.stream("old_logp") - batch.stream("behaviour_logp")).cpu().double()
    n = len(raw)
    if n == 0:
        return {}
    bounded = log_ratio(raw, torch.zeros_like(raw))
    weight = bounded.exp()
    figures = [
        raw.abs().sum(),
        raw.abs().max(),
        (weight - 1.0 - bounded).sum(),
        weight.sum().square() / (n * weight.square().sum()),
    ]
    total, largest, k3, ess = floats(figures)
    return {
        "drift/mean_abs": (total, float(n)),
        "drift/max_abs": (largest, 1.0),
        "drift/k3": (k3, float(n)),
        "drift/ess": (ess, 1.0),
    }


def _ratio(batch: Batch, unit: Unit) -> Tensor:
    difference = (batch.stream("old_logp") - batch.stream("behaviour_logp")).detach()
    if unit != "token":
        difference, _ = sum_in_units(difference, unit_index(batch, unit))
    return log_ratio(difference, torch.zeros_like(difference)).exp()
