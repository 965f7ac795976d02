"""The type of an objective, and what all of them share: ratios, units of a batch, metric sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.metrics import Metrics

Objective = Callable[[Outputs, Batch], tuple[Tensor, Metrics]]
"""`(Outputs, Batch)` -> weighted loss of each action token, (A,), to be summed, and metrics as (sum, count)."""

Unit = Literal["token", "turn", "sequence", "episode"]
"""Over what a probability ratio is formed: one token, the action tokens of a turn, of a packed sequence, or of an episode.

Where the context starts afresh, an episode is several sequences: ``seq["unit"]`` then has to keep them together.
"""

_MAX_LOG_RATIO = 20.0
"""exp(20) is far beyond every clip range, and its gradient is still a number in float32."""


def log_ratio(new: Tensor, old: Tensor) -> Tensor:
    """(A,) log of the probability ratio new/old, held within ±20 so that its exponential stays finite."""
    return (new - old).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)


def unit_index(batch: Batch, unit: Unit) -> Tensor:
    """(A,) int64, which turn, sequence or episode (or token) of the batch each action token belongs to, from 0."""
    if unit == "turn":
        return batch.turn_start[batch.action].long().cumsum(0) - 1
    if unit == "sequence":
        return batch.sequence[batch.action]
    if unit == "episode":
        return batch.seq["episode"][batch.sequence[batch.action]]
    if unit == "token":
        return torch.arange(int(batch.action.sum()), device=batch.action.device)
    raise ValueError(f"unknown unit {unit!r}; use 'token', 'turn', 'sequence' or 'episode'")


def sum_in_units(values: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of `values` (A,) over each token's unit and the unit's number of action tokens, both put back on tokens, (A,)."""
    n = int(index.max()) + 1 if len(index) else 0
    sums = values.new_zeros(n).index_add(0, index, values)
    counts = torch.bincount(index, minlength=n).to(values.dtype)
    return sums[index], counts[index]


def unit_of(batch: Batch) -> tuple[Tensor, int]:
    """(A,) int64, which of the units in ``seq["unit"]`` each action token belongs to, counted from 0, and their number."""
    found = cast("tuple[Tensor, Tensor]", torch.unique(batch.seq["unit"], return_inverse=True))  # pyright: ignore[reportUnknownMemberType]
    return found[1][batch.sequence[batch.action]], len(found[0])


def unit_heads(batch: Batch) -> Tensor:
    """(U,) int64, the place among the A action tokens of the first one of each unit of `unit_of`."""
    unit, n = unit_of(batch)
    places = torch.arange(len(unit), device=unit.device)
    return torch.full((n,), len(unit), device=unit.device).scatter_reduce(0, unit, places, "amin")


def floats(values: Sequence[Tensor]) -> list[float]:
    """Scalars as Python floats, in one transfer from the device."""
    return cast("list[float]", torch.stack(list(values)).tolist())  # pyright: ignore[reportUnknownMemberType]


def tally(active: Tensor, values: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Metrics: each (A,) tensor summed over the `active` (A,) bool tokens, with their number."""
    rows = [torch.where(active, value.detach().float(), 0.0).sum() for value in values.values()]
    *sums, count = floats([*rows, active.sum().float()])
    return {name: (total, count) for name, total in zip(values, sums, strict=True)}


def tally_loss(name: str, loss: Tensor, weight: Tensor) -> dict[str, tuple[float, float]]:
    """Metric of a weighted loss: its mean under its own weights."""
    total, count = floats([loss.detach().float().sum(), weight.float().sum()])
    return {name: (total, count)}
