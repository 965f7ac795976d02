"""Policy surrogates: closed forms by hand, equalities between them, independence of micro-batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from turnwise import objectives as obj
from turnwise.batch import Batch, Outputs
from turnwise.metrics import means, merge

LOG2 = math.log(2.0)


def run(objective: obj.Objective, outputs: Outputs, batch: Batch) -> tuple[list[float], list[float], dict[str, float]]:
    """Loss per token, gradient with respect to each log-probability, metric means."""
    loss, metrics = objective(outputs, batch)
    (gradient,) = torch.autograd.grad(loss.sum(), outputs.logp)
    return loss.tolist(), gradient.tolist(), means(metrics)


def test_policy_gradient_by_hand(outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]) -> None:
    batch = flat_batch(advantage=[[2.0, -1.0], [3.0]], weight=[[0.5, 0.25], [0.0]])
    loss, gradient, metrics = run(obj.policy_gradient(), outputs_of([-1.0, -2.0, -3.0]), batch)
    assert loss == [1.0, -0.5, 0.0]
    assert gradient == [-1.0, 0.25, 0.0]
    assert metrics == {"policy/loss": pytest.approx(0.5 / 0.75), "entropy": 0.5}


def test_importance_multiplies(outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]) -> None:
    streams = {"advantage": [[2.0, -1.0]], "old_logp": [[-1.0, -2.0]], "weight": [[1.0, 1.0]]}
    importance = torch.tensor([0.5, 0.0])
    for objective in (obj.policy_gradient(), obj.clipped(), obj.sequence_ratio(), obj.clipped_weight()):
        plain = run(objective, outputs_of([-1.1, -1.9]), flat_batch(**streams))[1]
        corrected = run(objective, outputs_of([-1.1, -1.9]), flat_batch(**streams, importance=[importance.tolist()]))[1]
        torch.testing.assert_close(torch.tensor(corrected), torch.tensor(plain) * importance)


# Ratio 2 above the range, 1/2 below it, 1 inside; for each sign of the advantage: loss, d loss / d logp.
CLIP_CASES = [
    (LOG2, 1.0, -1.3, 0.0),
    (LOG2, -1.0, 2.0, 2.0),
    (-LOG2, 1.0, -0.5, -0.5),
    (-LOG2, -1.0, 0.8, 0.0),
    (0.0, 1.0, -1.0, -1.0),
    (0.0, -1.0, 1.0, 1.0),
]


@pytest.mark.parametrize(("log_ratio", "advantage", "loss", "gradient"), CLIP_CASES)
def test_clipped_by_hand(
    log_ratio: float,
    advantage: float,
    loss: float,
    gradient: float,
    outputs_of: Callable[..., Outputs],
    flat_batch: Callable[..., Batch],
) -> None:
    batch = flat_batch(advantage=[[advantage]], old_logp=[[-3.0]], weight=[[1.0]])
    got = run(obj.clipped(0.2, 0.3), outputs_of([-3.0 + log_ratio]), batch)
    assert got[0] == pytest.approx([loss])
    assert got[1] == pytest.approx([gradient])
    assert got[2]["clip_ratio/high"] == float(log_ratio > 0 and advantage > 0)
    assert got[2]["clip_ratio/low"] == float(log_ratio < 0 and advantage < 0)
    assert got[2]["clip_ratio/region"] == got[2]["clip_ratio/high"] + got[2]["clip_ratio/low"]
    assert got[2]["approx_kl"] == pytest.approx(math.exp(log_ratio) - 1 - log_ratio, abs=1e-6)


def test_dual_clip_bounds_what_a_huge_ratio_costs(
    outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]
) -> None:
    batch = flat_batch(advantage=[[-2.0, -2.0, 2.0]], old_logp=[[-9.0, -9.0, -9.0]], weight=[[1.0, 1.0, 1.0]])
    outputs = outputs_of([-9.0 + math.log(10), -9.0 + LOG2, -9.0 + math.log(10)])
    loss, gradient, metrics = run(obj.clipped(0.2, dual=3.0), outputs, batch)
    assert loss == pytest.approx([6.0, 4.0, -2.4])
    assert gradient == pytest.approx([0.0, 4.0, 0.0])
    assert metrics["clip_ratio/dual"] == pytest.approx(1 / 3)


def test_clipped_weight_by_hand(outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]) -> None:
    batch = flat_batch(advantage=[[2.0, -1.0, 1.0]], old_logp=[[-3.0, -3.0, -3.0]], weight=[[1.0, 1.0, 1.0]])
    logp = [-3.0 + math.log(10), -3.0 + LOG2, -3.0 - LOG2]
    loss, gradient, metrics = run(obj.clipped_weight(high=4.0), outputs_of(logp), batch)
    weight = [5.0, 2.0, 0.5]
    advantage = [2.0, -1.0, 1.0]
    assert gradient == pytest.approx([-w * a for w, a in zip(weight, advantage, strict=True)])
    assert loss == pytest.approx([-w * a * x for w, a, x in zip(weight, advantage, logp, strict=True)])
    assert metrics["clip_ratio/high"] == pytest.approx(1 / 3)
    assert metrics["clip_ratio/low"] == 0.0
    bounded = run(obj.clipped_weight(high=0.5, low=0.2), outputs_of(logp), batch)[1]
    assert bounded == pytest.approx([-1.5 * 2, 1.5, -0.8])


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.3), (0.01, 0.01), (1.0, 9.0)])
def test_sequence_ratio_equals_the_sequence_form(
    low: float, high: float, outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]
) -> None:
    """−(1/N) Σ_i min(s_i A_i, clip(s_i) A_i), written with whole sequences and differentiated by autograd."""
    generator = torch.Generator().manual_seed(0)
    lengths, advantages = [3, 1, 4, 2], [1.0, -2.0, -0.5, 3.0]
    old = [(-2 + torch.randn(n, generator=generator)).tolist() for n in lengths]
    new = torch.cat([torch.tensor(part) for part in old]) + 0.2 * torch.randn(10, generator=generator)
    batch = flat_batch(old_logp=old, advantage=[[a] * n for a, n in zip(advantages, lengths, strict=True)])
    loss, gradient, _ = run(obj.sequence_ratio(low, high), outputs_of(new.tolist()), batch.weighted(obj.sequence_mean))

    leaf = new.clone().requires_grad_()
    expected = torch.zeros(())
    for part, old_part, advantage in zip(leaf.split(lengths), old, advantages, strict=True):
        s = (part - torch.tensor(old_part)).mean().exp()
        expected = expected - torch.minimum(s * advantage, s.clamp(1 - low, 1 + high) * advantage) / 4
    expected.backward()
    assert sum(loss) == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(torch.tensor(gradient), leaf.grad)


def test_sequence_ratio_keeps_turn_credit_on_its_turn(ragged: Batch, table: type) -> None:
    """A turn without advantage gets no gradient, although its tokens share the sequence's ratio."""
    model = table.random(5)
    outputs = model(ragged)
    advantage = (ragged.turn[ragged.action] == 0).float()
    batch = ragged.with_stream("advantage", advantage).with_stream("old_logp", outputs.logp.detach())
    _, gradient, _ = run(obj.sequence_ratio(), outputs, batch.weighted(obj.token_mean))
    assert (torch.tensor(gradient) != 0).tolist() == (advantage != 0).tolist()


def test_turn_ratio_of_one_token_turns_is_the_token_ratio(
    outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]
) -> None:
    batch = flat_batch(advantage=[[1.0], [-1.0]], old_logp=[[-1.0], [-2.0]], weight=[[1.0], [1.0]])
    logp = [-0.5, -2.1]
    by_turn = run(obj.sequence_ratio(0.2, 0.2, unit="turn"), outputs_of(logp), batch)
    by_token = run(obj.clipped(0.2), outputs_of(logp), batch)
    assert by_turn[:2] == (pytest.approx(by_token[0]), pytest.approx(by_token[1]))


def test_at_ratio_one_every_surrogate_is_the_policy_gradient(ragged: Batch, table: type) -> None:
    model = table.random(5)
    outputs = model(ragged)
    batch = ragged.with_stream("old_logp", outputs.logp.detach()).weighted(obj.token_mean)
    expected = model.gradient(obj.policy_gradient()(model(batch), batch)[0])
    assert expected.abs().max() > 1e-3
    for objective in (
        obj.clipped(),
        obj.clipped(0.2, 0.3, dual=3.0),
        obj.clipped_weight(),
        obj.sequence_ratio(),
        obj.sequence_ratio(unit="turn"),
    ):
        torch.testing.assert_close(model.gradient(objective(model(batch), batch)[0]), expected)


def every_objective() -> dict[str, obj.Objective]:
    return {
        "policy_gradient": obj.policy_gradient(),
        "clipped": obj.clipped(0.2, 0.28, dual=3.0),
        "sequence_ratio": obj.sequence_ratio(0.1, 0.1),
        "turn_ratio": obj.sequence_ratio(0.1, 0.1, unit="turn"),
        "clipped_weight": obj.clipped_weight(0.5),
        "nll": obj.nll(),
        "value_error": obj.value_error(0.2),
        "kl_loss": obj.kl_loss("k3", 0.1, weighted=True),
        "sum": obj.combine((1.0, obj.clipped()), (0.5, obj.value_error()), (0.01, obj.entropy_bonus())),
    }


@pytest.mark.parametrize("name", every_objective())
@pytest.mark.parametrize("weight", [obj.token_mean, obj.sequence_mean, obj.constant(7.0)])
def test_the_gradient_does_not_depend_on_micro_batches(
    name: str, weight: obj.Weight, ragged: Batch, table: type
) -> None:
    model, objective = table.random(5), every_objective()[name]
    batch = ragged.weighted(weight).with_stream("value_weight", obj.turn_start_mean(ragged))
    loss, metrics = objective(model(batch), batch)
    whole = model.gradient(loss)
    assert whole.abs().max() > 1e-4
    order = np.random.default_rng(1).permutation(len(batch))
    for n_parts in (2, 5, len(batch)):
        parts = [batch.select(part) for part in np.array_split(order, n_parts)]
        results = [objective(model(part), part) for part in parts]
        torch.testing.assert_close(sum(model.gradient(part[0]) for part in results), whole, rtol=1e-5, atol=1e-7)
        assert means(merge(part[1] for part in results)) == pytest.approx(means(metrics), rel=1e-4, abs=1e-6)


def test_a_token_of_weight_zero_is_in_no_gradient_and_no_metric(
    outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]
) -> None:
    batch = flat_batch(advantage=[[1.0, 9.0]], old_logp=[[-1.0, -9.0]], weight=[[1.0, 0.0]])
    for objective in (obj.policy_gradient(), obj.clipped(), obj.clipped_weight(), obj.nll(), obj.entropy_bonus()):
        loss, metrics = objective(outputs_of([-1.0, -2.0]), batch)
        assert loss[1] == 0.0
        assert all(count == 1.0 for _, count in metrics.values())


def test_a_huge_ratio_stays_finite(outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]) -> None:
    batch = flat_batch(advantage=[[1.0, -1.0]], old_logp=[[-300.0, -300.0]], weight=[[1.0, 1.0]])
    for objective in (obj.clipped(), obj.sequence_ratio(), obj.clipped_weight()):
        loss, gradient, _ = run(objective, outputs_of([-1.0, -1.0]), batch)
        assert all(map(math.isfinite, loss + gradient))


def test_nll_and_entropy_by_hand(outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]) -> None:
    batch = flat_batch(weight=[[0.5, 0.5]])
    loss, gradient, metrics = run(obj.nll(), outputs_of([-1.0, -3.0]), batch)
    assert (loss, gradient) == ([0.5, 1.5], [-0.5, -0.5])
    assert metrics == {"nll": 2.0, "entropy": 0.5}
    outputs = outputs_of([-1.0, -3.0])
    loss_, _ = obj.entropy_bonus()(outputs, batch)
    assert loss_.tolist() == [-0.25, -0.25]
    assert torch.autograd.grad(loss_.sum(), outputs.entropy)[0].tolist() == [-0.5, -0.5]


def test_combine_adds_losses_and_keeps_metrics(
    outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]
) -> None:
    batch = flat_batch(advantage=[[1.0, 2.0]], weight=[[1.0, 1.0]])
    first, second = obj.policy_gradient(), obj.nll()
    both = obj.combine((2.0, first), (0.5, second))
    one, two = run(first, outputs_of([-1.0, -3.0]), batch), run(second, outputs_of([-1.0, -3.0]), batch)
    loss, gradient, metrics = run(both, outputs_of([-1.0, -3.0]), batch)
    assert loss == [2.0 * a + 0.5 * b for a, b in zip(one[0], two[0], strict=True)]
    assert gradient == [2.0 * a + 0.5 * b for a, b in zip(one[1], two[1], strict=True)]
    assert metrics == {**one[2], **two[2]}
    measured = run(obj.combine((0.0, first)), outputs_of([-1.0, -3.0]), batch)
    assert measured[:2] == ([0.0, 0.0], [0.0, 0.0])
    assert measured[2] == one[2]


def test_refusals(outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]) -> None:
    with pytest.raises(ValueError, match="clip range"):
        obj.clipped(1.5)
    with pytest.raises(ValueError, match="must exceed 1 \\+ high"):
        obj.clipped(0.2, 0.5, dual=1.4)
    with pytest.raises(ValueError, match="use clipped"):
        obj.sequence_ratio(unit="token")
    with pytest.raises(ValueError, match="at least one"):
        obj.combine()
    with pytest.raises(KeyError, match="old_logp"):
        obj.clipped()(outputs_of([-1.0]), flat_batch(advantage=[[1.0]], weight=[[1.0]]))
