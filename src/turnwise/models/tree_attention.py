"""Causal attention over a prefix tree, in blocks that stay in the processor's cache.

Every node asks once: its keys are the nodes on its path from the root. In the last layer only those ask that somebody reads.
Queries come in *runs*, successive ones of one sequence, and runs of like size form a block: their queries, keys and values are
gathered into rectangles and one batched product serves them all. A run is short, so that few of its scores lie ahead of a query and are masked away; a block is small, so that
its scores are still in the cache when they are exponentiated. The backward pass gathers again and computes the probabilities
again rather than keep them, unless paths are short: memory then grows with the tokens and not with their square.

What this file leaves out: sliding windows, soft caps, sinks and ALiBi, see `turnwise.models.attention`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from turnwise.tree import PrefixTree

Ints = NDArray[np.int64]
"""int64 array."""

RUN = 64
"""Queries of one sequence that are answered together, at most."""

BLOCK = 1 << 17
"""Scores of a block, over all heads, unless a single run has more."""

PADDING = 1 << 14
"""Scores that padding may add to a block before it is cheaper to begin another one."""

KEPT = 512
"""Longest path whose probabilities are kept for the backward pass."""


@dataclass(frozen=True)
class Block:
    """R runs of at most M queries with at most N keys each, for H query heads and G key heads.

    Attributes:
        runs: Number of runs R.
        asked: (R · H · M,) row of each query in the (U · H, D) queries, key heads outermost; padding repeats a real one.
        answered: (R · H · M,) row of the output that it gives; for padding U · H, a row behind the last.
        padding: Places of padding among them; None where there is none.
        keys: (R · G · N,) row of each key in the (U · G, D) keys and values.
        bias: (R or 1, 1, M, N - seen) what is added to the scores: 0, or -inf where a key lies ahead of the query.
        seen: Leading keys that no query lies before.
        kept: The probabilities are kept for the backward pass.
    """

    runs: int
    asked: Tensor
    answered: Tensor
    padding: Tensor | None
    keys: Tensor
    bias: Tensor
    seen: int
    kept: bool


class Tree:
    """The plan under which the nodes of a prefix tree attend to their paths; nothing is kept between passes.

    Args:
        tree: The nodes.
        lengths: (S,) tokens of each sequence of the tree.
        device: Where the model is.
        read: (K,) int64 nodes at which something is read, in order; all of them by default.

    Attributes:
        calls: Attention layers that have run under the plan.
        read: See above; None for all nodes.
    """

    def __init__(self, tree: PrefixTree, lengths: Ints, device: torch.device, read: Tensor | None = None) -> None:
        self.calls = 0
        self.read = read
        self._tree, self._device = tree, device
        self._lengths = np.asarray(lengths, np.int64)
        self._asks: Tensor | None = None
        self._blocks: dict[tuple[int, int, torch.dtype, bool], list[Block]] = {}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, only nodes that are read ask; others are told zeros. See `turnwise.models.last_layer`."""
        self._asks = self.read
        try:
            yield
        finally:
            self._asks = None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """(1, H, U, D) queries, (1, G, U, D) keys and (1, G, U, E) values -> (1, U, H, E)."""
        self.calls += 1
        if torch.is_autocast_enabled(q.device.type):
            q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
        heads, groups = q.shape[1], k.shape[1]
        key = (heads, groups, q.dtype, self._asks is None)
        if key not in self._blocks:
            asks = np.arange(len(self._tree)) if self._asks is None else self._asks.cpu().numpy()
            self._blocks[key] = list(self._made(asks, heads, groups, q.dtype))
        flat = [x[0].transpose(0, 1).flatten(0, 1) for x in (q, k, v)]
        apply: Any = _Attention.apply if _by_products(q) else _fused
        return apply(*flat, scale, groups, self._blocks[key], self._asks is None).view(1, -1, heads, v.shape[-1])

    def _made(self, asks: Ints, heads: int, groups: int, dtype: torch.dtype) -> Iterator[Block]:
        """Blocks of runs of like size, as many in each as it should have; `asks` are the nodes that ask, in order."""
        tree = self._tree
        start = np.cumsum(self._lengths) - self._lengths
        own = self._lengths - tree.shared
        # The own nodes of the sequences follow each other in their order, and so do those of them that ask.
        ends = np.searchsorted(asks, np.cumsum(own[tree.order]))
        count = np.diff(ends, prepend=0)
        parts = -(-count // RUN)
        owner = np.repeat(np.arange(len(count)), parts)
        part = np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts)
        # Each run is of the nodes asks[first:last], as even as whole tokens allow.
        begin = (ends - count)[owner]
        first = begin + count[owner] * part // parts[owner]
        last = begin + count[owner] * (part + 1) // parts[owner]
        keys = tree.positions[asks[last - 1]] + 1
        start = start[tree.order][owner]
        for runs in _alike(last - first, keys, heads):
            yield self._block(asks, first[runs], last[runs], start[runs], heads, groups, dtype)

    def _block(
        self, asks: Ints, first: Ints, last: Ints, start: Ints, heads: int, groups: int, dtype: torch.dtype
    ) -> Block:
        """The block of R runs that are asked by asks[first:last] in sequences that begin at `start`."""
        tree, m = self._tree, int((last - first).max())
        real = np.arange(m) < (last - first)[:, None]  # (R, M)
        query = asks[np.minimum(first[:, None] + np.arange(m), last[:, None] - 1)]
        at = tree.positions[query]
        n = int(at.max()) + 1
        to = np.minimum(np.arange(n), at[:, -1:])  # (R, N)
        # Key heads outermost, so that the query heads that share one become further rows of its product: (R, G, H/G, M).
        head = np.arange(heads).reshape(groups, -1, 1)
        asked = (query * heads)[:, None, None] + head
        answered = np.where(real[:, None, None], asked, len(tree) * heads)
        keys = (tree.node[start[:, None] + to] * groups)[:, None] + np.arange(groups)[:, None]
        seen = min(int(at.min()) + 1, n - 1)
        ahead = np.arange(seen, n) > at[:, :, None]
        if (ahead == ahead[:1]).all():
            ahead = ahead[:1]
        bias = torch.zeros(ahead.shape, dtype=dtype).masked_fill_(torch.from_numpy(ahead), -torch.inf)
        padding = np.flatnonzero(np.broadcast_to(~real[:, None], (len(real), heads, m)))
        return Block(
            runs=len(real),
            asked=self._index(asked),
            answered=self._index(answered),
            padding=self._index(padding) if len(padding) else None,
            keys=self._index(keys),
            bias=bias[:, None].to(self._device),
            seen=seen,
            kept=n <= KEPT,
        )

    def _index(self, array: Ints) -> Tensor:
        return torch.from_numpy(array.ravel()).to(self._device)


def _alike(queries: Ints, keys: Ints, heads: int) -> Iterator[Ints]:
    """Runs of like size, as many as a block should have."""
    order = np.lexsort((keys, np.ceil(np.log2(queries)))) if len(queries) else queries
    block: list[int] = []
    most, longest, real = 0, 0, 0
    for run in order.tolist():
        n, m = int(queries[run]), int(keys[run])
        cells = (len(block) + 1) * max(most, n) * max(longest, m)
        if block and (heads * cells > BLOCK or heads * (cells - real - n * m) > PADDING):
            yield np.array(block)
            block, most, longest, real = [], 0, 0, 0
        block.append(run)
        most, longest, real = max(most, n), max(longest, m), real + n * m
    if block:
        yield np.array(block)


def _by_products(q: Tensor) -> bool:
    """Batched products and a softmax are the fastest on a CPU; elsewhere, and in 16 bits, PyTorch's own function is."""
    return q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64)


def _probabilities(q: Tensor, k: Tensor, block: Block, groups: int) -> Tensor:
    """(R · G, H/G · M, D) scaled queries and (R · G, N, D) keys -> (R · G, H/G · M, N)."""
    scores = torch.bmm(q, k.transpose(1, 2))
    m, n = block.bias.shape[-2], k.shape[1]
    scores.view(block.runs, -1, m, n)[..., block.seen :].add_(block.bias)
    return torch.softmax(scores, -1, out=scores)


class _Attention(torch.autograd.Function):
    """Attention of all blocks: (U · H, D) queries, (U · G, D) keys and (U · G, E) values -> (U · H, E)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, scale: float, groups: int, blocks: list[Block], whole: bool
    ) -> Tensor:
        out = (v.new_empty if whole else v.new_zeros)(len(q) + 1, v.shape[1])
        wants = any(ctx.needs_input_grad)  # pyright: ignore[reportAttributeAccessIssue]
        kept: list[Tensor | None] = []
        for block in blocks:
            many = block.runs * groups
            queries = q.index_select(0, block.asked).mul_(scale).view(many, -1, q.shape[1])
            keys = k.index_select(0, block.keys).view(many, -1, k.shape[1])
            values = v.index_select(0, block.keys).view(many, -1, v.shape[1])
            p = _probabilities(queries, keys, block, groups)
            out.index_copy_(0, block.answered, torch.bmm(p, values).flatten(0, 1))
            kept.append(p if wants and block.kept else None)
        if wants:
            ctx.save_for_backward(q, k, v)
            ctx.scale, ctx.groups, ctx.blocks, ctx.kept, ctx.whole = scale, groups, blocks, kept, whole  # pyright: ignore[reportAttributeAccessIssue]
        return out[:-1]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        grad_q = (q.new_empty if ctx.whole else q.new_zeros)(len(q) + 1, q.shape[1])
        grad_k, grad_v = torch.zeros_like(k), torch.zeros_like(v)
        for block, p in zip(ctx.blocks, ctx.kept, strict=True):
            many = block.runs * ctx.groups
            queries = q.index_select(0, block.asked).mul_(ctx.scale).view(many, -1, q.shape[1])
            keys = k.index_select(0, block.keys).view(many, -1, k.shape[1])
            values = v.index_select(0, block.keys).view(many, -1, v.shape[1])
            given = grad.index_select(0, block.asked)
            if block.padding is not None:
                given.index_fill_(0, block.padding, 0.0)
            given = given.view(many, -1, v.shape[1])
            if p is None:
                p = _probabilities(queries, keys, block, ctx.groups)
            grad_v.index_add_(0, block.keys, torch.bmm(p.transpose(1, 2), given).flatten(0, 1))
            slope = torch.bmm(given, values.transpose(1, 2))
            slope = torch.ops.aten._softmax_backward_data(slope, p, -1, p.dtype)
            grad_q.index_copy_(0, block.answered, torch.bmm(slope, keys).flatten(0, 1).mul_(ctx.scale))
            grad_k.index_add_(0, block.keys, torch.bmm(slope.transpose(1, 2), queries).flatten(0, 1))
        return grad_q[:-1], grad_k, grad_v, None, None, None, None


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float, groups: int, blocks: list[Block], _whole: bool) -> Tensor:
    """The same through PyTorch's scaled dot product attention."""
    out = v.new_zeros(len(q) + 1, v.shape[1])
    for block in blocks:
        m = block.bias.shape[-2]
        queries = q[block.asked].view(block.runs, -1, m, q.shape[1])
        keys, values = (x[block.keys].view(block.runs, groups, -1, x.shape[1]) for x in (k, v))
        bias = F.pad(block.bias, (block.seen, 0))
        said = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=bias, scale=scale, enable_gqa=queries.shape[1] != groups
        )
        out = out.index_copy(0, block.answered, said.reshape(-1, v.shape[1]))
    return out[:-1]
