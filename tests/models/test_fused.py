"""Cheaper operators: (1) RMS norms and (2) rotated queries and keys are the formula in float64 and what transformers computes in
float32 and 16 bits, gradients included, (3) a model says the same with them as without, packed, checkpointed, in mixed precision
and under an adapter, (4) nothing shows: names, files and copies are as before, (5) strangers and what was not made for them
keep their own forward."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from tests.models import zoo
from turnwise.batch import Batch
from turnwise.models import Policy, Scorer, fused, with_lora
from turnwise.models.checkpointing import checkpointed

FAMILIES = ("llama, grouped queries", "qwen2", "qwen3", "mistral")
MANY = (*FAMILIES, "llama, one key head per query head", "llama, tied embeddings")


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def error(ours: Tensor, exact: Tensor) -> float:
    """Relative to the norm."""
    assert ours.shape == exact.shape
    ours, exact = ours.detach().double(), exact.detach().double()
    return float((ours - exact).norm()) / max(float(exact.norm()), 1e-30)


def gradients(output: Tensor, grad: Tensor, parts: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output, parts, grad)


def family(name: str, *, seed: int = 0) -> Any:
    """A model whose norms and biases are not all ones and zeros."""
    model = zoo.model(zoo.PACKED[name], seed)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            if parameter.ndim == 1:
                parameter.add_(0.3 * drawn(len(parameter), seed=i))
    return model


def plain(policy: Policy) -> Policy:
    """The same with transformers' own forward in every module."""
    other = copy.deepcopy(policy)
    for module in other.model.modules():
        vars(module).pop("forward", None)
    return other


def said(policy: Policy, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities and the gradients of some sum of them."""
    policy.model.zero_grad()
    logp = policy.outputs(batch).logp
    (logp * torch.linspace(-1, 1, len(logp))).sum().backward()
    return logp.detach(), {
        name: part.grad.clone() for name, part in policy.parameters().items() if part.grad is not None
    }


# ---- RMS norms -------------------------------------------------------------------------------------------------------


def formula(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / ((x**2).mean(-1, keepdim=True) + eps).sqrt()


@settings(max_examples=30, deadline=None)
@given(
    lead=st.lists(st.integers(0, 4), max_size=3),
    d=st.integers(1, 40),
    strided=st.booleans(),
    scale=st.floats(1e-4, 1e4),
)
def test_a_norm_is_its_formula(lead: list[int], d: int, strided: bool, scale: float) -> None:
    x = scale * (
        drawn(*lead, 2 * d, dtype=torch.float64)[..., ::2] if strided else drawn(*lead, d, dtype=torch.float64)
    )
    parts = [x.requires_grad_(), drawn(d, seed=1, dtype=torch.float64).requires_grad_()]
    ours, right = fused.rms_norm(parts[0], parts[1], 1e-6), formula(parts[0], parts[1], 1e-6)
    assert error(ours, right) < 1e-12
    grad = drawn(*right.shape, seed=2, dtype=torch.float64)
    # The two terms of the first gradient cancel where d is 1.
    term = float((grad * right / x).detach().norm())
    for a, b in zip(gradients(ours, grad, parts), gradients(right, grad, parts), strict=True):
        assert a.shape == b.shape
        assert float((a - b).norm()) <= 1e-12 * max(float(b.norm()), term)


@pytest.mark.parametrize("shape", [(3000, 96), (2, 700, 128), (1, 200, 4, 24)])
def test_a_norm_is_that_of_transformers(shape: tuple[int, ...]) -> None:
    # Several blocks of rows.
    module = LlamaRMSNorm(shape[-1])
    module.weight.data = drawn(shape[-1], seed=1)
    x = drawn(*shape).requires_grad_()
    parts = [x, module.weight]
    ours, theirs = fused.rms_norm(x, module.weight, module.variance_epsilon), module(x)
    assert error(ours, theirs) < 1e-6
    grad = drawn(*shape, seed=2)
    for a, b in zip(gradients(ours, grad, parts), gradients(theirs, grad, parts), strict=True):
        assert error(a, b) < 1e-6


@pytest.mark.parametrize("weight_dtype", [torch.bfloat16, torch.float32])
def test_16_bits_are_rounded_where_transformers_rounds_them(weight_dtype: torch.dtype) -> None:
    module = LlamaRMSNorm(64)
    module.weight.data = drawn(64, seed=1, dtype=weight_dtype)
    x = drawn(300, 64, dtype=torch.bfloat16).requires_grad_()
    parts = [x, module.weight]
    ours, theirs = fused.rms_norm(x, module.weight, module.variance_epsilon), module(x)
    assert ours.dtype == theirs.dtype
    # The root mean square is summed in another order, which now and then rounds to the other side.
    assert float((ours != theirs).float().mean()) < 0.01
    assert error(ours, theirs) < 1e-3
    grad = drawn(300, 64, seed=2, dtype=theirs.dtype)
    exact = [part.detach().double().requires_grad_() for part in parts]
    right = gradients(formula(exact[0], exact[1], module.variance_epsilon), grad.double(), exact)
    mine, own = gradients(ours, grad, parts), gradients(theirs, grad, parts)
    for a, b, c in zip(mine, own, right, strict=True):
        assert a.dtype == b.dtype
        assert error(a, c) < max(4e-3, error(b, c))


@pytest.mark.parametrize("inside", [False, True])
def test_a_norm_is_not_rounded_by_autocast(inside: bool) -> None:
    x, weight = drawn(40, 32).requires_grad_(), drawn(32, seed=1).requires_grad_()
    grad = drawn(40, 32, seed=2)
    right = formula(x.double(), weight.double(), 1e-6)
    wanted = gradients(right, grad.double(), [x, weight])
    with torch.autocast("cpu", torch.bfloat16):
        ours = fused.rms_norm(x, weight, 1e-6)
        found = gradients(ours, grad, [x, weight]) if inside else None
    found = found or gradients(ours, grad, [x, weight])
    assert ours.dtype == torch.float32
    assert all(error(a, b) < 1e-6 for a, b in zip((ours, *found), (right, *wanted), strict=True))


def test_a_frozen_weight_gets_no_gradient() -> None:
    x, weight = drawn(4, 8).requires_grad_(), drawn(8, seed=1)
    fused.rms_norm(x, weight, 1e-6).sum().backward()
    assert weight.grad is None
    assert x.grad is not None


# ---- rotated queries and keys ----------------------------------------------------------------------------------------


def attention_inputs(
    tokens: int, heads: int, groups: int, size: int, width: int, *, bias: bool, norm: bool, dtype: torch.dtype
) -> tuple[Tensor, list[Tensor], list[Tensor] | None, list[Tensor] | None, Tensor, Tensor]:
    rows = (heads * size, groups * size, groups * size)
    weights = [drawn(n, width, seed=i, dtype=dtype) * width**-0.5 for i, n in enumerate(rows)]
    biases = [drawn(n, seed=3 + i, dtype=dtype) for i, n in enumerate(rows)] if bias else None
    norms = [1 + 0.3 * drawn(size, seed=6 + i, dtype=dtype) for i in range(2)] if norm else None
    angles = drawn(tokens, size // 2, seed=8, dtype=dtype).repeat(1, 2)
    x = drawn(tokens, width, seed=9, dtype=dtype)
    for part in (x, *weights, *(biases or ()), *(norms or ())):
        part.requires_grad_()
    return x, weights, biases, norms, 1.1 * angles.cos(), 1.1 * angles.sin()


def by_transformers(
    x: Tensor, weights: Any, biases: Any, norms: Any, eps: float, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The start of an attention layer of transformers, in the type of x."""
    size = cos.shape[-1]
    q, k, v = (
        F.linear(x, weight, None if biases is None else biases[i]).view(len(x), -1, size)
        for i, weight in enumerate(weights)
    )
    if norms is not None:
        q, k = formula(q, norms[0], eps), formula(k, norms[1], eps)
    q, k = apply_rotary_pos_emb(q.transpose(0, 1)[None], k.transpose(0, 1)[None], cos[None], sin[None])
    return q[0].transpose(0, 1), k[0].transpose(0, 1), v


def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Something that attention could make of its inputs: (H, T, D)."""
    shared = q.shape[1] // k.shape[1]
    q, k, v = (part.transpose(0, 1) for part in (q, k, v))
    k, v = (part.repeat_interleave(shared, 0) for part in (k, v))
    return (q @ k.transpose(1, 2)).tanh() @ v


@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(1, 9), groups=st.integers(1, 3), shared=st.integers(1, 3), half=st.integers(1, 4),
    width=st.integers(1, 9), bias=st.booleans(), norm=st.booleans(),
)  # fmt: skip
def test_rotated_queries_and_keys_have_the_dot_products_of_the_formula(
    tokens: int, groups: int, shared: int, half: int, width: int, bias: bool, norm: bool
) -> None:
    x, weights, biases, norms, cos, sin = attention_inputs(
        tokens, groups * shared, groups, 2 * half, width, bias=bias, norm=norm, dtype=torch.float64
    )
    parts = [x, *weights, *(biases or ()), *(norms or ())]
    ours = products(*fused.rotated(x, weights, biases, norms, 1e-6, cos, sin))  # pyright: ignore[reportArgumentType]
    right = products(*by_transformers(x, weights, biases, norms, 1e-6, cos, sin))
    assert error(ours, right) < 1e-12
    grad = drawn(*right.shape, seed=10, dtype=torch.float64)
    for a, b in zip(gradients(ours, grad, parts), gradients(right, grad, parts), strict=True):
        assert float((a - b).norm()) <= 1e-11 * max(1.0, float(b.norm()))


@pytest.mark.parametrize("norm", [False, True])
def test_many_tokens_in_float32(norm: bool) -> None:
    # Several blocks of rows.
    x, weights, biases, norms, cos, sin = attention_inputs(
        1500, 6, 3, 16, 40, bias=True, norm=norm, dtype=torch.float32
    )
    parts = [x, *weights, *(biases or ()), *(norms or ())]
    exact = [part.detach().double().requires_grad_() for part in parts]

    def some(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([(q.unflatten(1, (3, 2)) * k[:, :, None]).sum(-1).flatten(), v.flatten()])

    ours = some(*fused.rotated(x, weights, biases, norms, 1e-6, cos, sin))  # pyright: ignore[reportArgumentType]
    doubles = (exact[1:4], exact[4:7], exact[7:] or None)
    right = some(*by_transformers(exact[0], *doubles, 1e-6, cos.double(), sin.double()))
    assert error(ours, right) < 1e-6
    grad = drawn(*right.shape, seed=10)
    for a, b in zip(gradients(ours, grad, parts), gradients(right, grad.double(), exact), strict=True):
        assert error(a, b) < 1e-6


def test_only_what_learns_gets_a_gradient() -> None:
    x, weights, biases, norms, cos, sin = attention_inputs(8, 2, 1, 4, 6, bias=True, norm=True, dtype=torch.float32)
    for part in (x, *weights, *(biases or ())):
        part.requires_grad_(False)
    q, k, v = fused.rotated(x, weights, biases, norms, 1e-6, cos, sin)  # pyright: ignore[reportArgumentType]
    (q.sum() + k.sum() + v.sum()).backward()
    assert norms is not None
    assert all(part.grad is not None for part in norms)
    assert all(part.grad is None for part in (x, *weights, *(biases or ())))


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MANY)
def test_a_model_says_the_same_and_learns_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = Policy(family(name), zoo.TOKENIZER), zoo.batch(8, fresh=True)
    rotations: list[int] = []
    original = fused.rotated
    monkeypatch.setattr(fused, "rotated", lambda *args: (rotations.append(len(args[0])), original(*args))[1])
    ours, mine = said(policy, batch)
    assert len(rotations) == policy.model.config.num_hidden_layers
    theirs, own = said(plain(policy), batch)
    assert len(rotations) == policy.model.config.num_hidden_layers
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert mine.keys() == own.keys()
    assert all(error(mine[key], own[key]) < 1e-5 for key in own)


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_changes_no_bit(name: str) -> None:
    policy, batch = Policy(family(name), zoo.TOKENIZER), zoo.batch(8)
    ours, mine = said(policy, batch)
    with checkpointed(policy.model):
        again, other = said(policy, batch)
    assert torch.equal(ours, again)
    assert all(torch.equal(mine[key], other[key]) for key in mine)


@pytest.mark.parametrize("name", FAMILIES)
def test_mixed_precision_is_as_close_to_the_truth_as_before(name: str) -> None:
    policy, batch = Policy(family(name), zoo.TOKENIZER), zoo.batch(8)
    truth = said(policy, batch)

    def mixed(policy: Policy) -> tuple[Tensor, dict[str, Tensor]]:
        policy.model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logp = policy.outputs(batch).logp
        (logp * torch.linspace(-1, 1, len(logp))).sum().backward()
        return logp.detach(), {
            key: part.grad.clone() for key, part in policy.parameters().items() if part.grad is not None
        }

    ours, theirs = mixed(policy), mixed(plain(policy))
    torch.testing.assert_close(ours[0], theirs[0], atol=0.05, rtol=0)
    for key in truth[1]:
        assert error(ours[1][key], truth[1][key]) < max(0.02, 1.5 * error(theirs[1][key], truth[1][key]))


def test_weights_in_16_bits_keep_their_own_attention() -> None:
    policy, batch = Policy(family("qwen3").bfloat16(), zoo.TOKENIZER), zoo.batch(5)
    assert "forward" not in vars(policy.model.model.layers[0].self_attn)
    with torch.no_grad():
        torch.testing.assert_close(policy.outputs(batch).logp, plain(policy).outputs(batch).logp, atol=0.05, rtol=0)


def test_an_adapter_learns_the_same() -> None:
    pytest.importorskip("peft")
    policy, batch = Policy(with_lora(family("qwen3"), 4), zoo.TOKENIZER), zoo.batch(6)
    with torch.no_grad():
        for key, part in policy.parameters().items():
            if "lora_B" in key:
                part.normal_(generator=torch.Generator().manual_seed(0))
    ours, mine = said(policy, batch)
    theirs, own = said(plain(policy), batch)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert all(error(mine[key], own[key]) < 1e-5 for key in own)


def test_a_partly_frozen_model_learns_the_rest() -> None:
    model = family("qwen2")
    model.model.layers[0].requires_grad_(False)
    model.model.embed_tokens.requires_grad_(False)
    policy, batch = Policy(model, zoo.TOKENIZER), zoo.batch(6)
    mine, own = said(policy, batch)[1], said(plain(policy), batch)[1]
    assert mine.keys() == own.keys()
    assert all(error(mine[key], own[key]) < 1e-5 for key in own)


def test_a_scorer_says_the_same() -> None:
    scorer = Scorer.of(Policy(family("qwen3"), zoo.TOKENIZER))
    own = copy.deepcopy(scorer)
    for module in own.model.modules():
        vars(module).pop("forward", None)
    batch = zoo.batch(6)
    ours, theirs = scorer.outputs(batch).score, own.outputs(batch).score
    assert any("forward" in vars(module) for module in scorer.model.modules())
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


# ---- nothing shows ---------------------------------------------------------------------------------------------------


def test_names_and_files_are_as_before(tmp_path: Path) -> None:
    model = family("qwen3")
    untouched = copy.deepcopy(model)
    fused.install(model)
    fused.install(model)
    assert repr(model) == repr(untouched)
    assert list(model.state_dict()) == list(untouched.state_dict())
    for part, name in ((model, "ours"), (untouched, "theirs")):
        part.save_pretrained(tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "theirs").iterdir())
    assert sorted(file.name for file in (tmp_path / "ours").iterdir()) == files
    for file in files:
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert vars(loaded.model.norm)["forward"].args[0] is loaded.model.norm


def test_a_reference_has_its_own_weights() -> None:
    policy, batch = Policy(family("llama, grouped queries"), zoo.TOKENIZER), zoo.batch(6)
    frozen = policy.reference()
    with torch.no_grad():
        before = policy.outputs(batch).logp
        for parameter in policy.model.parameters():
            parameter.mul_(0.5)
        torch.testing.assert_close(frozen.outputs(batch).logp, before, atol=0, rtol=0)
        assert not torch.allclose(policy.outputs(batch).logp, before, atol=1e-2)


# ---- strangers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [zoo.PACKED["gpt neox"], zoo.PACKED["gpt2"], zoo.PACKED["phi3"], zoo.OWN["gemma2, soft caps"]]
)
def test_an_unknown_family_is_left_alone(make: Any) -> None:
    model = zoo.model(make)
    fused.install(model)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_forward_that_is_there_stays() -> None:
    model = family("qwen3")
    own = model.model.norm.forward
    model.model.norm.forward = own
    fused.install(model)
    assert vars(model.model.norm)["forward"] is own


@pytest.mark.parametrize(
    "config",
    [
        hf.MistralConfig(**zoo._GROUPED, sliding_window=8),
        hf.Qwen2Config(**zoo._GROUPED, use_sliding_window=True, sliding_window=8, max_window_layers=0),
    ],
)
def test_a_window_is_left_to_the_model(config: Any) -> None:
    model = zoo.model(lambda: hf.AutoModelForCausalLM.from_config(config))
    fused.install(model)
    assert "forward" not in vars(model.model.layers[0].self_attn)
    assert "forward" in vars(model.model.norm)


@pytest.mark.parametrize("kind", ["hook", "wrapped", "few tokens", "own attention"])
def test_what_it_was_not_made_for_runs_as_before(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = hf.Qwen2Config(**zoo._GROUPED | {"hidden_size": 48})
    policy, batch = Policy(zoo.model(lambda: hf.Qwen2ForCausalLM(wide)), zoo.TOKENIZER), zoo.batch(6)
    monkeypatch.setattr(fused, "rotated", lambda *args: pytest.fail("rotated"))
    layers = policy.model.model.layers
    heard: list[int] = []
    if kind == "hook":
        for layer in layers:
            layer.self_attn.k_proj.register_forward_hook(lambda *_: heard.append(1))
    elif kind == "wrapped":
        for layer in layers:
            layer.self_attn.v_proj = nn.Sequential(layer.self_attn.v_proj)
    elif kind == "few tokens":
        batch = Batch(
            tokens=torch.tensor([5, 6]), cu_seqlens=torch.tensor([0, 2]), action=torch.tensor([False, True]),
            turn=torch.zeros(2, dtype=torch.int64), final=torch.zeros(2, dtype=torch.bool),
        )  # fmt: skip
    ids = torch.tensor([[5, 6, 7, 8]])
    if kind == "own attention":
        policy.model.set_attn_implementation("eager")
        ours, theirs = policy.model(ids).logits, plain(policy).model(ids).logits
    else:
        ours, theirs = policy.outputs(batch).logp, plain(policy).outputs(batch).logp
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert len(heard) == (2 * len(layers) if kind == "hook" else 0)


def test_modules_that_compute_something_else_keep_their_own_forward(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers.models.llama import modeling_llama

    original = modeling_llama.LlamaRMSNorm.forward
    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", lambda self, x: original(self, x) + x)
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda q, k, cos, sin: (q, k))
    model = family("llama, grouped queries")
    fused.install(model)
    assert not any("forward" in vars(module) for module in model.modules())
    assert not caplog.text

    def fails(self: Any, *args: Any, **kwargs: Any) -> None:
        raise TypeError("it takes something else now")

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", fails)
    with caplog.at_level(logging.WARNING):
        fused.install(model)
    assert "LlamaAttention keeps its own forward: it takes something else now" in caplog.text
    assert model.config._attn_implementation == "sdpa"
