"""Shared prefixes: what several sequences begin with is computed once.

The rollouts of a group share their prompt, the two sides of a preference pair theirs, and observations of a policy without
memory much of their wording. A causal model says the same about equal prefixes, so a batch costs one token of work for each
*distinct* prefix. A node is such a prefix. Nothing is approximated: gradients of shared nodes add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
"""int64 array."""


@dataclass(frozen=True)
class PrefixTree:
    """The distinct prefixes of S sequences with T tokens together: U nodes, one for each.

    Attributes:
        node: (T,) node that stands for each token of the sequences, one sequence after the other.
        token: (U,) index of the first packed token of each node; so ``tokens[token]`` are the nodes' ids.
        positions: (U,) place of each node in its sequences.
        order: (S,) the sequences in lexicographic order. The own nodes of the first come first, then those of the next.
        shared: (S,) how many leading tokens of each sequence an earlier one in `order` computes. The others are its own;
            their nodes are consecutive.
    """

    node: Ints
    token: Ints
    positions: Ints
    order: Ints
    shared: Ints

    def __len__(self) -> int:
        """Number of nodes U."""
        return len(self.token)

    @classmethod
    def of(
        cls, tokens: NDArray[Any], lengths: Sequence[int] | Ints, alone: NDArray[np.bool_] | None = None
    ) -> PrefixTree:
        """The tree of packed sequences.

        Args:
            tokens: (T,) ids, not negative, one sequence after the other.
            lengths: (S,) tokens of each sequence.
            alone: (S,) sequences that share nothing: equal ids do not mean an equal context there.
        """
        lengths = np.asarray(lengths, np.int64)
        n, longest = len(lengths), int(lengths.max(initial=0))
        starts = np.cumsum(lengths) - lengths
        inside = np.arange(longest) < lengths[:, None]  # (S, L)
        grid = np.zeros((n, longest), ">u4")
        grid[inside] = np.asarray(tokens) + 1
        # Big-endian rows compare as bytes the way their ids compare in order.
        rows = [row.tobytes() for row in grid]
        order = np.array(sorted(range(n), key=rows.__getitem__), np.int64)
        ordered = grid[order]
        differs = ordered[1:] != ordered[:-1]
        shared = np.zeros(n, np.int64)
        if n > 1:
            common = np.where(differs.any(1), differs.argmax(1), longest)
            common = np.minimum(common, lengths[order[1:]])
            if alone is not None:
                common[alone[order[1:]] | alone[order[:-1]]] = 0
            shared[order[1:]] = common
        # Forward-fill down the sorted rows: where a row shares a column, its node is that of the row above.
        new = inside[order] & (np.arange(longest) >= shared[order][:, None])
        numbers = (np.cumsum(new.ravel()) - 1).reshape(new.shape)
        last_new = np.maximum.accumulate(np.where(new, np.arange(n)[:, None], 0), axis=0)
        node_of = np.empty((n, longest), np.int64)
        node_of[order] = np.take_along_axis(numbers, last_new, axis=0)
        columns = np.broadcast_to(np.arange(longest), new.shape)
        return cls(
            node=node_of[inside],
            token=(starts[order][:, None] + columns)[new],
            positions=columns[new],
            order=order,
            shared=shared,
        )
