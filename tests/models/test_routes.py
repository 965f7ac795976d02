"""Routes of matrix products: (1) oneDNN computes what float64 says, backwards too, and the switch goes back, (2) packed weights
follow the weight, (3) a machine decides once, and nothing that goes wrong around its file changes a run, (4) a route that rounds
is refused, (5) installing changes no model, and nothing at all where PyTorch's own route is the best."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.models import zoo
from turnwise.errors import TurnwiseError
from turnwise.models import Policy, routes, with_lora
from turnwise.models.routes import PLAIN, PackedWeight, Routes

onednn_only = pytest.mark.skipif(not routes._is_exact(), reason="oneDNN is missing or rounds here")


@pytest.fixture(autouse=True)
def decisions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Every test begins on a machine that has not decided yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(routes.VARIABLE, raising=False)
    routes._routes.cache_clear()
    routes._is_exact.cache_clear()
    yield
    routes._routes.cache_clear()
    routes._is_exact.cache_clear()


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(routes.VARIABLE, "onednn")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, exact: Tensor, tolerance: float = 2e-6) -> bool:
    ours, exact = ours.detach().double(), exact.detach()
    return float((ours - exact).norm()) <= tolerance * float(exact.norm())


def precision() -> str:
    return cast("Any", torch.backends.mkldnn).matmul.fp32_precision


# ---- products --------------------------------------------------------------------------------------------------------


@onednn_only
@settings(max_examples=25, deadline=None)
@given(
    lead=st.lists(st.integers(0, 5), min_size=1, max_size=2),
    k=st.integers(1, 80),
    n=st.integers(1, 80),
    bias=st.booleans(),
    strided=st.booleans(),
)
def test_a_forced_product_and_its_gradients_are_those_of_float64(
    lead: list[int], k: int, n: int, bias: bool, strided: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(routes.VARIABLE, "onednn")
        x = drawn(*lead, 2 * k)[..., ::2] if strided else drawn(*lead, k)
        w = drawn(k, n, seed=1).t() if strided else drawn(n, k, seed=1)
        parts = [x.detach().requires_grad_(), w.detach().requires_grad_()]
        parts += [drawn(n, seed=2).requires_grad_()] if bias else []
        exact = [part.detach().double().requires_grad_() for part in parts]
        said, right = routes.linear(*parts), F.linear(*exact)
        assert said.shape == right.shape
        assert close(said, right)
        grad = drawn(*right.shape, seed=3)
        found = torch.autograd.grad(said, parts, grad)
        wanted = torch.autograd.grad(right, exact, grad.double())
        assert all(a.shape == b.shape and close(a, b) for a, b in zip(found, wanted, strict=True))
        a, b = drawn(n, 7, seed=4).t(), drawn(n, k, seed=5)
        assert close(routes.product(a, b), a.double() @ b.double())
    assert precision() == "none"


@onednn_only
def test_only_the_gradients_that_are_asked_for_are_computed(forced: None) -> None:
    x, w, b = drawn(6, 4), drawn(5, 4, seed=1).requires_grad_(), drawn(5, seed=2)
    routes.linear(x, w, b).sum().backward()
    assert x.grad is None
    assert b.grad is None
    assert close(cast("Tensor", w.grad), x.double().sum(0).expand(5, 4))


@onednn_only
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_go_the_usual_way(forced: None, dtype: torch.dtype) -> None:
    x, w = drawn(9, 8).to(dtype), drawn(7, 8, seed=1).to(dtype)
    assert torch.equal(routes.linear(x, w), F.linear(x, w))
    assert torch.equal(routes.product(x, w.t()), x @ w.t())


@onednn_only
def test_autocast_is_left_to_pytorch(forced: None) -> None:
    x, w = drawn(9, 8), drawn(7, 8, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(routes.linear(x, w), F.linear(x, w))
        assert routes.linear(x, w).dtype == torch.bfloat16


@onednn_only
def test_the_switch_goes_back_when_a_product_fails(forced: None) -> None:
    with pytest.raises(RuntimeError):
        routes.linear(drawn(3, 4), drawn(3, 5))
    assert precision() == "none"


@onednn_only
def test_equal_products_are_equal_bit_for_bit(forced: None) -> None:
    x, w = drawn(130, 96), drawn(40, 96, seed=1)
    assert torch.equal(routes.linear(x, w), routes.linear(x.clone(), w.clone()))


@onednn_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_weight_follows_the_weight(dtype: torch.dtype, bias: bool) -> None:
    tolerance = 2e-6 if dtype == torch.float32 else 1e-2
    layer = nn.Linear(24, 40, bias=bias).to(dtype)
    packed = PackedWeight(layer.weight, layer.bias if bias else None, rows=8)

    def right(x: Tensor) -> Tensor:
        own = None if layer.bias is None else layer.bias.double()
        return F.linear(x.double(), layer.weight.double(), own).detach()

    for x in (drawn(8, 24), drawn(3, 24), drawn(1, 24), drawn(0, 24), drawn(2, 5, 24), drawn(24, 8).t()):
        x = x.to(dtype)
        assert packed(x).shape == right(x).shape
        assert close(packed(x), right(x), tolerance)
        assert not packed(x).requires_grad
    with torch.no_grad():
        layer.weight.mul_(-2)
    assert not close(packed(x), right(x), 0.5)
    packed.refresh()
    assert close(packed(x), right(x), tolerance)


# ---- one decision per machine ----------------------------------------------------------------------------------------


def test_the_first_process_measures_and_the_others_read(tmp_path: Path) -> None:
    path, asked = tmp_path / "a" / "machine.json", []

    def measure(found: Routes) -> Routes:
        asked.append(found)
        return found

    first = Routes(products=4096.0, packed=math.inf, packed_bf16=1.0)
    assert routes.decided(path, lambda: measure(first)) == first
    assert routes.decided(path, lambda: measure(PLAIN)) == first
    assert asked == [first]
    assert [file.name for file in path.parent.iterdir()] == ["machine.json"]


def test_of_two_that_measure_at_once_the_first_to_write_decides(tmp_path: Path) -> None:
    path, theirs = tmp_path / "machine.json", Routes(products=1.0)

    def overtaken() -> Routes:
        routes.decided(path, lambda: theirs)
        return Routes(products=2.0)

    assert routes.decided(path, overtaken) == theirs
    assert routes.decided(path, overtaken) == theirs


@pytest.mark.parametrize("content", ["", "[]", "{}x", '{"products": "fast"}', '{"other": 1}', '{"products": [1]}'])
def test_a_damaged_file_decides_for_pytorch(tmp_path: Path, content: str) -> None:
    path = tmp_path / "machine.json"
    path.write_text(content)
    assert routes.decided(path, lambda: Routes(products=1.0)) == PLAIN


def test_where_nothing_can_be_stored_pytorch_decides(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert routes.decided(tmp_path / "file" / "machine.json", lambda: Routes(products=1.0)) == PLAIN


def test_a_user_without_a_home_stays_with_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(routes.Path, "home", homeless)
    assert routes.routes() == PLAIN


def test_a_machine_measures_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = iter([Routes(products=8.0), Routes(products=9.0)])
    monkeypatch.setattr(routes, "measured", lambda: next(found))
    assert routes.routes().products == 8
    routes._routes.cache_clear()  # as another process would
    assert routes.routes().products == 8
    assert len(list((tmp_path / "turnwise" / "routes").iterdir())) == 1


def test_the_number_of_threads_has_its_own_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert routes._machine(1) == routes._machine(1)
    assert routes._machine(1) != routes._machine(2)
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert routes._machine(1) != routes._machine(2)


def test_measuring_gives_a_size_or_none() -> None:
    found = routes.measured()
    sizes = {float(math.prod(shape)) for shape in (*routes._LADDER, *routes._PACKED_LADDER)} | {math.inf}
    assert {found.products, found.packed, found.packed_bf16} <= sizes
    assert precision() == "none"


@pytest.mark.parametrize(
    ("faster", "first"),
    [([True] * 3, 1.0), ([False, True, True], 8.0), ([True, False, True], 27.0), ([True, True, False], math.inf)],
)
def test_a_size_counts_if_all_larger_ones_won(faster: list[bool], first: float) -> None:
    assert routes._first(((1, 1, 1), (2, 2, 2), (3, 3, 3)), faster) == first


# ---- settings and refusals -------------------------------------------------------------------------------------------


def test_plain_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(routes.VARIABLE, "plain")
    assert routes.routes() == PLAIN
    assert not routes.packs(10**6, drawn(64, 64))


def test_another_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(routes.VARIABLE, "fast")
    with pytest.raises(TurnwiseError, match="TURNWISE_ROUTE='fast'; use 'plain', 'onednn'"):
        routes.routes()


def test_a_library_that_rounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a processor with a matrix unit for bfloat16 does under the switch.
    def rounds(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        return (x.bfloat16().float() @ w.bfloat16().float().t()).add(0)

    monkeypatch.setattr(routes.F, "linear", rounds)
    assert not routes._is_exact()
    assert routes.measured() == PLAIN
    monkeypatch.setenv(routes.VARIABLE, "onednn")
    with pytest.raises(TurnwiseError, match="rounds float32 products to bfloat16 here; use 'plain'"):
        routes.routes()


@onednn_only
def test_what_is_packed(forced: None) -> None:
    assert routes.packs(1, drawn(4, 4))
    assert routes.packs(1, drawn(4, 4).bfloat16())
    assert not routes.packs(1, drawn(4, 4).double())


# ---- models ----------------------------------------------------------------------------------------------------------


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(12, 20)
        self.outer = nn.Linear(20, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x).tanh())


@onednn_only
def test_an_installed_model_says_the_same_and_looks_the_same(forced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _Small()
    before = copy.deepcopy(model)
    routes.install(model)
    routes.install(model)
    assert list(model.state_dict()) == list(before.state_dict())
    assert repr(model) == repr(before)
    through, switch = [], routes.onednn
    monkeypatch.setattr(routes, "onednn", lambda: (through.append(1), switch())[1])
    x = drawn(7, 12)
    assert close(model(x), before.double()(x.double()))
    assert len(through) == 2


@onednn_only
def test_a_copy_of_a_model_uses_its_own_weights(forced: None) -> None:
    model = _Small()
    routes.install(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.outer.weight.mul_(2)
    x = drawn(7, 12)
    assert torch.equal(other(x), model(x) * 2)
    assert vars(other.inner)["forward"].args[0] is other.inner


@onednn_only
@pytest.mark.parametrize("lora", [0, 4])
def test_a_policy_says_the_same_and_learns_the_same(monkeypatch: pytest.MonkeyPatch, lora: int) -> None:
    if lora:
        pytest.importorskip("peft")
    batch, found = zoo.batch(6), []
    for route in ("plain", "onednn"):
        monkeypatch.setenv(routes.VARIABLE, route)
        model = zoo.model(zoo.PACKED["qwen3"])
        policy = Policy(with_lora(model, lora) if lora else model, zoo.TOKENIZER)
        assert any(getattr(vars(part).get("forward"), "func", None) is routes._forward for part in model.modules()) == (
            route == "onednn"
        )
        logp = policy.outputs(batch).logp
        logp.sum().backward()
        found.append([logp.detach(), *(p.grad for p in policy.parameters().values() if p.grad is not None)])
    for ours, theirs in zip(*found, strict=True):
        assert close(ours, theirs.double(), 1e-5)


def test_where_pytorch_is_best_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(routes.VARIABLE, "plain")
    model = _Small()
    routes.install(model)
    assert not any("forward" in vars(part) for part in model.modules())


def test_other_types_of_weights_ask_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "measured", lambda: pytest.fail("measured for nothing"))
    routes.install(_Small().double())
    routes.install(_Small().to("meta"))
