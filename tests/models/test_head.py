"""The output head in tiles: (1) log-probabilities, entropies and every gradient are those of `log_probs` on plain logits,
(2) numerically exact derivatives, (3) beyond the budget nothing of the size of the logits is ever made or kept,
(4) 16-bit weights lose nothing after the product, (5) heads that are more than a linear map are found out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models import zoo
from turnwise.models import Sampling, entropy, log_probs
from turnwise.models.head import has_plain_head, taken_log_probs
from turnwise.models.lora import with_lora
from turnwise.models.storage import underlying

Leaves = tuple[Tensor, Tensor, Tensor]
"""Hidden states, weight, bias."""
WIDTH = 6
SHAPES = [(1, 5), (7, 300), (400, 1100), (2100, 500), (0, 9)]
"""(N, V): one tile, several tiles of the vocabulary, several blocks of rows, no rows."""


def plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, taken: Tensor, *rest: Any, join: bool = True) -> Any:
    """The same from all logits at once."""
    sampling, banned = rest
    logp = log_probs(F.linear(hidden, weight, bias), sampling, banned, taken if join else None)
    return logp.gather(-1, taken[:, None]).squeeze(-1), entropy(logp)


def inputs(n: int, v: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Leaves, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return (leaf(n, WIDTH), leaf(v, WIDTH), leaf(v)), torch.randint(0, v, (n,), generator=generator)


def gradients(said: tuple[Tensor, Tensor], leaves: Sequence[Tensor], asked: str, seed: int) -> list[Tensor]:
    """Of a random combination of the outputs that are asked for."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros((), dtype=torch.float64)
    for name, values in zip(("logp", "entropy"), said, strict=True):
        by = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        if name in asked:
            total = total + (values * by).sum()
    return list(torch.autograd.grad(total, tuple(leaves)))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([1.0, 0.6]),
    banned=st.sampled_from([None, [], [0], [1, 3]]),
    join=st.booleans(),
    asked=st.sampled_from(["logp", "entropy", "logp and entropy"]),
    keep=st.sampled_from([0, 10**9]),
)
def test_it_is_the_distribution_of_all_logits_at_once(
    shape: tuple[int, int], seed: int, temperature: float, banned: Any, join: bool, asked: str, keep: int
) -> None:
    leaves, taken = inputs(*shape, seed)
    sampling = Sampling(temperature=temperature)
    ids = None if banned is None else torch.tensor(banned, dtype=torch.int64)
    ours = taken_log_probs(*leaves, taken, sampling, ids, join=join, keep=keep)
    theirs = plain(*leaves, taken, sampling, ids, join=join)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-10, rtol=1e-10)
    if join or not torch.isinf(theirs[0]).any():
        pairs = zip(gradients(ours, leaves, asked, seed), gradients(theirs, leaves, asked, seed), strict=True)
        for mine, other in pairs:
            torch.testing.assert_close(mine, other, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("keep", [0, 10**9])
def test_float32_is_exact_to_its_rounding(keep: int) -> None:
    (hidden, weight, bias), taken = inputs(300, 1100, 3, torch.float32)
    exact = tuple(leaf.detach().double().requires_grad_() for leaf in (hidden, weight, bias))
    ours = taken_log_probs(hidden, weight, bias, taken, Sampling(), keep=keep)
    theirs = plain(*exact, taken, Sampling(), None)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), other, atol=1e-5, rtol=0)
    found = gradients(ours, (hidden, weight, bias), "logp entropy", 0)
    for mine, other in zip(found, gradients(theirs, exact, "logp entropy", 0), strict=True):
        assert float((mine - other).abs().max()) <= 3e-6 * float(other.abs().max())


@pytest.mark.parametrize("keep", [0, 10**9])
def test_its_derivatives_are_numerically_right(keep: int) -> None:
    (hidden, weight, bias), taken = inputs(3, 200, 1)
    taken[1] = 150
    banned = torch.tensor([4, 150])
    warm = Sampling(temperature=0.7)
    assert torch.autograd.gradcheck(
        lambda h, b: taken_log_probs(h, weight.detach(), b, taken, warm, banned, keep=keep), (hidden, bias)
    )
    few, taken = inputs(4, 7, 2)
    assert torch.autograd.gradcheck(
        lambda h, w, b: taken_log_probs(h, w, b, taken, Sampling(), banned[:1], keep=keep), few
    )


@pytest.mark.parametrize("sampling", [Sampling(top_k=5), Sampling(top_p=0.6, temperature=1.3), Sampling(temperature=0)])
def test_truncated_distributions_go_part_by_part_and_stay_the_same(sampling: Sampling) -> None:
    leaves, taken = inputs(50, 40, 4)
    banned = torch.tensor([2])
    ours = taken_log_probs(*leaves, taken, sampling, banned, keep=300)
    whole = taken_log_probs(*leaves, taken, sampling, banned)
    theirs = plain(*leaves, taken, sampling, banned)
    for one, other, expected in zip(ours, whole, theirs, strict=True):
        torch.testing.assert_close(one, expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(other, expected, atol=1e-10, rtol=0)
    if sampling.temperature:
        for one, expected in zip(*(gradients(said, leaves, "logp entropy", 5) for said in (ours, theirs)), strict=True):
            torch.testing.assert_close(one, expected, atol=1e-10, rtol=0)


class Sizes(TorchDispatchMode):
    """Notes the number of entries of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return made


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=4)])
def test_beyond_the_budget_nothing_as_large_as_the_logits_is_made_or_kept(sampling: Sampling) -> None:
    n, v = 3000, 3000
    leaves, taken = inputs(n, v, 0, torch.float32)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    budget = n * v // 8
    with Sizes() as seen:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logp, bits = taken_log_probs(*leaves, taken, sampling, keep=budget)
        (logp.sum() + bits.sum()).backward()
    assert seen.largest <= budget
    assert sum(kept) < budget


def test_what_is_frozen_gets_no_gradient() -> None:
    leaves, taken = inputs(9, 300, 6)
    expected = gradients(plain(*leaves, taken, Sampling(), None), leaves, "logp", 0)
    for i in range(3):
        hidden, weight, bias = some = [leaf.detach().requires_grad_(i == k) for k, leaf in enumerate(leaves)]
        (only,) = gradients(taken_log_probs(hidden, weight, bias, taken, Sampling()), [some[i]], "logp", 0)
        torch.testing.assert_close(only, expected[i], atol=1e-10, rtol=0)


def test_a_head_without_a_bias() -> None:
    (hidden, weight, _), taken = inputs(9, 300, 6)
    ours = gradients(taken_log_probs(hidden, weight, None, taken, Sampling()), [hidden, weight], "logp", 0)
    theirs = gradients(plain(hidden, weight, None, taken, Sampling(), None), [hidden, weight], "logp", 0)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-10, rtol=0)


@pytest.mark.parametrize("keep", [0, 10**9])
def test_sixteen_bit_weights_lose_nothing_after_the_product(keep: int) -> None:
    leaves, taken = inputs(60, 700, 7, torch.bfloat16)
    ours, theirs = taken_log_probs(*leaves, taken, Sampling(), keep=keep), plain(*leaves, taken, Sampling(), None)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, atol=2e-5, rtol=0)
    for mine, other in zip(*(gradients(said, leaves, "logp entropy", 0) for said in (ours, theirs)), strict=True):
        assert mine.dtype == torch.bfloat16
        assert float((mine - other).float().norm() / other.float().norm()) <= 1e-2


def test_autocast_does_not_reach_it() -> None:
    leaves, taken = inputs(20, 90, 8, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = taken_log_probs(*leaves, taken, Sampling())
    for one, other in zip(inside, taken_log_probs(*leaves, taken, Sampling()), strict=True):
        assert torch.equal(one, other)


def test_nan_and_infinity_are_passed_on() -> None:
    leaves, taken = inputs(6, 300, 9, torch.float32)
    with torch.no_grad():
        leaves[0][2, 0], leaves[0][4, 0] = torch.nan, torch.inf
    logp, bits = taken_log_probs(*leaves, taken, Sampling())
    assert (~torch.isfinite(logp)).nonzero().flatten().tolist() == [2, 4]
    assert (~torch.isfinite(bits)).nonzero().flatten().tolist() == [2, 4]


_SMALL: dict[str, Any] = {
    "vocab_size": zoo.V, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
_SHAPED: dict[str, Callable[[], Any]] = {
    "granite, scaled": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**_SMALL, logits_scaling=1.5)),
    "cohere, scaled": lambda: hf.CohereForCausalLM(hf.CohereConfig(**_SMALL, logit_scale=0.5, pad_token_id=0)),
    "gemma2, capped, weights too small to show it": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**_SMALL, head_dim=8)),
}


def plain_head(model: Any) -> bool:
    ids = torch.arange(6)[None]
    trunk = underlying(model).base_model
    return has_plain_head(
        model,
        lambda: model(input_ids=ids, use_cache=False).logits,
        lambda: trunk(input_ids=ids, use_cache=False).last_hidden_state,
    )


@pytest.mark.parametrize("family", [*zoo.PACKED, *zoo.OWN])
def test_heads_of_the_families(family: str) -> None:
    assert plain_head(zoo.model((zoo.PACKED | zoo.OWN)[family])) == ("soft caps" not in family)


@pytest.mark.parametrize("family", _SHAPED)
def test_a_head_that_scales_or_caps_its_logits_is_found_out(family: str) -> None:
    assert not plain_head(zoo.model(_SHAPED[family]))


def test_an_adapter_on_the_head_is_found_out() -> None:
    pytest.importorskip("peft")
    family = zoo.PACKED["llama, grouped queries"]
    assert not plain_head(with_lora(zoo.model(family), "r=2,targets=lm_head"))
    assert plain_head(with_lora(zoo.model(family), "r=2,targets=q_proj"))
