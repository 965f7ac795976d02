"""Memory and precision: (1) gradient checkpointing changes no bit of a gradient, for packed, padded and adapted models, and
leaves the model as it was, (2) mixed precision stays near the exact gradient and keeps weights, moments and sums in float32,
(3) running out of memory and numbers that are not finite are refused with the place and the remedy, weights untouched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from tests.models import zoo
from turnwise.batch import Batch, Outputs
from turnwise.errors import TurnwiseError
from turnwise.learners import LearnerError, LocalLearner
from turnwise.metrics import Metrics
from turnwise.models import Policy, Scorer, build_model
from turnwise.models.checkpointing import checkpointed
from turnwise.models.lora import with_lora
from turnwise.objectives import nll, token_mean
from turnwise.testing import check_learner


def dense() -> Policy:
    return Policy(build_model(zoo.TOKENIZER, seed=2), zoo.TOKENIZER, value_head=True)


def adapted() -> Policy:
    model = with_lora(build_model(zoo.TOKENIZER, seed=2), "r=4,dropout=0.3")
    for name, half in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(half, std=0.1, generator=torch.Generator().manual_seed(0))
    return Policy(model, zoo.TOKENIZER)


def padded() -> Policy:
    return zoo.policy(zoo.OWN["mistral, sliding window"])


def experts() -> Policy:
    return zoo.policy(zoo.PACKED["mixtral"])


def capped() -> Policy:
    """A model whose head is its own affair."""
    return zoo.policy(zoo.OWN["gemma2, soft caps"], value_head=True)


def loss(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
    """Something of all that a policy says."""
    total = -outputs.logp - 0.1 * outputs.entropy
    if outputs.value is not None:
        total = total + (outputs.value - 1.0).square()
    return batch.stream("weight") * total, {}


def gradient(learner: LocalLearner, batch: Batch) -> dict[str, Tensor]:
    learner.gradient(batch, loss)
    parameters = learner.policy.parameters()
    return {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Relative to the length of `b`."""
    assert a.keys() == b.keys()
    flat_a, flat_b = (torch.cat([x.double().flatten() for x in values.values()]) for values in (a, b))
    return float((flat_a - flat_b).norm() / flat_b.norm())


@pytest.mark.parametrize("make", [dense, padded, adapted, experts])
def test_gradient_checkpointing_changes_no_bit(make: Callable[[], Policy]) -> None:
    if make is adapted:
        pytest.importorskip("peft")
    batch = zoo.batch(8, fresh=True).weighted(token_mean)
    expected = gradient(LocalLearner(make(), max_tokens=60), batch)
    policy = make()
    layers = [part for part in policy.model.modules() if isinstance(part, GradientCheckpointingLayer)]
    before = [vars(layer).get("forward") for layer in layers]
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    inner = next(part for name, part in layers[0].named_modules() if "layernorm" in name)
    inner.register_forward_hook(count)
    found = gradient(LocalLearner(policy, max_tokens=60, gradient_checkpointing=True), batch)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert calls == 2 * len(list(batch.micro_batches(60)))
    assert [vars(layer).get("forward") for layer in layers] == before
    assert not any(layer.training for layer in layers)


def test_a_scorer_is_checkpointed_too() -> None:
    batch = zoo.batch(6).weighted(token_mean)

    def squared(outputs: Outputs, part: Batch) -> tuple[Tensor, Metrics]:
        assert outputs.score is not None
        return part.stream("weight") * (outputs.score - 1.0).square(), {}

    found: list[dict[str, Tensor]] = []
    for option in (False, True):
        learner = LocalLearner(Scorer.of(dense()), gradient_checkpointing=option)
        learner.gradient(batch, squared)
        found.append({name: p.grad for name, p in learner.policy.parameters().items() if p.grad is not None})
    assert all(torch.equal(found[1][name], found[0][name]) for name in found[0])


def test_a_model_whose_layers_are_unknown_is_refused() -> None:
    with (
        pytest.raises(TurnwiseError, match="Linear has no layers that gradient checkpointing knows"),
        checkpointed(nn.Linear(2, 2)),
    ):
        pass


@pytest.mark.parametrize("make", [dense, padded, adapted, capped])
def test_mixed_precision_stays_near_the_exact_gradient(make: Callable[[], Policy]) -> None:
    if make is adapted:
        pytest.importorskip("peft")
    batch = zoo.batch(8, fresh=True).weighted(token_mean)
    expected = gradient(LocalLearner(make(), max_tokens=60), batch)
    learner = LocalLearner(make(), max_tokens=60, precision="bf16")
    found = gradient(learner, batch)
    assert all(values.dtype == torch.float32 for values in found.values())
    assert 0 < distance(found, expected) < 0.03
    again = gradient(LocalLearner(make(), max_tokens=60, precision="bf16", gradient_checkpointing=True), batch)
    assert all(torch.equal(again[name], found[name]) for name in found)
    learner.update(batch, loss)
    assert all(values.dtype == torch.float32 for values in learner.state()[0].values())
    said, exact = learner.evaluate(batch), LocalLearner(learner.policy).evaluate(batch)
    assert said.logp.dtype == said.entropy.dtype == torch.float32
    assert 0 < float((said.logp - exact.logp).abs().max()) < 0.1


def test_a_learner_in_mixed_precision_keeps_every_promise() -> None:
    check_learner(lambda **changes: LocalLearner(dense(), precision="bf16", **changes), tolerance=0.02)


def untouched(learner: LocalLearner, batch: Batch, objective: Any, message: str) -> None:
    learner.update(batch, nll())
    before = {name: tensor.clone() for name, tensor in learner.state()[0].items()}
    with pytest.raises(LearnerError, match=message):
        learner.update(batch, objective)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state()[0].items())
    assert learner.version == 1
    assert all(p.grad is None for p in learner.policy.parameters().values())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
        ),
    ],
)
def test_running_out_of_memory_says_what_to_lower(error: RuntimeError) -> None:
    batch = zoo.batch(8).weighted(token_mean)
    parts = list(batch.micro_batches(30))
    calls = 0

    def greedy_for_memory(outputs: Outputs, part: Batch) -> tuple[Tensor, Metrics]:
        nonlocal calls
        calls += 1
        if calls == len(parts):
            raise error
        return loss(outputs, part)

    size = int(batch.lengths[parts[-1]].sum())
    untouched(
        LocalLearner(dense(), max_tokens=30), batch, greedy_for_memory,
        rf"micro-batch of {size} tokens.*left as they were.*from 30, which changes no result, or switch gradient checkpointing",
    )  # fmt: skip


def test_other_errors_are_passed_on() -> None:
    def broken(outputs: Outputs, part: Batch) -> tuple[Tensor, Metrics]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        LocalLearner(dense()).update(zoo.batch(2).weighted(token_mean), broken)


@pytest.mark.parametrize("max_tokens", [1, 10**6])
def test_what_is_not_finite_is_named_with_its_place(max_tokens: int) -> None:
    batch = zoo.batch(8, fresh=True).weighted(token_mean)
    where = batch.action.nonzero().flatten()
    worst = int(where[13])
    sequence = int(batch.sequence[worst])
    place = rf"at token {int(batch.positions[worst])} of sequence {sequence} \(episode {int(batch.seq['episode'][sequence])} "
    spoilt = torch.zeros(len(where))
    spoilt[13] = torch.nan

    learner = LocalLearner(dense(), max_tokens=max_tokens)
    spoils = batch.with_stream("spoilt", spoilt)
    untouched(
        learner, spoils, lambda outputs, part: (outputs.logp + part.stream("spoilt"), {}),
        rf"update 2 of LlamaForCausalLM has loss nan .*: loss is nan {place}",
    )  # fmt: skip
    learner = LocalLearner(dense(), max_tokens=max_tokens)
    untouched(
        learner, batch, lambda outputs, part: ((outputs.logp.detach() - outputs.logp).sqrt(), {}),
        r"every loss is finite, and the gradients of \d+ of \d+ parameters are not, first 'model.embed_tokens.weight'",
    )  # fmt: skip


def test_a_model_that_says_nan_is_named() -> None:
    batch = zoo.batch(8).weighted(token_mean)
    learner = LocalLearner(dense())
    with torch.no_grad():
        learner.policy.model.model.layers[1].mlp.up_proj.weight[3, 5] = torch.nan
    with pytest.raises(
        LearnerError, match=r"of LlamaForCausalLM has loss nan .*: logp is nan at token \d+ of sequence \d+"
    ):
        learner.update(batch, nll())
    assert learner.version == 0


def test_running_out_of_memory_for_the_moments_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, batch = LocalLearner(dense()), zoo.batch(2).weighted(token_mean)
    before = {name: p.detach().clone() for name, p in learner.policy.parameters().items()}

    def full() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(learner._optimizer, "step", full)
    with pytest.raises(LearnerError, match=r"AdamW's moments.*GiB.*LoRA adapter"):
        learner.update(batch, nll())
    assert learner.version == 0
    assert all(torch.equal(p, before[name]) for name, p in learner.policy.parameters().items())
