"""Surrogates whose gradient moves the policy along the advantage.

All read the streams ``advantage`` and ``weight``; those with a ratio also read ``old_logp``, the log-probabilities of
the policy before this round of updates, under the training engine. An optional stream ``importance`` multiplies the
loss and corrects for a rollout engine that samples from slightly different probabilities (see `correction`).

What this file leaves out: the trust region itself. Clipping only stops rewarding ratios outside a range.
"""

from __future__ import annotations

import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.metrics import Metrics, merge
from turnwise.objectives.objective import Objective, Unit, log_ratio, sum_in_units, tally, tally_loss, unit_index


def policy_gradient() -> Objective:
    """REINFORCE (Williams 1992): L_t = −w_t A_t log π(a_t).

    Exact when the weights have not moved since sampling, i.e. for one update per batch.
    Streams: ``advantage``, ``weight``; optional ``importance``.
    """

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        return finish(-batch.stream("advantage") * outputs.logp, outputs, batch, {})

    return objective


def clipped(low: float = 0.2, high: float | None = None, dual: float | None = None) -> Objective:
    """PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, eq. 7), asymmetric and dual if wanted.

    L_t = −w_t min(ρ_t A_t, clip(ρ_t, 1 − low, 1 + high) A_t) with ρ_t = π(a_t) / π_old(a_t). A `high` above `low` leaves
    more room to raise rare tokens (DAPO, arXiv 2503.14476). With `dual` the loss of a token with A_t < 0 is at most
    w_t·dual·|A_t| (Ye et al. 2020, arXiv 1912.09729), so that a huge ratio cannot dominate.

    Args:
        low: Clip range below 1.
        high: Clip range above 1; None is `low`.
        dual: Bound on the ratio for negative advantages, above 1; None for no bound.

    Streams: ``advantage``, ``old_logp``, ``weight``; optional ``importance``.

    Raises:
        ValueError: ranges that are not 0 < low ≤ 1, high > 0 and dual > 1 + high.
    """
    upper = low if high is None else high
    _check_range(low, upper)
    if dual is not None and dual <= 1.0 + upper:
        raise ValueError(f"dual={dual} must exceed 1 + high = {1.0 + upper}; otherwise it cuts into the clip range")

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        ratio = log_ratio(outputs.logp, batch.stream("old_logp")).exp()
        return _clip(ratio, low, upper, dual, outputs, batch)

    return objective


def sequence_ratio(
    low: float = 3e-4, high: float = 4e-4, unit: Unit = "sequence", *, product: bool = False
) -> Objective:
    """GSPO's clipped surrogate with a length-normalised ratio per sequence (Zheng et al. 2025, arXiv 2507.18071).

    s = exp(mean_t log π(a_t)/π_old(a_t)) over the action tokens of the unit (eq. 7), clipped as in `clipped`. It is
    computed in the paper's token form s·π/sg[π] (eq. 14): value and gradient equal those of the sequence form wherever
    the advantage is constant in the unit, and a per-turn advantage keeps to its own tokens where it is not.

    With `product`, s = Π_t π(a_t)/π_old(a_t), the probability ratio of the unit itself, as in RLOO (arXiv 2402.14740): each
    of its n tokens then carries s·(π/sg[π])^n, so that under `sequence_mean` value and gradient are those of −s A per unit.

    Args:
        low: Clip range below 1. A geometric mean stays much nearer to 1 than a single ratio; a product does not.
        high: Clip range above 1.
        unit: ``"sequence"`` (published), ``"turn"``, the ratio of one action, or ``"episode"``, that of all its sequences.
        product: The product of the ratios instead of their geometric mean.

    Streams: ``advantage``, ``old_logp``, ``weight``; optional ``importance``.

    Raises:
        ValueError: ranges that are not 0 < low ≤ 1 and high > 0, or the unit ``"token"`` (that is `clipped`).
    """
    _check_range(low, high)
    if unit == "token":
        raise ValueError("a ratio per token is PPO's; use clipped(low, high)")

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        difference = (outputs.logp - batch.stream("old_logp")).detach()
        total, count = sum_in_units(difference, unit_index(batch, unit))
        through_token = outputs.logp - outputs.logp.detach()
        exponent = total + count * through_token if product else total / count + through_token
        ratio = log_ratio(exponent, torch.zeros_like(total)).exp()
        return _clip(ratio, low, high, None, outputs, batch)

    return objective


def clipped_weight(high: float = 4.0, low: float = 1.0) -> Objective:
    """CISPO (MiniMax-M1, arXiv 2506.13585): the clipped ratio is a constant weight of REINFORCE.

    L_t = −w_t sg[clip(ρ_t, 1 − low, 1 + high)] A_t log π(a_t). Unlike in `clipped`, no token ever loses its gradient.

    Args:
        high: The weight is at most 1 + high.
        low: The weight is at least 1 − low; 1 for no lower bound, as published.

    Streams: ``advantage``, ``old_logp``, ``weight``; optional ``importance``.

    Raises:
        ValueError: ranges that are not 0 < low ≤ 1 and high > 0.
    """
    _check_range(low, high)

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        advantage = batch.stream("advantage")
        ratio = log_ratio(outputs.logp, batch.stream("old_logp")).exp().detach()
        loss = -ratio.clamp(1.0 - low, 1.0 + high) * advantage * outputs.logp
        figures = {
            "clip_ratio/low": ratio < 1.0 - low,
            "clip_ratio/high": ratio > 1.0 + high,
            "clip_ratio/region": (ratio < 1.0 - low) | (ratio > 1.0 + high),
        }
        return finish(loss, outputs, batch, figures)

    return objective


def entropy_bonus() -> Objective:
    """L_t = −w_t H(π(·|context)), in nats: added with a small coefficient it keeps the policy from collapsing.

    It is the entropy of each token's distribution along the sampled path, not that of whole actions.
    Streams: ``weight``.
    """

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        weight = batch.stream("weight")
        loss = -weight * outputs.entropy
        return loss, tally(weight != 0, {"entropy": outputs.entropy})

    return objective


def _clip(
    ratio: Tensor, low: float, high: float, dual: float | None, outputs: Outputs, batch: Batch
) -> tuple[Tensor, Metrics]:
    advantage = batch.stream("advantage")
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1.0 - low, 1.0 + high) * advantage)
    below = (ratio < 1.0 - low) & (advantage < 0)
    above = (ratio > 1.0 + high) & (advantage > 0)
    figures = {
        "clip_ratio/low": below,
        "clip_ratio/high": above,
        "clip_ratio/region": below | above,
    }
    if dual is not None:
        bound = -dual * advantage
        figures["clip_ratio/dual"] = (advantage < 0) & (loss > bound)
        loss = torch.where(advantage < 0, torch.minimum(loss, bound), loss)
    return finish(loss, outputs, batch, figures)


def finish(loss: Tensor, outputs: Outputs, batch: Batch, figures: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
    """The loss (A,) with its weight and importance, and the metrics that all policy losses share besides `figures`."""
    weight = batch.stream("weight")
    if "importance" in batch.token:
        loss = loss * batch.stream("importance")
    loss = weight * loss
    figures = {"entropy": outputs.entropy, **figures}
    if "old_logp" in batch.token:
        change = log_ratio(outputs.logp.detach(), batch.stream("old_logp"))
        figures["approx_kl"] = change.exp() - 1.0 - change
    return loss, merge([tally_loss("policy/loss", loss, weight), tally(weight != 0, figures)])


def _check_range(low: float, high: float) -> None:
    if not (0.0 < low <= 1.0 and high > 0.0):
        raise ValueError(
            f"clip range low={low}, high={high} must satisfy 0 < low <= 1 and high > 0: ratios are clipped to "
            "[1 - low, 1 + high]"
        )
