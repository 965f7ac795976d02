"""Ten thousand short episodes of every fate: finished, broken, cut, cancelled. Nothing is left behind."""

from __future__ import annotations

import asyncio
from functools import partial

import numpy as np
import torch

from tests.rollout import envs, worlds
from turnwise.engines import LocalEngine
from turnwise.episode import Cut
from turnwise.models import Feed
from turnwise.rollout import Collector, Memory, Task


class Dice:
    """A decoder without a network: logits are looked up by the last id, and every read is checked."""

    bytes_per_token = 0

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        size = len(worlds.TOKENIZER)
        self.table = torch.randn(size, size, generator=torch.Generator().manual_seed(1))
        self.slots: dict[int, list[int]] = {}

    def advance(self, feed: Feed) -> torch.Tensor:
        assert len(set(feed.slots.tolist())) == len(feed.slots), "two contexts share a slot"
        ends = np.cumsum(feed.counts)
        for slot, read, new in zip(feed.slots.tolist(), feed.read.tolist(), np.split(feed.ids, ends[:-1]), strict=True):
            assert len(new) >= 1
            assert len(self.slots.get(slot, [])) >= read, "the slot has not read that much"
            self.slots[slot] = self.slots.get(slot, [])[:read] + new.tolist()
        slots = self.engine._slots
        for slot in feed.slots[feed.wanted].tolist():
            assert self.slots[slot] == slots.tokens[slot, : slots.length[slot]].tolist(), (
                "the slot holds another context"
            )
        return self.table[feed.ids[ends - 1][feed.wanted]]

    def copy(self, source: int, target: int, length: int) -> None:
        self.slots[target] = self.slots[source][:length]

    def refresh(self) -> None:
        self.slots.clear()


def test_ten_thousand_episodes_leave_nothing_behind() -> None:
    engine = LocalEngine(worlds.policy(max_tokens=3), slots=12)
    engine._decoder = Dice(engine)
    collector = Collector(
        partial(envs.WalkEnv, 4, fails=0.05), worlds.policy(max_tokens=3), engine=engine, slots=24, where="inline",
        memory=Memory(limit=40),
    )  # fmt: skip
    cancelled, fates, began = 0, set[Cut | None](), 0
    while began < 10_000:
        tasks = [Task(began + i, str(i), began + i) for i in range(500)]
        began += len(tasks)
        collector.on_length = "act" if began % 1000 else "truncate"
        if (began // 500) % 4 == 0:
            cancelled += asyncio.run(interrupted(collector, tasks))
        else:
            fates |= {episode.cut for episode in collector.collect(tasks)}
            assert not engine.sessions
        assert not engine.in_flight
        assert len(collector._workers) <= 24
        assert not engine.sessions
    assert cancelled
    assert {None, Cut.CRASH, Cut.LENGTH, Cut.TURN_LIMIT, Cut.CONTEXT} <= fates
    collector.close()
    assert not collector._workers


async def interrupted(collector: Collector, tasks: list[Task]) -> int:
    """Collect, and cancel in the middle."""
    finished: list[int] = []
    work = asyncio.ensure_future(collector._collect(tasks, collector.policy.sampling, finished.append))
    while len(finished) < 200:
        await asyncio.sleep(0)
    work.cancel()
    try:
        await work
    except asyncio.CancelledError:
        # The pump notices at its next pass.
        for _ in range(5):
            await asyncio.sleep(0)
        return 1
    return 0
