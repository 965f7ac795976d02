"""Next-token logits of many growing contexts at once, with and without a cache.

A decoder is what an engine drives: it is told which contexts grew and returns the logits after each. `LeanDecoder`
(`turnwise.models.lean`) and `CachedDecoder` keep keys and values in one slot per context and read only what is new, the
first by a forward of our own, the second through the Hugging Face modules. `RecomputeDecoder` reads every context again through
the model's own forward, for architectures whose attention we do not compute. `make_decoder` chooses.
"""

from __future__ import annotations

import copy
import logging
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turnwise.batch import Batch
from turnwise.errors import TurnwiseError
from turnwise.models.cache import SlotCache
from turnwise.models.lean import LeanDecoder, NotLeanError
from turnwise.models.policy import Policy
from turnwise.models.slot_attention import Feed, Pass
from turnwise.models.storage import underlying

log = logging.getLogger(__name__)

_PIECES = (7, 3, 1)


class Decoder(Protocol):
    """Reads contexts into slots and says what may follow.

    Attributes:
        bytes_per_token: Of cache, for one token of one slot; 0 where nothing is kept.
    """

    bytes_per_token: int

    def advance(self, feed: Feed) -> Tensor:
        """(W, V) float32 logits after the last id of each wanted row, in order."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Give slot `target` the first `length` ids that slot `source` has read."""
        ...

    def refresh(self) -> None:
        """The weights have changed: what slots hold is void."""
        ...


class CachedDecoder:
    """The Hugging Face modules, with keys and values that stay in a slot across the turns of an episode.

    Args:
        policy: A policy whose `packed` is true.
        slots: Contexts held at once.
        dtype: Torch dtype name of a copy of the weights to decode with; the policy's own weights by default.

    Attributes:
        policy: Whose modules run: the policy, or a copy in `dtype`.
        cache: What the slots hold.
        bytes_per_token: See `Decoder`.
    """

    def __init__(self, policy: Policy, slots: int, *, dtype: str = "") -> None:
        self._origin = policy
        self.policy = _in_dtype(policy, dtype)
        like = next(self.policy.model.parameters())
        config = self.policy.model.config.get_text_config()
        self.cache = SlotCache(config, slots, policy.context_limit, like)
        self._heads = int(config.num_attention_heads)
        self.bytes_per_token = self.cache.bytes_per_token

    @torch.no_grad()
    def advance(self, feed: Feed) -> Tensor:
        """See `Decoder.advance`. Prefill and decoding mix freely: only attention pads."""
        plan = Pass(self.cache, feed, self._heads)
        return self.policy.run(plan.ids, plan.positions, plan, plan.last)[0].float()

    def copy(self, source: int, target: int, length: int) -> None:
        """See `Decoder.copy`."""
        self.cache.copy(source, target, length)

    def refresh(self) -> None:
        """See `Decoder.refresh`."""
        _copy_weights(self._origin, self.policy)
        self.cache.clear()


class RecomputeDecoder:
    """Reads every context from its beginning at every pass. Right for any causal architecture, and slow.

    Args:
        policy: Any policy.
        slots: Contexts held at once.
        dtype: See `CachedDecoder`.

    Attributes:
        policy: Whose modules run: the policy, or a copy in `dtype`.
        bytes_per_token: See `Decoder`.
    """

    bytes_per_token = 0

    def __init__(self, policy: Policy, slots: int, *, dtype: str = "") -> None:
        self._origin = policy
        self.policy = _in_dtype(policy, dtype)
        self._held = [np.zeros(0, np.int64) for _ in range(slots)]

    @torch.no_grad()
    def advance(self, feed: Feed) -> Tensor:
        """See `Decoder.advance`."""
        new = np.split(feed.ids, np.cumsum(feed.counts)[:-1])
        for slot, read, ids in zip(feed.slots.tolist(), feed.read.tolist(), new, strict=True):
            self._held[slot] = np.concatenate([self._held[slot][:read], ids])
        contexts = [self._held[slot] for slot in feed.slots[feed.wanted].tolist()]
        if not contexts:
            return torch.empty(0, 0, device=self.policy.device)
        lengths = torch.tensor([len(context) for context in contexts])
        cu = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        tokens = torch.from_numpy(np.concatenate(contexts))
        nothing = torch.zeros(len(tokens), dtype=torch.bool)
        batch = Batch(tokens=tokens, cu_seqlens=cu, action=nothing, turn=torch.zeros_like(tokens), final=nothing)
        batch = batch.to(self.policy.device)
        return self.policy.forward(batch, batch.cu_seqlens[1:] - 1)[0].float()

    def copy(self, source: int, target: int, length: int) -> None:
        """See `Decoder.copy`."""
        self._held[target] = self._held[source][:length]

    def refresh(self) -> None:
        """See `Decoder.refresh`. The ids that a slot has read are kept: weights do not change them."""
        _copy_weights(self._origin, self.policy)


def make_decoder(policy: Policy, slots: int, *, dtype: str = "", tolerance: float = 1e-4) -> Decoder:
    """The leanest decoder that says of a few random ids, read in pieces, what the policy's own forward says.

    Args:
        policy: Whose weights decode.
        slots: Contexts held at once.
        dtype: Torch dtype name of a copy of the weights to decode with; the policy's own weights by default.
        tolerance: Largest difference, relative to the largest logit, in float32; 16 bits may differ 500 times as much.

    Raises:
        TurnwiseError: weights of 4 or 8 bits, which cannot be copied in another dtype.
    """
    name, own = type(underlying(policy.model)).__name__, next(policy.model.parameters()).dtype
    if {own, getattr(torch, dtype) if dtype else own} != {torch.float32}:
        tolerance *= 500
    for kind in (LeanDecoder, CachedDecoder) if policy.packed else ():
        try:
            decoder = kind(policy, slots, dtype=dtype)
            difference = _difference(policy, decoder)
        except NotLeanError as reason:
            log.debug("%s has no lean decoder: %s", name, reason)
            continue
        if difference <= tolerance:
            return decoder
        log.warning("%s decodes more slowly, and as right: in a %s it differs by %.2g", name, kind.__name__, difference)
    return RecomputeDecoder(policy, slots, dtype=dtype)


def _difference(policy: Policy, decoder: Decoder) -> float:
    """Largest difference between a decoder and the policy's own forward, relative to the largest logit.

    One context is read in pieces, and compared at its end.
    """
    words = int(policy.model.config.get_text_config().vocab_size)
    ids = np.random.default_rng(0).integers(0, words, sum(_PIECES))
    expected = RecomputeDecoder(policy, 1).advance(_feed(0, ids))
    read, said = 0, expected
    for count in _PIECES:
        said = decoder.advance(_feed(read, ids[read : read + count]))
        read += count
    return float((said - expected).abs().max()) / max(1.0, float(expected.abs().max()))


def _feed(read: int, ids: NDArray[np.int64]) -> Feed:
    return Feed(np.zeros(1, np.int64), np.array([read]), np.array([len(ids)]), ids, np.ones(1, np.bool_))


def _in_dtype(policy: Policy, dtype: str) -> Policy:
    """The policy, or a frozen copy of it in another dtype."""
    if not dtype or next(policy.model.parameters()).dtype == getattr(torch, dtype):
        return policy
    if getattr(underlying(policy.model), "is_quantized", False):
        raise TurnwiseError(f"weights of 4 or 8 bits cannot decode in {dtype}; leave the engine's dtype unset")
    copied = copy.copy(policy)
    copied.model = copy.deepcopy(policy.model).requires_grad_(False).to(getattr(torch, dtype))
    return copied


@torch.no_grad()
def _copy_weights(source: Policy, target: Policy) -> None:
    if target is source:
        return
    for into, weights in zip(target.model.parameters(), source.model.parameters(), strict=True):
        into.copy_(weights)
