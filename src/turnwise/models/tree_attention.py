"""Causal attention over a prefix tree, in blocks that stay in the processor's cache.

Every node asks once: its keys are the nodes on its path from the root. Queries come in *runs*, consecutive nodes of one
sequence, and runs of like size form a block: their queries, keys and values are gathered into rectangles and one batched product
serves them all. A run is short, so that few of its scores lie ahead of a query and are masked away; a block is small, so that
its scores are still in the cache when they are exponentiated. The backward pass gathers again and computes the probabilities
again rather than keep them, unless paths are short: memory then grows with the tokens and not with their square.

What this file leaves out: sliding windows, soft caps, sinks and ALiBi, see `turnwise.models.attention`.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        read: See above; None for all nodes. See `turnwise.models.last_layer`.
    """

    def __init__(self, tree: PrefixTree, lengths: Ints, device: torch.device, read: Tensor | None = None) -> None:
        self.calls = 0
        self.read = read
        self._tree, self._device = tree, device
        lengths = np.asarray(lengths, np.int64)
        own = lengths - tree.shared
        parts = -(-own // RUN)
        owner = np.repeat(np.arange(len(lengths)), parts)
        part = np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts)
        # Each run is answered from position `first` to the one before `last`, as even as whole tokens allow.
        self._first = tree.shared[owner] + own[owner] * part // parts[owner]
        self._last = tree.shared[owner] + own[owner] * (part + 1) // parts[owner]
        self._start = (np.cumsum(lengths) - lengths)[owner]
        self._blocks: dict[tuple[int, int, torch.dtype], list[Block]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """(1, H, U, D) queries, (1, G, U, D) keys and (1, G, U, E) values -> (1, U, H, E)."""
        self.calls += 1
        if torch.is_autocast_enabled(q.device.type):
            q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
        heads, groups = q.shape[1], k.shape[1]
        key = (heads, groups, q.dtype)
        if key not in self._blocks:
            self._blocks[key] = [self._block(runs, heads, groups, q.dtype) for runs in self._grouped(heads)]
        flat = [x[0].transpose(0, 1).flatten(0, 1) for x in (q, k, v)]
        apply: Any = _Attention.apply if _by_products(q) else _fused
        return apply(*flat, scale, groups, self._blocks[key]).view(1, -1, heads, v.shape[-1])

    def _grouped(self, heads: int) -> Iterator[Ints]:
        """Runs of like size, as many as a block should have."""
        queries, keys = self._last - self._first, self._last
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

    def _block(self, runs: Ints, heads: int, groups: int, dtype: torch.dtype) -> Block:
        first, last = self._first[runs, None], self._last[runs, None]
        start, node = self._start[runs, None], self._tree.node
        m, n = int((last - first).max()), int(last.max())
        asks = np.arange(m) < last - first  # (R, M)
        at = np.minimum(first + np.arange(m), last - 1)
        to = np.minimum(np.arange(n), last - 1)  # (R, N)
        # Key heads outermost, so that the query heads that share one become further rows of its product: (R, G, H/G, M).
        head = np.arange(heads).reshape(groups, -1, 1)
        asked = (node[start + at] * heads)[:, None, None] + head
        answered = np.where(asks[:, None, None], asked, len(self._tree) * heads)
        keys = (node[start + to] * groups)[:, None] + np.arange(groups)[:, None]
        seen = min(int(first.min()) + 1, n - 1)
        ahead = np.arange(seen, n) > at[:, :, None]
        if (ahead == ahead[:1]).all():
            ahead = ahead[:1]
        bias = torch.zeros(ahead.shape, dtype=dtype).masked_fill_(torch.from_numpy(ahead), -torch.inf)
        return Block(
            runs=len(runs),
            asked=self._index(asked),
            answered=self._index(answered),
            padding=None
            if asks.all()
            else self._index(np.flatnonzero(np.broadcast_to(~asks[:, None], (len(runs), heads, m)))),
            keys=self._index(keys),
            bias=bias[:, None].to(self._device),
            seen=seen,
            kept=n <= KEPT,
        )

    def _index(self, array: Ints) -> Tensor:
        return torch.from_numpy(array.ravel()).to(self._device)


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
        ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, scale: float, groups: int, blocks: list[Block]
    ) -> Tensor:
        out = v.new_empty(len(q) + 1, v.shape[1])
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
            ctx.scale, ctx.groups, ctx.blocks, ctx.kept = scale, groups, blocks, kept  # pyright: ignore[reportAttributeAccessIssue]
        return out[:-1]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        grad_q, grad_k, grad_v = q.new_empty(len(q) + 1, q.shape[1]), torch.zeros_like(k), torch.zeros_like(v)
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
        return grad_q[:-1], grad_k, grad_v, None, None, None


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float, groups: int, blocks: list[Block]) -> Tensor:
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
