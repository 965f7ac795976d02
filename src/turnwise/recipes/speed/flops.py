"""How many floating-point operations a step needs, counted from its shapes.

A product of (m, k) and (k, n) counts 2·m·k·n. A forward pass therefore costs 2 operations per weight and token, backward
twice that. Attention reads, for each token, all that came before it: 4·d per pair and layer (scores and values). Softmax,
norms, rotary embeddings and sampling are left out, so a share of the machine's product rate counts them as waste.
"""

from __future__ import annotations

from dataclasses import dataclass

from turnwise.recipes.speed.cases import Case


@dataclass(frozen=True)
class Work:
    """Operations of one step.

    Attributes:
        every: With every token of every sequence computed once in each pass.
        distinct: With every distinct prefix computed once in each pass: a group's prompt is not computed again for each
            of its members.
    """

    every: float
    distinct: float


def work(case: Case) -> Work:
    """What a step of the case needs at least, however it is done.

    Passes: 1 to roll out, with the cache kept and nothing read twice; 3 to learn; 1 each for a reference and a judge. The
    head counts at the predicted tokens alone, and a judge has none.
    """
    passes, heads = _PASSES[case.workload]
    head = 2.0 * case.shape.head * case.predicted * heads
    every = _trunk(case, case.tokens, case.rows * _pairs(case.length))
    shared = case.groups * _pairs(case.prompt) + case.rows * (_pairs(case.length) - _pairs(case.prompt))
    distinct = _trunk(case, case.distinct, shared)
    return Work(passes * every + head, passes * distinct + head)


_PASSES = {
    "grpo": (4, 4),
    "turns": (4, 4),
    "sft": (3, 3),
    "dpo": (4, 4),
    "reward-model": (3, 0),
    "ppo": (6, 5),
    "decode": (1, 1),
}
"""Passes of the trunk and of the output head."""


def _trunk(case: Case, tokens: int, pairs: int) -> float:
    return 2.0 * case.shape.trunk * tokens + 4.0 * case.shape.layers * case.shape.hidden * pairs


def _pairs(length: int) -> int:
    """Pairs of a token and one that it reads, itself included."""
    return length * (length + 1) // 2
