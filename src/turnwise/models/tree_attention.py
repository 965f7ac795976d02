"""Causal attention over a prefix tree, in pieces that stay in the processor's cache.

Every node asks once: its keys are the nodes on its path from the root. In the last layer only those ask that somebody reads.
Queries come in *runs*, successive ones of one sequence. A run is short, so that few of its scores lie ahead of a query and are
masked away. Runs of short sequences are answered in blocks, so small that their scores are still in the cache when they are
exponentiated, and those of a long one after the other; see `turnwise.models.attention_pieces`. The backward pass gathers again
and computes the probabilities again rather than keep them, unless paths are short: memory then grows with the tokens and not
with their square.

What this file leaves out: sliding windows, soft caps, sinks and ALiBi, see `turnwise.models.attention`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from turnwise.models.attention_pieces import Block, Path
from turnwise.tree import PrefixTree

Ints = NDArray[np.int64]
"""int64 array."""

RUN = 64
"""Queries of one sequence that are answered together, at most."""

LONG = 1 << 18
"""Queries times keys times heads of a sequence that is answered by itself."""

LONG_RUN = 96
"""The same as `RUN` there."""

BLOCK = 1 << 17
"""Scores of a block, over all heads, unless a single run has more."""

PADDING = 1 << 14
"""Scores that padding may add to a block before it is cheaper to begin another one."""


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
        self._start = np.cumsum(self._lengths) - self._lengths
        self._asks: Tensor | None = None
        self._pieces: dict[tuple[int, int, torch.dtype, bool], list[Block | Path]] = {}

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
        heads, groups, products = q.shape[1], k.shape[1], _by_products(q)
        key = (heads, groups, q.dtype, self._asks is None)
        if key not in self._pieces:
            longest = LONG if products and self._asks is None else np.inf
            self._pieces[key] = list(self._made(heads, groups, q.dtype, longest))
        q, k, v = (x[0].transpose(0, 1).contiguous() for x in (q, k, v))
        apply: Any = _Attention.apply if products else _fused
        return apply(q, k, v, scale, self._pieces[key])[None]

    def _made(self, heads: int, groups: int, dtype: torch.dtype, longest: float) -> Iterator[Block | Path]:
        """Long sequences, and blocks of runs of like size of the others."""
        tree = self._tree
        asks = np.arange(len(tree)) if self._asks is None else self._asks.cpu().numpy()
        lengths, own, start = (x[tree.order] for x in (self._lengths, self._lengths - tree.shared, self._start))
        # The own nodes of the sequences follow each other in their order, and so do those of them that ask.
        ends = np.searchsorted(asks, np.cumsum(own))
        count = np.diff(ends, prepend=0)
        long = heads * own * lengths >= longest
        for s in np.flatnonzero(long):
            yield self._path(int(ends[s] - own[s]), int(lengths[s]), int(own[s]), int(start[s]), dtype)
        parts = np.where(long, 0, -(-count // RUN))
        owner = np.repeat(np.arange(len(count)), parts)
        part = np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts)
        # Each run is of the nodes asks[first:last], as even as whole tokens allow.
        begin = (ends - count)[owner]
        first = begin + count[owner] * part // parts[owner]
        last = begin + count[owner] * (part + 1) // parts[owner]
        keys, start = tree.positions[asks[last - 1]] + 1, start[owner]
        for runs in _alike(last - first, keys, heads):
            yield self._block(asks, first[runs], last[runs], start[runs], heads, groups, dtype)

    def _path(self, node: int, length: int, own: int, start: int, dtype: torch.dtype) -> Path:
        """A sequence whose own nodes begin with `node`."""
        parts, keys = -(-own // LONG_RUN), self._tree.node[start : start + length]
        most = -(-own // parts)
        ends = [0, *(np.flatnonzero(np.diff(keys) != 1) + 1).tolist(), length]
        return Path(
            keys=self._index(keys),
            spans=tuple((int(keys[first]), first, last) for first, last in pairwise(ends)),
            cuts=tuple(node + own * part // parts for part in range(parts + 1)),
            bias=self._bias(np.arange(1, most) > np.arange(most)[:, None], dtype),
        )

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
        padding = np.flatnonzero(np.broadcast_to(~real[:, None], (len(real), heads, m)))
        return Block(
            runs=len(real),
            asked=self._index(asked),
            answered=self._index(answered),
            padding=self._index(padding) if len(padding) else None,
            keys=self._index(keys),
            bias=self._bias(ahead, dtype)[:, None],
            seen=seen,
        )

    def _bias(self, ahead: NDArray[np.bool_], dtype: torch.dtype) -> Tensor:
        return torch.zeros(ahead.shape, dtype=dtype).masked_fill_(torch.from_numpy(ahead), -torch.inf).to(self._device)

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


class _Attention(torch.autograd.Function):
    """(U, H, D) queries, (U, G, D) keys and (U, G, E) values -> (U, H, E); zeros where nobody asks."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, pieces: list[Block | Path]) -> Tensor:
        q, out = q * scale, v.new_zeros(len(q) + 1, q.shape[1], v.shape[2])
        wants = any(ctx.needs_input_grad)
        kept = [piece.answer(q, k, v, out, wants) for piece in pieces]
        if wants:
            ctx.save_for_backward(q, k, v)
            ctx.scale, ctx.pieces, ctx.kept = scale, pieces, kept
        return out[:-1]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        grad = grad.contiguous()
        into = q.new_zeros(len(q) + 1, *q.shape[1:]), torch.zeros_like(k), torch.zeros_like(v)
        for piece, kept in zip(ctx.pieces, ctx.kept, strict=True):
            piece.back(q, k, v, kept, grad, into)
        return into[0][:-1].mul_(ctx.scale), *into[1:], None, None


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float, blocks: list[Any]) -> Tensor:
    """The same through PyTorch's scaled dot product attention; blocks alone."""
    heads, groups = q.shape[1], k.shape[1]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
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
    return out[:-1].view(-1, heads, v.shape[1])
