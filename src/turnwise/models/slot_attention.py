"""Attention of new tokens to the slots of a cache.

`Pass` lays out what one pass reads: every distinct prefix is one token to compute (`PrefixTree`), and attention runs over
*segments*, runs of neighbouring slots that one batched product serves. Slots that are not read, and the padding of short
contexts beside long ones, are paid for only where a further product would cost more. What many contexts begin with in common is
read once for all of them while they grow by one token each (as in Hydragen, arXiv 2402.05099).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from turnwise.models.cache import SlotCache
from turnwise.tree import PrefixTree

Ints = NDArray[np.int64]
"""int64 array."""

Bools = NDArray[np.bool_]
"""bool array."""

QUERIES = 128
"""New tokens of one context that attend in one product: those behind them are not read, and scores stay small."""

_PRODUCT = {"cpu": 4e5, "cuda": 3e7}
"""What one more segment costs in an attention layer, in bytes of cache that could be read in that time."""

_STEM = 5
"""How many times that a stem costs."""


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


class Segment:
    """Neighbouring slots a, a + 1, … whose new tokens attend in one product, n slots with up to N tokens each.

    Args:
        cache: Where keys and values are.
        heads: Query heads H.
        slots: (r,) increasing slots that are read; idle ones may lie between them.
        read: (r,) tokens of each that lie before its new ones.
        counts: (r,) new tokens of each.
        start: Index of the first new token; those of the rows follow each other.
        skip: First tokens of each slot that a stem answers for.
    """

    def __init__(
        self, cache: SlotCache, heads: int, slots: Ints, read: Ints, counts: Ints, start: int, skip: int = 0
    ) -> None:
        first, n, width = int(slots[0]), int(slots[-1] - slots[0]) + 1, int(counts.max())
        groups, dim, length = cache.heads, cache.dim, int((read + counts).max())
        tokens = int(counts.sum())
        self.tokens = slice(start, start + tokens)
        self._grid = (n, width, groups, heads // groups, dim)
        rows, queries = n * groups, width * heads // groups
        self._shape = (rows, queries, dim)
        # In 16 bits products of matrices round the scores, and are slow on many processors.
        self._fused = cache.layers[0].dtype != torch.float32
        # Where the tokens lie in the (n · N) grid, unless they fill it.
        self._cells: Tensor | None = None
        if tokens != n * width:
            within = np.arange(tokens) - np.repeat(np.cumsum(counts) - counts, counts)
            self._cells = torch.from_numpy(np.repeat(slots - first, counts) * width + within).to(cache.device)
        # One token in each slot: the queries lie as they are needed.
        self._plain = self._cells is None and width == 1
        self._mask: Tensor | None = None
        least = 0 if self._fused else int(read.min()) + 1
        if least < length:
            seen = np.full((n, 1), length, np.int64)
            seen[slots - first, 0] = read
            ahead = np.arange(least, length) > (seen + np.arange(width))[:, :, None]
            self._mask = torch.from_numpy(ahead[:, None]).to(cache.device)  # (n, 1, N, L - least)
        if self._fused:
            skip = 0
            if self._mask is not None:
                allowed = self._mask.logical_not()[:, :, None].expand(n, 1, heads // groups, width, length)
                self._mask = allowed.reshape(n, 1, queries, length)
        else:
            size = (rows, queries, length)
            self._scores = cache.scratch(0, rows * queries * length).view(size)
            self._weights = cache.scratch(1, rows * queries * length).view(size)
            self._own = self._scores[..., skip:], self._weights[..., skip:]
            self._masked = self._scores.view(n, heads, width, length)[..., least:]
        self._stem = _Stem(cache, self._grid, slots, skip) if skip else None
        reach = slice(first * groups, first * groups + rows)
        self._views = [layer[:, reach, skip:length].unbind(0) for layer in cache.layers]

    def between(self, q: Tensor, out: Tensor) -> None:
        """Read scaled queries from `q` (U, H, D) and write what they find to `out` (U, H, D)."""
        self._q, self._out = q[self.tokens], out[self.tokens]
        if self._plain:
            self._q, self._out = self._q.view(self._shape), self._out.view(self._shape)

    def attend(self, layer: int) -> None:
        """Attend to the layer's keys and values."""
        keys, values = self._views[layer]
        laid = self._q if self._plain else self._lay(self._q)
        if self._fused:
            laid, keys, values = (x.unflatten(0, (self._grid[0], -1)) for x in (laid, keys, values))
            found = F.scaled_dot_product_attention(laid, keys, values, attn_mask=self._mask, scale=1.0).flatten(0, 1)
            self._out.copy_(found if self._plain else self._pick(found))
            return
        if self._stem is None:
            torch.bmm(laid, keys.transpose(1, 2), out=self._scores)
        else:
            self._own[0].copy_(torch.bmm(laid, keys.transpose(1, 2)))
            self._stem.score(layer, laid, self._scores)
        if self._mask is not None:
            self._masked.masked_fill_(self._mask, -torch.inf)
        torch.softmax(self._scores, -1, out=self._weights)
        if self._plain and self._stem is None:
            torch.bmm(self._weights, values, out=self._out)
            return
        found = torch.bmm(self._own[1], values)
        if self._stem is not None:
            self._stem.add(layer, self._weights, found)
        self._out.copy_(found if self._plain else self._pick(found))

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


class _Stem:
    """The first tokens of a segment's contexts, read once for all contexts that have them in common.

    Members of a stem are padded to the largest number M of them. Slots of the segment that are idle get what the first
    member has; nobody looks at it.
    """

    def __init__(self, cache: SlotCache, grid: tuple[int, ...], slots: Ints, length: int) -> None:
        n, _, groups, shared, dim = grid
        stems, first, which, sizes = np.unique(
            cache.stem[slots], return_index=True, return_inverse=True, return_counts=True
        )
        most = int(sizes.max())
        self._cache, self._leaders, self._length = cache, slots[first], length
        self._sizes = (len(stems), most, groups, shared)
        self._flat = (n, groups * shared * dim)
        rows = slots - slots[0]
        order = which.argsort(kind="stable")
        place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        members = np.full((len(stems), most), rows[0])
        members[which[order], place] = rows[order]
        back = np.zeros(n, np.int64)
        back[rows[order]] = which[order] * most + place
        self._regular = members.size == n and bool((members.ravel() == np.arange(n)).all())
        self._members, self._back = (torch.from_numpy(x).to(cache.device) for x in (members.ravel(), back))

    def score(self, layer: int, laid: Tensor, scores: Tensor) -> None:
        """Queries (n · G, H/G, D) against the stems, into the first columns of the scores (n · G, H/G, L)."""
        keys = self._cache.stems(layer, self._leaders, self._length)[0]
        found = self._apart(torch.bmm(self._together(laid), keys.transpose(1, 2)), self._length)
        scores[..., : self._length].copy_(found.view(*scores.shape[:2], self._length))

    def add(self, layer: int, weights: Tensor, out: Tensor) -> None:
        """Weights (n · G, H/G, L) times the values of the stems, added to `out` (n · G, H/G, D)."""
        values = self._cache.stems(layer, self._leaders, self._length)[1]
        found = torch.bmm(self._together(weights[..., : self._length]), values)
        out.add_(self._apart(found, out.shape[-1]).view(out.shape))

    def _together(self, x: Tensor) -> Tensor:
        """(n · G, H/G, K) of each slot -> (stems · G, M · H/G, K)."""
        stems, most, groups, shared = self._sizes
        x = x.view(self._flat[0], groups, shared, x.shape[-1])
        if not self._regular:
            x = x.index_select(0, self._members)
        x = x.view(stems, most, groups, shared, x.shape[-1]).transpose(1, 2)
        return x.reshape(stems * groups, most * shared, x.shape[-1])

    def _apart(self, x: Tensor, width: int) -> Tensor:
        """(stems · G, M · H/G, K) -> (n, G · H/G · K)."""
        stems, most, groups, shared = self._sizes
        x = x.view(stems, groups, most, shared, width).transpose(1, 2).reshape(stems * most, groups * shared * width)
        return x if self._regular else x.index_select(0, self._back)


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
        whole: These are all tokens, in their order.
        calls: Attention layers that have run under it, as a plan of `turnwise.models.attention`.
    """

    def __init__(self, cache: SlotCache, feed: Feed, heads: int) -> None:
        self.calls = 0
        self._cache = cache
        device = cache.device
        slots, read, counts = feed.slots, feed.read, feed.counts
        cache.reserve(int((read + counts).max()))
        cache.overwrite(slots, read)
        if len(feed.ids) == len(slots):
            ids, last, source = feed.ids, np.arange(len(slots)), None
            if not (slots[1:] > slots[:-1]).all():
                order = slots.argsort()
                ids, slots, read = ids[order], slots[order], read[order]
                last[order] = last.copy()
            where, at, positions = slots, read, read
            self._segments = _segments(cache, heads, slots, read, counts)
        else:
            shared, computes = _shared(feed, cache)
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
        last = last[feed.wanted]
        self.last = torch.from_numpy(last).to(device)
        self.whole = len(last) == len(ids) and bool((last == np.arange(len(last))).all())
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


def _shared(feed: Feed, cache: SlotCache) -> tuple[Ints, Ints]:
    """(R,) how many first tokens of each row another row computes, and (T,) the packed token that computes each.

    The cache learns which slots will begin alike.
    """
    shared, computes = np.zeros_like(feed.counts), np.arange(len(feed.ids))
    fresh = (feed.read == 0).nonzero()[0]
    if len(fresh) > 1:
        packed = np.repeat(feed.read == 0, feed.counts).nonzero()[0]
        tree = PrefixTree.of(feed.ids[packed], feed.counts[fresh])
        shared[fresh] = tree.shared
        computes[packed] = packed[tree.token][tree.node]
        slots = feed.slots[fresh[tree.order]]
        for first, last, length in _stems(tree.shared[tree.order]):
            cache.grow(slots[first:last], length)
    return shared, computes


def _stems(common: Ints) -> list[tuple[int, int, int]]:
    """The stems of sorted contexts that save most when each is read once: runs of contexts with what they begin with.

    Args:
        common: (n,) tokens that each context has in common with the one before it.

    Returns:
        For each stem its first context, that behind its last one, and its length.
    """
    n = len(common)
    saved, begins, lengths = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    for end in range(1, n + 1):
        # What a run that ends here has in common, for every beginning of it; one context alone saves nothing.
        least = np.append(np.minimum.accumulate(common[end - 1 : 0 : -1])[::-1], 0)
        total = saved[:end] + least * np.arange(end - 1, -1, -1)
        begin = int(total.argmax())
        saved[end], begins[end], lengths[end] = total[begin], begin, least[begin]
    stems: list[tuple[int, int, int]] = []
    while n:
        begin = int(begins[n])
        if lengths[n]:
            stems.append((begin, n, int(lengths[n])))
        n = begin
    return stems


def _segments(cache: SlotCache, heads: int, slots: Ints, read: Ints, counts: Ints) -> list[Segment]:
    """The segments of rows whose tokens follow each other: those with one token by slot, then the others by slot."""
    each = 2 * cache.heads * cache.dim * cache.layers[0].element_size()
    further = _PRODUCT.get(cache.device.type, _PRODUCT["cuda"]) / each
    lengths = read + counts
    skips = _skips(cache, slots, counts, _STEM * further)
    if counts[-1] == 1:
        # The usual case: all rows grow by one token, and one product for all costs less than one more would.
        reach, skip = int(slots[-1] - slots[0]) + 1, int(skips.min())
        if reach * (lengths.max() - skip) - (lengths - skips).sum() <= further:
            return [Segment(cache, heads, slots, read, counts, 0, skip)]
    blocks = -(-counts // QUERIES)
    if len(blocks) < blocks.sum():
        within = np.arange(blocks.sum()) - np.repeat(np.cumsum(blocks) - blocks, blocks)
        slots, ends, skips = np.repeat(slots, blocks), np.repeat(lengths, blocks), np.repeat(skips, blocks)
        read = np.repeat(read, blocks) + QUERIES * within
        counts = np.minimum(ends - read, QUERIES)
        lengths = read + counts
    cuts = _cuts(slots, lengths, skips, counts, heads * (cache.dim + 12) / each, further)
    starts = np.cumsum(counts) - counts
    found: list[Segment] = []
    for a, b in pairwise([*cuts, len(slots)]):
        skip = int(skips[a:b].min())
        if skip and skip * (b - a - len(np.unique(cache.stem[slots[a:b]]))) <= _STEM * further:
            skip = 0
        found.append(Segment(cache, heads, slots[a:b], read[a:b], counts[a:b], int(starts[a]), skip))
    return found


def _skips(cache: SlotCache, slots: Ints, counts: Ints, least: float) -> Ints:
    """(r,) first tokens of each row with one new token that all rows of its stem share; none where that saves too little."""
    shared = np.where(counts == 1, cache.shared[slots], 0)
    if not shared.any():
        return shared
    # A row that shares nothing is a stem of its own.
    stems, which, sizes = np.unique(
        np.where(shared > 0, cache.stem[slots], -1 - slots), return_inverse=True, return_counts=True
    )
    common = np.full(len(stems), np.iinfo(np.int64).max)
    np.minimum.at(common, which, shared)
    common[sizes == 1] = 0
    return common[which] if (common * (sizes - 1)).sum() > least else np.zeros_like(shared)


def _cuts(slots: Ints, lengths: Ints, skips: Ints, counts: Ints, query: float, further: float) -> list[int]:
    """Index of the first row of each segment: a row joins the one before it where padding costs less than a product.

    Costs are in tokens of cache that could be read: `query` for the scores of one query and key, `further` for one more
    product.
    """
    cuts: list[int] = []
    first = last = longest = widest = least = -1
    cost = 0.0
    rows = zip(slots.tolist(), lengths.tolist(), skips.tolist(), counts.tolist(), strict=True)
    for index, (slot, length, skip, count) in enumerate(rows):
        alone = (length - skip) * (1 + query * count)
        if slot > last >= 0 and (count == 1) == (widest == 1):
            longer = length if length > longest else longest
            wider = count if count > widest else widest
            lesser = skip if skip < least else least
            together = (slot - first + 1) * (longer - lesser) * (1 + query * wider)
            if together <= cost + alone + further:
                last, longest, widest, least, cost = slot, longer, wider, lesser, together
                continue
        cuts.append(index)
        first, last, longest, widest, least, cost = slot, slot, length, count, skip, alone
    return cuts
