"""The local engine: (1) tokens come as often as they are probable, by noise that depends on key and counter alone; (2) its
caches follow the weights and the sessions; (3) event loops may end and follow each other. Schedules, limits and errors have
files of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import zoo
from turnwise.engines import Completion, EngineError, LocalEngine, Request, ScriptedEngine
from turnwise.engines.noise import mix, uniform
from turnwise.episode import Stop
from turnwise.models import Feed, Policy, Sampling, build_model

POLICY = Policy(build_model(zoo.TOKENIZER, seed=4), zoo.TOKENIZER)
STOP = POLICY.renderer.stop


def chi_square(counts: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Standardised: about standard normal for many cells, so 4 is far out."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(counts) - 1
    return (statistic - freedom) / (2 * freedom) ** 0.5


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_noise_is_uniform_along_keys_and_along_counters() -> None:
    n, cells = 200_000, 500
    for numbers in (
        uniform(np.full(n, 12345, np.uint64), np.arange(n)),
        uniform(np.arange(n, dtype=np.uint64), np.zeros(n, np.int64)),
        uniform(np.array([mix(7, i) for i in range(n)], np.uint64), np.zeros(n, np.int64)),
    ):
        assert numbers.min() >= 0
        assert numbers.max() < 1
        assert abs(chi_square(np.histogram(numbers, cells, (0, 1))[0], np.full(cells, n / cells))) < 4
        pairs = np.histogram2d(numbers[:-1], numbers[1:], 20, [[0, 1], [0, 1]])[0].ravel()
        assert abs(chi_square(pairs, np.full(400, (n - 1) / 400))) < 4


def test_noise_has_no_order_and_no_state() -> None:
    keys, counters = np.array([mix(i) for i in range(100)], np.uint64), np.arange(100) % 7
    whole = uniform(keys, counters)
    order = np.random.default_rng(0).permutation(100)
    assert np.array_equal(uniform(keys[order], counters[order]), whole[order])
    assert [float(uniform(keys[i : i + 1], counters[i : i + 1])[0]) for i in range(100)] == whole.tolist()


def test_keys_differ_in_every_part() -> None:
    keys = {mix(*parts) for parts in np.ndindex(12, 12, 12)} | {mix(a, b) for a, b in np.ndindex(12, 12)}
    assert len(keys) == 12**3 + 12**2
    assert all(0 <= key < 2**64 for key in keys)
    assert 0 <= mix(-1, 2**70) < 2**64


# ---- sampling --------------------------------------------------------------------------------------------------------


class Fixed:
    """A decoder that answers every context with the same logits."""

    bytes_per_token = 0

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def advance(self, feed: Feed) -> torch.Tensor:
        return self.logits.expand(int(feed.wanted.sum()), -1).clone()

    def copy(self, source: int, target: int, length: int) -> None:
        pass

    def refresh(self) -> None:
        pass


def ask(engine: LocalEngine, requests: Sequence[Request]) -> list[Completion]:
    async def work() -> list[Completion]:
        return list(await asyncio.gather(*(engine.generate(request) for request in requests)))

    return asyncio.run(work())


def request(session: int = 0, key: int = 0, text: str = "see a door", **sampling: Any) -> Request:
    sampling = {"max_tokens": 6} | sampling
    return Request(POLICY.renderer.first(text), session, key, Sampling(**sampling), STOP)


@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 0.5}, {"top_k": 7}, {"top_p": 0.8}, {"temperature": 2.0, "top_k": 12, "top_p": 0.9}],
)
def test_tokens_come_as_often_as_they_are_probable(sampling: dict[str, Any]) -> None:
    logits = torch.randn(zoo.V, generator=torch.Generator().manual_seed(3)) * 1.5
    engine = LocalEngine(POLICY, slots=500)
    engine._decoder = Fixed(logits)
    n = 6_000
    completions = ask(engine, [request(i, mix(11, i), max_tokens=1, **sampling) for i in range(n)])
    counts = np.bincount([int(c.ids[0]) for c in completions], minlength=zoo.V)
    # Plain arithmetic, without the code under test.
    p = np.exp(logits.double().numpy() / sampling.get("temperature", 1.0))
    p[POLICY.banned.numpy()] = 0
    order = np.argsort(-p)[: sampling.get("top_k", zoo.V)]
    share = p[order] / p[order].sum()
    order = order[np.cumsum(share) - share < sampling.get("top_p", 1.0)]
    expected = np.zeros(zoo.V)
    expected[order] = p[order] / p[order].sum()
    assert counts[expected == 0].sum() == 0
    support = expected > 0
    assert abs(chi_square(counts[support], n * expected[support])) < 4
    for completion in completions[:50]:
        assert completion.logp[0] == pytest.approx(np.log(expected[completion.ids[0]]), abs=1e-5)


@pytest.mark.parametrize("noise", [0.0, 1 - 2.0**-53])
@pytest.mark.parametrize("last", [-40.0, 3.0])
def test_extreme_noise_never_draws_what_is_banned(noise: float, last: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ids are banned, and so may be the last: both ends of the distribution function are flat."""
    model = build_model(zoo.TOKENIZER, seed=4)
    model.generation_config.suppress_tokens = [0, 1, zoo.V - 2, zoo.V - 1]
    policy = Policy(model, zoo.TOKENIZER)
    logits = torch.linspace(0, last, zoo.V)
    monkeypatch.setattr("turnwise.engines.local.uniform", lambda keys, counters: np.full(len(keys), noise))
    for temperature in (1.0, 0.1, 7.0):
        engine = LocalEngine(policy, slots=1)
        engine._decoder = Fixed(logits)
        token = int(ask(engine, [request(max_tokens=1, temperature=temperature)])[0].ids[0])
        assert token not in policy.banned.tolist()


def test_many_samplings_share_a_pass() -> None:
    settings: list[dict[str, Any]] = [{"temperature": 0.0}, {"temperature": 0.7}, {"top_k": 2}, {"max_tokens": 2}]
    requests = [request(i, key=i, **settings[i % 4]) for i in range(12)]
    together = ask(LocalEngine(POLICY, slots=12), requests)
    alone = [ask(LocalEngine(POLICY, slots=1), [r])[0] for r in requests]
    assert [c.ids.tolist() for c in together] == [c.ids.tolist() for c in alone]


# ---- caches ----------------------------------------------------------------------------------------------------------


def talk(engine: LocalEngine, session: int, turns: int, between: Any = None) -> list[Completion]:
    """A dialogue of one session."""
    context, said = POLICY.renderer.first("see a door"), list[Completion]()
    for turn in range(turns):
        said.append(ask(engine, [Request(context, session, mix(session, turn), Sampling(max_tokens=5), STOP)])[0])
        context = np.concatenate([context, said[-1].ids, POLICY.renderer.following("go north", said[-1].stop)])
        if between is not None:
            between(turn)
    return said


def test_a_session_reads_only_what_is_new() -> None:
    engine = LocalEngine(POLICY, slots=2)
    reads: list[int] = []
    said = talk(engine, 1, 4, lambda turn: reads.append(engine.tokens_read - sum(reads)))
    first, following = len(POLICY.renderer.first("see a door")), len(POLICY.renderer.following("go north"))
    # Every sampled token but an action's last is read when the next is sampled; the last one with the next observation.
    for turn, completion in enumerate(said):
        cut = said[turn - 1].stop is Stop.LENGTH if turn else False
        expected = (following + 1 + cut if turn else first) + len(completion.ids) - 1
        assert reads[turn] == expected
    assert engine.tokens_sampled == sum(len(c.ids) for c in said)


def test_loading_forgets_what_older_weights_cached() -> None:
    model = build_model(zoo.TOKENIZER, seed=4)
    policy = Policy(model, zoo.TOKENIZER)
    engine = LocalEngine(policy, slots=2)

    def learn(turn: int) -> None:
        with torch.no_grad():
            for parameter in policy.parameters().values():
                parameter.mul_(1.1)
        engine.load(turn + 1)

    kept = talk(engine, 1, 3, learn)
    assert [c.version for c in kept] == [0, 1, 2]
    again = Policy(build_model(zoo.TOKENIZER, seed=4), zoo.TOKENIZER)
    context = POLICY.renderer.first("see a door")
    for turn, completion in enumerate(kept):
        own = ask(LocalEngine(again, slots=1), [Request(context, 9, mix(1, turn), Sampling(max_tokens=5), STOP)])[0]
        assert own.ids.tolist() == completion.ids.tolist()
        np.testing.assert_allclose(own.logp, completion.logp, atol=1e-4)
        context = np.concatenate([context, completion.ids, POLICY.renderer.following("go north", completion.stop)])
        with torch.no_grad():
            for parameter in again.parameters().values():
                parameter.mul_(1.1)


def test_loading_in_the_middle_of_an_action_reads_the_context_again() -> None:
    """With the same weights nothing may change; the completion says the older version, which sampled its beginning."""
    expected = ask(LocalEngine(POLICY, slots=2), [request(0, 3)])[0]
    assert len(expected.ids) >= 3
    engine = LocalEngine(POLICY, slots=2)

    async def work() -> Completion:
        task = asyncio.ensure_future(engine.generate(request(0, 3)))
        while engine.tokens_sampled < 2:
            await asyncio.sleep(0)
        for keys in engine._decoder.cache.layers:  # pyright: ignore
            keys.fill_(7.0)
        engine.load(4)
        return await task

    got = asyncio.run(work())
    assert got.version == 0
    assert got.ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(got.logp, expected.logp, atol=1e-5)


def test_more_sessions_than_slots_lose_their_cache_and_nothing_else() -> None:
    requests = [request(i % 5, mix(2, i), text="take key " * (i % 4 + 1)) for i in range(20)]

    async def spread(engine: LocalEngine) -> list[Completion]:
        found: list[Completion] = []
        for i in range(0, 20, 5):
            found += await asyncio.gather(*(engine.generate(r) for r in requests[i : i + 5]))
        return found

    results = [asyncio.run(spread(LocalEngine(POLICY, slots=slots))) for slots in (1, 2, 5, 9)]
    assert len({str([c.ids.tolist() for c in result]) for result in results}) == 1


# ---- event loops ---------------------------------------------------------------------------------------------------


def test_a_loop_that_died_takes_nothing_with_it() -> None:
    engine = LocalEngine(POLICY, slots=2)
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(engine.generate(request(i, i))) for i in range(3)]
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    pump = engine._pumping
    assert pump is not None
    assert not pump.done()
    assert ask(engine, [request(0, 3)])[0].ids.tolist() == ask(LocalEngine(POLICY), [request(0, 3)])[0].ids.tolist()
    for task in (*tasks, pump):
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, pump, return_exceptions=True))
    loop.close()


def test_two_loops_at_once_are_refused() -> None:
    engine = LocalEngine(POLICY, slots=2)

    async def work() -> None:
        long = Request(POLICY.renderer.first("see"), 0, 3, Sampling(max_tokens=2000), frozenset())
        first = asyncio.ensure_future(engine.generate(long))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match="two event loops"):
            await asyncio.to_thread(ask, engine, [request(1)])
        first.cancel()

    asyncio.run(work())


# ---- a script as engine ----------------------------------------------------------------------------------------------


def test_a_script_answers_what_it_reads() -> None:
    heard: list[str] = []

    def script(context: str) -> str:
        heard.append(context)
        return "take key"

    engine = ScriptedEngine(script, POLICY.renderer)
    engine.load(3)
    whole = asyncio.run(engine.generate(request(max_tokens=9)))
    assert POLICY.renderer.action_text(whole.ids) == "take key"
    assert whole.stop is Stop.STOP
    assert whole.version == 3
    assert (whole.logp == 0).all()
    assert (whole.entropy == 0).all()
    assert "see a door" in heard[0]
    cut = asyncio.run(engine.generate(request(max_tokens=2)))
    assert cut.stop is Stop.LENGTH
    assert cut.ids.tolist() == whole.ids[:2].tolist()
    ended = asyncio.run(engine.generate(request(max_tokens=9, stop=("ke",))))
    assert ended.stop is Stop.STRING
    assert POLICY.renderer.action_text(ended.ids) == "take"


def test_entropies_that_nobody_gave_are_unknown() -> None:
    done = Completion(np.array([3, 4], np.int32), np.zeros(2, np.float32), Stop.STOP, 0)
    assert np.isnan(done.entropy).all()
    assert done.entropy.shape == (2,)
