"""The likelihood of a label given a score: what a judge of whole answers is trained with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.metrics import Metrics
from turnwise.objectives.objective import Objective, tally, tally_loss


def answer_labels() -> Objective:
    """Binary cross-entropy of a score: L_t = −w_t [y_t log σ(s_t) + (1 − y_t) log σ(−s_t)].

    σ(s) is then the probability that the answer which begins like this is a good one. Where the weight is not zero decides
    how much of an answer the score is about: at its last token alone, or at every token. A label between 0 and 1 is a
    share of good answers.

    Streams: ``label``, ``weight``.

    Raises:
        ValueError: outputs without one score per token.
    """

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        if outputs.score is None or outputs.score.dim() != 1:
            raise ValueError("a label is learnt from one score per token; train a Scorer of kind 'reward'")
        weight, label = batch.stream("weight"), batch.stream("label")
        loss = weight * F.binary_cross_entropy_with_logits(outputs.score, label, reduction="none")
        right = (outputs.score > 0) == (label > 0.5)
        return loss, {**tally_loss("judge/loss", loss, weight), **tally(weight != 0, {"judge/prefix_accuracy": right})}

    return objective
