"""What every model that reads packed batches shares: the check that our attention equals its own, and the way without it.

A model runs packed when its forward through `turnwise.models.attention` equals its own forward, sequence by sequence. It then
reads every distinct prefix once. Otherwise its sequences are padded to a rectangle and go through its own forward, slower
and just as right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnwise.batch import Batch
from turnwise.models import attention, last_layer
from turnwise.models.attention import Plan, UnsupportedAttentionError
from turnwise.models.storage import first_line, underlying
from turnwise.models.tree_attention import Tree
from turnwise.tree import PrefixTree

log = logging.getLogger(__name__)

Own = Callable[[Tensor], Tensor]
"""(n,) ids of one sequence -> (n, K), what the model says at each of them through its own forward."""

Ours = Callable[[Tensor, Tensor, Plan], Tensor]
"""(U,) ids, (U,) positions and their plan -> (U, K), the same through our attention; (R, K) for R nodes that are read."""

_LENGTHS = (11, 7, 9, 12)
_COMMON = 5
"""The last two sequences of the check begin alike."""


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


@dataclass(frozen=True)
class Prefixes:
    """The distinct prefixes of a packed batch, as far as something is read there.

    Attributes:
        ids: (U,) int64, last token of each prefix.
        source: (U,) int64, place of that token in the batch.
        positions: (U,) int64, its place in its sequence.
        read: (K,) int64, the prefixes at which something is read, in order.
        row: (N,) int64, which of them ends with each token at which something is read.
        plan: Which prefixes attend to which.
    """

    ids: Tensor
    source: Tensor
    positions: Tensor
    read: Tensor
    row: Tensor
    plan: Tree

    @classmethod
    def of(cls, batch: Batch, read: Tensor, *, share: bool = True) -> Prefixes:
        """The prefixes of a batch.

        Args:
            batch: Where they come from.
            read: (N,) places in it where something will be read. What follows the last one of a sequence is left out.
            share: Compute what several sequences begin with once. Off where equal tokens do not mean equal inputs.
        """
        tokens, where = batch.tokens.cpu().numpy(), read.cpu().numpy()
        bounds = batch.cu_seqlens.cpu().numpy()
        sequence = np.searchsorted(bounds, where, "right") - 1
        lengths = np.zeros(len(batch), np.int64)
        np.maximum.at(lengths, sequence, where - bounds[sequence] + 1)
        if not len(where):
            lengths[0] = 1  # a model reads at least one token
        starts = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(bounds[:-1] - starts, lengths)
        tree = PrefixTree.of(tokens[places], lengths, None if share else np.ones(len(batch), np.bool_))
        device = batch.tokens.device
        nodes = np.unique(tree.node[where - bounds[sequence] + starts[sequence]], return_inverse=True)
        source, positions, asked, row = (
            torch.from_numpy(array).to(device) for array in (places[tree.token], tree.positions, *nodes)
        )
        return cls(batch.tokens[source], source, positions, asked, row, Tree(tree, lengths, device, asked))


def runs_packed(model: Any, own: Own, ours: Ours, *, tolerance: float = 1e-4) -> bool:
    """Whether the model says the same packed through our attention as through its own forward; it is left that way.

    Random sequences, two of which begin alike, are run both ways. A model with an attention variant that the packed function
    does not compute (ALiBi, sinks, sliding windows, recurrent layers, one that nobody has heard of) differs or refuses, and
    keeps its own forward.

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
    parts[-1][:_COMMON] = parts[-2][:_COMMON]
    with torch.no_grad():
        if before == attention.NAME:
            model.set_attn_implementation("sdpa")
        try:
            expected = torch.cat([own(part) for part in parts])
            model.set_attn_implementation(attention.NAME)
            tokens = torch.cat(parts)
            tree = PrefixTree.of(tokens.cpu().numpy(), _LENGTHS)
            plan = Tree(tree, np.array(_LENGTHS), device)
            token, positions, node = (
                torch.from_numpy(array).to(device) for array in (tree.token, tree.positions, tree.node)
            )
            said = ours(tokens[token], positions, plan)[node]
        except (UnsupportedAttentionError, ValueError, TypeError, RuntimeError) as error:
            reason = first_line(error)
        else:
            exact = next(model.parameters()).dtype == torch.float32
            tolerance = tolerance if exact else 500 * tolerance
            difference = _difference(said, expected)
            layers = int(config.num_hidden_layers)
            if difference <= tolerance and plan.calls == layers:
                _read_less(model, lambda plan: ours(tokens[token], positions, plan), tree, said, node, tolerance)
                return True
            reason = f"its output differs by {difference:.2g}, attention ran {plan.calls} times for {layers} layers"
        own_attention = before if before not in (None, attention.NAME) else "eager"
        model.set_attn_implementation(own_attention)
    log.warning("%s runs padded through its own forward (slower, just as right): %s", type(model).__name__, reason)
    return False


def _difference(said: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest entry."""
    return float((said.float() - expected.float()).abs().max()) / max(1.0, float(expected.abs().max()))


def _read_less(
    model: Any, ours: Callable[[Plan], Tensor], tree: PrefixTree, said: Tensor, node: Tensor, tolerance: float
) -> None:
    """Let the last layer answer only where something is read, if it then says the same there."""
    trunk = underlying(model).base_model
    if not last_layer.install(trunk):
        return
    read = torch.arange(1, len(tree), 2, device=node.device)
    expected = torch.empty(len(tree), said.shape[1], dtype=said.dtype, device=said.device).index_copy(0, node, said)[
        read
    ]
    try:
        part = ours(Tree(tree, np.array(_LENGTHS), node.device, read))
        same = part.shape == expected.shape and _difference(part, expected) <= tolerance
    except Exception as error:  # a layer that looks alike and is not
        log.debug("%s keeps its last layer: %s", type(model).__name__, first_line(error))
        same = False
    if not same:
        last_layer.uninstall(trunk)
