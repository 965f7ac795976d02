"""What a rollout costs: (1) the parts fit into the whole, so nothing is counted twice; (2) an environment that computes in the
loop is booked in full, one in a thread only where the model waits for it; (3) tokens read and tokens shared are all tokens
that were asked for; (4) what is booked is handed out once, a wrapper's seconds with its source's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.rollout import worlds
from turnwise.envs.text_env import Outcome, TextEnv
from turnwise.episode import Episode
from turnwise.rollout import Collector, Judged, Memory
from turnwise.rollout.spent import spent_by

PAUSE = 0.02


class SlowEnv(TextEnv):
    """Takes its time for every step."""

    def __init__(self) -> None:
        super().__init__("slow", 3)

    def begin(self, seed: int) -> str:
        return "say something"

    def act(self, text: str) -> Outcome:
        time.sleep(PAUSE)
        return Outcome("word", 1.0)


def collector(make: Any = SlowEnv, **options: Any) -> Collector:
    return Collector(make, worlds.policy(), **{"where": "inline", "slots": 2, "on_length": "act", **options})


@pytest.mark.parametrize(("where", "pauses"), [("inline", 6), ("thread", 3)])
def test_parts_of_a_rollout(where: str, pauses: int) -> None:
    source = collector(where=where)
    begun = time.perf_counter()
    source.collect(worlds.tasks(2))
    total = time.perf_counter() - begun
    spent = source.spent()
    source.close()
    # Two episodes of three steps each: one after the other in the loop, side by side in threads.
    assert pauses * PAUSE <= total
    assert spent["time/environment"] + spent["time/engine"] <= total
    if where == "inline":
        assert spent["time/environment"] >= pauses * PAUSE
        assert spent["time/engine"] <= total - pauses * PAUSE


@pytest.mark.parametrize("memory", [Memory(), Memory(turns=0)])
def test_tokens_read_and_shared_are_all_that_was_asked_for(memory: Memory) -> None:
    source = collector(partial(worlds.WalkEnv, longest=6), memory=memory)
    episodes = source.collect(worlds.tasks(4, group_size=2))
    spent = source.spent()
    source.close()
    asked = 0
    for episode in episodes:
        context = 0
        for turn in episode.turns:
            context = len(turn.obs) + (0 if turn.fresh else context)
            asked += context + len(turn.act) - 1
            context += len(turn.act)
    assert spent["tokens/read"] + spent["tokens/shared"] == asked
    assert 0 < spent["tokens/read"] <= asked


def test_what_is_spent_is_handed_out_once() -> None:
    def judge(episodes: Sequence[Episode]) -> list[np.ndarray]:
        time.sleep(PAUSE)
        return [np.ones(len(episode.turns)) for episode in episodes]

    source = Judged(collector(partial(worlds.WalkEnv, longest=6)), {"judge": (1.0, judge)})
    source.rollouts(0, 2)
    spent = spent_by(source, object())
    assert spent["time/reward"] >= PAUSE
    assert spent["time/engine"] > 0
    assert not any(spent_by(source).values())
    source.close()
