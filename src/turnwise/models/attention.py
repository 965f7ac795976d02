"""One attention function for packed training and for cached decoding, plugged into Hugging Face models.

transformers calls the function registered as ``"turnwise"`` with queries, keys and values of shape (1, H, T, D): all
new tokens of all sequences on one axis. A *plan*, passed through the model as a keyword, says which
tokens belong together. Linear layers therefore never see padding; only attention does, for its rows.

What this file leaves out: sliding windows, logit soft caps, attention sinks and ALiBi. A model that asks for one of
them is refused here or caught by `turnwise.models.policy.verify_packing`, and runs through its own forward instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "turnwise"


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
        out = _causal(self._pad(q), *_match_heads(self._pad(k), self._pad(v), q.shape[1]), scale)
        return out.transpose(1, 2).reshape(self.n * self.longest, *out.shape[1::2])[self.rows][None]

    def _pad(self, x: Tensor) -> Tensor:
        heads, dim = x.shape[1], x.shape[3]
        grid = x.new_zeros(self.n * self.longest, heads, dim)
        return grid.index_copy(0, self.rows, x[0].transpose(0, 1)).view(self.n, self.longest, heads, dim).transpose(1, 2)


@dataclass
class Cached:
    """New tokens of R sessions attend to each session's cache, which they extend first.

    Attributes:
        keys, values: per layer (slots, G, capacity, D), written in place.
        slots: (R,) cache row of each session.
        rows: (T,) index of each new token in the (R · N) padded grid.
        cells: (T,) flat index slot · capacity + position where each new token's key is stored.
        seen: (R, N) position of each grid entry; padding entries repeat 0.
        length: Number of cache positions that any session needs.
    """

    keys: list[Tensor]
    values: list[Tensor]
    slots: Tensor
    rows: Tensor
    cells: Tensor
    seen: Tensor
    length: int
    calls: int = 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Store the new keys and values, then attend to everything up to each query's own position."""
        self.calls += 1
        for cache, new in ((self.keys[layer], k), (self.values[layer], v)):
            slots, heads, capacity, dim = cache.shape
            flat = cache.view(slots, heads, capacity, dim).transpose(1, 2)  # (slots, capacity, G, D)
            flat[self.cells // capacity, self.cells % capacity] = new[0].transpose(0, 1).to(cache.dtype)
        n_rows, width = self.seen.shape
        heads, dim = q.shape[1], q.shape[3]
        grid = q.new_zeros(n_rows * width, heads, dim).index_copy(0, self.rows, q[0].transpose(0, 1))
        queries = grid.view(n_rows, width, heads, dim).transpose(1, 2)
        keys = self.keys[layer][:, :, : self.length].index_select(0, self.slots).to(q.dtype)
        values = self.values[layer][:, :, : self.length].index_select(0, self.slots).to(q.dtype)
        keys, values = _match_heads(keys, values, heads)
        visible = torch.arange(self.length, device=q.device) <= self.seen[:, :, None]  # (R, N, L)
        scores = (queries @ keys.transpose(-1, -2)) * scale
        scores = scores.masked_fill(~visible[:, None], -torch.inf)
        out = scores.float().softmax(-1).to(q.dtype) @ values
        return out.transpose(1, 2).reshape(n_rows * width, heads, dim)[self.rows][None]


def _match_heads(k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    repeat = heads // k.shape[1]
    if repeat == 1:
        return k, v
    return k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)


def _causal(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)


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
        raise UnsupportedAttentionError(f"{type(module).__name__} does not pass the packing plan on to its attention")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return plan.attend(module.layer_idx, query, key, value, scale), None  # pyright: ignore[reportArgumentType]


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


def register() -> None:
    """Make ``attn_implementation="turnwise"`` known to transformers."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _no_mask)
