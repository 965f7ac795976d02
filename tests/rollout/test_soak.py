"""Ten thousand short episodes of every fate: finished, broken, cut, cancelled. Nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import torch

from tests.rollout import envs, worlds
from turnwise.engines import LocalEngine
from turnwise.episode import Cut
from turnwise.models import Row
from turnwise.rollout import Collector, Memory, Task


class Dice:
    """A decoder without a network: logits are looked up by the last id, and every read is checked."""

    def __init__(self) -> None:
        size = len(worlds.TOKENIZER)
        self.table = torch.randn(size, size, generator=torch.Generator().manual_seed(1))
        self.slots: dict[int, list[int]] = {}

    def advance(self, rows: Sequence[Row]) -> torch.Tensor:
        slots = [row.slot for row in rows]
        assert len(set(slots)) == len(slots), "two contexts share a slot"
        for row in rows:
            held = self.slots.get(row.slot, [])
            assert row.read < len(row.context)
            assert held[: row.read] == row.context[: row.read].tolist(), "the slot holds another context"
            self.slots[row.slot] = row.context.tolist()
        return self.table[[int(row.context[-1]) for row in rows]]


def test_ten_thousand_episodes_leave_nothing_behind() -> None:
    engine = LocalEngine(worlds.policy(max_tokens=3), slots=12)
    engine._decoder = Dice()
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
            assert not engine._of_session
            assert all(slot.session is None and not slot.busy for slot in engine._slots)
        assert not engine._active
        assert not engine._waiting
        assert len(collector._workers) <= 24
        assert len(engine._of_session) == 0
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
