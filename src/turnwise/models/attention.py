"""One attention function for packed training and for cached decoding (`turnwise.models.cache`), plugged into Hugging Face models.

transformers calls the function registered as ``"turnwise"`` with queries, keys and values of shape (1, H, T, D): all
new tokens of all sequences on one axis. A *plan*, passed through the model as a keyword, says which
tokens belong together. Linear layers therefore never see padding; only attention does, for its rows.

What this file leaves out: sliding windows, logit soft caps, attention sinks and ALiBi. A model that asks for one of
them is refused here or caught by `turnwise.models.packing.runs_packed`, and runs through its own forward instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

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
