"""The engine in this process: continuous batching over sessions whose caches live on across turns.

Requests wait in a queue; a pump runs one forward pass at a time over every session that has something to read or to
sample, prefill and decoding mixed, and answers each request the moment its action ends. Between
two passes the event loop runs whatever became ready, so an environment that answers at once joins the next pass. How many
rows a pass has moves its results in the last bits, so that a `gate` may hold a pass back until it is certain who joins.

What this file leaves out: speed beyond the right shape (fused kernels, prefix sharing between sessions).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from turnwise.engines.base import Completion, EngineError, Request
from turnwise.engines.noise import uniform
from turnwise.episode import Ids, Stop
from turnwise.models import Feed, Policy, Sampling, log_probs, make_decoder


@dataclass
class _Job:
    """A request under way: its context grows in place by what is sampled.

    `version` is the oldest weights that any of its tokens came from.
    """

    request: Request
    future: asyncio.Future[Completion]
    slot: int
    buffer: Ids
    length: int
    read: int
    version: int
    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)


@dataclass
class _Slot:
    """What a cache slot has read, and for whom; an orphan's session has ended while its last job is still running."""

    session: int | None = None
    orphan: bool = False
    ids: Ids = field(default_factory=lambda: np.zeros(0, np.int32))
    length: int = 0
    busy: bool = False


class LocalEngine:
    """Samples from a `Policy` in this process.

    Args:
        policy: Shared with the learner; `load` only needs to drop caches.
        slots: Sessions whose cache is kept at once. More sessions than slots work too: the one idle for longest loses
            its cache and is read again when it comes back.

    Attributes:
        version: Version of the weights in use.
        tokens_read: Context tokens that went through the network so far, sampled ones included.
        tokens_sampled: Tokens sampled so far.
        gate: Awaited before each pass, if there is one. What waits then is admitted in order of its session, so whoever
            sees to it that the same requests wait gets the same passes, bit for bit.
    """

    def __init__(self, policy: Policy, *, slots: int = 64) -> None:
        self.policy = policy
        self.version = 0
        self.gate: Callable[[], Awaitable[None]] | None = None
        self._slots = [_Slot() for _ in range(slots)]
        self._of_session: OrderedDict[int, int] = OrderedDict()
        self._waiting: deque[tuple[Request, asyncio.Future[Completion]]] = deque()
        self._active: list[_Job] = []
        self._pumping: asyncio.Task[None] | None = None
        self._decoder = make_decoder(policy, slots)
        self.tokens_read = 0
        self.tokens_sampled = 0

    def load(self, version: int) -> None:
        """Forget all caches; weights are shared with the policy, so there is nothing to copy.

        An action under way goes on with the new weights, which read its context again; its completion keeps the version
        that it began with.
        """
        self.version = version
        self._decoder.refresh()
        for slot in self._slots:
            slot.length = 0
        for job in self._active:
            job.read = 0

    def release(self, session: int) -> None:
        """Free the session's slot, at once or when the action under way has ended."""
        index = self._of_session.pop(session, None)
        if index is None:
            return
        if self._slots[index].busy:
            self._slots[index].orphan = True
        else:
            self._slots[index] = _Slot()

    async def generate(self, request: Request) -> Completion:
        """Sample one action.

        Raises:
            EngineError: an empty context, a context beyond the model's limit, logits that are not numbers, or a second
                event loop.
        """
        limit = self.policy.context_limit
        if not len(request.context):
            raise EngineError("an empty context was given; the first observation needs at least one token")
        if len(request.context) + request.sampling.max_tokens > limit:
            raise EngineError(
                f"{len(request.context)} context tokens and {request.sampling.max_tokens} to sample exceed the model's "
                f"limit of {limit}; shorten the observation, lower max_tokens or keep fewer turns in memory"
            )
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
        return await future

    def _drop_all(self) -> list[asyncio.Future[Completion]]:
        """Forget every request and cache; the futures that were waiting."""
        dropped = [job.future for job in self._active] + [future for _, future in self._waiting]
        self._active.clear()
        self._waiting.clear()
        for index, slot in enumerate(self._slots):
            self._slots[index] = _Slot() if slot.orphan else _Slot(slot.session)
        return dropped

    async def _pump(self) -> None:
        try:
            # Everyone who is ready now gets to ask before the first pass.
            await asyncio.sleep(0)
            while True:
                if self.gate is not None:
                    await self.gate()
                self._admit()
                self._advance()
                # Ending with the last answer, not a moment later: a loop that stops there must not find us at work.
                if not (self._waiting or self._active):
                    return
                await asyncio.sleep(0)
        except Exception as error:
            for future in self._drop_all():
                if not future.done():
                    future.set_exception(error)
        except BaseException:
            # Cancelled or interrupted: the loop is ending, and a second exception in every task would break its end.
            for future in self._drop_all():
                future.cancel()
            raise

    def _admit(self) -> None:
        # In order of arrival, rows and cache slots would depend on which environment answered first.
        self._waiting = deque(sorted(self._waiting, key=lambda waiting: waiting[0].session))
        while self._waiting:
            request, future = self._waiting[0]
            if future.cancelled():
                self._waiting.popleft()
                continue
            slot = self._slot_for(request.session)
            if slot is None:
                return
            self._waiting.popleft()
            state = self._slots[slot]
            context = request.context
            n = min(state.length, len(context) - 1)
            same = state.ids[:n] == context[:n]
            read = n if same.all() else int(same.argmin())
            buffer = np.empty(len(context) + request.sampling.max_tokens, np.int32)
            buffer[: len(context)] = context
            state.busy = True
            self._active.append(_Job(request, future, slot, buffer, len(context), read, self.version))

    def _slot_for(self, session: int) -> int | None:
        index = self._of_session.get(session)
        if index is not None:
            self._of_session.move_to_end(session)
            return None if self._slots[index].busy else index
        free = next((i for i, slot in enumerate(self._slots) if slot.session is None), None)
        if free is None:
            oldest = next((s for s, i in self._of_session.items() if not self._slots[i].busy), None)
            if oldest is None:
                return None
            free = self._of_session.pop(oldest)
            self._slots[free] = _Slot()
        self._of_session[session] = free
        self._slots[free].session = session
        return free

    def _advance(self) -> None:
        self._active = [job for job in self._active if not self._abandoned(job)]
        jobs = self._active
        if not jobs:
            return
        feed = Feed(
            slots=np.array([job.slot for job in jobs]),
            read=np.array([job.read for job in jobs]),
            counts=np.array([job.length - job.read for job in jobs]),
            ids=np.concatenate([job.buffer[job.read : job.length] for job in jobs]).astype(np.int64),
            wanted=np.ones(len(jobs), np.bool_),
        )
        logits = self._decoder.advance(feed)
        self.tokens_read += sum(job.length - job.read for job in jobs)
        self.tokens_sampled += len(jobs)
        for job in jobs:
            job.read = job.length
        ids, logp = self._sample(logits, jobs)
        for job, token, value in zip(jobs, ids.tolist(), logp.tolist(), strict=True):
            job.buffer[job.length] = token
            job.length += 1
            job.ids.append(token)
            job.logp.append(value)
            if token in job.request.stop:
                self._finish(job, Stop.STOP)
            elif len(job.ids) == job.request.sampling.max_tokens:
                self._finish(job, Stop.LENGTH)
        self._active = [job for job in jobs if not job.future.done()]

    def _abandoned(self, job: _Job) -> bool:
        if job.future.cancelled():
            self._park(job)
            return True
        return False

    def _park(self, job: _Job) -> None:
        """Keep what the slot has read; the last sampled token has not been read yet."""
        slot = self._slots[job.slot]
        slot.busy, slot.ids, slot.length = False, job.buffer, job.read
        if slot.orphan:
            self._slots[job.slot] = _Slot()

    def _finish(self, job: _Job, stop: Stop) -> None:
        self._park(job)
        completion = Completion(np.array(job.ids, np.int32), np.array(job.logp, np.float32), stop, job.version)
        job.future.set_result(completion)

    def _sample(self, logits: Tensor, jobs: list[_Job]) -> tuple[Tensor, Tensor]:
        """(R,) sampled ids and their log-probabilities: inverse CDF of one counter-based uniform per row."""
        keys = np.array([job.request.key for job in jobs], np.uint64)
        counters = np.array([len(job.ids) for job in jobs], np.int64)
        noise = torch.from_numpy(uniform(keys, counters)).to(logits.device)
        ids = torch.empty(len(jobs), dtype=torch.int64, device=logits.device)
        taken = torch.empty(len(jobs), dtype=torch.float32, device=logits.device)
        # NaN and +inf survive the maximum; -inf is a token the model itself rules out.
        if not bool(torch.isfinite(logits.amax(-1)).all()):
            self._complain(logits, jobs)
        kinds: dict[Sampling, list[int]] = {}
        for row, job in enumerate(jobs):
            kinds.setdefault(job.request.sampling, []).append(row)
        for sampling, members in kinds.items():
            rows = torch.tensor(members, device=logits.device)
            logp = log_probs(logits[rows], sampling, self.policy.banned)
            cdf = logp.double().exp().cumsum(-1)
            # Strictly below the total, whatever the rounding, so that the token drawn has a width of its own.
            total = cdf[:, -1:]
            point = torch.minimum(noise[rows, None] * total, torch.nextafter(total, torch.zeros_like(total)))
            drawn = torch.searchsorted(cdf, point, right=True).squeeze(-1)
            ids[rows] = drawn
            taken[rows] = logp.gather(-1, drawn[:, None]).squeeze(-1)
        return ids, taken

    def _complain(self, logits: Tensor, jobs: list[_Job]) -> None:
        bad = int((~torch.isfinite(logits.amax(-1))).nonzero()[0, 0])
        raise EngineError(
            f"{type(self.policy.model).__name__}, weights version {self.version}, returned logits that are not finite "
            f"at position {jobs[bad].length} of session {jobs[bad].request.session}; nothing was trained on them. "
            "Lower the learning rate, or go back to the last checkpoint"
        )
