"""Objectives of models that score: preferences between whole episodes, and right or wrong at the end of each step.

A score is about the context that ends with its token. The score of one side of a pair is read at the last action token of
that side (of its last sequence, where the context started afresh); the score of a step at the last action token of its
turn. The loss of a pair is booked at the pair's first action token, times its weight there (`pair_mean`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.metrics import Metrics
from turnwise.objectives.objective import Objective, unit_heads, unit_of


def bradley_terry(margin: float = 0.0, centre: float = 0.0) -> Objective:
    """The likelihood of the preferences, L = Σ_pairs w · [−log σ(s⁺ − s⁻ − margin · m) + centre · (s⁺ + s⁻)²].

    Bradley and Terry 1952; as a reward model's loss Ouyang et al. 2022, arXiv 2203.02155, eq. 1. With a margin m that says
    by how much the chosen side is better, Touvron et al. 2023, arXiv 2307.09288, eq. 2. Preferences say nothing about the
    mean of the scores; the second term holds it at zero (Eisenstein et al. 2023, arXiv 2312.09244, section 2.3).

    Args:
        margin: Coefficient of the margin of a pair, ``seq["margin"]``, which is told to each of its sequences.
        centre: Weight of the second term; 0.01 is usual.

    Streams: ``weight``.

    Raises:
        ValueError: a negative coefficient, or outputs without a score.
    """
    if margin < 0 or centre < 0:
        raise ValueError(f"margin={margin} and centre={centre} must not be negative")

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        chosen, rejected = side_scores(outputs, batch)
        heads = unit_heads(batch)
        difference = chosen - rejected
        if margin:
            difference = difference - margin * batch.seq["margin"][batch.sequence[batch.action][heads]]
        loss = -F.logsigmoid(difference) + centre * (chosen + rejected).square()
        weighted = batch.stream("weight")[heads] * loss
        return torch.zeros_like(outputs.logp).index_add(0, heads, weighted), {}

    return objective


def side_scores(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
    """(U,) scores of the chosen and of the rejected side of each pair, in the order of the unit numbers.

    Args:
        outputs: Of a reward model: its `score` is (A,).
        batch: With ``seq["unit"]`` and ``seq["side"]``; the sequences of a side in the order in which they happened.

    Raises:
        ValueError: outputs without a score per token, or a pair with one side only.
    """
    score = outputs.score
    if score is None or score.dim() != 1:
        raise ValueError("a preference is learnt from one score per token; train a Scorer of kind 'reward'")
    unit, n = unit_of(batch)
    place = torch.arange(len(unit), device=unit.device)
    better = batch.seq["side"][batch.sequence[batch.action]] > 0
    last = [
        torch.full((n,), -1, device=unit.device).scatter_reduce(0, unit[side], place[side], "amax")
        for side in (better, ~better)
    ]
    if bool((torch.stack(last) < 0).any()):
        raise ValueError("a preference pair has one side only; give the sequences of both the same seq['unit']")
    return score[last[0]], score[last[1]]


def step_labels() -> Objective:
    """Cross-entropy of right and wrong at the end of each step: L_t = −w_t [y_t log p(right) + (1 − y_t) log p(wrong)].

    Lightman et al. 2023, arXiv 2305.20050; with estimated labels Wang et al. 2023, arXiv 2312.08935, eq. 3. The label y is
    1, 0 or, where it was estimated, between them.

    Streams: ``label``, read at the last action token of each turn; ``weight`` (`step_mean`), 0 everywhere else.

    Raises:
        ValueError: the outputs are not two scores per token.
    """

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        if outputs.score is None or outputs.score.dim() != 2 or outputs.score.shape[-1] != 2:
            raise ValueError("steps are right or wrong: two scores per token; train a Scorer of kind 'process'")
        weight, label = batch.stream("weight"), batch.stream("label").nan_to_num()
        wrong, right = outputs.score.log_softmax(-1).unbind(-1)
        return -weight * (label * right + (1.0 - label) * wrong), {}

    return objective


def turn_ends(batch: Batch) -> Tensor:
    """(A,) bool, the last action token of each turn."""
    starts = batch.turn_start[batch.action]
    return torch.cat([starts[1:], starts.new_ones(min(1, len(starts)))])


def step_mean(batch: Batch) -> Tensor:
    """1 / N at the last action token of each of the N turns that have a label (NaN is none), 0 elsewhere.

    Streams: ``label``.
    """
    labelled = (turn_ends(batch) & ~batch.stream("label").isnan()).to(torch.float32)
    return labelled / labelled.sum().clamp(min=1.0)
