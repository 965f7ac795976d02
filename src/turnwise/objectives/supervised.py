"""Maximum likelihood of given actions."""

from __future__ import annotations

from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.metrics import Metrics
from turnwise.objectives.objective import Objective, tally


def nll() -> Objective:
    """Negative log-likelihood of the action tokens: L_t = −w_t log π(a_t).

    Supervised fine-tuning and behaviour cloning. Observation tokens carry no loss. Streams: ``weight``.
    """

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        weight = batch.stream("weight")
        loss = -weight * outputs.logp
        figures = {"nll": -outputs.logp, "entropy": outputs.entropy}
        return loss, tally(weight != 0, figures)

    return objective
