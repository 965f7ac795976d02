"""Keys and values of many contexts, one slot each.

Contexts that begin alike are known: a slot remembers which *stem* it shares with other slots, and how much of it. Each
has keys and values of its own for all of it, but attention may read them once for all (`turnwise.models.slot_attention`).

What this file leaves out: attention, and where to put contexts (engines).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turnwise.errors import TurnwiseError

Ints = NDArray[np.int64]
"""int64 array."""

_FIRST = 16
"""Tokens that every slot has room for at first."""


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
        stem: (slots,) number of the stem that each slot begins with.
        shared: (slots,) how many tokens of it: as many as two slots of one stem both share, they have in common.
        bytes_per_token: Of memory, for one token of one slot.
    """

    def __init__(self, config: Any, slots: int, limit: int, like: Tensor) -> None:
        self.slots = slots
        self.heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        self.dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self.capacity = 0
        self._limit = limit
        self._longest = 0
        self.stem, self.shared = np.zeros((2, slots), np.int64)
        self._grown = 0
        self._stems: tuple[Any, list[tuple[Tensor, ...] | None]] = ((), [])
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
        for layer in self._by_slot():
            layer[:, target, :, :length] = layer[:, source, :, :length]
        if 2 * self.shared[source] < length:
            self.grow(np.array([source, target]), length)
        else:
            self.stem[target], self.shared[target] = self.stem[source], min(length, int(self.shared[source]))

    def overwrite(self, slots: Ints, read: Ints) -> None:
        """What the slots hold behind their first `read` tokens is about to change."""
        self.shared[slots] = np.minimum(self.shared[slots], read)

    def grow(self, slots: Ints, length: int) -> None:
        """The slots begin with the same `length` tokens."""
        self._grown += 1
        self.stem[slots], self.shared[slots] = self._grown, length

    def stems(self, layer: int, slots: Ints, length: int) -> tuple[Tensor, ...]:
        """(slots · G, length, D) keys and values of the first tokens of some slots, copied once while their stems last."""
        asked = (self.stem[slots].tobytes(), length)
        if self._stems[0] != asked:
            self._stems = (asked, [None] * len(self.layers))
        found = self._stems[1][layer]
        if found is None:
            index = torch.from_numpy(slots).to(self.device)
            found = self._by_slot()[layer][:, :, :, :length].index_select(1, index).flatten(1, 2).unbind(0)
            self._stems[1][layer] = found
        return found

    def _by_slot(self) -> list[Tensor]:
        """Per layer (2, slots, G, capacity, D)."""
        return [layer.unflatten(1, (self.slots, self.heads)) for layer in self.layers]

    def clear(self) -> None:
        """Forget everything: numbers that are not finite would survive behind a mask, as zero times infinity."""
        for layer in self.layers:
            layer[:, :, : self._longest].zero_()
        self._longest = 0
        self.shared[:] = 0
        self._stems = ((), [])

    def scratch(self, which: int, entries: int) -> Tensor:
        """(entries,), room that a later call with the same `which` uses again."""
        if self._scratch[which].numel() < entries:
            with torch.inference_mode(False):
                self._scratch[which] = self.layers[0].new_empty(max(entries, 2 * self._scratch[which].numel()))
        return self._scratch[which][:entries]


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
