"""Limits and errors of the local engine: (1) each says what is wrong, where, and what to do; (2) each leaves the engine usable;
(3) what cannot be right is never sampled, so that nothing is trained on it."""

from __future__ import annotations

import asyncio
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from tests.engines.strict import POLICY, ask, ids
from tests.models import zoo
from turnwise.engines import Completion, EngineError, LocalEngine, Request
from turnwise.episode import Cut
from turnwise.errors import TurnwiseError
from turnwise.models import Policy, Sampling, build_model
from turnwise.rollout import Collector, Memory, Task


def run(engine: LocalEngine, *requests: Request) -> list[Completion]:
    async def work() -> list[Completion]:
        return list(await asyncio.gather(*(engine.generate(request) for request in requests)))

    return asyncio.run(work())


def usable(engine: LocalEngine, policy: Policy = POLICY) -> None:
    """It samples what a new engine samples."""
    request = ask(ids(77, 9), 77, 7)
    expected = run(LocalEngine(policy, slots=1), request)[0]
    got = run(engine, request)[0]
    assert got.ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(got.logp, expected.logp, atol=1e-5)
    engine.release(77)
    assert not engine.in_flight


@pytest.mark.parametrize("options", [{"slots": 0}, {"slots": -3}, {"pass_tokens": 0}])
def test_an_engine_without_room_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(EngineError, match=rf"{next(iter(options))}={next(iter(options.values()))}.*at least one"):
        LocalEngine(POLICY, **options)


def test_contexts_beyond_the_limit_are_refused_with_the_remedy() -> None:
    policy = zoo.policy()
    engine = LocalEngine(policy, slots=2)
    limit = policy.context_limit
    with pytest.raises(
        EngineError, match=rf"{limit - 3} context tokens and 4 to sample exceed .* limit of {limit}; shorten"
    ):
        run(engine, ask(ids(0, limit - 3), 0, max_tokens=4))
    with pytest.raises(EngineError, match="at least one token"):
        run(engine, ask([], 0))
    assert len(run(engine, ask(ids(0, limit - 4), 0, max_tokens=4))[0].ids) == 4
    usable(engine, policy)


class Flood(gymnasium.Env[str, str]):
    """The second observation has a million characters."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        self.steps = 0
        return "see a door", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return ("go north " * 120_000 if self.steps == 2 else "key"), 1.0, False, False, {}


@pytest.mark.parametrize("compact", [False, True])
def test_an_environment_that_says_a_megabyte_is_cut_before_anybody_reads_it(
    compact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(build_model(zoo.TOKENIZER, seed=4), zoo.TOKENIZER, sampling=Sampling(max_tokens=3))
    tokenised: list[int] = []
    encode = policy.renderer._encode_uncached

    def noting(text: str) -> Any:
        tokenised.append(len(text))
        return encode(text)

    monkeypatch.setattr(policy.renderer, "_encode_uncached", noting)
    engine = LocalEngine(policy, slots=2)
    collector = Collector(Flood, policy, engine=engine, where="inline", memory=Memory(compact=compact), on_length="act")
    episodes = collector.collect([Task(i, str(i), i) for i in range(3)])
    collector.close()
    for episode in episodes:
        assert episode.cut is Cut.CONTEXT
        assert "1,080,000 characters" in episode.detail
        assert len(episode.turns) == 2
        assert episode.undiscounted_return == 2
    assert max(tokenised, default=0) < 1000
    assert engine.tokens_read < 500
    usable(engine, policy)


def test_too_little_memory_says_how_many_slots_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(build_model(zoo.TOKENIZER, seed=4), zoo.TOKENIZER)
    engine = LocalEngine(policy, slots=64)
    token = engine._decoder.bytes_per_token
    assert token == 2 * 2 * 64 * 4
    with monkeypatch.context() as patch:
        # Room for five contexts of 1,000 tokens.
        patch.setattr("turnwise.models.cache.free_memory", lambda device: 5 * 1004 * token)
        with pytest.raises(
            TurnwiseError, match=r"64 slots of \d+ tokens need .* GB .* slots of that length would fit"
        ) as caught:
            run(engine, ask(ids(0, 1000), 0), ask(ids(1, 5), 1))
        fit = int(str(caught.value).split(" slots of that length")[0].rsplit(" ", 1)[1])
        assert 5 <= fit < 64
        few = LocalEngine(policy, slots=4)
        assert len(run(few, ask(ids(0, 1000), 0))[0].ids) == 4
    usable(engine, policy)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("make", [zoo.PACKED["llama, grouped queries"], zoo.OWN["mistral, sliding window"]])
def test_logits_that_are_no_numbers_are_named_and_never_sampled(make: Any, bad: float) -> None:
    policy = zoo.policy(make)
    engine = LocalEngine(policy, slots=4)
    engine.load(6)
    weight = next(iter(policy.parameters().values()))
    # The embedding of one id, which only the second session reads, and no other before it.
    saved = weight[9].clone()
    with torch.no_grad():
        weight[9] = bad
    name = type(policy.model).__name__
    others = np.setdiff1d(ids(2, 30), [9]).astype(np.int32)
    with pytest.raises(
        EngineError, match=rf"{name}, weights version 6, .*not finite at position \d+ of session 31.*checkpoint"
    ):
        run(engine, ask(others, 30, max_tokens=1), ask([*others, 9], 31, max_tokens=1))
    assert not engine.in_flight
    with torch.no_grad():
        weight[9] = saved
    for session in (30, 31):
        engine.release(session)
    # Nothing that is no number stays in a cache, where it would reach a short context beside a long one.
    again = [ask(ids(session, 40 if session == 40 else 5), session) for session in range(40, 44)]
    expected = run(LocalEngine(policy, slots=4), *again)
    assert [one.ids.tolist() for one in run(engine, *again)] == [one.ids.tolist() for one in expected]


def test_a_pass_that_fails_fails_everybody_once_and_nobody_afterwards() -> None:
    engine = LocalEngine(POLICY, slots=2)
    advance = engine._decoder.advance

    def failing(feed: Any) -> Any:
        raise MemoryError("no room for scores")

    engine._decoder.advance = failing

    async def work() -> list[Any]:
        requests = [ask(ids(i, 5), i) for i in range(5)]
        return await asyncio.gather(*(engine.generate(request) for request in requests), return_exceptions=True)

    assert [str(error) for error in asyncio.run(work())] == ["no room for scores"] * 5
    engine._decoder.advance = advance
    usable(engine)
