"""The engine in this process: continuous batching over sessions whose caches live on across turns.

Requests wait in a queue; a pump runs one forward pass at a time over every session that has something to read or to
sample, prefill and decoding mixed, and answers each request the moment its action ends. Between
two passes the event loop runs whatever became ready, so an environment that answers at once joins the next pass.

What this file leaves out: speed beyond the right shape (fused kernels, prefix sharing between sessions).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from turnwise.engines.base import Completion, EngineError, Request
from turnwise.engines.noise import uniform
from turnwise.episode import Ids, Stop
from turnwise.models import CachedDecoder, Decoder, Policy, RecomputeDecoder, Row, Sampling, log_probs


@dataclass
class _Job:
    """A request under way: its context grows in place by what is sampled."""

    request: Request
    future: asyncio.Future[Completion]
    slot: int
    buffer: Ids
    length: int
    read: int
    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)


@dataclass
class _Slot:
    """What a cache slot has read, and for whom."""

    session: int | None = None
    ids: Ids = field(default_factory=lambda: np.zeros(0, np.int32))
    length: int = 0
    busy: bool = False


class LocalEngine:
    """Samples from a `Policy` in this process.

    Args:
        policy: Shared with the learner; `load` only needs to drop caches.
        slots: Sessions whose cache is kept at once. More sessions than slots work too: the one idle for longest loses
            its cache and is read again when it comes back.
    """

    def __init__(self, policy: Policy, *, slots: int = 64) -> None:
        self.policy = policy
        self.version = 0
        self._slots = [_Slot() for _ in range(slots)]
        self._of_session: OrderedDict[int, int] = OrderedDict()
        self._waiting: deque[tuple[Request, asyncio.Future[Completion]]] = deque()
        self._active: list[_Job] = []
        self._pumping: asyncio.Task[None] | None = None
        self._decoder = self._new_decoder()
        self.tokens_read = 0
        self.tokens_sampled = 0

    def _new_decoder(self) -> Decoder:
        return CachedDecoder(self.policy, len(self._slots)) if self.policy.packed else RecomputeDecoder(self.policy)

    def load(self, version: int) -> None:
        """Forget all caches; weights are shared with the policy, so there is nothing to copy."""
        self.version = version
        for slot in self._slots:
            slot.length = 0

    def release(self, session: int) -> None:
        """Free the session's slot."""
        index = self._of_session.pop(session, None)
        if index is not None:
            self._slots[index] = _Slot()

    async def generate(self, request: Request) -> Completion:
        """Sample one action.

        Raises:
            EngineError: an empty context, a context beyond the model's limit, or logits that are not numbers.
        """
        limit = self.policy.context_limit
        if not len(request.context):
            raise EngineError("an empty context was given; the first observation needs at least one token")
        if len(request.context) + request.sampling.max_tokens > limit:
            raise EngineError(
                f"{len(request.context)} context tokens and {request.sampling.max_tokens} to sample exceed the model's "
                f"limit of {limit}; shorten the observation, lower max_tokens or keep fewer turns in memory"
            )
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._pumping is None or self._pumping.done():
            self._pumping = asyncio.get_running_loop().create_task(self._pump())
        return await future

    async def _pump(self) -> None:
        try:
            # Everyone who is ready now gets to ask before the first pass.
            await asyncio.sleep(0)
            while self._waiting or self._active:
                self._admit()
                self._advance()
                await asyncio.sleep(0)
        except BaseException as error:
            failed = [job.future for job in self._active] + [future for _, future in self._waiting]
            self._active.clear()
            self._waiting.clear()
            for slot in self._slots:
                slot.busy, slot.length = False, 0
            for future in failed:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise

    def _admit(self) -> None:
        while self._waiting:
            request, future = self._waiting[0]
            slot = self._slot_for(request.session)
            if slot is None:
                return
            self._waiting.popleft()
            if future.cancelled():
                continue
            state = self._slots[slot]
            context = request.context
            n = min(state.length, len(context) - 1)
            same = state.ids[:n] == context[:n]
            read = n if same.all() else int(same.argmin())
            buffer = np.empty(len(context) + request.sampling.max_tokens, np.int32)
            buffer[: len(context)] = context
            state.busy, state.session = True, request.session
            self._active.append(_Job(request, future, slot, buffer, len(context), read))

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
        logits = self._decoder.advance([Row(job.slot, job.buffer[: job.length], job.read) for job in jobs])
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

    def _finish(self, job: _Job, stop: Stop) -> None:
        self._park(job)
        completion = Completion(np.array(job.ids, np.int32), np.array(job.logp, np.float32), stop, self.version)
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
            # Scaling by the total keeps a draw below the last kept token whatever the rounding of the sum.
            drawn = torch.searchsorted(cdf, noise[rows, None] * cdf[:, -1:], right=True).squeeze(-1)
            ids[rows] = drawn.clamp_(max=logp.shape[-1] - 1)
            taken[rows] = logp.gather(-1, drawn[:, None]).squeeze(-1)
        return ids, taken

    def _complain(self, logits: Tensor, jobs: list[_Job]) -> None:
        bad = int((~torch.isfinite(logits.amax(-1))).nonzero()[0, 0])
        raise EngineError(
            f"{type(self.policy.model).__name__}, weights version {self.version}, returned logits that are not finite "
            f"at position {jobs[bad].length} of session {jobs[bad].request.session}; nothing was trained on them. "
            "Lower the learning rate, or go back to the last checkpoint"
        )
