"""The engine in this process: continuous batching over sessions whose caches live on across turns.

Requests wait in a queue; a pump runs one forward pass at a time over every session that has something to read or to
sample, prefill and decoding mixed, and answers each request the moment its action ends. Between
two passes the event loop runs whatever became ready, so an environment that answers at once joins the next pass. How many
rows a pass has moves its results in the last bits, so that a `gate` may hold a pass back until it is certain who joins.

A context is read only where no slot has read it yet: its own slot, whose session went on; another slot, from which it is
copied; or another context of the same pass, with which the decoder shares it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from turnwise.engines.base import Completion, EngineError, Request
from turnwise.engines.ending import WHY, Ending
from turnwise.engines.noise import uniform
from turnwise.engines.sampling import NotFiniteError, draw
from turnwise.engines.slots import Ints, Slots
from turnwise.episode import Stop
from turnwise.models import Feed, Policy, Sampling, make_decoder

# Sharing fewer ids than this with another slot saves less than copying them costs.
_COPY = 4
# A context that has so many more ids in common with one that is being read now waits for them.
_WAIT = 64
# Ways of sampling that are remembered while nobody samples.
_REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class _Mode:
    """How to draw tokens, and which of them end an action."""

    sampling: Sampling
    ending: Ending


class LocalEngine:
    """Samples from a `Policy` in this process.

    Args:
        policy: Shared with the learner; `load` only needs to drop caches.
        slots: Sessions whose cache is kept at once. More sessions than slots work too: the one idle for longest loses
            its cache and is read again when it comes back.
        dtype: Torch dtype name of a copy of the weights to sample with, such as ``"bfloat16"``; by default the weights
            themselves. A copy in fewer bits samples from a distribution slightly other than the learner's; the metrics
            ``drift/…`` say how far, and the stream ``importance`` corrects for it.
        pass_tokens: Context ids that one pass reads at most. Longer contexts are read in several, in which others go on
            sampling.

    Attributes:
        version: Version of the weights in use.
        tokens_read: Context ids that went through the network so far, sampled ones included. One that several contexts of a
            pass begin with counts for each of them.
        tokens_copied: Context ids that did not, because another slot had read them.
        tokens_sampled: Tokens sampled so far.
        seconds: Wall-clock time of all passes so far, sampling included.
        gate: Awaited before each pass, if there is one. What waits then is admitted in order of its session, so whoever
            sees to it that the same requests wait gets the same passes, bit for bit.

    Raises:
        EngineError: no slot, or no token per pass.
        TurnwiseError: weights that cannot be copied in `dtype`.
    """

    def __init__(self, policy: Policy, *, slots: int = 64, dtype: str = "", pass_tokens: int = 4096) -> None:
        if slots < 1 or pass_tokens < 1:
            raise EngineError(
                f"slots={slots} and pass_tokens={pass_tokens}: an engine needs room for at least one context and one token"
            )
        self.policy = policy
        self.pass_tokens = pass_tokens
        self.version = 0
        self.gate: Callable[[], Awaitable[None]] | None = None
        self.tokens_read = self.tokens_copied = self.tokens_sampled = 0
        self.seconds = 0.0
        self._decoder = make_decoder(policy, slots, dtype=dtype)
        self._slots = Slots(slots)
        self._futures: list[asyncio.Future[Completion] | None] = [None] * slots
        self._modes: list[_Mode] = []
        self._mode_of: dict[object, int] = {}
        self._mode = np.zeros(slots, np.int64)
        self._version = np.zeros(slots, np.int64)
        self._key = np.zeros(slots, np.uint64)
        self._waiting: list[tuple[Request, asyncio.Future[Completion]]] = []
        self._pumping: asyncio.Task[None] | None = None
        self._cancelled = False

    @property
    def sessions(self) -> int:
        """Sessions that have a slot."""
        return len(self._slots.of_session)

    @property
    def in_flight(self) -> int:
        """Requests that wait or are being sampled."""
        return len(self._waiting) + int(self._slots.busy.sum())

    def load(self, version: int) -> None:
        """Forget all caches; weights are shared with the policy, so there is at most a copy to make anew.

        An action under way goes on with the new weights, which read its context again; its completion keeps the version
        that it began with.
        """
        self.version = version
        self._decoder.refresh()
        self._slots.void()

    def release(self, session: int) -> None:
        """Free the session's slot, at once or when the action under way has ended."""
        self._slots.release(session)

    async def generate(self, request: Request) -> Completion:
        """Sample one action.

        Raises:
            EngineError: an empty context, a context beyond the model's limit, logits that are not numbers, or a second
                event loop.
            TurnwiseError: less memory than the contexts in flight need, with the number of slots that would fit.
        """
        self._refuse(request)
        loop = asyncio.get_running_loop()
        if self._pumping is not None and not self._pumping.done() and self._pumping.get_loop() is not loop:
            if self._pumping.get_loop().is_running():
                raise EngineError("two event loops use one engine at once; give each its own LocalEngine")
            # The loop that pumped has gone, and whoever waited there with it.
            self._drop_all()
            self._pumping = None
        future: asyncio.Future[Completion] = loop.create_future()
        self._waiting.append((request, future))
        if self._pumping is None or self._pumping.done():
            self._pumping = loop.create_task(self._pump())
        try:
            return await future
        finally:
            self._cancelled = self._cancelled or future.cancelled()

    def _refuse(self, request: Request) -> None:
        limit = self.policy.context_limit
        if not len(request.context):
            raise EngineError("an empty context was given; the first observation needs at least one token")
        if len(request.context) + request.sampling.max_tokens > limit:
            raise EngineError(
                f"{len(request.context)} context tokens and {request.sampling.max_tokens} to sample exceed the model's "
                f"limit of {limit}; shorten the observation, lower max_tokens or keep fewer turns in memory"
            )

    def _drop_all(self) -> list[asyncio.Future[Completion]]:
        """Forget every request and cache; the futures that were waiting."""
        dropped = [future for future in self._futures if future is not None] + [future for _, future in self._waiting]
        self._futures = [None] * len(self._slots)
        self._waiting.clear()
        self._slots.clear()
        return dropped

    async def _pump(self) -> None:
        try:
            # Everyone who is ready now gets to ask before the first pass.
            await asyncio.sleep(0)
            while True:
                if self.gate is not None:
                    await self.gate()
                begun = time.perf_counter()
                self._admit()
                self._advance()
                self.seconds += time.perf_counter() - begun
                # Ending with the last answer, not a moment later: a loop that stops there must not find us at work.
                if not (self._waiting or self._slots.busy.any()):
                    return
                await asyncio.sleep(0)
        except Exception as error:
            for future in self._drop_all():
                if not future.done():
                    future.set_exception(error)
            # What is not a number must not stay in a cache, where a mask would not hide it.
            self._decoder.refresh()
        except BaseException:
            # Cancelled or interrupted: the loop is ending, and a second exception in every task would break its end.
            for future in self._drop_all():
                future.cancel()
            raise

    # ---- who takes part ----------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        if not self._waiting:
            return
        # In order of arrival, rows and cache slots would depend on which environment answered first.
        waiting = sorted(self._waiting, key=lambda waiting: waiting[0].session)
        self._waiting = []
        if len(self._modes) > _REMEMBERED and not self._slots.busy.any():
            self._modes, self._mode_of = [], {}
        for place, (request, future) in enumerate(waiting):
            if future.cancelled():
                continue
            slot = self._slots.claim(request.session, request.context)
            if slot is None:
                self._waiting = waiting[place:]
                return
            self._slots.admit(slot, request.context, request.sampling.max_tokens)
            self._futures[slot] = future
            self._key[slot], self._version[slot] = request.key, self.version
            self._mode[slot] = self._find_mode(request)

    def _find_mode(self, request: Request) -> int:
        sampling = request.sampling
        name = (sampling.temperature, sampling.top_k, sampling.top_p, sampling.stop, request.stop)
        if name not in self._mode_of:
            vocabulary = int(self.policy.model.config.get_text_config().vocab_size)
            self._mode_of[name] = len(self._modes)
            self._modes.append(_Mode(sampling, Ending(request.stop, sampling.stop, vocabulary, self._text)))
        return self._mode_of[name]

    def _text(self, ids: list[int]) -> str:
        return self.policy.tokenizer.decode(ids, skip_special_tokens=True)

    def _part_with_cancelled(self) -> None:
        if self._cancelled:
            self._cancelled = False
            for slot, future in enumerate(self._futures):
                if future is not None and future.cancelled():
                    self._futures[slot] = None
                    self._slots.park(slot)

    # ---- what a pass reads -------------------------------------------------------------------------------------------

    def _plan(self) -> tuple[Ints, Ints]:
        """(R,) slots that read in the next pass, and (R,) how many ids each; copies what can be copied."""
        slots = self._slots
        rows = np.flatnonzero(slots.busy)
        counts = slots.length[rows] - slots.read[rows]
        fresh = rows[slots.fresh[rows]]
        total = int(counts.sum())
        fits = total - np.count_nonzero(counts == 1) <= self.pass_tokens
        if not len(fresh) and fits:
            return rows, counts
        others = slots.read.copy()
        others[fresh] = 0
        alike = None
        if len(fresh) and not (fits and others.max() < _COPY):
            fresh = fresh[slots.turn[fresh].argsort()]
            alike = slots.alike(fresh, _COPY)
            known = np.minimum(alike, slots.read)
            source = known.argmax(1)
            most = known.max(1)
            coming = alike[:, slots.busy].max(1)
            if not fits or (coming >= np.maximum(most, slots.read[fresh]) + _WAIT).any():
                return self._plan_in_parts(rows, fresh, alike)
            for slot, other, n in zip(fresh.tolist(), source.tolist(), most.tolist(), strict=True):
                if n >= slots.read[slot] + _COPY:
                    self._copy(other, slot, n)
        elif not fits:
            return self._plan_in_parts(rows, fresh, np.zeros((0, len(slots)), np.int64))
        self._begin(fresh)
        return rows, slots.length[rows] - slots.read[rows]

    def _begin(self, fresh: Ints) -> None:
        """What a slot has read itself is not worth having where several contexts may share their beginnings in the pass."""
        slots = self._slots
        if len(fresh) > 1:
            slots.read[fresh[slots.read[fresh] < _COPY]] = 0
        slots.fresh[fresh] = False

    def _copy(self, source: int, target: int, n: int) -> None:
        self._decoder.copy(source, target, n)
        self.tokens_copied += n - int(self._slots.read[target])
        self._slots.read[target] = n

    def _plan_in_parts(self, rows: Ints, fresh: Ints, alike: Ints) -> tuple[Ints, Ints]:
        """The same where not all can be read at once, or where some begin with what others are only about to read.

        Requests are served in the order of their admission.

        Args:
            rows: Busy slots.
            fresh: Those whose contexts have not begun to be read, in order of their admission.
            alike: See `Slots.alike`, for these.
        """
        slots, left = self._slots, self.pass_tokens
        like_of = dict(zip(fresh.tolist(), alike, strict=True))
        reads = np.zeros(len(slots), np.int64)
        reading = slots.busy & ~slots.fresh
        shares = np.zeros(len(slots), np.bool_)
        for slot in rows[slots.turn[rows].argsort()].tolist():
            read, n = int(slots.read[slot]), int(slots.length[slot])
            source, shared = -1, 0
            if n - read == 1 and slot not in like_of:
                reads[slot] = 1
                continue
            if slot in like_of:
                like = like_of[slot]
                known = np.minimum(like, slots.read)
                most = int(known.max())
                if most >= read + _COPY:
                    source, read = int(known.argmax()), most
                elif read < _COPY:
                    read = 0
                    shared = int(like[shares].max(initial=0))
                if int(like[reading].max(initial=0)) >= max(read, shared) + _WAIT:
                    continue
            count = min(n - read, shared + left)
            if count <= shared:
                continue
            if source >= 0:
                self._copy(source, slot, read)
            slots.read[slot], slots.fresh[slot], reading[slot] = read, False, True
            shares[slot] = read == 0 and count == n
            reads[slot], left = count, left - (count - shared)
        taken = np.flatnonzero(reads)
        return taken, reads[taken]

    # ---- a pass ------------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        self._part_with_cancelled()
        slots = self._slots
        if not slots.busy.any():
            return
        rows, counts = self._plan()
        read = slots.read[rows]
        after = read + counts
        if counts.sum() == len(rows):
            ids = slots.tokens[rows, read]
        else:
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            ids = slots.tokens[np.repeat(rows, counts), np.repeat(read, counts) + within]
        wanted = after == slots.length[rows]
        logits = self._decoder.advance(Feed(rows, read, counts, ids.astype(np.int64), wanted))
        slots.read[rows] = after
        self.tokens_read += len(ids)
        sampling = rows[wanted]
        if not len(sampling):
            return
        modes = self._mode[sampling]
        if (modes == modes[:1]).all():
            self._sample(logits, sampling, self._modes[modes[0]])
            return
        for mode in np.unique(modes).tolist():
            part = np.flatnonzero(modes == mode)
            self._sample(logits[torch.from_numpy(part).to(logits.device)], sampling[part], self._modes[mode])

    def _sample(self, logits: Tensor, rows: Ints, mode: _Mode) -> None:
        """Draw the next token of each of the slots `rows` from its logits (R, V), and answer those whose action ends."""
        slots = self._slots
        at, begin = slots.length[rows], slots.begin[rows]
        try:
            drawn = draw(logits, self._noise(rows, at - begin), mode.sampling, self.policy.banned)
        except NotFiniteError as error:
            raise self._no_numbers(int(rows[error.row])) from None
        slots.tokens[rows, at], slots.logp[rows, at], slots.entropy[rows, at] = drawn
        slots.length[rows] = at + 1
        self.tokens_sampled += len(rows)
        ended = mode.ending.ended(drawn.ids, lambda row: slots.tokens[rows[row], begin[row] : at[row] + 1].tolist())
        for row in np.flatnonzero((ended > 0) | (at + 1 == slots.end[rows])).tolist():
            self._finish(int(rows[row]), WHY[ended[row]])

    def _noise(self, rows: Ints, counters: Ints) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return uniform(self._key[rows], counters)

    def _finish(self, slot: int, stop: Stop) -> None:
        slots, future = self._slots, self._futures[slot]
        assert future is not None, "a busy slot answers somebody"
        action = slice(slots.begin[slot], slots.length[slot])
        completion = Completion(
            slots.tokens[slot, action].copy(),
            slots.logp[slot, action].copy(),
            stop,
            int(self._version[slot]),
            slots.entropy[slot, action].copy(),
        )
        self._futures[slot] = None
        slots.park(slot)
        # Somebody who cancelled it a moment ago wants no answer.
        if not future.done():
            future.set_result(completion)

    def _no_numbers(self, slot: int) -> EngineError:
        return EngineError(
            f"{type(self.policy.model).__name__}, weights version {self.version}, returned logits that are not finite "
            f"at position {self._slots.length[slot]} of session {self._slots.session[slot]}; nothing was trained on them. "
            "Lower the learning rate, or go back to the last checkpoint"
        )
