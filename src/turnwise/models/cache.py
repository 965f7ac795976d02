"""Keys and values of many contexts, one slot each, and attention of new tokens to them.

`SlotCache` stores; `Cached` is the plan of one pass. Rows that read one token and rows that read many share
a pass: linear layers see every new token once, and only attention tells rows apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
"""int64 array."""


class SlotCache:
    """Keys and values of every layer, (slots, G, capacity, D) each.

    Args:
        config: Text configuration of a Hugging Face model.
        slots: Contexts held at once.
        limit: Longest context, in tokens.
        like: A tensor of the dtype and on the device that keys and values have.

    Attributes:
        slots: Contexts held at once.
        keys: Per layer, written in place.
        values: Likewise.
        bytes_per_token: Of memory, for one token of one slot.
    """

    def __init__(self, config: Any, slots: int, limit: int, like: Tensor) -> None:
        self.slots = slots
        self._limit = limit
        heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self._capacity = 0
        self.keys = [like.new_empty(slots, heads, 0, dim) for _ in range(int(config.num_hidden_layers))]
        self.values = list(self.keys)
        self.bytes_per_token = 2 * len(self.keys) * heads * dim * like.element_size()

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens in every slot, doubling, and keep what was stored."""
        if length <= self._capacity:
            return
        capacity = min(max(length, 2 * self._capacity, 128), max(length, self._limit))
        for stored in (self.keys, self.values):
            for layer, before in enumerate(stored):
                after = before.new_zeros(*before.shape[:2], capacity, before.shape[3])
                after[:, :, : self._capacity] = before
                stored[layer] = after
        self._capacity = capacity

    def copy(self, source: int, target: int, length: int) -> None:
        """Give slot `target` the first `length` tokens of slot `source`."""
        for stored in (*self.keys, *self.values):
            stored[target, :, :length] = stored[source, :, :length]


@dataclass
class Grid:
    """New tokens of R rows laid out as (R, N), so that one batched product serves them all.

    Attributes:
        tokens: (t,) packed index of each new token of these rows.
        cells: (t,) its index in the flattened (R · N) grid.
        seen: (R, N) position of each grid entry; padding entries repeat 0.
        slots: (R,) slot of each row; None when row r *is* slot r, so that no cache is copied.
        length: Number of cache positions that any of the rows needs.
    """

    tokens: Tensor
    cells: Tensor
    seen: Tensor
    slots: Tensor | None
    length: int

    @classmethod
    def of(cls, part: Ints, slots: Ints, read: Ints, counts: Ints, device: torch.device) -> Grid:
        """The grid of the rows `part` of a pass in which row r reads `counts[r]` tokens behind `read[r]`."""
        starts = np.cumsum(counts) - counts
        n_new, mine = counts[part], slots[part]
        width, span = int(n_new.max()), int(mine.max()) + 1
        # Copying the caches of the active slots costs more than attending for a few idle ones, unless most are idle.
        in_place = 2 * len(part) >= span
        within = np.arange(n_new.sum()) - np.repeat(np.cumsum(n_new) - n_new, n_new)
        owner = np.repeat(mine if in_place else np.arange(len(part)), n_new)
        seen = np.zeros((span if in_place else len(part), width), dtype=np.int64)
        seen[owner, within] = np.repeat(read[part], n_new) + within
        tokens = np.repeat(starts[part], n_new) + within
        return cls(
            tokens=torch.from_numpy(tokens).to(device),
            cells=torch.from_numpy(owner * width + within).to(device),
            seen=torch.from_numpy(seen).to(device),
            slots=None if in_place else torch.from_numpy(mine).to(device),
            length=int((read + counts)[part].max()),
        )


@dataclass
class Cached:
    """New tokens of rows attend to each row's slot, which they extend first.

    Attributes:
        cache: Where keys and values are kept.
        slot: (T,) slot where each new token's key and value are stored.
        position: (T,) their place in that slot.
        grids: Rows by number of new tokens: those that sample have one each and would be padded to the longest
            observation that another row is reading.
        calls: Attention layers that have run under the plan.
    """

    cache: SlotCache
    slot: Tensor
    position: Tensor
    grids: list[Grid]
    calls: int = 0

    @classmethod
    def of(cls, cache: SlotCache, slots: Ints, read: Ints, counts: Ints, device: torch.device) -> Cached:
        """The plan of a pass in which the slot of row r, `slots[r]`, reads `counts[r]` tokens behind `read[r]`."""
        cache.reserve(int((read + counts).max()))
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        one = counts == 1
        return cls(
            cache=cache,
            slot=torch.from_numpy(np.repeat(slots, counts)).to(device),
            position=torch.from_numpy(within + np.repeat(read, counts)).to(device),
            grids=[
                Grid.of(part, slots, read, counts, device)
                for part in (one.nonzero()[0], (~one).nonzero()[0])
                if len(part)
            ],
        )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Store the new keys and values, then attend to everything up to each query's own position."""
        self.calls += 1
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        for stored, new in ((keys, k), (values, v)):
            stored[self.slot, :, self.position] = new[0].transpose(0, 1).to(stored.dtype)
        queries = q[0].transpose(0, 1) * scale  # (T, H, D)
        out = torch.empty_like(queries)
        for grid in self.grids:
            out[grid.tokens] = _attend(grid, keys, values, queries[grid.tokens])
        return out[None]


def _attend(grid: Grid, keys: Tensor, values: Tensor, queries: Tensor) -> Tensor:
    """(t, H, D) scaled queries of one grid -> (t, H, D)."""
    n, width = grid.seen.shape
    groups, (heads, dim) = keys.shape[1], queries.shape[1:]
    laid = queries.new_zeros(n * width, heads, dim).index_copy(0, grid.cells, queries)
    # Query heads that share a key head become further rows of one product: (R, G, H/G · N, D).
    laid = laid.view(n, width, groups, -1, dim).permute(0, 2, 3, 1, 4).reshape(n, groups, -1, dim)
    keys, values = (
        stored[:n, :, : grid.length] if grid.slots is None else stored[grid.slots, :, : grid.length]
        for stored in (keys, values)
    )
    ahead = torch.arange(grid.length, device=queries.device) > grid.seen[:, :, None]  # (R, N, L)
    scores = (laid @ keys.transpose(-1, -2)).view(n, groups, -1, width, grid.length)
    scores = scores.masked_fill_(ahead[:, None, None], -torch.inf).softmax(-1, dtype=torch.float32)
    out = scores.to(queries.dtype).flatten(2, 3) @ values
    out = out.view(n, groups, -1, width, dim).permute(0, 3, 1, 2, 4).reshape(n * width, heads, dim)
    return out[grid.cells]
