"""A decoder without a network that checks whatever it is fed, and requests for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.models import zoo
from turnwise.engines import LocalEngine, Request
from turnwise.models import Feed, Policy, Sampling, build_model
from turnwise.tree import PrefixTree

POLICY = Policy(build_model(zoo.TOKENIZER, seed=4), zoo.TOKENIZER)
STOP = POLICY.renderer.stop


class Strict:
    """Logits depend on the last two ids. Every pass is remembered, and every id that a slot is said to hold is checked.

    Attributes:
        passes: Slot, ids read before and ids read of each row, pass by pass.
        feeds: The same as they came.
        held: What each slot has read.
        fails: Passes that raise, counted from 0.
    """

    bytes_per_token = 0

    def __init__(self, engine: LocalEngine, fails: frozenset[int] = frozenset()) -> None:
        self.engine = engine
        self.passes: list[list[tuple[int, int, int]]] = []
        self.feeds: list[Feed] = []
        self.held: dict[int, list[int]] = {}
        self.fails = fails
        generator = torch.Generator().manual_seed(1)
        self.tables = torch.randn(2, zoo.V, zoo.V, generator=generator)

    def advance(self, feed: Feed) -> torch.Tensor:
        assert len(set(feed.slots.tolist())) == len(feed.slots), "two contexts share a slot"
        assert (feed.counts >= 1).all()
        self.passes.append(list(zip(feed.slots.tolist(), feed.read.tolist(), feed.counts.tolist(), strict=True)))
        self.feeds.append(feed)
        if len(self.passes) - 1 in self.fails:
            self.held.clear()
            raise RuntimeError("a pass that fails")
        slots, last = self.engine._slots, []
        parts = np.split(feed.ids, np.cumsum(feed.counts)[:-1])
        for slot, read, new, wanted in zip(feed.slots.tolist(), feed.read.tolist(), parts, feed.wanted, strict=True):
            held = self.held.get(slot, [])
            assert len(held) >= read, "the slot has not read that much"
            self.held[slot] = context = held[:read] + new.tolist()
            assert context == slots.tokens[slot, : len(context)].tolist(), "the slot holds another context"
            assert wanted == (len(context) == slots.length[slot])
            if wanted:
                last.append((context[-1], context[-2] if len(context) > 1 else 0))
        a, b = np.array(last).T if last else np.zeros((2, 0), np.int64)
        return self.tables[0, a] + self.tables[1, b]

    def copy(self, source: int, target: int, length: int) -> None:
        assert source != target
        assert len(self.held[source]) >= length
        self.held[target] = self.held[source][:length]

    def refresh(self) -> None:
        self.held.clear()


def distinct(feed: Feed) -> int:
    """Ids that a pass has to read, those of rows that sample left out: what is read from the beginning counts once."""
    long = feed.counts > 1
    begun = long & (feed.read == 0)
    tree = PrefixTree.of(feed.ids[np.repeat(begun, feed.counts)], feed.counts[begun])
    return len(tree) + int(feed.counts[long & ~begun].sum())


def strict(*, fails: frozenset[int] = frozenset(), **options: Any) -> tuple[LocalEngine, Strict]:
    """A local engine and the strict decoder that it drives."""
    engine = LocalEngine(POLICY, **options)
    engine._decoder = decoder = Strict(engine, fails)
    return engine, decoder


def ids(seed: int, n: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """`n` random ids."""
    return np.random.default_rng(seed).integers(5, zoo.V, n).astype(np.int32)


def ask(context: Any, session: int, key: int = 0, **sampling: Any) -> Request:
    """A request that no stop id ends."""
    return Request(np.asarray(context, np.int32), session, key, Sampling(**({"max_tokens": 4} | sampling)), frozenset())
