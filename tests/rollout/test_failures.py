"""Environments that misbehave: (1) the run goes on and no other episode notices, (2) what failed is named by environment,
seed and turn, (3) threads and processes do not pile up, (4) after Ctrl-C or an engine error the collector is as new."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from functools import partial
from typing import Any

import pytest

from tests.rollout import envs, worlds
from turnwise.engines import Completion, EngineError, LocalEngine, Request
from turnwise.episode import Cut, Episode
from turnwise.errors import TurnwiseError
from turnwise.rollout import Collector
from turnwise.testing import EchoEnv, HugeTextEnv, NaNRewardEnv, RaisingEnv, SleepyEnv

FAULTS: dict[str, tuple[Any, set[int], Cut, str, int]] = {
    "raises in step": (partial(RaisingEnv, at=2, seeds=(1, 4)), {1, 4}, Cut.CRASH, "raised ZeroDivisionError", 2),
    "raises in reset": (partial(RaisingEnv, at=0, seeds=(0,)), {0}, Cut.CRASH, "raised ZeroDivisionError", 0),
    "gives up": (partial(envs.SysExitEnv, 2, 3), {3}, Cut.CRASH, "raised SystemExit", 2),
}


def named(episode: Episode) -> bool:
    return f"{episode.env}, seed {episode.seed}, turn {len(episode.turns)}" in episode.detail


@pytest.mark.parametrize("where", ["inline", "thread", "process"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_episodes_own(fault: str, where: Any) -> None:
    make, seeds, cut, words, turns = FAULTS[fault]
    tasks = worlds.tasks(6)
    collector = Collector(make, worlds.policy(), slots=2, where=where, on_length="act")
    got = collector.collect(tasks)
    healthy = Collector(make, worlds.policy(), slots=1, where="inline", on_length="act")
    alone = healthy.collect([task for task in tasks if task.seed not in seeds])
    collector.close()
    healthy.close()
    assert [episode.seed for episode in got] == [task.seed for task in tasks]
    assert worlds.summaries([e for e in got if e.seed not in seeds]) == worlds.summaries(alone)
    for episode in got:
        if episode.seed in seeds:
            assert episode.failed
            assert episode.cut is cut
            assert words in episode.detail
            assert len(episode.turns) == turns
            assert named(episode)
            assert not len(episode.last_obs)
            assert all(turn.reward == 0 for turn in episode.turns[turns - 1 :])


@pytest.mark.parametrize("where", ["inline", "thread"])
@pytest.mark.parametrize("reward", [float("nan"), float("inf"), "much", None])
def test_a_reward_that_is_no_number_is_named(reward: Any, where: Any) -> None:
    collector = Collector(partial(NaNRewardEnv, 2, reward), worlds.policy(), where=where, slots=2, on_length="act")
    for episode in collector.collect(worlds.tasks(3)):
        assert episode.failed
        assert len(episode.turns) == 2
        assert f"returned the reward {reward!r}, which is not a finite number" in episode.detail
        assert named(episode)
        assert episode.undiscounted_return == 0.0
    collector.close()


@pytest.mark.parametrize("where", ["inline", "thread"])
def test_a_huge_text_ends_the_episode_and_nothing_else(where: Any) -> None:
    collector = Collector(partial(HugeTextEnv, 3_000_000, 2), worlds.policy(), where=where, slots=2, on_length="act")
    began = time.monotonic()
    for episode in collector.collect(worlds.tasks(4)):
        assert episode.cut is Cut.CONTEXT
        assert not episode.failed
        assert len(episode.turns) == 2
        assert "3,000,000 characters does not fit" in episode.detail
        assert named(episode)
    collector.close()
    assert time.monotonic() - began < 20
    first = Collector(partial(HugeTextEnv, 3_000_000, 0), worlds.policy(), where=where, slots=2)
    assert [len(episode.turns) for episode in first.collect(worlds.tasks(2))] == [0, 0]
    first.close()


@pytest.mark.parametrize("where", ["thread", "process"])
def test_an_environment_that_hangs_misses_its_deadline(where: Any) -> None:
    """Only some worlds sleep: reset at seed 2 does not, so the sleeper is found by its action."""
    make = partial(envs.SleepsOnEnv, 2, 3, 4.0)
    collector = Collector(make, worlds.policy(), slots=2, where=where, deadline=0.6, on_length="act")
    began = time.monotonic()
    episodes = collector.collect(worlds.tasks(5))
    took = time.monotonic() - began
    collector.close()
    assert [episode.cut for episode in episodes].count(Cut.TIMEOUT) == 1
    late = episodes[3]
    assert late.failed
    assert "missed its deadline of 0.6 s in step" in late.detail
    assert named(late)
    assert took < (4.0 if where == "thread" else 60.0)


def test_slow_is_not_late() -> None:
    collector = Collector(partial(SleepyEnv, 0.05), worlds.policy(), slots=8, deadline=5.0, on_length="act")
    began = time.monotonic()
    episodes = collector.collect(worlds.tasks(16))
    collector.close()
    assert all(episode.cut is Cut.TURN_LIMIT for episode in episodes)
    # 16 episodes of 4 naps; eight at a time they overlap.
    assert time.monotonic() - began < 16 * 4 * 0.05


def test_a_process_that_ends_is_named() -> None:
    for at, method in ((0, "reset"), (2, "step")):
        make = partial(envs.ExitEnv, at, 1)
        collector = Collector(make, worlds.policy(), slots=1, where="process", on_length="act")
        episodes = collector.collect(worlds.tasks(3))
        collector.close()
        assert [episode.failed for episode in episodes] == [False, True, False]
        assert (
            f"exit, seed 1, turn {at}: the environment ended its process (exit code 7) in {method}"
            in episodes[1].detail
        )
        assert episodes[1].cut is Cut.CRASH


@pytest.mark.parametrize("where", ["inline", "thread"])
def test_an_environment_that_cannot_be_made_is_named(where: Any) -> None:
    def broken() -> EchoEnv:
        raise FileNotFoundError("no map")

    collector = Collector(broken, worlds.policy(), where=where, slots=2)
    for episode in collector.collect(worlds.tasks(3)):
        assert episode.failed
        assert "could not be made: FileNotFoundError: no map" in episode.detail
        assert "broken" in episode.env
    collector.close()


def test_an_environment_of_numbers_is_told_to_speak() -> None:
    class Numbers(EchoEnv):
        def step(self, action: str) -> Any:
            return 7, 0.0, False, False, {}

    collector = Collector(Numbers, worlds.policy(), where="inline", on_length="act")
    detail = collector.collect(worlds.tasks(1))[0].detail
    assert "type int, not text" in detail
    assert "turnwise.envs.codec.Codec and wrap it in turnwise.envs.codec.CodecEnv" in detail
    collector.close()


def test_closing_badly_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Clings(EchoEnv):
        def close(self) -> None:
            raise RuntimeError("not now")

    for where in ("inline", "thread"):
        collector = Collector(Clings, worlds.policy(), where=where, slots=2, on_length="act")  # pyright: ignore
        assert len(collector.collect(worlds.tasks(2))) == 2
        collector.close()
        wait_for_threads()
    assert "not now" in caplog.text


# ---- nothing piles up ------------------------------------------------------------------------------------------------


BEFORE = set[int | None]()


@pytest.fixture(autouse=True)
def others() -> None:
    """Threads that other tests of this process left are not counted."""
    BEFORE.clear()
    BEFORE.update(thread.ident for thread in threading.enumerate())


def threads() -> int:
    alive = [thread for thread in threading.enumerate() if thread.name.startswith("turnwise-env")]
    return sum(thread.ident not in BEFORE for thread in alive)


def wait_for_threads(limit: float = 5.0) -> int:
    end = time.monotonic() + limit
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    return threads()


def test_threads_end_with_their_environments() -> None:
    collector = Collector(partial(RaisingEnv, 1), worlds.policy(), slots=3, where="thread")
    for _ in range(5):
        collector.collect(worlds.tasks(20))
        time.sleep(0.05)
        assert threads() <= 6
    collector.close()
    assert wait_for_threads() == 0


def test_hanging_threads_are_bounded_and_the_remedy_named() -> None:
    event = threading.Event()

    class Hangs(EchoEnv):
        def begin(self, seed: int) -> str:
            event.wait()
            return ""

    collector = Collector(Hangs, worlds.policy(), slots=8, where="thread", deadline=0.01)
    try:
        with pytest.raises(TurnwiseError, match=r"instances of environment echo hang.*where='process'"):
            collector.collect(worlds.tasks(200))
        assert threads() <= 17 + 2 * 8
    finally:
        event.set()
        collector.close()
    assert wait_for_threads() == 0


def test_processes_end_with_the_collector() -> None:
    import multiprocessing

    before = multiprocessing.active_children()
    collector = Collector(EchoEnv, worlds.policy(), slots=2, where="process", on_length="act")
    collector.collect(worlds.tasks(2))
    mine = [child for child in multiprocessing.active_children() if child not in before]
    assert len(mine) == 2
    collector.close()
    assert all(not child.is_alive() for child in mine)


# ---- interruptions ---------------------------------------------------------------------------------------------------


def reusable(collector: Collector, engine: LocalEngine) -> None:
    """The collector goes on, and gives what a new one gives."""
    fresh = Collector(collector.make_env, worlds.policy(), slots=2, where="inline", on_length="act")
    expected = fresh.collect(worlds.tasks(6, key=9))
    fresh.close()
    assert worlds.summaries(collector.collect(worlds.tasks(6, key=9))) == worlds.summaries(expected)
    collector.close()
    assert not engine.sessions
    assert not engine.in_flight


@pytest.mark.parametrize("where", ["inline", "thread"])
def test_a_keyboard_interrupt_in_an_environment(where: Any) -> None:
    envs.InterruptEnv.struck = False
    engine = LocalEngine(worlds.policy(), slots=4)
    make = partial(envs.InterruptEnv, 2, 3)
    collector = Collector(make, worlds.policy(), engine=engine, slots=4, where=where, on_length="act")
    with pytest.raises(KeyboardInterrupt):
        collector.collect(worlds.tasks(6))
    reusable(collector, engine)


@pytest.mark.parametrize("where", ["inline", "thread", "process"])
def test_ctrl_c(where: Any) -> None:
    engine = LocalEngine(worlds.policy(), slots=4)
    make = partial(SleepyEnv, 0.002)
    collector = Collector(make, worlds.policy(), engine=engine, slots=4, where=where, on_length="act")
    began: list[float] = []

    def strike(finished: int) -> None:
        if finished == 6:
            began.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        collector.collect(worlds.tasks(400), on_episode=strike)
    # Not the time of the 394 episodes that were left, nor of any deadline.
    assert time.monotonic() - began[0] < 8
    reusable(collector, engine)


def test_ctrl_c_while_an_environment_sleeps() -> None:
    """A step under way belongs to nobody: its late answer must not become the answer of the next step."""
    engine = LocalEngine(worlds.policy(), slots=2)
    make = partial(envs.SleepsOnEnv, 1, 0, 0.5)
    collector = Collector(make, worlds.policy(), engine=engine, slots=2, where="thread", on_length="act")
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        collector.collect(worlds.tasks(1))
    reusable(collector, engine)
    assert wait_for_threads() == 0


def test_ctrl_c_in_a_notebook() -> None:
    engine = LocalEngine(worlds.policy(), slots=4)
    make = partial(SleepyEnv, 0.01)
    collector = Collector(make, worlds.policy(), engine=engine, slots=2, where="thread", on_length="act")

    async def notebook() -> None:
        collector.collect(worlds.tasks(400))

    def strike(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, strike)
    try:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(notebook())
    finally:
        signal.signal(signal.SIGINT, before)
    reusable(collector, engine)


def test_an_engine_error_is_raised_once_and_nothing_hangs() -> None:
    class Failing(LocalEngine):
        calls = 0

        def _advance(self) -> None:
            self.calls += 1
            if self.calls == 5:
                raise EngineError("out of tokens")
            super()._advance()

    engine = Failing(worlds.policy(), slots=4)
    collector = Collector(EchoEnv, worlds.policy(), engine=engine, slots=4, where="thread", on_length="act")
    with pytest.raises(EngineError, match="out of tokens"):
        collector.collect(worlds.tasks(30))
    reusable(collector, engine)


def test_another_engine_may_fail_for_one_request_only() -> None:
    class Picky(LocalEngine):
        async def generate(self, request: Request) -> Completion:
            if request.session == 2:
                raise EngineError("not this one")
            return await super().generate(request)

    engine = Picky(worlds.policy(), slots=4)
    collector = Collector(EchoEnv, worlds.policy(), engine=engine, slots=4, where="inline", on_length="act")
    with pytest.raises(EngineError, match="not this one"):
        collector.collect(worlds.tasks(8))
    reusable(collector, engine)
