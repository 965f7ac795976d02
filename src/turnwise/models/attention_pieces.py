"""Queries of a prefix tree that are answered together: blocks of runs of short sequences, and long sequences run by run.

A run is some successive nodes of one sequence that ask. Runs of like size form a block: their queries, keys and values are gathered
into rectangles and one batched product serves them all. The runs of a long sequence fill a product each; its nodes are slices, and
nothing but keys and values of a shared beginning is gathered, once for all its runs.

What this file leaves out: which nodes are put together (`turnwise.models.tree_attention`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

KEPT = 512
"""Longest path whose probabilities are kept for the backward pass."""


@dataclass(frozen=True)
class Block:
    """R runs of at most M queries with at most N keys each, for H query heads and G key heads.

    Attributes:
        runs: Number of runs R.
        asked: (R · H · M,) row of each query in the (U · H, D) queries, key heads outermost; padding repeats a real one.
        answered: (R · H · M,) row of the output that it gives; for padding U · H, a row behind the last.
        padding: Places of padding among them; None where there is none.
        keys: (R · G · N,) row of each key in the (U · G, D) keys and values.
        bias: (R or 1, 1, M, N - seen) what is added to the scores: 0, or -inf where a key lies ahead of the query.
        seen: Leading keys that no query lies before.
    """

    runs: int
    asked: Tensor
    answered: Tensor
    padding: Tensor | None
    keys: Tensor
    bias: Tensor
    seen: int

    def answer(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, keep: bool) -> list[Tensor | None]:
        """Write what is said to `out`, and return the probabilities that are kept."""
        p = self._probabilities(self._rows(q, self.asked, k), self._rows(k, self.keys, k))
        said = torch.bmm(p, self._rows(v, self.keys, k))
        out.view(-1, out.shape[2]).index_copy_(0, self.answered, said.flatten(0, 1))
        return [p if keep and p.shape[2] <= KEPT else None]

    def back(
        self, q: Tensor, k: Tensor, v: Tensor, kept: list[Tensor | None], grad: Tensor, into: tuple[Tensor, ...]
    ) -> None:
        """Write the gradient of the queries that asked, and add those of the keys and values."""
        queries, given = self._rows(q, self.asked, k), self._rows(grad, self.asked, k)
        keys, values = self._rows(k, self.keys, k), self._rows(v, self.keys, k)
        if self.padding is not None:
            given.view(-1, v.shape[2]).index_fill_(0, self.padding, 0.0)
        p = self._probabilities(queries, keys) if kept[0] is None else kept[0]
        grad_q, grad_k, grad_v = (x.view(-1, x.shape[2]) for x in into)
        grad_v.index_add_(0, self.keys, torch.bmm(p.transpose(1, 2), given).flatten(0, 1))
        slope = _slope(given, values, p)
        grad_q.index_copy_(0, self.answered, torch.bmm(slope, keys).flatten(0, 1))
        grad_k.index_add_(0, self.keys, torch.bmm(slope.transpose(1, 2), queries).flatten(0, 1))

    def _rows(self, x: Tensor, index: Tensor, k: Tensor) -> Tensor:
        """(U, H or G, D) -> (R · G, H/G · M or N, D)."""
        return x.view(-1, x.shape[2]).index_select(0, index).view(self.runs * k.shape[1], -1, x.shape[2])

    def _probabilities(self, q: Tensor, k: Tensor) -> Tensor:
        """(R · G, H/G · M, D) scaled queries and (R · G, N, D) keys -> (R · G, H/G · M, N)."""
        scores = torch.bmm(q, k.transpose(1, 2))
        scores.view(self.runs, -1, self.bias.shape[-2], k.shape[1])[..., self.seen :].add_(self.bias)
        return torch.softmax(scores, -1, out=scores)


@dataclass(frozen=True)
class Path:
    """A long sequence all of whose own nodes ask; they are consecutive, and its last N keys.

    Attributes:
        keys: (N,) the nodes from the root to its last one.
        spans: A node, its place in the sequence, and the place behind the last of the consecutive nodes that begin with it.
        cuts: The nodes that runs begin with, and the one behind the last run.
        bias: (M, M - 1) what is added to the scores of the largest run's queries with its own keys but the first.
    """

    keys: Tensor
    spans: tuple[tuple[int, int, int], ...]
    cuts: tuple[int, ...]
    bias: Tensor

    def answer(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, keep: bool) -> list[Tensor | None]:
        """See `Block.answer`."""
        keys, values, kept = self._gathered(k), self._gathered(v), []
        for run, n in self._runs():
            p = self._probabilities(_heads(q[run], k), keys[:, :n], run.stop - run.start)
            _put(out[run], torch.bmm(p, values[:, :n]))
            kept.append(p if keep and n <= KEPT else None)
        return kept

    def back(
        self, q: Tensor, k: Tensor, v: Tensor, kept: list[Tensor | None], grad: Tensor, into: tuple[Tensor, ...]
    ) -> None:
        """See `Block.back`."""
        keys, values, sums = self._gathered(k), self._gathered(v), ()
        # The last run sees all keys, and the others some of them.
        for (run, n), p in zip(reversed(self._runs()), reversed(kept), strict=True):
            queries, given = _heads(q[run], k), _heads(grad[run], k)
            p = self._probabilities(queries, keys[:, :n], run.stop - run.start) if p is None else p
            slope = _slope(given, values[:, :n], p)
            _put(into[0][run], torch.bmm(slope, keys[:, :n]))
            found = torch.bmm(slope.transpose(1, 2), queries), torch.bmm(p.transpose(1, 2), given)
            for total, part in zip(sums, found, strict=False):
                total[:, :n].add_(part)
            sums = sums or found
        for node, first, last in self.spans:
            for x, total in zip(into[1:], sums, strict=True):
                x[node : node + last - first].transpose(0, 1).add_(total[:, first:last])

    def _runs(self) -> list[tuple[slice, int]]:
        """The nodes of each run, and how many keys it sees."""
        before = len(self.keys) - self.cuts[-1]
        return [(slice(first, last), before + last) for first, last in pairwise(self.cuts)]

    def _gathered(self, x: Tensor) -> Tensor:
        """(U, G, D) -> (G, N, D)."""
        if len(self.spans) == 1:
            rows = x[self.cuts[-1] - len(self.keys) : self.cuts[-1]]
        else:
            rows = x.flatten(1).index_select(0, self.keys).view(-1, *x.shape[1:])
        return rows.transpose(0, 1)

    def _probabilities(self, q: Tensor, k: Tensor, m: int) -> Tensor:
        """(G, H/G · M, D) scaled queries of a run and (G, N, D) keys that it sees -> (G, H/G · M, N)."""
        scores, n = torch.bmm(q, k.transpose(1, 2)), k.shape[1]
        scores.view(-1, m, n)[..., n - m + 1 :].add_(self.bias[:m, : m - 1])
        return torch.softmax(scores, -1, out=scores)


def _heads(x: Tensor, k: Tensor) -> Tensor:
    """(M, H, D) -> (G, H/G · M, D), key heads outermost."""
    return x.transpose(0, 1).reshape(k.shape[1], -1, x.shape[2])


def _put(x: Tensor, said: Tensor) -> None:
    """Write (G, H/G · M, D) to (M, H, D)."""
    x = x.transpose(0, 1)
    x.copy_(said.view(x.shape))


def _slope(given: Tensor, values: Tensor, p: Tensor) -> Tensor:
    """The gradient of the scores, of what is `given` for the probabilities' mean of the values."""
    return torch.ops.aten._softmax_backward_data(torch.bmm(given, values.transpose(1, 2)), p, -1, p.dtype)
