"""Published methods are points of the grid: their papers' formulas, written as loops, give the same loss and gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from turnwise import credit
from turnwise import objectives as obj
from turnwise.batch import Outputs, pack
from turnwise.episode import Episode

REWARDS = [1.0, 0.0, 0.0, 0.5, 2.0, 2.5]
GROUPS = ["a", "a", "a", "b", "b", "b"]
LENGTHS = [4, 1, 7, 3, 2, 5]
BUDGET = 8


def standardised(std: bool = True) -> list[float]:
    """(R − mean) / (std + 1e-4) within each group of three."""
    result = []
    for start in (0, 3):
        group = torch.tensor(REWARDS[start : start + 3])
        result += ((group - group.mean()) / (group.std() + 1e-4 if std else 1.0)).tolist()
    return result


def ppo_term(ratio: Tensor, advantage: float, low: float, high: float) -> Tensor:
    return torch.minimum(ratio * advantage, torch.clamp(ratio, 1 - low, 1 + high) * advantage)


def grpo(new: list[Tensor], old: list[Tensor], ref: list[Tensor]) -> Tensor:
    total = torch.zeros(())
    for x, y, z, a in zip(new, old, ref, standardised(), strict=True):
        divergence = (z - x).exp() - (z - x) - 1
        total = total - (ppo_term((x - y).exp(), a, 0.2, 0.2) - 0.04 * divergence).mean() / len(new)
    return total


def dr_grpo(new: list[Tensor], old: list[Tensor], ref: list[Tensor]) -> Tensor:
    terms = [ppo_term((x - y).exp(), a, 0.2, 0.2).sum() for x, y, a in zip(new, old, standardised(False), strict=True)]
    return -sum(terms, torch.zeros(())) / (len(new) * BUDGET)


def dapo(new: list[Tensor], old: list[Tensor], ref: list[Tensor]) -> Tensor:
    terms = [ppo_term((x - y).exp(), a, 0.2, 0.28).sum() for x, y, a in zip(new, old, standardised(), strict=True)]
    return -sum(terms, torch.zeros(())) / sum(LENGTHS)


def gspo(new: list[Tensor], old: list[Tensor], ref: list[Tensor]) -> Tensor:
    terms = [ppo_term((x - y).mean().exp(), a, 0.1, 0.2) for x, y, a in zip(new, old, standardised(), strict=True)]
    return -sum(terms, torch.zeros(())) / len(new)


def cispo(new: list[Tensor], old: list[Tensor], ref: list[Tensor]) -> Tensor:
    total = torch.zeros(())
    for x, y, a in zip(new, old, standardised(), strict=True):
        total = total - ((x - y).exp().clamp(max=1.3).detach() * a * x).sum()
    return total / sum(LENGTHS)


POINTS: dict[str, tuple[Callable[..., Tensor], bool, obj.Objective, obj.Weight]] = {
    "GRPO": (grpo, True, obj.combine((1.0, obj.clipped(0.2)), (0.04, obj.kl_loss("k3"))), obj.sequence_mean),
    "Dr.GRPO": (dr_grpo, False, obj.clipped(0.2), obj.constant(BUDGET)),
    "DAPO": (dapo, True, obj.clipped(0.2, 0.28), obj.token_mean),
    "GSPO": (gspo, True, obj.sequence_ratio(0.1, 0.2), obj.sequence_mean),
    "CISPO": (cispo, True, obj.clipped_weight(high=0.3), obj.token_mean),
}


@pytest.mark.parametrize("name", POINTS)
def test_loss_and_gradient(name: str, make_episode: Callable[..., Episode]) -> None:
    formula, normalise, objective, weight = POINTS[name]
    generator = torch.Generator().manual_seed(0)
    n = sum(LENGTHS)
    old = -2 + 0.5 * torch.randn(n, generator=generator)
    ref = old + 0.3 * torch.randn(n, generator=generator)
    new = (old + 0.3 * torch.randn(n, generator=generator)).requires_grad_()
    expected = formula(*[list(x.split(LENGTHS)) for x in (new, old, ref)])
    (expected_gradient,) = torch.autograd.grad(expected, new)

    # Two turns each where there is room: outcome credit does not see turns.
    episodes = [make_episode([[1] * (length - 1), [1]] if length > 1 else [[1]]) for length in LENGTHS]
    advantage = credit.uniform(
        credit.group_relative(REWARDS, GROUPS, normalise=normalise), [len(e.turns) for e in episodes]
    )
    streams = {
        "advantage": credit.broadcast(advantage, [e.act_lengths for e in episodes]),
        "old_logp": np.split(old.numpy(), np.cumsum(LENGTHS)[:-1]),
        "reference_logp": np.split(ref.numpy(), np.cumsum(LENGTHS)[:-1]),
    }
    loss, _ = objective(Outputs(logp=new, entropy=torch.zeros(n)), pack(episodes, streams).weighted(weight))
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    assert loss.sum().item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-7)
    assert gradient.abs().max() > 1e-3
