"""Keys and values of many contexts, one slot each, and attention of new tokens to them.

`SlotCache` stores. `Pass` lays out what one pass reads: every distinct prefix is one token to compute (`PrefixTree`), and
attention runs over *segments*, runs of neighbouring slots that one batched product serves. Slots that are not read, and
the padding of short contexts beside long ones, are paid for only where a further product would cost more.

What this file leaves out: everything but attention, and where to put contexts (engines).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turnwise.errors import TurnwiseError
from turnwise.tree import PrefixTree

Ints = NDArray[np.int64]
"""int64 array."""

Bools = NDArray[np.bool_]
"""bool array."""

QUERIES = 128
"""New tokens of one context that attend in one product: those behind them are not read, and scores stay small."""

_FIRST = 16
"""Tokens that every slot has room for at first."""

_PRODUCT = {"cpu": 4e5, "cuda": 3e7}
"""What one more segment costs in an attention layer, in bytes of cache that could be read in that time."""


@dataclass(frozen=True, slots=True)
class Feed:
    """What one pass reads: R contexts in distinct slots.

    Attributes:
        slots: (R,) slot of each context.
        read: (R,) ids of each context that its slot holds already.
        counts: (R,) ids of each to read now, at least 1.
        ids: (T,) those ids, one context after the other.
        wanted: (R,) rows whose next-token logits are asked for; the others are prefilled in chunks.
    """

    slots: Ints
    read: Ints
    counts: Ints
    ids: Ints
    wanted: Bools


class SlotCache:
    """Keys and values of every layer.

    Args:
        config: Text configuration of a Hugging Face model.
        slots: Contexts held at once.
        limit: Longest context, in tokens.
        like: A tensor of the dtype and on the device that keys and values have.

    Attributes:
        slots: Contexts held at once.
        heads: Key heads G.
        dim: Entries D of a head.
        layers: Per layer (2, slots · G, capacity, D): keys, then values.
        cells: Per layer the same memory as two matrices (slots · G · capacity, D).
        capacity: Tokens that every slot has room for.
        bytes_per_token: Of memory, for one token of one slot.
    """

    def __init__(self, config: Any, slots: int, limit: int, like: Tensor) -> None:
        self.slots = slots
        self.heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        self.dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self.capacity = 0
        self._limit = limit
        self._longest = 0
        empty = like.new_empty(2, slots * self.heads, 0, self.dim).detach()
        self.layers = [empty for _ in range(int(config.num_hidden_layers))]
        self.cells = [layer.view(2, -1, self.dim).unbind(0) for layer in self.layers]
        self.bytes_per_token = 2 * len(self.layers) * self.heads * self.dim * like.element_size()
        self._scratch = [like.new_empty(0).detach() for _ in range(2)]

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.layers[0].device

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens in every slot, doubling, and keep what was stored.

        Raises:
            TurnwiseError: there is less memory than that, with the number of slots that would fit.
        """
        self._longest = max(self._longest, length)
        if length <= self.capacity:
            return
        capacity = min(max(length, 2 * self.capacity, _FIRST), max(length, self._limit))
        if not self._fits(capacity):
            capacity = length
            if not self._fits(capacity):
                self._complain(length)
        with torch.inference_mode(False):
            for layer, before in enumerate(self.layers):
                after = before.new_zeros(2, before.shape[1], capacity, self.dim)
                after[:, :, : self.capacity] = before
                self.layers[layer] = after
        self.capacity = capacity
        self.cells = [layer.view(2, -1, self.dim).unbind(0) for layer in self.layers]

    def _fits(self, capacity: int) -> bool:
        free = free_memory(self.device)
        # Layer by layer: what the old layers held is free again, but for one of them.
        held = (1 - 1 / len(self.layers)) * self.capacity
        return free is None or (capacity - held) * self.slots * self.bytes_per_token <= free

    def _complain(self, length: int) -> None:
        free = (free_memory(self.device) or 0) + self.slots * self.capacity * self.bytes_per_token
        each = length * self.bytes_per_token
        raise TurnwiseError(
            f"{self.slots} slots of {length} tokens need {self.slots * each / 1e9:.3g} GB of cache and {free / 1e9:.3g} GB "
            f"are free: {int(free // each)} slots of that length would fit. Take fewer slots, or shorter contexts"
        )

    def copy(self, source: int, target: int, length: int) -> None:
        """Give slot `target` the first `length` tokens of slot `source`."""
        heads = self.heads
        for layer in self.layers:
            layer[:, target * heads : (target + 1) * heads, :length] = layer[
                :, source * heads : (source + 1) * heads, :length
            ]

    def clear(self) -> None:
        """Forget everything: numbers that are not finite would survive behind a mask, as zero times infinity."""
        for layer in self.layers:
            layer[:, :, : self._longest].zero_()
        self._longest = 0

    def scratch(self, which: int, entries: int) -> Tensor:
        """(entries,), room that a later call with the same `which` uses again."""
        if self._scratch[which].numel() < entries:
            with torch.inference_mode(False):
                self._scratch[which] = self.layers[0].new_empty(max(entries, 2 * self._scratch[which].numel()))
        return self._scratch[which][:entries]


class Segment:
    """Neighbouring slots a, a + 1, … whose new tokens attend in one product, n slots with up to N tokens each.

    Args:
        cache: Where keys and values are.
        heads: Query heads H.
        slots: (r,) increasing slots that are read; idle ones may lie between them.
        read: (r,) tokens of each that lie before its new ones.
        counts: (r,) new tokens of each.
        start: Index of the first new token; those of the rows follow each other.
    """

    def __init__(self, cache: SlotCache, heads: int, slots: Ints, read: Ints, counts: Ints, start: int) -> None:
        first, n, width = int(slots[0]), int(slots[-1] - slots[0]) + 1, int(counts.max())
        groups, dim = cache.heads, cache.dim
        length, least = int((read + counts).max()), int(read.min()) + 1
        tokens = int(counts.sum())
        self.tokens = slice(start, start + tokens)
        self._grid = (n, width, groups, heads // groups, dim)
        rows, own = n * groups, width * heads // groups
        self._shape = (rows, own, dim)
        size = (rows, own, length)
        self._scores = cache.scratch(0, rows * own * length).view(size)
        self._weights = cache.scratch(1, rows * own * length).view(size)
        # Where the tokens lie in the (n · N) grid, unless they fill it.
        self._cells: Tensor | None = None
        if tokens != n * width:
            within = np.arange(tokens) - np.repeat(np.cumsum(counts) - counts, counts)
            self._cells = torch.from_numpy(np.repeat(slots - first, counts) * width + within).to(cache.device)
        # One token in each slot: the queries lie as they are needed.
        self._plain = self._cells is None and width == 1
        self._mask: Tensor | None = None
        if least < length:
            seen = np.full((n, 1), length, np.int64)
            seen[slots - first, 0] = read
            ahead = np.arange(least, length) > (seen + np.arange(width))[:, :, None]
            self._mask = torch.from_numpy(ahead[:, None]).to(cache.device)  # (n, 1, N, L - least)
            self._masked = self._scores.view(n, heads, width, length)[..., least:]
        reach = slice(first * groups, first * groups + rows)
        self._views = [layer[:, reach, :length].unbind(0) for layer in cache.layers]

    def between(self, q: Tensor, out: Tensor) -> None:
        """Read scaled queries from `q` (U, H, D) and write what they find to `out` (U, H, D)."""
        self._q, self._out = q[self.tokens], out[self.tokens]
        if self._plain:
            self._q, self._out = self._q.view(self._shape), self._out.view(self._shape)

    def attend(self, layer: int) -> None:
        """Attend to the layer's keys and values."""
        keys, values = self._views[layer]
        laid = self._q if self._plain else self._lay(self._q)
        torch.bmm(laid, keys.transpose(1, 2), out=self._scores)
        if self._mask is not None:
            self._masked.masked_fill_(self._mask, -torch.inf)
        torch.softmax(self._scores, -1, out=self._weights)
        if self._plain:
            torch.bmm(self._weights, values, out=self._out)
        else:
            self._out.copy_(self._pick(torch.bmm(self._weights, values)))

    def _lay(self, q: Tensor) -> Tensor:
        """(t, H, D) -> (n · G, H/G · N, D): query heads that share a key head are further rows of one product."""
        n, width, groups, shared, dim = self._grid
        if self._cells is not None:
            q = q.new_zeros(n * width, *q.shape[1:]).index_copy_(0, self._cells, q)
        return q.view(n, width, groups, shared, dim).permute(0, 2, 3, 1, 4).reshape(self._shape)

    def _pick(self, found: Tensor) -> Tensor:
        """What `_lay` does, backwards."""
        n, width, groups, shared, dim = self._grid
        found = (
            found.view(n, groups, shared, width, dim).permute(0, 3, 1, 2, 4).reshape(n * width, groups * shared, dim)
        )
        return found if self._cells is None else found[self._cells]


class Pass:
    """One pass: U tokens to compute, which attend to the slots that they extend first.

    Contexts that share a beginning and are read from there on compute it once. Tokens are ordered
    by what attention does with them, not as the feed has them.

    Args:
        cache: Where keys and values are kept.
        feed: What is read.
        heads: Query heads H.

    Attributes:
        ids: (U,) token ids.
        positions: (U,) their places in their contexts.
        last: (W,) index of the last token of each wanted row, in the order of the feed.
        calls: Attention layers that have run under it, as a plan of `turnwise.models.attention`.
    """

    def __init__(self, cache: SlotCache, feed: Feed, heads: int) -> None:
        self.calls = 0
        self._cache = cache
        device = cache.device
        slots, read, counts = feed.slots, feed.read, feed.counts
        cache.reserve(int((read + counts).max()))
        if len(feed.ids) == len(slots):
            order = np.argsort(slots, kind="stable")
            slots, positions = slots[order], read[order]
            ids, source = feed.ids[order], None
            last = np.empty_like(order)
            last[order] = np.arange(len(order))
            where, at, counts = slots, positions, counts[order]
            self._segments = _segments(cache, heads, slots, positions, counts)
        else:
            shared, computes = _shared(feed)
            own, before = counts - shared, read + shared
            order = np.lexsort((slots, own > 1))
            order = order[own[order] > 0]
            starts = np.zeros_like(own)
            starts[order] = np.cumsum(own[order]) - own[order]
            within = np.arange(len(feed.ids)) - np.repeat(np.cumsum(counts) - counts, counts)
            where, at = np.repeat(slots, counts), np.repeat(read, counts) + within
            # Where each packed token that computes itself is computed, and from that where all others are.
            index = np.repeat(starts - shared, counts) + within
            source = index[computes]
            mine = (computes == np.arange(len(computes))).nonzero()[0]
            ids, positions = np.empty_like(mine), np.empty_like(mine)
            ids[index[mine]], positions[index[mine]] = feed.ids[mine], at[mine]
            last = source[np.cumsum(counts) - 1]
            self._segments = _segments(cache, heads, slots[order], before[order], own[order])
        self.ids = torch.from_numpy(ids).to(device)
        self.positions = torch.from_numpy(positions).to(device)
        self.last = torch.from_numpy(last[feed.wanted]).to(device)
        cells = (where[:, None] * cache.heads + np.arange(cache.heads)) * cache.capacity + at[:, None]
        self._cells = torch.from_numpy(cells.ravel()).to(device)
        self._source = None if source is None else torch.from_numpy(source).to(device)

    def store(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Write the (U, G, D) keys and values of the computed tokens to every slot that reads them."""
        for stored, new in zip(self._cache.cells[layer], (k, v), strict=True):
            rows = new if self._source is None else new.index_select(0, self._source)
            stored.index_copy_(0, self._cells, rows.reshape(-1, self._cache.dim))

    def between(self, q: Tensor, out: Tensor) -> None:
        """Let `read` take scaled queries from `q` (U, H, D) and write to `out` (U, H, D)."""
        for segment in self._segments:
            segment.between(q, out)

    def read(self, layer: int) -> None:
        """Attend up to each query's own position; see `between`."""
        for segment in self._segments:
            segment.attend(layer)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See `turnwise.models.attention.Plan`."""
        self.calls += 1
        self.store(layer, k[0].transpose(0, 1), v[0].transpose(0, 1))
        queries = (q[0].transpose(0, 1) * scale).contiguous()
        out = torch.empty_like(queries)
        self.between(queries, out)
        self.read(layer)
        return out[None]


def _shared(feed: Feed) -> tuple[Ints, Ints]:
    """(R,) how many first tokens of each row another row computes, and (T,) the packed token that computes each."""
    shared, computes = np.zeros_like(feed.counts), np.arange(len(feed.ids))
    fresh = feed.read == 0
    if np.count_nonzero(fresh) > 1:
        packed = np.repeat(fresh, feed.counts).nonzero()[0]
        tree = PrefixTree.of(feed.ids[packed], feed.counts[fresh])
        shared[fresh] = tree.shared
        computes[packed] = packed[tree.token][tree.node]
    return shared, computes


def _segments(cache: SlotCache, heads: int, slots: Ints, read: Ints, counts: Ints) -> list[Segment]:
    """The segments of rows whose tokens follow each other: those with one token by slot, then the others by slot."""
    each = 2 * cache.heads * cache.dim * cache.layers[0].element_size()
    further = _PRODUCT.get(cache.device.type, _PRODUCT["cuda"]) / each
    lengths = read + counts
    if counts[-1] == 1 and (slots[-1] - slots[0] + 1) * lengths.max() - lengths.sum() <= further:
        return [Segment(cache, heads, slots, read, counts, 0)]
    blocks = -(-counts // QUERIES)
    if len(blocks) < blocks.sum():
        within = np.arange(blocks.sum()) - np.repeat(np.cumsum(blocks) - blocks, blocks)
        slots, ends = np.repeat(slots, blocks), np.repeat(lengths, blocks)
        read = np.repeat(read, blocks) + QUERIES * within
        counts = np.minimum(ends - read, QUERIES)
        lengths = read + counts
    cuts = _cuts(slots, lengths, counts, heads * (cache.dim + 12) / each, further)
    starts = np.cumsum(counts) - counts
    return [
        Segment(cache, heads, slots[a:b], read[a:b], counts[a:b], int(starts[a]))
        for a, b in pairwise([*cuts, len(slots)])
    ]


def _cuts(slots: Ints, lengths: Ints, counts: Ints, query: float, further: float) -> list[int]:
    """Index of the first row of each segment: a row joins the one before it where padding costs less than a product.

    Costs are in tokens of cache that could be read: `query` for the scores of one query and key, `further` for one more
    product.
    """
    cuts: list[int] = []
    first = last = longest = widest = -1
    cost = 0.0
    for index, (slot, length, count) in enumerate(zip(slots.tolist(), lengths.tolist(), counts.tolist(), strict=True)):
        alone = length * (1 + query * count)
        if slot > last >= 0 and (count == 1) == (widest == 1):
            together = (slot - first + 1) * max(longest, length) * (1 + query * max(widest, count))
            if together <= cost + alone + further:
                last, longest, widest, cost = slot, max(longest, length), max(widest, count), together
                continue
        cuts.append(index)
        first, last, longest, widest, cost = slot, slot, length, count, alone
    return cuts


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be had on a device, what a container may use considered; None where the system does not say."""
    if device.type == "cuda":
        return (
            int(torch.cuda.mem_get_info(device)[0])
            + torch.cuda.memory_reserved(device)
            - torch.cuda.memory_allocated(device)
        )
    found: list[int] = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except OSError:
        pass
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            ours = int((group / limit).read_text()) - int((group / used).read_text())
            # Files that were read count as used until somebody needs the memory.
            stat = (group / limit).with_name("memory.stat").read_text().split()
            found.append(ours + int(stat[stat.index("inactive_file") + 1]))
        except (OSError, ValueError):
            continue
    return max(0, min(found)) if found else None
