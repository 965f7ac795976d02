"""Surrogates that fade with the distance from the old policy instead of clipping at an edge.

A clipped token has no gradient at all; these give it a small one, and none of them has a kink. Streams are those of
`policy`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.metrics import Metrics
from turnwise.objectives.objective import Objective, log_ratio, sum_in_units, unit_index
from turnwise.objectives.policy import finish


def soft_gate(up: float = 1.0, down: float = 1.05) -> Objective:
    """SAPO's gate (Gao et al. 2025, arXiv 2511.20347): L_t = −w_t A_t (4/τ) σ(τ (ρ_t − 1)).

    At ρ = 1 its gradient is that of the policy gradient; away from it, on either side, it falls off as 4 σ(1 − σ). A higher
    temperature falls off faster: tokens with A ≤ 0, whose gradient raises many unlikely tokens at once, get `down`.

    Args:
        up: Temperature τ where A > 0.
        down: Temperature τ elsewhere.

    Streams: ``advantage``, ``old_logp``, ``weight``; optional ``importance``.

    Raises:
        ValueError: a temperature that is not positive.
    """
    if up <= 0 or down <= 0:
        raise ValueError(f"up={up} and down={down} must be positive: they are temperatures of a gate")

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        advantage = batch.stream("advantage")
        temperature = torch.where(advantage > 0, up, down)
        ratio = log_ratio(outputs.logp, batch.stream("old_logp")).exp()
        gate = torch.sigmoid(temperature * (ratio - 1.0))
        loss = -advantage * gate * 4.0 / temperature
        return finish(loss, outputs, batch, {"policy/gate": 4.0 * gate * (1.0 - gate)})

    return objective


def gamma_weight(up: tuple[float, float] = (2.0, 3.0), down: tuple[float, float] = (3.0, 2.0)) -> Objective:
    """VESPO (arXiv 2602.10693): REINFORCE weighted by a Gamma kernel of the ratio of the whole sequence.

    L_t = −w_t sg[φ(ρ)] A_t log π(a_t) with ρ = Π_t π(a_t)/π_old(a_t) over the sequence's action tokens and
    φ(ρ) = ρ^k e^{λ(1 − ρ)}, which is 1 at ρ = 1, has its peak at k/λ and vanishes at 0 and ∞.

    Args:
        up: (k, λ) where A ≥ 0.
        down: (k, λ) elsewhere.

    Streams: ``advantage``, ``old_logp``, ``weight``; optional ``importance``.

    Raises:
        ValueError: a number that is not positive.
    """
    if min(*up, *down) <= 0:
        raise ValueError(f"up={up} and down={down} must be positive: each is (exponent k, decay λ)")
    floor = math.log(1e-8)

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        advantage = batch.stream("advantage")
        difference = log_ratio(outputs.logp.detach(), batch.stream("old_logp"))
        total, _ = sum_in_units(difference, unit_index(batch, "sequence"))
        log_rho = total.clamp(floor, 20.0)
        raised = advantage >= 0
        k, decay = torch.where(raised, up[0], down[0]), torch.where(raised, up[1], down[1])
        phi = (decay + k * log_rho - decay * log_rho.exp()).exp()
        return finish(-phi * advantage * outputs.logp, outputs, batch, {"policy/gate": phi})

    return objective
