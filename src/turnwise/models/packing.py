"""What every model that reads packed batches shares: the check that our attention equals its own, and the way without it.

A model runs packed when its forward through `turnwise.models.attention` equals its own forward, sequence by sequence.
Otherwise its sequences are padded to a rectangle and go through its own forward, slower and just as right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from turnwise.batch import Batch
from turnwise.models import attention
from turnwise.models.attention import Packed, UnsupportedAttentionError
from turnwise.models.storage import first_line

log = logging.getLogger(__name__)

Own = Callable[[Tensor], Tensor]
"""(n,) ids of one sequence -> (n, K), what the model says at each of them through its own forward."""

Ours = Callable[[Tensor, Tensor, Packed], Tensor]
"""(T,) ids, (T,) positions and their plan -> (T, K), the same through our attention."""

_LENGTHS = (11, 7)


@dataclass(frozen=True)
class Padded:
    """The sequences of a packed batch as a rectangle, padding behind every real token.

    Attributes:
        ids: (S, L) int64, 0 where there is no token.
        mask: (S, L) int64, 1 where there is one.
        rows: (T,) int64, index of each packed token in the flattened rectangle.
    """

    ids: Tensor
    mask: Tensor
    rows: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Padded:
        """The rectangle of a batch, on its device."""
        n, longest = len(batch), int(batch.lengths.max())
        rows = batch.sequence * longest + batch.positions
        ids = batch.tokens.new_zeros(n * longest).index_copy(0, rows, batch.tokens)
        mask = torch.arange(longest, device=batch.tokens.device) < batch.lengths[:, None]
        return cls(ids.view(n, longest), mask.long(), rows)

    def laid(self, values: Tensor) -> Tensor:
        """(S, L, K), the (T, K) values of the packed tokens in the rectangle; zeros where there is no token."""
        grid = values.new_zeros(self.ids.numel(), values.shape[-1])
        return grid.index_copy(0, self.rows, values).view(*self.ids.shape, values.shape[-1])

    def at(self, grid: Tensor, positions: Tensor) -> Tensor:
        """(N, K), the entries of an (S, L, K) tensor at the packed `positions` (N,)."""
        return grid.flatten(0, 1)[self.rows[positions]]


def packed_plan(batch: Batch) -> Packed:
    """Which tokens of a packed batch attend to which."""
    return Packed.of(batch.cu_seqlens, batch.positions, batch.sequence)


def runs_packed(model: Any, own: Own, ours: Ours, *, tolerance: float = 1e-4) -> bool:
    """Whether the model says the same packed through our attention as through its own forward; it is left that way.

    Two random sequences are run both ways. A model with an attention variant that the packed function does not compute
    (ALiBi, sinks, sliding windows, recurrent layers …) differs or refuses, and keeps its own forward.

    Args:
        model: The Hugging Face model, which is told which attention to use.
        own: What it says through its own forward.
        ours: What it says packed.
        tolerance: Largest difference, relative to the largest entry, in float32; 16-bit weights may differ 500 times as much.
    """
    attention.register()
    before = model.config._attn_implementation
    generator = torch.Generator().manual_seed(0)
    config = model.config.get_text_config()
    device = next(model.parameters()).device
    parts = [torch.randint(0, int(config.vocab_size), (n,), generator=generator).to(device) for n in _LENGTHS]
    with torch.no_grad():
        if before == attention.NAME:
            model.set_attn_implementation("sdpa")
        try:
            expected = torch.cat([own(part) for part in parts])
            model.set_attn_implementation(attention.NAME)
            positions = torch.cat([torch.arange(n, device=device) for n in _LENGTHS])
            lengths = torch.tensor(_LENGTHS, device=device)
            cu = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
            sequence = torch.repeat_interleave(torch.arange(len(parts), device=device), lengths)
            plan = Packed.of(cu, positions, sequence)
            said = ours(torch.cat(parts), positions, plan)
        except (UnsupportedAttentionError, ValueError, TypeError, RuntimeError) as error:
            reason = first_line(error)
        else:
            scale = max(1.0, float(expected.abs().max()))
            difference = float((said.float() - expected.float()).abs().max()) / scale
            exact = next(model.parameters()).dtype == torch.float32
            layers = int(config.num_hidden_layers)
            if difference <= (tolerance if exact else 500 * tolerance) and plan.calls == layers:
                return True
            reason = f"its output differs by {difference:.2g}, attention ran {plan.calls} times for {layers} layers"
        own_attention = before if before not in (None, attention.NAME) else "eager"
        model.set_attn_implementation(own_attention)
    log.warning("%s runs padded through its own forward (slower, just as right): %s", type(model).__name__, reason)
    return False
