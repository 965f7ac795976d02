"""One attention function for packed training and for cached decoding, plugged into Hugging Face models.

transformers calls the function registered as ``"turnwise"`` with queries, keys and values of shape (1, H, T, D): all
new tokens of all sequences on one axis. A *plan*, passed through the model as a keyword, says which
tokens belong together. Linear layers therefore never see padding; only attention does, for its rows.

What this file leaves out: sliding windows, logit soft caps, attention sinks and ALiBi. A model that asks for one of
them is refused here or caught by `turnwise.models.packing.runs_packed`, and runs through its own forward instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "turnwise"
"""What transformers knows our attention by."""


class UnsupportedAttentionError(Exception):
    """The model asks for an attention variant that the packed function does not compute."""


class Plan(Protocol):
    """Which new tokens attend to what."""

    calls: int

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """(1, H, T, D) queries, (1, G, T, D) keys and values -> (1, T, H, D)."""
        ...


@dataclass
class Packed:
    """Causal attention within each of S packed sequences; nothing is kept.

    Attributes:
        rows: (T,) index of each packed token in the (S · L) padded grid.
        n: Number of sequences S.
        longest: Length L of the longest sequence.
        calls: Attention layers that have run under the plan.
    """

    rows: Tensor
    n: int
    longest: int
    calls: int = 0

    @classmethod
    def of(cls, cu_seqlens: Tensor, positions: Tensor, sequence: Tensor) -> Packed:
        """The plan of a packed batch."""
        longest = int(cu_seqlens.diff().max())
        return cls(rows=sequence * longest + positions, n=len(cu_seqlens) - 1, longest=longest)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Pad to (S, H, L, D), attend causally, and pack again. Padding sits behind every real token."""
        self.calls += 1
        k, v = (_match_heads(self._pad(x), q.shape[1]) for x in (k, v))
        out = F.scaled_dot_product_attention(self._pad(q), k, v, is_causal=True, scale=scale)
        return out.transpose(1, 2).reshape(self.n * self.longest, *out.shape[1::2])[self.rows][None]

    def _pad(self, x: Tensor) -> Tensor:
        heads, dim = x.shape[1], x.shape[3]
        grid = x.new_zeros(self.n * self.longest, heads, dim)
        return (
            grid.index_copy(0, self.rows, x[0].transpose(0, 1)).view(self.n, self.longest, heads, dim).transpose(1, 2)
        )


@dataclass
class Grid:
    """New tokens of R sessions laid out as (R, N), so that one batched product serves them all.

    Attributes:
        tokens: (t,) packed index of each new token of these sessions.
        cells: (t,) its index in the flattened (R · N) grid.
        seen: (R, N) position of each grid entry; padding entries repeat 0.
        slots: (R,) cache row of each session; None when row r *is* slot r, so that no cache is copied.
        length: Number of cache positions that any of the sessions needs.
    """

    tokens: Tensor
    cells: Tensor
    seen: Tensor
    slots: Tensor | None
    length: int


@dataclass
class Cached:
    """New tokens of sessions attend to each session's cache, which they extend first.

    Attributes:
        keys: Per layer (slots, G, capacity, D), written in place.
        values: Likewise.
        slot: (T,) row of the cache where each new token's key and value are stored.
        position: (T,) their place in that row.
        grids: Sessions by number of new tokens: those that sample have one each and would be padded to the longest
            observation that another session is reading.
        calls: Attention layers that have run under the plan.
    """

    keys: list[Tensor]
    values: list[Tensor]
    slot: Tensor
    position: Tensor
    grids: list[Grid]
    calls: int = 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Store the new keys and values, then attend to everything up to each query's own position."""
        self.calls += 1
        for cache, new in ((self.keys[layer], k), (self.values[layer], v)):
            cache[self.slot, :, self.position] = new[0].transpose(0, 1).to(cache.dtype)
        queries = q[0].transpose(0, 1) * scale  # (T, H, D)
        out = torch.empty_like(queries)
        for grid in self.grids:
            out[grid.tokens] = self._attend(grid, layer, queries[grid.tokens])
        return out[None]

    def _attend(self, grid: Grid, layer: int, queries: Tensor) -> Tensor:
        """(t, H, D) scaled queries of one grid -> (t, H, D)."""
        n, width = grid.seen.shape
        heads, dim = queries.shape[1:]
        laid = queries.new_zeros(n * width, heads, dim).index_copy(0, grid.cells, queries)
        laid = laid.view(n, width, heads, dim).transpose(1, 2)
        keys, values = (
            _match_heads(
                cache[:n, :, : grid.length] if grid.slots is None else cache[grid.slots, :, : grid.length], heads
            )
            for cache in (self.keys[layer], self.values[layer])
        )
        ahead = torch.arange(grid.length, device=queries.device) > grid.seen[:, :, None]  # (R, N, L)
        scores = (laid @ keys.transpose(-1, -2)).masked_fill_(ahead[:, None], -torch.inf)
        out = scores.softmax(-1, dtype=torch.float32).to(queries.dtype) @ values
        return out.transpose(1, 2).reshape(n * width, heads, dim)[grid.cells]


def _match_heads(x: Tensor, heads: int) -> Tensor:
    """Repeat the (…, G, L, D) heads of grouped-query attention to `heads`."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


_REFUSED = ("sliding_window", "softcap", "s_aux", "position_bias", "head_mask")


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    plan: Plan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function transformers calls in every attention layer. Returns (1, T, H, D) and no weights."""
    asked = [name for name in _REFUSED if kwargs.get(name) is not None]
    if asked:
        raise UnsupportedAttentionError(f"{type(module).__name__} asks for {', '.join(asked)}")
    if plan is None:
        raise UnsupportedAttentionError(
            f"{type(module).__name__} got no packing plan: its model does not pass keywords on to attention, or was called "
            "by itself; call the Policy around it, or model.set_attn_implementation('sdpa') first"
        )
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return plan.attend(module.layer_idx, query, key, value, scale), None  # pyright: ignore[reportArgumentType]


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


def register() -> None:
    """Make ``attn_implementation="turnwise"`` known to transformers."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _no_mask)
