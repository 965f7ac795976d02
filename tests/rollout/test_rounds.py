"""Rounds: (1) log-probabilities, work and weights are the same bit for bit however long environments take; (2) without
rounds episodes go on past a slow environment, and are the same episodes; (3) nothing that goes wrong stops a round."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch

from tests.rollout import envs, worlds
from turnwise.algorithms import Reinforce
from turnwise.engines import Completion, Gated, LocalEngine, Request, ScriptedEngine
from turnwise.episode import Cut, Episode
from turnwise.learners import LocalLearner
from turnwise.models import Feed, Policy, Sampling, build_model
from turnwise.rollout import Collector, Memory
from turnwise.rollout.rounds import Rounds


class Diary:
    """A decoder that remembers what each pass was made of: slots, lengths, and what had been read."""

    def __init__(self, engine: LocalEngine) -> None:
        self.inner = engine._decoder
        self.passes: list[list[tuple[int, int, int]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def advance(self, feed: Feed) -> torch.Tensor:
        rows = zip(feed.slots.tolist(), (feed.read + feed.counts).tolist(), feed.read.tolist(), strict=True)
        self.passes.append(list(rows))
        return self.inner.advance(feed)


def play(make: Any, *, n: int = 12, cache: int = 5, **options: Any) -> tuple[Any, Any, Any]:
    """Two collects: everything about their episodes but the log-probabilities, these, and the passes made for them."""
    engine = LocalEngine(worlds.policy(), slots=cache)
    engine._decoder = diary = Diary(engine)
    options = {"where": "thread", "slots": 5, "on_length": "act", **options}
    collector = Collector(make, worlds.policy(), engine=engine, **options)
    try:
        episodes = collector.collect(worlds.tasks(n)) + collector.collect(worlds.tasks(n, key=1))
    finally:
        collector.close()
    assert engine.gate is None
    assert not engine.sessions
    return worlds.summaries(episodes), logps(episodes), diary.passes


def logps(episodes: Sequence[Episode]) -> list[bytes]:
    return [episode.behaviour_logp.tobytes() for episode in episodes]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (partial(envs.RestlessEnv), {}),
        (partial(envs.RestlessEnv), {"where": "process", "n": 6, "slots": 3}),
        (partial(envs.RestlessEnv), {"n": 3, "slots": 8}),
        (partial(envs.RestlessEnv), {"cache": 2}),
        (partial(envs.RestlessEnv), {"memory": Memory(turns=1), "max_turns": 3}),
        (partial(envs.RestlessEnv), {"on_length": "truncate"}),
        (envs.restless_duel, {}),
        (envs.restless_duel, {"cache": 3}),
        (partial(envs.RestlessEnv, raises=2), {}),
        (partial(envs.RestlessEnv, hangs=3), {"deadline": 0.3}),
        (partial(envs.RestlessEnv, hangs=3, raises=1), {"deadline": 0.3, "where": "process", "n": 4, "slots": 2}),
    ],
)
def test_time_leaves_no_trace(make: Any, options: dict[str, Any]) -> None:
    first, *others = [play(make, **options) for _ in range(3 if options.get("where") != "process" else 2)]
    for other in others:
        assert other == first
    fates = {summary[-2] for summary in first[0]}
    assert (Cut.TIMEOUT in fates) == ("deadline" in options)
    assert (Cut.CRASH in fates) == (bool(getattr(make, "keywords", {}).get("raises")))


def test_rounds_are_those_of_environments_that_answer_at_once() -> None:
    assert play(envs.RestlessEnv) == play(envs.RestlessEnv, where="inline")


def test_three_runs_end_with_the_same_weights() -> None:
    def weights() -> dict[str, torch.Tensor]:
        policy = Policy(
            build_model(worlds.TOKENIZER, seed=7, context=512), worlds.TOKENIZER, sampling=Sampling(max_tokens=4)
        )
        learner = LocalLearner(policy, lr=1e-2)
        collector = Collector(envs.RestlessEnv, policy, slots=4, where="thread", on_length="act")
        algorithm = Reinforce(groups=4, group_size=2)
        for iteration in range(2):
            algorithm.improve(learner, algorithm.collect(collector, iteration))
            collector.refresh(learner)
        collector.close()
        assert learner.version >= 2
        return {name: value.clone() for name, value in policy.model.state_dict().items()}

    first, *others = [weights() for _ in range(3)]
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_without_rounds_the_episodes_are_the_same_and_nobody_waits() -> None:
    """The slow seed sleeps at its second action until all others have finished; in rounds they would wait for it."""
    finished: dict[bool, int] = {}
    episodes = {}
    for deterministic in (True, False):
        engine = LocalEngine(worlds.policy(), slots=4)
        engine._decoder = diary = Diary(engine)
        collector = Collector(
            partial(envs.SleepsOnEnv, 2, 0, 0.4), worlds.policy(), engine=engine, slots=2, on_length="act",
            deterministic=deterministic,
        )  # fmt: skip
        episodes[deterministic] = worlds.summaries(collector.collect(worlds.tasks(4)))
        collector.close()
        finished[deterministic] = sum(len(rows) for rows in diary.passes[-4:])
    assert episodes[True] == episodes[False]
    assert finished[False] < finished[True]


def test_sessions_are_numbered_by_task_and_agent_and_never_again() -> None:
    class Noting(LocalEngine):
        async def generate(self, request: Request) -> Completion:
            seen.setdefault(request.key, request.session)
            return await super().generate(request)

    runs = []
    for _ in range(2):
        seen: dict[int, int] = {}
        collector = Collector(
            envs.restless_duel, worlds.policy(), engine=Noting(worlds.policy()), slots=3, on_length="act"
        )
        collector.collect(worlds.tasks(5))
        before = set(seen.values())
        collector.collect(worlds.tasks(5, key=1))
        collector.close()
        assert len(before) == 10
        assert len(set(seen.values())) == 20
        runs.append(seen)
    assert runs[0] == runs[1]


def test_an_engine_without_a_gate_is_left_alone() -> None:
    engine = ScriptedEngine(lambda _: "yes", worlds.policy().renderer)
    assert not isinstance(engine, Gated)
    collector = Collector(envs.RestlessEnv, worlds.policy(), engine=engine, slots=3)
    assert len(collector.collect(worlds.tasks(5))) == 5
    collector.close()
    assert not hasattr(engine, "gate")


def test_a_round_begins_when_the_last_slot_asks_or_leaves() -> None:
    async def scenario() -> None:
        rounds = Rounds(2)
        waiting = asyncio.ensure_future(rounds.wait())
        with rounds.asking():
            await asyncio.sleep(0)
            assert not waiting.done()
            with rounds.asking():
                await waiting
            again = asyncio.ensure_future(rounds.wait())
            await asyncio.sleep(0)
            assert not again.done()
            rounds.leave()
            await again

    asyncio.run(scenario())
