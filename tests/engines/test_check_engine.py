"""The conformance check (1) passes our engines, cached and recomputing, with few and many slots, and (2) catches each
broken promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest

from tests.models import zoo
from turnwise.engines import Completion, Engine, EngineError, LocalEngine, Request
from turnwise.engines.noise import uniform
from turnwise.engines.slots import Ints, Slots
from turnwise.episode import Ids, Stop
from turnwise.models import Policy, build_model
from turnwise.testing import CheckFailed, check_engine

POLICY = Policy(build_model(zoo.TOKENIZER, seed=4), zoo.TOKENIZER)


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_the_local_engine_passes(slots: int) -> None:
    check_engine(lambda: LocalEngine(POLICY, slots=slots), POLICY)


def test_the_recomputing_engine_passes() -> None:
    policy = zoo.policy(zoo.OWN["mistral, sliding window"])
    assert not policy.packed
    check_engine(lambda: LocalEngine(policy, slots=4), policy, max_tokens=3)


class Broken:
    """An engine with one thing wrong."""

    def __init__(self, inner: Engine, change: Callable[[Request, Completion, int], Completion]) -> None:
        self.inner, self.change, self.served = inner, change, 0

    async def generate(self, request: Request) -> Completion:
        self.served += 1
        return self.change(request, await self.inner.generate(request), self.served)

    def load(self, version: int) -> None:
        self.inner.load(version)

    def release(self, session: int) -> None:
        self.inner.release(session)


def going_on(request: Request, completion: Completion, served: int) -> Completion:
    if completion.stop is not Stop.STOP or len(completion.ids) >= request.sampling.max_tokens:
        return completion
    return replace(
        completion,
        ids=np.append(completion.ids, np.int32(9)),
        logp=np.append(completion.logp, np.float32(-1)),
        entropy=np.append(completion.entropy, np.float32(1)),
    )


MUTANTS: dict[str, tuple[Callable[[Request, Completion, int], Completion], str]] = {
    "ids beyond the vocabulary": (lambda r, c, n: replace(c, ids=c.ids + 1000), "vocabulary"),
    "nothing sampled": (lambda r, c, n: replace(c, ids=c.ids[:0], logp=c.logp[:0]), "0 ids"),
    "probabilities instead of their logs": (lambda r, c, n: replace(c, logp=np.exp(c.logp)), "at most 0"),
    "log-probabilities of another distribution": (lambda r, c, n: replace(c, logp=c.logp * 1.01), "the policy's own"),
    "ids after the stop": (going_on, "stop id at"),
    "stop unsaid": (lambda r, c, n: replace(c, stop=Stop.LENGTH), "stop id"),
    "entropies of another distribution": (
        lambda r, c, n: replace(c, entropy=c.entropy * 1.01 + 0.01),
        "recorded entropy",
    ),
    "an entropy too few": (lambda r, c, n: replace(c, entropy=c.entropy[1:]), "one each"),
    "stop strings unheard": (
        lambda r, c, n: replace(c, stop=Stop.LENGTH) if c.stop is Stop.STRING else c,
        "stop string",
    ),
    "no version": (lambda r, c, n: replace(c, version=0), "version"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_completion_is_caught(name: str) -> None:
    change, message = MUTANTS[name]
    with pytest.raises(CheckFailed, match=message):
        check_engine(lambda: Broken(LocalEngine(POLICY, slots=8), change), POLICY)


def test_unknown_entropies_and_refused_stop_strings_pass() -> None:
    class Plain(Broken):
        async def generate(self, request: Request) -> Completion:
            if request.sampling.stop:
                raise EngineError("this engine knows no stop strings; use stop ids")
            return Completion(*astuple(await self.inner.generate(request))[:4])

    check_engine(lambda: Plain(LocalEngine(POLICY, slots=8), lambda r, c, n: c), POLICY)


class Variant(LocalEngine):
    """The local engine with one method replaced."""


def variant(**methods: Any) -> Callable[[], Engine]:
    kind = type("Variant", (LocalEngine,), methods)
    return lambda: kind(POLICY, slots=8)


def test_noise_that_depends_on_the_company_is_caught() -> None:
    def noise(self: LocalEngine, rows: Ints, counters: Ints) -> Any:
        return uniform(np.arange(len(rows), dtype=np.uint64), counters)

    with pytest.raises(CheckFailed, match="depend on anything else"):
        check_engine(variant(_noise=noise), POLICY)


def test_noise_without_a_key_is_caught() -> None:
    def noise(self: LocalEngine, rows: Ints, counters: Ints) -> Any:
        return uniform(np.full(len(rows), 5, np.uint64), counters)

    with pytest.raises(CheckFailed, match="keys changed"):
        check_engine(variant(_noise=noise), POLICY)


def with_slots(**methods: Any) -> Callable[[], Engine]:
    """The local engine with one method of its slots replaced."""

    def make() -> Engine:
        engine = LocalEngine(POLICY, slots=8)
        engine._slots = type("Variant", (Slots,), methods)(8)
        return engine

    return make


def test_a_cache_that_trusts_its_session_is_caught() -> None:
    def admit(self: Slots, slot: int, context: Ids, budget: int) -> None:
        held = self.read[slot]
        Slots.admit(self, slot, context, budget)
        self.read[slot] = min(held, len(context) - 1)

    with pytest.raises(CheckFailed, match="must not depend on anything else"):
        check_engine(with_slots(admit=admit), POLICY)


def test_a_copy_of_one_id_too_many_is_caught() -> None:
    def alike(self: Slots, rows: Ints, least: int) -> Ints:
        found = Slots.alike(self, rows, least)
        return np.where((found > 0) & (found < self.length[rows, None] - 1), found + 1, found)

    with pytest.raises(CheckFailed, match="at once and one by one"):
        check_engine(with_slots(alike=alike), POLICY)


def test_a_slot_that_is_lost_with_a_cancelled_request_is_caught() -> None:
    def lose(self: LocalEngine) -> None:
        for slot, future in enumerate(self._futures):
            if future is not None and future.cancelled():
                self._futures[slot] = None
                self._slots.busy[slot], self._slots.owned[slot] = False, True

    with pytest.raises(CheckFailed, match="no answer within"):
        check_engine(variant(_part_with_cancelled=lose), POLICY, deadline=0.5)


def test_a_request_that_is_never_answered_is_caught() -> None:
    def admit(self: LocalEngine) -> None:
        LocalEngine._admit(self)
        if self._slots.busy.sum() > 3:
            self._slots.busy[0] = False

    with pytest.raises(CheckFailed, match="no answer within"):
        check_engine(variant(_admit=admit), POLICY, deadline=0.5)
