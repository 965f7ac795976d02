"""A conformance check for engines.

check_engine(lambda: MyEngine(policy), policy)          returns quietly, or says what broke and what to do about it
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from turnwise.batch import pack
from turnwise.engines import Completion, Engine, EngineError, Request
from turnwise.engines.noise import mix
from turnwise.episode import Episode, Ids, Stop, Turn
from turnwise.models import Policy, Sampling
from turnwise.testing.errors import CheckFailed

_TEXTS = ("go", "you see a door", "take the red key and go north", "a b c d e f g", "7", "wait")
_STORY = "you stand in a long hall with many doors and somebody gave you a key for one of them; "


def check_engine(
    make_engine: Callable[[], Engine],
    policy: Policy,
    *,
    tolerance: float = 1e-4,
    max_tokens: int = 6,
    deadline: float = 60.0,
) -> None:
    """Check that an engine samples from a policy and from nothing else.

    1. A completion holds at least one id of the vocabulary, no banned one, and a finite log-probability ≤ 0 for each.
    2. It ends at the first stop id (``Stop.STOP``), else after exactly ``max_tokens`` ids (``Stop.LENGTH``).
    3. The log-probabilities are the policy's own, for temperature, top-k, top-p and greedy sampling alike; so are the
       entropies, where they are not NaN.
    4. A completion depends on context, key and weights alone: not on what else is in flight, nor on earlier turns or
       another's beginning being in a cache, nor on the order of requests. Another key gives another sample.
    5. A completion names the version last given to `load`.
    6. Cancelled requests and released sessions leave nothing behind that changes or blocks later ones.
    7. An empty context and one that is too long are refused with `EngineError`, and the engine goes on.
    8. A stop string ends an action with the id that completes it (``Stop.STRING``), and one that never comes changes nothing;
       or stop strings are refused with `EngineError`.

    Args:
        make_engine: Makes an engine that samples from `policy`; called several times.
        policy: The policy.
        tolerance: Largest difference between a recorded log-probability and the policy's own, in nats.
        max_tokens: Budget of the actions that are tried.
        deadline: Seconds after which a check counts as hung.

    Raises:
        CheckFailed: the first promise that is broken.
    """
    check = _Check(make_engine, policy, tolerance, max_tokens, deadline)
    check.samples()
    check.scheduling()
    check.beginnings()
    check.turns()
    check.versions()
    check.cancellation()
    check.refusals()
    check.strings()


class _Check:
    """One run of the check; each method is a paragraph of the contract."""

    def __init__(
        self, make_engine: Callable[[], Engine], policy: Policy, tolerance: float, max_tokens: int, deadline: float
    ) -> None:
        self.make_engine = make_engine
        self.policy = policy
        self.tolerance = tolerance
        self.deadline = deadline
        self.sampling = Sampling(max_tokens=max_tokens)
        self.vocabulary = int(policy.model.config.get_text_config().vocab_size)
        self.contexts = [policy.renderer.first(text) for text in _TEXTS]
        # What a group of rollouts has in common, and what is left of it in another task.
        self.alike = [policy.renderer.first(text) for text in (_STORY, _STORY + "go", _STORY + "wait", _STORY * 2)]
        room = policy.context_limit - 2 * max_tokens
        self.alike = [context for context in self.alike if len(context) <= room]

    def samples(self) -> None:
        """Promises 1 to 3."""
        base = self.sampling
        kinds = [
            base,
            replace(base, temperature=0.7),
            replace(base, temperature=3.0),
            replace(base, top_k=3),
            replace(base, top_p=0.8),
            replace(base, temperature=1.5, top_k=5, top_p=0.9),
            replace(base, temperature=0.0),
            replace(base, max_tokens=1),
        ]
        for sampling in kinds:
            requests = [
                self._request(i, session=i, key=mix(1, i), sampling=sampling) for i in range(len(self.contexts))
            ]
            completions = self._run(self._together(self.make_engine(), requests), f"with {sampling}")
            for request, completion in zip(requests, completions, strict=True):
                self._form(request, completion)
            self._log_probs(requests, completions, sampling)

    def scheduling(self) -> None:
        """Promise 4, within one turn."""
        requests = [
            self._request(i % len(self.contexts), session=i, key=mix(2, i)) for i in range(3 * len(self.contexts))
        ]
        alone = [self._run(self._together(self.make_engine(), [r]), "alone") for r in requests]
        expected = [completions[0] for completions in alone]
        orders = [range(len(requests)), range(len(requests) - 1, -1, -1)]
        for order in orders:
            got = self._run(self._together(self.make_engine(), [requests[i] for i in order]), "all at once")
            for i, completion in zip(order, got, strict=True):
                self._same(expected[i], completion, "alone and among other requests")
        again = self._run(self._in_turn(self.make_engine(), requests), "one after another")
        for before, after in zip(expected, again, strict=True):
            self._same(before, after, "by a new engine and by one that has served others")
        others = [replace(request, key=mix(3, request.key)) for request in requests]
        changed = self._run(self._together(self.make_engine(), others), "with other keys")
        if all(np.array_equal(a.ids, b.ids) for a, b in zip(expected, changed, strict=True)):
            raise CheckFailed(
                "every completion stayed the same when the keys changed; draw the noise of token t from (key, t)"
            )

    def beginnings(self) -> None:
        """Promise 4, where contexts begin alike: together, and one after another while those before go on."""
        if not self.alike:
            return
        sampling = replace(self.sampling, max_tokens=2 * self.sampling.max_tokens)
        requests = [
            Request(self.alike[i % len(self.alike)], i, mix(6, i), sampling, self.policy.renderer.stop)
            for i in range(3 * len(self.alike))
        ]

        async def one_by_one() -> list[Completion]:
            engine = self.make_engine()
            asked: list[asyncio.Task[Completion]] = []
            for request in requests:
                asked.append(asyncio.ensure_future(engine.generate(request)))
                for _ in range(3):
                    await asyncio.sleep(0)
            return await asyncio.gather(*asked)

        together = self._run(self._together(self.make_engine(), requests), "at once")
        apart = self._run(one_by_one(), "one by one")
        for a, b in zip(together, apart, strict=True):
            self._same(a, b, "at once and one by one, where contexts begin alike")
        self._log_probs(requests, together, sampling)

    def turns(self) -> None:
        """Promise 4, over turns: a cache must not be felt."""

        async def dialogue(engine: Engine, session: int, *, keep: bool) -> list[tuple[Request, Completion]]:
            said: list[tuple[Request, Completion]] = []
            context = self.contexts[session % len(self.contexts)]
            for turn in range(4):
                own = session if keep else 100 * (session + 1) + turn
                request = Request(context, own, mix(4, session, turn), self.sampling, self.policy.renderer.stop)
                completion = await engine.generate(request)
                if not keep:
                    engine.release(own)
                said.append((request, completion))
                following = self.policy.renderer.following(_TEXTS[turn], completion.stop)
                context = np.concatenate([context, completion.ids, following]).astype(np.int32)
                if turn == 2:  # what a view that forgets does: a context that does not extend the last one
                    context = self.contexts[(session + 1) % len(self.contexts)]
            engine.release(session)
            return said

        async def many(*, keep: bool) -> list[tuple[Request, Completion]]:
            engine = self.make_engine()
            parts = await asyncio.gather(*(dialogue(engine, session, keep=keep) for session in range(5)))
            return [turn for part in parts for turn in part]

        kept = self._run(many(keep=True), "over several turns of a session")
        fresh = self._run(many(keep=False), "over several turns, a session each")
        for (_, a), (_, b) in zip(kept, fresh, strict=True):
            self._same(a, b, "in a session that goes on and in a new one")
        self._log_probs([request for request, _ in kept], [completion for _, completion in kept], self.sampling)

    def versions(self) -> None:
        """Promise 5."""
        engine = self.make_engine()
        for version in (3, 8):
            engine.load(version)
            found = self._run(self._together(engine, [self._request(0, session=0, key=1)]), "after load")[0].version
            if found != version:
                raise CheckFailed(
                    f"a completion sampled after load({version}) says version {found}; record the version of the weights "
                    "that sampled it"
                )

    def cancellation(self) -> None:
        """Promise 6."""
        n = len(self.contexts)
        wanted = [self._request(i % n, session=1000 + i, key=mix(5, i)) for i in range(4 * n)]
        expected = self._run(self._together(self.make_engine(), wanted), "alone")
        engine = self.make_engine()

        async def disturbed() -> list[Completion]:
            last: asyncio.Future[list[Completion]] | None = None
            for round_number in range(8):
                first = 50 * round_number
                doomed = [
                    asyncio.ensure_future(engine.generate(self._request(i % n, session=first + i, key=i)))
                    for i in range(12)
                ]
                for _ in range(round_number):
                    await asyncio.sleep(0)
                if round_number == 7:
                    # Those that count wait behind those that vanish.
                    last = asyncio.ensure_future(self._together(engine, wanted))
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                for i, task in enumerate(doomed):
                    task.cancel()
                    engine.release(first + i)
                if round_number % 2:
                    await asyncio.gather(*doomed, return_exceptions=True)
            assert last is not None
            return await last

        got = self._run(disturbed(), "after cancelled requests")
        for before, after in zip(expected, got, strict=True):
            self._same(before, after, "with and without cancelled requests before it")

    def refusals(self) -> None:
        """Promise 7."""
        engine = self.make_engine()
        empty = np.zeros(0, np.int32)
        long = np.resize(self.contexts[0], self.policy.context_limit + 1)
        for context, what in ((empty, "an empty context"), (long, f"a context of {len(long)} tokens")):
            request = replace(self._request(0, session=0, key=1), context=context)
            try:
                self._run(self._together(engine, [request]), f"with {what}")
            except EngineError:
                continue
            raise CheckFailed(f"{what} was sampled from; raise EngineError with the remedy")
        self._run(self._together(engine, [self._request(0, session=0, key=1)]), "after a refused request")

    def strings(self) -> None:
        """Promise 8."""
        requests = [self._request(i, session=i, key=mix(7, i)) for i in range(3)]
        for request, free in zip(requests, self._run(self._together(self.make_engine(), requests), ""), strict=True):
            texts = [
                self.policy.tokenizer.decode(free.ids[: n + 1].tolist(), skip_special_tokens=True)
                for n in range(len(free.ids))
            ]
            if not texts[-1]:
                continue
            string = texts[-1][-1]
            n = next(n for n, text in enumerate(texts) if string in text) + 1
            for stop, ids, why in (
                ((string,), free.ids[:n], Stop.STRING),
                (("\x00 never \x00",), free.ids, free.stop),
            ):
                try:
                    got = self._run(
                        self._together(
                            self.make_engine(), [replace(request, sampling=replace(request.sampling, stop=stop))]
                        ),
                        "with a stop string",
                    )[0]
                except EngineError:
                    return
                if not np.array_equal(got.ids, ids) or got.stop is not why:
                    raise CheckFailed(
                        f"with the stop string {stop[0]!r} an action of {free.ids.tolist()} became {got.ids.tolist()}, "
                        f"stop={got.stop!s}, and not {ids.tolist()}, stop={why!s}; end with the id whose text completes it, or "
                        "refuse stop strings with EngineError"
                    )

    # ---- helpers -----------------------------------------------------------------------------------------------------

    def _request(self, context: int, *, session: int, key: int, sampling: Sampling | None = None) -> Request:
        return Request(self.contexts[context], session, key, sampling or self.sampling, self.policy.renderer.stop)

    async def _together(self, engine: Engine, requests: Sequence[Request]) -> list[Completion]:
        completions = await asyncio.gather(*(engine.generate(request) for request in requests))
        for request in requests:
            engine.release(request.session)
        return list(completions)

    async def _in_turn(self, engine: Engine, requests: Sequence[Request]) -> list[Completion]:
        return [(await self._together(engine, [request]))[0] for request in requests]

    def _run(self, work: Coroutine[Any, Any, Any], when: str) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(work, self.deadline)

        try:
            return asyncio.run(bounded())
        except TimeoutError as error:
            raise CheckFailed(
                f"no answer within {self.deadline:g} s {when}; every request must be answered, whatever became of others"
            ) from error

    def _form(self, request: Request, completion: Completion) -> None:
        ids, logp = completion.ids, completion.logp
        where = f"with {request.sampling}"
        if not 1 <= len(ids) <= request.sampling.max_tokens:
            raise CheckFailed(f"{len(ids)} ids {where}; return between 1 and max_tokens of them, the stop id included")
        if ids.min() < 0 or ids.max() >= self.vocabulary:
            raise CheckFailed(f"id {ids.max()} {where} lies outside the vocabulary of {self.vocabulary}")
        if set(ids.tolist()) & set(self.policy.banned.tolist()):
            raise CheckFailed(f"a banned id was sampled {where}; give the ids of policy.banned no probability")
        if len(logp) != len(ids):
            raise CheckFailed(f"{len(logp)} log-probabilities for {len(ids)} ids {where}")
        if not np.isfinite(logp).all() or (logp > 1e-5).any():
            raise CheckFailed(f"log-probabilities {logp} {where}; they are finite and at most 0")
        if len(completion.entropy) != len(ids) or (completion.entropy < -1e-5).any():
            raise CheckFailed(f"entropies {completion.entropy} for {len(ids)} ids {where}; one each, NaN if unknown")
        stops = [i for i, token in enumerate(ids.tolist()) if token in request.stop]
        if stops and (stops[0] != len(ids) - 1 or completion.stop is not Stop.STOP):
            raise CheckFailed(
                f"stop id at {stops[0]} of {len(ids)} ids, stop={completion.stop!s} {where}; end there and say so"
            )
        if not stops and (completion.stop is not Stop.LENGTH or len(ids) != request.sampling.max_tokens):
            raise CheckFailed(
                f"no stop id among {len(ids)} ids, stop={completion.stop!s} {where}; go on until a stop id or max_tokens"
            )

    def _log_probs(self, requests: Sequence[Request], completions: Sequence[Completion], sampling: Sampling) -> None:
        episodes: list[Episode] = []
        for request, completion in zip(requests, completions, strict=True):
            turn = Turn(np.asarray(request.context), completion.ids, completion.logp, 0.0, fresh=True)
            episodes.append(Episode("check", (turn,), True, False, _EMPTY))
        changes = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        with torch.no_grad():
            outputs = self.policy.with_sampling(**changes).outputs(pack(episodes))
        said, uncertain = outputs.logp.cpu().numpy(), outputs.entropy.cpu().numpy()
        recorded = np.concatenate([completion.logp for completion in completions])
        worst = int(np.abs(said - recorded).argmax())
        if not abs(said[worst] - recorded[worst]) <= self.tolerance:
            raise CheckFailed(
                f"recorded log-probability {recorded[worst]:.6f}, the policy's own is {said[worst]:.6f} with {sampling}; "
                "record it under the distribution really sampled: after temperature, top-k, top-p and banned ids"
            )
        entropy = np.concatenate([completion.entropy for completion in completions])
        off = np.nan_to_num(np.abs(uncertain - entropy))
        if off.max() > self.tolerance * 10:
            worst = int(off.argmax())
            raise CheckFailed(
                f"recorded entropy {entropy[worst]:.6f}, the policy's own is {uncertain[worst]:.6f} with {sampling}; record "
                "that of the distribution really sampled, or NaN"
            )

    def _same(self, a: Completion, b: Completion, how: str) -> None:
        if not np.array_equal(a.ids, b.ids) or a.stop is not b.stop:
            raise CheckFailed(
                f"equal context, key and weights gave {a.ids.tolist()} and {b.ids.tolist()} {how}; a completion must not "
                "depend on anything else: check masks, cache rows and the source of noise"
            )
        if np.abs(a.logp - b.logp).max() > self.tolerance:
            raise CheckFailed(f"equal completions have log-probabilities {a.logp} and {b.logp} {how}")


_EMPTY: Ids = np.zeros(0, np.int32)

__all__ = ["check_engine"]
