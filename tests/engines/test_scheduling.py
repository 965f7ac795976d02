"""Scheduling: (1) actions do not depend on slots, tokens per pass, order or company, and log-probabilities only by rounding;
(2) what some slot has read is copied, what is being read is waited for, and long contexts let others go on; (3) the same
requests make the same passes; (4) whatever is interrupted goes on as if it had not been; (5) nothing leaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests.engines.strict import POLICY, STOP, Strict, ask, distinct, ids, strict
from tests.models import zoo
from turnwise.engines import Completion, LocalEngine, Request
from turnwise.engines.noise import mix
from turnwise.models import Policy, Sampling, build_model

Dialogues = dict[int, list[Completion]]


async def dialogue(
    engine: LocalEngine, session: int, said: list[Completion], *, turns: int, pause: random.Random
) -> None:
    """A session of some turns: a prompt shared by four, observations of any length, and now and then a new beginning."""
    context = np.concatenate([ids(session // 4, 25), ids(100 + session, session % 3)])
    for turn in range(turns):
        request = Request(context, session, mix(session, turn), Sampling(max_tokens=2 + session % 5), STOP)
        said.append(await engine.generate(request))
        context = np.concatenate([context, said[-1].ids, ids(1000 * session + turn, 1 + (session * 7 + turn) % 9)])
        if (session + turn) % 6 == 5:
            context = np.concatenate([ids((session + 1) // 4, 25), ids(turn, 3)])
        for _ in range(pause.randrange(4)):
            await asyncio.sleep(0)
    engine.release(session)


def play(engine: LocalEngine, *, n: int = 12, turns: int = 3, seed: int = 0) -> Dialogues:
    """All sessions at once; `seed` decides who starts first and how long environments take."""
    said: Dialogues = {session: [] for session in range(n)}
    order = list(said)
    random.Random(seed).shuffle(order)

    async def everybody() -> None:
        await asyncio.gather(*(dialogue(engine, s, said[s], turns=turns, pause=random.Random(seed + s)) for s in order))

    asyncio.run(everybody())
    assert not engine.sessions
    assert not engine.in_flight
    return said


def tokens(said: Dialogues) -> list[list[int]]:
    return [one.ids.tolist() for session in sorted(said) for one in said[session]]


def assert_alike(a: Dialogues, b: Dialogues) -> None:
    """The same actions, and numbers that differ by rounding."""
    assert tokens(a) == tokens(b)
    for session in a:
        for one, other in zip(a[session], b[session], strict=True):
            assert one.stop is other.stop
            np.testing.assert_allclose(one.logp, other.logp, atol=1e-5)
            np.testing.assert_allclose(one.entropy, other.entropy, atol=1e-5)


EXPECTED = play(LocalEngine(POLICY, slots=1))
"""One session at a time."""


@pytest.mark.parametrize("slots", [2, 5, 12, 40])
@pytest.mark.parametrize("pass_tokens", [1, 10, 4096])
def test_actions_do_not_depend_on_slots_order_or_tokens_per_pass(slots: int, pass_tokens: int) -> None:
    assert_alike(play(LocalEngine(POLICY, slots=slots, pass_tokens=pass_tokens), seed=slots + pass_tokens), EXPECTED)


def test_actions_do_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert_alike(play(LocalEngine(POLICY, slots=12), n=4, turns=2), {s: EXPECTED[s][:2] for s in range(4)})
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("slots", [1, 3, 16, 64])
@pytest.mark.parametrize("pass_tokens", [3, 40, 4096])
def test_slots_hold_what_is_said_of_them(slots: int, pass_tokens: int) -> None:
    engine, decoder = strict(slots=slots, pass_tokens=pass_tokens)
    reference, _ = strict(slots=1)
    assert tokens(play(engine, n=40, seed=slots)) == tokens(play(reference, n=40))
    assert max(distinct(feed) for feed in decoder.feeds) <= pass_tokens
    assert engine.tokens_read == sum(count for rows in decoder.passes for _, _, count in rows)


# ---- what contexts have in common ------------------------------------------------------------------------------------


def run(engine: LocalEngine, steps: Sequence[Sequence[Request]], passes: int = 3) -> list[Completion]:
    """Ask for the requests of each step, and `passes` later for those of the next, while the others go on."""

    async def work() -> list[Completion]:
        asked: list[asyncio.Future[Completion]] = []
        for step in steps:
            asked += [asyncio.ensure_future(engine.generate(request)) for request in step]
            for _ in range(passes):
                await asyncio.sleep(0)
        return list(await asyncio.gather(*asked))

    return asyncio.run(work())


def test_a_latecomer_copies_what_another_has_read() -> None:
    engine, decoder = strict(slots=4)
    prompt = ids(0, 50)
    run(engine, [[ask(prompt, 0, max_tokens=20)], [ask(prompt, 1)], [ask([*prompt[:30], 7, 8], 2)]])
    first, second, third = (next(rows for rows in decoder.passes if rows[-1][0] == slot)[-1] for slot in range(3))
    # The last id of a context is always read, because its logits are asked for.
    assert (first, second, third) == ((0, 0, 50), (1, 49, 1), (2, 30, 2))
    assert engine.tokens_copied == 79


def test_a_free_slot_that_holds_the_beginning_is_taken() -> None:
    engine, decoder = strict(slots=3)
    prompts = [ids(0, 40), ids(1, 40)]

    async def work() -> None:
        stays = asyncio.ensure_future(engine.generate(ask(ids(2, 9), 0, max_tokens=60)))
        for session, prompt in enumerate(prompts, 1):
            await engine.generate(ask(prompt, session))
            engine.release(session)
        await engine.generate(ask(prompts[1], 3))
        await stays

    asyncio.run(work())
    assert not engine.tokens_copied
    # Both of those that came and went read their prompt; who came again for the second reads its last id.
    assert sorted(count for rows in decoder.passes for _, _, count in rows if count > 1) == [9, 40, 40]


def test_a_group_reads_its_prompt_once_when_a_pass_cannot_hold_it() -> None:
    engine, decoder = strict(slots=8, pass_tokens=64)
    prompt = ids(0, 200)
    said = run(engine, [[ask(prompt, session, mix(session)) for session in range(8)]])
    # The others copy when so little is left that waiting for it does not pay. Then three of four sampled ids of each.
    assert engine.tokens_read == 200 + 7 * 8 + 8 * 3
    assert engine.tokens_copied == 7 * 192
    assert [rows for rows in decoder.passes if any(count > 1 for _, _, count in rows)] == [
        [(0, 0, 64)], [(0, 64, 64)], [(0, 128, 64)], [(slot, 192, 8) for slot in range(8)],
    ]  # fmt: skip
    alone, _ = strict(slots=1)
    assert [one.ids.tolist() for one in said] == [
        run(alone, [[ask(prompt, session, mix(session))]])[0].ids.tolist() for session in range(8)
    ]


def test_a_group_that_fits_into_a_pass_is_left_to_the_decoder() -> None:
    """It shares what begins alike and is read from the beginning."""
    engine, decoder = strict(slots=8)
    run(engine, [[ask(ids(0, 200), session, mix(session)) for session in range(8)]])
    assert decoder.passes[0] == [(slot, 0, 200) for slot in range(8)]
    assert not engine.tokens_copied
    # So do groups of which only some fit, counted by what is distinct.
    engine, decoder = strict(slots=8, pass_tokens=250)
    run(engine, [[ask(ids(session // 4, 200), session, mix(session)) for session in range(8)]])
    assert decoder.passes[0][:4] == [(slot, 0, 200) for slot in range(4)]
    # The last id of each is not counted as shared.
    assert [count for _, _, count in decoder.passes[0][4:]] == [250 - 203]


def test_a_long_context_lets_others_go_on() -> None:
    engine, decoder = strict(slots=3, pass_tokens=16)
    said = run(engine, [[ask(ids(0, 5), 0, max_tokens=30)], [ask(ids(1, 300), 1)], [ask(ids(2, 20), 2)]])
    reading = [rows for rows in decoder.passes if any(slot == 1 and count > 1 for slot, _, count in rows)]
    assert len(reading) == 19
    assert all(any(slot == 0 and count == 1 for slot, _, count in rows) for rows in reading)
    # Who came later is read later, not never.
    assert len(said[2].ids) == 4


def test_short_contexts_that_differ_are_not_looked_at_twice() -> None:
    """Memory-less observations: all are read in the pass that admits them, whatever they have in common."""
    engine, decoder = strict(slots=16)
    requests = [[ask([9, *ids(100 * turn + s, 12)], s, mix(turn, s)) for s in range(16)] for turn in range(5)]
    for step in requests:
        run(engine, [step])
    assert len(decoder.passes) == 5 * 4
    assert all(not rows[0][1] for rows in decoder.passes[::4])


# ---- the same passes -------------------------------------------------------------------------------------------------


def test_the_same_requests_make_the_same_passes_bit_for_bit() -> None:
    def waiting(order: Sequence[int]) -> tuple[list[Any], list[bytes]]:
        engine = LocalEngine(POLICY, slots=5, pass_tokens=64)
        passes: list[Any] = []
        advance = engine._decoder.advance

        def noting(feed: Any) -> torch.Tensor:
            passes.append([x.tolist() for x in (feed.slots, feed.read, feed.counts, feed.ids, feed.wanted)])
            return advance(feed)

        engine._decoder.advance = noting
        requests = {s: ask(np.concatenate([ids(s // 3, 70), ids(s, s)]), s, mix(s)) for s in range(9)}
        said = run(engine, [[requests[s] for s in order]])
        by_session = sorted(zip(order, said, strict=True), key=lambda pair: pair[0])
        return passes, [x.tobytes() for _, one in by_session for x in (one.ids, one.logp, one.entropy)]

    first = waiting(range(9))
    assert waiting([8, 3, 5, 1, 0, 2, 7, 6, 4]) == first
    assert len(first[0]) > 4


def test_rollouts_that_follow_each_other_do_not_feel_each_other() -> None:
    """When nobody is left, nothing is: an engine that goes on makes the passes that a new one makes."""
    engine, decoder = strict(slots=6)
    play(engine, seed=1)
    before = len(decoder.passes)
    play(engine, seed=2)
    fresh, its = strict(slots=6)
    play(fresh, seed=2)
    assert decoder.passes[before:] == its.passes


def test_nor_do_they_in_the_last_bit() -> None:
    def last(*seeds: int) -> list[bytes]:
        engine = LocalEngine(POLICY, slots=6)
        said = [play(engine, n=6, seed=seed) for seed in seeds][-1]
        return [x.tobytes() for s in range(6) for one in said[s] for x in (one.ids, one.logp, one.entropy)]

    assert last(1, 3, 2) == last(2)


# ---- interruptions ---------------------------------------------------------------------------------------------------


def test_interrupted_and_continued_is_uninterrupted() -> None:
    """Cancelled and asked again, evicted by others, read again after a load of the same weights."""
    request = ask(ids(3, 30), 7, 5, max_tokens=12)
    expected = run(LocalEngine(POLICY, slots=1), [[request]])[0]

    async def cancelled(after: int) -> Completion:
        engine = LocalEngine(POLICY, slots=2)
        first = asyncio.ensure_future(engine.generate(request))
        while engine.tokens_sampled < after:
            await asyncio.sleep(0)
        first.cancel()
        return await engine.generate(request)

    async def loaded() -> Completion:
        engine = LocalEngine(POLICY, slots=2, pass_tokens=7)
        asked = asyncio.ensure_future(engine.generate(request))
        for version in range(1, 5):
            while engine.tokens_sampled < 2 * version:
                await asyncio.sleep(0)
            engine.load(version)
        return await asked

    async def evicted() -> Completion:
        engine = LocalEngine(POLICY, slots=1)
        half = await engine.generate(ask(request.context, 7, 5, max_tokens=6))
        await engine.generate(ask(ids(4, 20), 8))
        await engine.generate(ask(np.concatenate([request.context, half.ids]), 7))
        await engine.generate(ask(ids(5, 20), 9))
        return await engine.generate(request)

    for work in (cancelled(1), cancelled(6), loaded(), evicted()):
        got = asyncio.run(work)
        assert got.ids.tolist() == expected.ids.tolist()
        np.testing.assert_allclose(got.logp, expected.logp, atol=1e-5)


def test_a_session_that_ends_in_the_middle_of_an_action_is_answered() -> None:
    engine, _ = strict(slots=1)

    async def work() -> Completion:
        asked = asyncio.ensure_future(engine.generate(ask(ids(0, 5), 0, max_tokens=8)))
        while engine.tokens_sampled < 2:
            await asyncio.sleep(0)
        engine.release(0)
        other = asyncio.ensure_future(engine.generate(ask(ids(1, 5), 1)))
        done = await asked
        await other
        engine.release(1)
        return done

    assert len(asyncio.run(work()).ids) == 8
    assert not engine.sessions


def test_ten_thousand_episodes_of_every_fate_leave_nothing_behind() -> None:
    """Random lengths, shared prompts, cancellations, sessions that end early, and passes that fail."""
    engine, decoder = strict(slots=24, pass_tokens=96, fails=frozenset(range(50, 10**6, 60)))
    rng = random.Random(0)
    fates = {"answered": 0, "cancelled": 0, "failed": 0}

    async def episode(session: int) -> None:
        context = np.concatenate([PROMPTS[session % 7], ids(session % 50, rng.randrange(6))])
        try:
            for turn in range(rng.randrange(1, 3)):
                asked = asyncio.ensure_future(
                    engine.generate(ask(context, session, mix(session, turn), max_tokens=rng.randrange(1, 4)))
                )
                if rng.random() < 0.1:
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                    asked.cancel()
                context = np.concatenate([context, (await asked).ids, ids(session % 31, 3)])
            fates["answered"] += 1
        except asyncio.CancelledError:
            fates["cancelled"] += 1
        except RuntimeError:
            fates["failed"] += 1
        finally:
            engine.release(session)

    async def player(sessions: Any) -> None:
        for session in sessions:
            await episode(session)

    async def everybody() -> None:
        sessions = iter(range(10_000))
        await asyncio.gather(*(player(sessions) for _ in range(40)))
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(everybody())
    assert sum(fates.values()) == 10_000
    assert min(fates.values()) > 100
    assert not engine.sessions
    assert not engine.in_flight
    slots = engine._slots
    assert not any(marks.any() for marks in (slots.busy, slots.owned, slots.read))
    assert all(future is None for future in engine._futures)
    assert slots.tokens.shape[1] <= 128
    assert set(decoder.held) <= set(range(24))


PROMPTS = [ids(900 + i, 12 + 3 * i) for i in range(7)]


def test_ways_to_sample_are_not_remembered_for_ever() -> None:
    engine, _ = strict(slots=2)
    for i in range(100):
        run(engine, [[ask(ids(0, 4), 0, max_tokens=1, temperature=1 + i)]])
    assert len(engine._modes) <= 20


def test_requests_of_one_session_at_once_wait_for_each_other() -> None:
    engine, _ = strict(slots=4)
    said = run(engine, [[ask(ids(0, 9), 5, mix(i)) for i in range(6)]])
    alone = [run(strict(slots=1)[0], [[ask(ids(0, 9), 5, mix(i))]])[0] for i in range(6)]
    assert [one.ids.tolist() for one in said] == [one.ids.tolist() for one in alone]


def test_the_strict_decoder_is_strict() -> None:
    """A slot that holds another context is noticed."""
    engine, decoder = strict(slots=2)
    run(engine, [[ask(ids(0, 9), 0)]])
    decoder.held[0][3] = 99
    with pytest.raises(AssertionError, match="another context"):
        run(engine, [[ask(np.concatenate([ids(0, 9), ids(1, 9)]), 0)]])
    assert isinstance(decoder, Strict)
    assert Policy(build_model(zoo.TOKENIZER, seed=4), zoo.TOKENIZER).packed
