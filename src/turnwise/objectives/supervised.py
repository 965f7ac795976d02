"""Maximum likelihood of given actions."""

from __future__ import annotations

from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.metrics import Metrics
from turnwise.objectives.objective import Objective, tally


def nll(weight: str = "weight") -> Objective:
    """Negative log-likelihood of the action tokens: L_t = −w_t log π(a_t).

    Supervised fine-tuning and behaviour cloning. Observation tokens carry no loss.

    Args:
        weight: Name of the stream of weights, where another term of the loss has weights of its own.

    Streams: the one that `weight` names.
    """

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        w = batch.stream(weight)
        loss = -w * outputs.logp
        figures = {"nll": -outputs.logp, "entropy": outputs.entropy}
        return loss, tally(w != 0, figures)

    return objective
