"""The objective over single labels: KTO. No pairs are needed; each episode is known to be good or bad."""

from __future__ import annotations

import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.metrics import Metrics
from turnwise.objectives.objective import Objective, floats, unit_heads, unit_of


def kto(beta: float = 0.1, *, desirable: float = 1.0, undesirable: float = 1.0) -> Objective:
    """Kahneman–Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 7 and 8).

    With h = log π(y) − log ref(y) of a whole episode and z the baseline,

        L(y desirable) = λ_D (1 − σ(β (h − z))),   L(y undesirable) = λ_U (1 − σ(β (z − h))),

    each times its weight. z estimates KL(π‖ref), never below 0 and without a gradient; it is one number for the whole
    minibatch, told to each sequence in ``seq["baseline"]``. With z = 0 this is APO-zero for single labels (arXiv 2408.06266).

    Args:
        beta: Reward per nat of log-ratio: how dear it is to leave the reference.
        desirable: λ_D.
        undesirable: λ_U. λ_D times the number of desirable episodes, over λ_U times that of the others, is best between 1
            and 4/3 (eq. 8).

    Units: episodes, with side +1 where they are desirable, −1 where not. Streams: ``reference_logp``, ``weight``
    (`pair_mean`).

    Raises:
        ValueError: a coefficient that is not positive.
    """
    if not (beta > 0 and desirable > 0 and undesirable > 0):
        raise ValueError(f"beta={beta}, desirable={desirable} and undesirable={undesirable} must be positive")

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        unit, n = unit_of(batch)
        heads = unit_heads(batch)
        own = batch.sequence[batch.action][heads]
        logp = outputs.logp.new_zeros(n).index_add(0, unit, outputs.logp)
        reference = logp.new_zeros(n).index_add(0, unit, batch.stream("reference_logp"))
        good, baseline = batch.seq["side"][own] > 0, batch.seq["baseline"][own]
        ratio = logp - reference
        advantage = torch.where(good, ratio - baseline, baseline - ratio)
        loss = torch.where(good, desirable, undesirable) * (1.0 - (beta * advantage).sigmoid())
        weighted = batch.stream("weight")[heads] * loss
        metrics = _figures(beta * ratio, logp, baseline, good)
        return torch.zeros_like(outputs.logp).index_add(0, heads, weighted), metrics

    return objective


@torch.no_grad()
def _figures(reward: Tensor, logp: Tensor, baseline: Tensor, good: Tensor) -> Metrics:
    chosen, rejected = good.float(), (~good).float()
    rows = [reward * chosen, reward * rejected, logp * chosen, logp * rejected, baseline, chosen, rejected]
    better, worse, logp_better, logp_worse, kl, n, m = floats([row.float().sum() for row in rows])
    return {
        "rewards/chosen": (better, n),
        "rewards/rejected": (worse, m),
        "logps/chosen": (logp_better, n),
        "logps/rejected": (logp_worse, m),
        "kl/baseline": (kl, n + m),
    }
