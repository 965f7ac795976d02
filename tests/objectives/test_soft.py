"""Surrogates without an edge: (1) at ratio 1 they are the policy gradient, (2) they are their papers' formulas, written as
loops, (3) they fade away from 1; and (4) the ratio of a whole sequence as a product is that of one action."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from turnwise import objectives as obj
from turnwise.batch import Batch, Outputs

POINTS: dict[str, obj.Objective] = {"gate": obj.soft_gate(), "kernel": obj.gamma_weight()}


def gradient(objective: obj.Objective, logp: Tensor, batch: Batch) -> Tensor:
    leaf = logp.clone().requires_grad_()
    loss, _ = objective(Outputs(logp=leaf, entropy=torch.zeros_like(leaf)), batch)
    return torch.autograd.grad(loss.sum(), leaf)[0]


@pytest.mark.parametrize("name", POINTS)
def test_where_nothing_has_moved_it_is_the_policy_gradient(name: str, ragged: Batch) -> None:
    batch, logp = ragged.weighted(obj.token_mean), ragged.stream("old_logp")
    expected = gradient(obj.policy_gradient(), logp, batch)
    torch.testing.assert_close(gradient(POINTS[name], logp, batch), expected, atol=1e-7, rtol=1e-5)


OLD, NEW = [[-1.0, -2.0, -0.5], [-1.5, -0.7]], [[-0.2, -2.5, -0.9], [-1.1, -1.6]]
ADVANTAGE = [[1.0, -0.5, 2.0], [-1.0, 0.0]]
WEIGHT = [[0.1, 0.2, 0.3], [0.4, 0.5]]


def flat(parts: list[list[float]]) -> list[float]:
    return [value for part in parts for value in part]


def by_hand(flat_batch: Callable[..., Batch]) -> tuple[Tensor, Batch]:
    return torch.tensor(flat(NEW)), flat_batch(advantage=ADVANTAGE, old_logp=OLD, weight=WEIGHT)


def test_the_gate(flat_batch: Callable[..., Batch]) -> None:
    logp, batch = by_hand(flat_batch)
    expected: list[float] = []
    for new, old, a, w in zip(*map(flat, (NEW, OLD, ADVANTAGE, WEIGHT)), strict=True):
        temperature = 2.0 if a > 0 else 3.0
        rho = math.exp(new - old)
        sigma = 1 / (1 + math.exp(-temperature * (rho - 1)))
        # d/dlogp of (4/τ) σ(τ (ρ − 1)) is 4 σ (1 − σ) ρ.
        expected.append(-w * a * 4 * sigma * (1 - sigma) * rho)
    assert gradient(obj.soft_gate(2.0, 3.0), logp, batch).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_kernel(flat_batch: Callable[..., Batch]) -> None:
    logp, batch = by_hand(flat_batch)
    expected: list[float] = []
    for new, old, advantage, weight in zip(NEW, OLD, ADVANTAGE, WEIGHT, strict=True):
        rho = math.exp(sum(new) - sum(old))
        for a, w in zip(advantage, weight, strict=True):
            k, decay = (2.0, 3.0) if a >= 0 else (3.0, 2.0)
            expected.append(-w * a * rho**k * math.exp(decay * (1 - rho)))
    assert gradient(obj.gamma_weight(), logp, batch).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("shift", [-8.0, 4.0])
def test_far_away_it_fades_and_stays_a_number(name: str, shift: float, ragged: Batch) -> None:
    batch, logp = ragged.weighted(obj.token_mean), ragged.stream("old_logp")
    near, far = (gradient(POINTS[name], logp + move, batch) for move in (0.0, shift))
    assert torch.isfinite(far).all()
    assert far.norm() < 0.02 * near.norm()


def test_the_product_is_the_ratio_of_one_action(flat_batch: Callable[..., Batch]) -> None:
    """A sequence as one action: −min(s A, clip(s) A) of its joint probability, mean over sequences."""
    logp, _ = by_hand(flat_batch)
    advantages = [1.0, -2.0]
    streams = flat_batch(advantage=[[1.0] * 3, [-2.0] * 2], old_logp=OLD).weighted(obj.sequence_mean)
    leaf = logp.clone().requires_grad_()
    parts = leaf.split([3, 2])
    total = torch.zeros(())
    for part, old, a in zip(parts, OLD, advantages, strict=True):
        s = (part.sum() - sum(old)).exp()
        total = total - torch.minimum(s * a, s.clamp(0.5, 1.9) * a) / 2
    (expected,) = torch.autograd.grad(total, leaf)
    loss, _ = obj.sequence_ratio(0.5, 0.9, product=True)(Outputs(logp=logp, entropy=torch.zeros(5)), streams)
    assert float(loss.sum()) == pytest.approx(total.item(), rel=1e-5)
    found = gradient(obj.sequence_ratio(0.5, 0.9, product=True), logp, streams)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="temperatures"):
        obj.soft_gate(0.0)
    with pytest.raises(ValueError, match="exponent"):
        obj.gamma_weight(down=(1.0, -1.0))
