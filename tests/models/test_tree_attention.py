"""Attention over a prefix tree: (1) it is masked softmax attention along each path, in value and in all three gradients, for
random trees, head counts and widths, whoever asks; (2) blocks of any size, sequences by themselves and probabilities kept or not
give the same; (3) so does PyTorch's own function, which other devices and 16-bit weights use; (4) memory grows with the tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from turnwise.models import attention_pieces, tree_attention
from turnwise.models.tree_attention import Tree
from turnwise.tree import PrefixTree

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=9)
heads = st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)])


def made(found: list[list[int]]) -> tuple[PrefixTree, np.ndarray[Any, Any]]:
    lengths = np.array([len(one) for one in found])
    return PrefixTree.of(np.array([token for one in found for token in one]), lengths), lengths


def drawn(nodes: int, n_heads: int, groups: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys, values (wider than keys) and a gradient."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return [
        draw(1, n_heads, nodes, 3), draw(1, groups, nodes, 3), draw(1, groups, nodes, 5), draw(1, nodes, n_heads, 5),
    ]  # fmt: skip


def by_hand(tree: PrefixTree, lengths: np.ndarray[Any, Any], q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """One node at a time: softmax over the nodes on its path."""
    starts = np.cumsum(lengths) - lengths
    path: dict[int, np.ndarray[Any, Any]] = {}
    for start, length in zip(starts, lengths, strict=True):
        nodes = tree.node[start : start + length]
        path |= {int(node): nodes[: i + 1] for i, node in enumerate(nodes)}
    share = q.shape[1] // k.shape[1]
    rows: list[Tensor] = []
    for node in range(len(tree)):
        seen = torch.from_numpy(path[node])
        said: list[Tensor] = []
        for head in range(q.shape[1]):
            scores = k[0, head // share, seen] @ q[0, head, node] * scale
            said.append(scores.softmax(0) @ v[0, head // share, seen])
        rows.append(torch.stack(said))
    return torch.stack(rows)[None]


def with_gradients(attend: Any, q: Tensor, k: Tensor, v: Tensor, given_: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = attend(*leaves)
    return [out, *torch.autograd.grad((out * given_).sum(), leaves)]


def limited(patch: pytest.MonkeyPatch, limits: dict[str, int]) -> None:
    for name, value in limits.items():
        patch.setattr(attention_pieces if name == "KEPT" else tree_attention, name, value)


BY_THEMSELVES = {"LONG": 1, "LONG_RUN": 3}
"""Every sequence is answered by itself."""


@pytest.mark.parametrize("limits", [{}, BY_THEMSELVES, {"LONG": 100}])
@given(found=sequences, shape=heads)
@settings(max_examples=30, deadline=None)
def test_it_is_attention_along_each_path(
    found: list[list[int]], shape: tuple[int, int], limits: dict[str, int]
) -> None:
    tree, lengths = made(found)
    q, k, v, slope = drawn(len(tree), *shape)
    with pytest.MonkeyPatch.context() as patch:
        limited(patch, limits)
        ours = with_gradients(lambda a, b, c: Tree(tree, lengths, q.device).attend(0, a, b, c, 0.7), q, k, v, slope)
    theirs = with_gradients(lambda a, b, c: by_hand(tree, lengths, a, b, c, 0.7), q, k, v, slope)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def asking(found: list[list[int]], read: Tensor, *tensors: Tensor) -> list[Tensor]:
    tree, lengths = made(found)
    plan = Tree(tree, lengths, read.device, read)

    def attend(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        with plan.reading():
            return plan.attend(0, a, b, c, 0.7)

    return with_gradients(attend, *tensors)


@pytest.mark.parametrize("ours", [True, False])
@given(found=sequences, shape=heads, seed=st.integers(0, 99), run=st.sampled_from([2, 64]))
@settings(max_examples=25, deadline=None)
def test_where_some_are_read_only_they_ask(
    ours: bool, found: list[list[int]], shape: tuple[int, int], seed: int, run: int
) -> None:
    tree, lengths = made(found)
    q, k, v, slope = drawn(len(tree), *shape)
    asks = torch.rand(len(tree), generator=torch.Generator().manual_seed(seed)) < seed / 99
    asks[-1] = True
    heard = asks[None, :, None, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "RUN", run)
        if not ours:
            patch.setattr(tree_attention, "_by_products", lambda q: False)
        said = asking(found, asks.nonzero().squeeze(1), q, k, v, slope)
    right = with_gradients(lambda a, b, c: by_hand(tree, lengths, a, b, c, 0.7) * heard, q, k, v, slope)
    for a, b in zip(said, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_a_plan_is_asked_by_all_nodes_again_afterwards() -> None:
    tree, lengths = made([[0, 1, 2, 1], [0, 1, 1]])
    q, k, v, _ = drawn(len(tree), 2, 2)
    plan, whole = Tree(tree, lengths, q.device, torch.tensor([1, 4])), Tree(tree, lengths, q.device)
    assert plan.read is not None
    expected = whole.attend(0, q, k, v, 1.0)
    for _ in range(2):
        assert torch.equal(plan.attend(0, q, k, v, 1.0), expected)
        with plan.reading():
            said = plan.attend(0, q, k, v, 1.0)
        torch.testing.assert_close(said[:, plan.read], expected[:, plan.read], atol=1e-12, rtol=0)
    assert plan.calls == 4


@pytest.mark.parametrize(
    "limits",
    [
        {"RUN": 3},
        {"BLOCK": 1},
        {"RUN": 4, "PADDING": 0},
        {"KEPT": 0},
        {"RUN": 2, "KEPT": 5},
        BY_THEMSELVES,
        {"LONG": 1, "LONG_RUN": 1, "KEPT": 0},
        {"LONG": 1, "LONG_RUN": 2, "KEPT": 3},
    ],
)
@given(found=sequences)
@settings(max_examples=10, deadline=None)
def test_neither_blocks_nor_what_is_kept_change_anything(found: list[list[int]], limits: dict[str, int]) -> None:
    tree, lengths = made(found)
    q, k, v, slope = drawn(len(tree), 4, 2)

    def ours() -> list[Tensor]:
        return with_gradients(lambda a, b, c: Tree(tree, lengths, q.device).attend(0, a, b, c, 1.0), q, k, v, slope)

    expected = ours()
    with pytest.MonkeyPatch.context() as patch:
        limited(patch, limits)
        got = ours()
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


@given(sequences)
@settings(max_examples=10, deadline=None)
def test_so_does_the_function_of_other_devices(found: list[list[int]]) -> None:
    tree, lengths = made(found)
    q, k, v, slope = drawn(len(tree), 4, 2)

    def ours(dtype: torch.dtype = torch.float64) -> list[Tensor]:
        plan = Tree(tree, lengths, q.device)
        a, b, c, d = (x.to(dtype) for x in (q, k, v, slope))
        return with_gradients(lambda a, b, c: plan.attend(0, a, b, c, 1.0), a, b, c, d)

    expected = ours()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "_by_products", lambda q: False)
        got = ours()
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
    for a, b in zip(expected, ours(torch.bfloat16), strict=True):
        torch.testing.assert_close(a, b.double(), atol=0.2, rtol=0.05)


@pytest.mark.parametrize("limits", [{"LONG": 1}, {"LONG": 1 << 30}])
def test_memory_grows_with_the_tokens(limits: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a long path leaves for the backward pass is what went in."""
    limited(monkeypatch, limits)
    tree, lengths = made([list(range(attention_pieces.KEPT + 200))])
    q, k, v, _ = drawn(len(tree), 2, 2, torch.float32)
    leaves = [q.requires_grad_(), k.requires_grad_(), v.requires_grad_()]
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        out = Tree(tree, lengths, q.device).attend(0, q, k, v, 1.0)
    function = out.grad_fn
    while function is not None and not hasattr(function, "kept"):
        function = function.next_functions[0][0]
    assert function is not None
    probabilities = sum(p.numel() for some in function.kept for p in some if p is not None)  # type: ignore[attr-defined]
    assert 0 < probabilities <= attention_pieces.KEPT**2 * 2
    assert sum(kept) <= 2 * sum(x.numel() for x in leaves)


def test_nothing_is_kept_without_gradients() -> None:
    tree, lengths = made([list(range(30))])
    q, k, v, _ = drawn(len(tree), 2, 2)
    for limits in ({}, BY_THEMSELVES):
        with pytest.MonkeyPatch.context() as patch:
            limited(patch, limits)
            out = torch.zeros(len(tree) + 1, 2, 5, dtype=q.dtype)
            piece = next(Tree(tree, lengths, q.device)._made(2, 2, q.dtype, tree_attention.LONG))
            a, b, c = (x[0].transpose(0, 1).contiguous() for x in (q, k, v))
            assert not any(p is not None for p in piece.answer(a, b, c, out, False))
            assert all(p is not None for p in piece.answer(a, b, c, out, True))
