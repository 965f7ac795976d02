"""The conformance check (1) passes our engines, cached and recomputing, with few and many slots, and (2) catches each
broken promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import zoo
from turnwise.engines import Completion, Engine, LocalEngine, Request
from turnwise.episode import Stop
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
        completion, ids=np.append(completion.ids, np.int32(9)), logp=np.append(completion.logp, np.float32(-1))
    )


MUTANTS: dict[str, tuple[Callable[[Request, Completion, int], Completion], str]] = {
    "ids beyond the vocabulary": (lambda r, c, n: replace(c, ids=c.ids + 1000), "vocabulary"),
    "nothing sampled": (lambda r, c, n: replace(c, ids=c.ids[:0], logp=c.logp[:0]), "0 ids"),
    "probabilities instead of their logs": (lambda r, c, n: replace(c, logp=np.exp(c.logp)), "at most 0"),
    "log-probabilities of another distribution": (lambda r, c, n: replace(c, logp=c.logp * 1.01), "the policy's own"),
    "ids after the stop": (going_on, "stop id at"),
    "stop unsaid": (lambda r, c, n: replace(c, stop=Stop.LENGTH), "stop id"),
    "no version": (lambda r, c, n: replace(c, version=0), "version"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_completion_is_caught(name: str) -> None:
    change, message = MUTANTS[name]
    with pytest.raises(CheckFailed, match=message):
        check_engine(lambda: Broken(LocalEngine(POLICY, slots=8), change), POLICY)


class Variant(LocalEngine):
    """The local engine with one method replaced."""


def variant(**methods: Any) -> Callable[[], Engine]:
    kind = type("Variant", (LocalEngine,), methods)
    return lambda: kind(POLICY, slots=8)


def test_noise_that_depends_on_the_company_is_caught() -> None:
    def sample(self: LocalEngine, logits: torch.Tensor, jobs: list[Any]) -> Any:
        for row, job in enumerate(jobs):
            job.request = replace(job.request, key=row)
        return LocalEngine._sample(self, logits, jobs)

    with pytest.raises(CheckFailed, match="depend on anything else"):
        check_engine(variant(_sample=sample), POLICY)


def test_noise_without_a_key_is_caught() -> None:
    def sample(self: LocalEngine, logits: torch.Tensor, jobs: list[Any]) -> Any:
        for job in jobs:
            job.request = replace(job.request, key=5)
        return LocalEngine._sample(self, logits, jobs)

    with pytest.raises(CheckFailed, match="keys changed"):
        check_engine(variant(_sample=sample), POLICY)


def test_a_cache_that_trusts_its_session_is_caught() -> None:
    def admit(self: LocalEngine) -> None:
        before = len(self._active)
        LocalEngine._admit(self)
        for job in self._active[before:]:
            job.read = min(self._slots[job.slot].length, job.length - 1)

    with pytest.raises(CheckFailed, match=r"a session|the policy's own"):
        check_engine(variant(_admit=admit), POLICY)


def test_a_slot_given_away_while_in_use_is_caught() -> None:
    def release(self: LocalEngine, session: int) -> None:
        index = self._of_session.pop(session, None)
        if index is not None:
            self._slots[index] = type(self._slots[index])()

    with pytest.raises(CheckFailed, match="cancelled"):
        check_engine(variant(release=release), POLICY)


def test_a_request_that_is_never_answered_is_caught() -> None:
    def admit(self: LocalEngine) -> None:
        LocalEngine._admit(self)
        if len(self._active) > 3:
            self._active.pop()

    with pytest.raises(CheckFailed, match="no answer within"):
        check_engine(variant(_admit=admit), POLICY, deadline=0.5)
