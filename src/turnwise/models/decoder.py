"""Next-token logits of many growing contexts at once, with and without a cache.

A decoder is what an engine drives: it is told which contexts grew and returns the logits after each. `CachedDecoder`
keeps keys and values in one slot per session and reads only what is new; `RecomputeDecoder` reads every context again
through the model's own forward, for architectures whose attention we do not compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turnwise.batch import Batch
from turnwise.episode import Ids
from turnwise.models.attention import Cached, Grid
from turnwise.models.policy import Policy

Ints = NDArray[np.int64]
"""int64 array."""


@dataclass(frozen=True, slots=True)
class Row:
    """One context to advance: all its ids, and how many of them slot `slot` has already read."""

    slot: int
    context: Ids
    read: int


class Decoder(Protocol):
    """Advances contexts; rows of one call are distinct slots and each has at least one unread id."""

    def advance(self, rows: Sequence[Row]) -> Tensor:
        """(R, V) logits after each row's last id."""
        ...


class CachedDecoder:
    """Keys and values stay in a slot across the turns of an episode.

    Args:
        policy: A policy whose `packed` is true.
        slots: Number of contexts held at once.
    """

    def __init__(self, policy: Policy, slots: int) -> None:
        self.policy = policy
        self.slots = slots
        config = policy.model.config.get_text_config()
        self._heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        self._dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self._layers = int(config.num_hidden_layers)
        self._capacity = 0
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    @torch.no_grad()
    def advance(self, rows: Sequence[Row]) -> Tensor:
        """See `Decoder.advance`. Prefill and decoding mix freely: only attention pads."""
        counts = np.array([len(row.context) - row.read for row in rows])
        lengths = np.array([len(row.context) for row in rows])
        slots = np.array([row.slot for row in rows])
        self._reserve(int(lengths.max()))
        starts = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(starts, counts)
        position = within + np.repeat([row.read for row in rows], counts)
        ids = np.concatenate([row.context[row.read :] for row in rows]).astype(np.int64)
        one = counts == 1
        plan = Cached(
            keys=self._keys,
            values=self._values,
            slot=self._tensor(np.repeat(slots, counts)),
            position=self._tensor(position),
            grids=[
                self._grid(part, slots, counts, lengths, starts, position)
                for part in (one.nonzero()[0], (~one).nonzero()[0])
                if len(part)
            ],
        )
        return self.policy.run(self._tensor(ids), plan.position, plan, self._tensor(starts + counts - 1))[0]

    def _grid(self, part: Ints, slots: Ints, counts: Ints, lengths: Ints, starts: Ints, position: Ints) -> Grid:
        """The grid of the sessions `part`."""
        n_new, mine = counts[part], slots[part]
        width, span = int(n_new.max()), int(mine.max()) + 1
        # Copying the caches of the active slots costs more than attending for a few idle ones, unless most are idle.
        in_place = 2 * len(part) >= span
        within = np.arange(n_new.sum()) - np.repeat(np.cumsum(n_new) - n_new, n_new)
        owner = np.repeat(mine if in_place else np.arange(len(part)), n_new)
        tokens = np.repeat(starts[part], n_new) + within
        seen = np.zeros((span if in_place else len(part), width), dtype=np.int64)
        seen[owner, within] = position[tokens]
        return Grid(
            tokens=self._tensor(tokens),
            cells=self._tensor(owner * width + within),
            seen=self._tensor(seen),
            slots=None if in_place else self._tensor(mine),
            length=int(lengths[part].max()),
        )

    def _tensor(self, array: Ints) -> Tensor:
        return torch.from_numpy(array).to(self.policy.device)

    def _reserve(self, length: int) -> None:
        """Grow every slot to at least `length` positions, doubling, and keep what was stored."""
        if length <= self._capacity:
            return
        capacity = min(max(length, 2 * self._capacity, 128), max(length, self.policy.context_limit))
        weight = next(self.policy.model.parameters())
        grown = [
            [weight.new_zeros(self.slots, self._heads, capacity, self._dim) for _ in range(self._layers)]
            for _ in range(2)
        ]
        for old, new in zip((self._keys, self._values), grown, strict=True):
            for before, after in zip(old, new, strict=False):
                after[:, :, : self._capacity] = before
        self._keys, self._values = grown
        self._capacity = capacity


class RecomputeDecoder:
    """Reads every context from its beginning at every call. Right for any causal architecture, and slow."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @torch.no_grad()
    def advance(self, rows: Sequence[Row]) -> Tensor:
        """See `Decoder.advance`."""
        lengths = torch.tensor([len(row.context) for row in rows])
        cu = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        tokens = torch.from_numpy(np.concatenate([row.context for row in rows]).astype(np.int64))
        nothing = torch.zeros(len(tokens), dtype=torch.bool)
        batch = Batch(tokens=tokens, cu_seqlens=cu, action=nothing, turn=torch.zeros_like(tokens), final=nothing)
        batch = batch.to(self.policy.device)
        return self.policy.forward(batch, batch.cu_seqlens[1:] - 1)[0]
