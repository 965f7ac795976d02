"""One attention function for training (`turnwise.models.tree_attention`) and for cached decoding (`turnwise.models.cache`), plugged
into Hugging Face models.

transformers calls the function registered as ``"turnwise"`` with queries, keys and values of shape (1, H, T, D): all
new tokens of all sequences on one axis. A *plan*, passed through the model as a keyword, says which
tokens belong together. Linear layers therefore never see padding; only attention does, for its rows.

What this file leaves out: sliding windows, logit soft caps, attention sinks and ALiBi. A model that asks for one of
them is refused here or caught by `turnwise.models.packing.runs_packed`, and runs through its own forward instead.
"""

from __future__ import annotations

from typing import Any, Protocol

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


def _no_mask(*args: Any, local_size: int | None = None, use_vmap: bool = False, **kwargs: Any) -> None:
    """A plan needs no mask. One that hides more than what lies ahead would show on long contexts only, so it is refused here."""
    if local_size is not None:
        raise UnsupportedAttentionError(f"the model sees no more than {local_size} tokens in some of its layers")
    if use_vmap:
        raise UnsupportedAttentionError("the model has a mask of its own")


def register() -> None:
    """Make ``attn_implementation="turnwise"`` known to transformers."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _no_mask)
