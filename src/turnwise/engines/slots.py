"""Cache slots as arrays: what each has read, whose it is, and the action that is being sampled in it.

A pass over many sessions touches a few arrays in place of an object per session. A slot remembers the ids that it has read after
its session has ended, so that the next context that begins like it need not be read from its beginning.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Ids

Ints = NDArray[np.int64]
"""int64 array."""

# Ids compared at once, so that long contexts of many slots need no great amount of memory.
_COMPARED = 1 << 21


class Slots:
    """N slots.

    Args:
        n: Number of slots.

    Attributes:
        of_session: Slot of each session that has one, the one used longest ago first.
        session: The session that had each slot last.
        owned: (N,) that session has not ended.
        busy: (N,) an action is being sampled there.
        fresh: (N,) busy, and its context does not go on from what the slot holds; so it may begin as another's does.
        length: (N,) ids of the context so far, sampled ones included, of a busy slot.
        read: (N,) leading ids of `tokens` that the decoder holds.
        begin: (N,) where the action begins.
        end: (N,) length at which the action has used up its budget.
        turn: (N,) admissions before that of the slot's latest request.
        tokens: (N, capacity) int32 ids.
        logp: (N, capacity) float32 log-probabilities of the sampled ones.
        entropy: (N, capacity) float32, likewise.
    """

    def __init__(self, n: int) -> None:
        self.of_session: dict[int, int] = {}
        self.session = [0] * n
        self.owned, self.busy, self.fresh = np.zeros((3, n), np.bool_)
        self.length, self.read, self.begin, self.end, self.turn = np.zeros((5, n), np.int64)
        self.tokens = np.zeros((n, 0), np.int32)
        self.logp, self.entropy = np.zeros((2, n, 0), np.float32)
        self._admitted = 0

    def __len__(self) -> int:
        return len(self.session)

    @property
    def extent(self) -> Ints:
        """(N,) leading ids of `tokens` that mean something."""
        return np.where(self.busy, self.length, self.read)

    def claim(self, session: int, context: Ids) -> int | None:
        """The session's slot: its own, else a free one, else that of the session idle for longest; None if all are busy."""
        slot = self.of_session.pop(session, None)
        if slot is not None:
            self.of_session[session] = slot
            return None if self.busy[slot] else slot
        free = np.flatnonzero(~(self.owned | self.busy))
        if len(free):
            slot = int(free[self.common(context, free).argmax()])
        else:
            oldest = next((s for s, i in self.of_session.items() if not self.busy[i]), None)
            if oldest is None:
                return None
            slot = self.of_session.pop(oldest)
        self.session[slot], self.owned[slot], self.of_session[session] = session, True, slot
        return slot

    def admit(self, slot: int, context: Ids, budget: int) -> None:
        """Begin an action of at most `budget` ids behind the context, which stays read as far as it is what the slot holds."""
        n = len(context)
        self._reserve(n + budget)
        held = int(self.read[slot])
        # The last id is read in any case, because its logits are asked for.
        read = min(held, n - 1)
        same = self.tokens[slot, :read] == context[:read]
        fresh = not held
        if not same.all():
            read, fresh = int(same.argmin()), True
        self.tokens[slot, read:n] = context[read:]
        self.length[slot] = self.begin[slot] = n
        self.read[slot], self.end[slot], self.turn[slot] = read, n + budget, self._admitted
        self.busy[slot], self.fresh[slot] = True, fresh
        self._admitted += 1

    def park(self, slot: int) -> None:
        """The action has ended. What was read stays; the last sampled id has not been."""
        self.busy[slot] = self.fresh[slot] = False
        self._forget_if_alone()

    def release(self, session: int) -> None:
        """The session has ended; a busy slot goes on to the end of its action."""
        slot = self.of_session.pop(session, None)
        if slot is not None:
            self.owned[slot] = False
            self._forget_if_alone()

    def void(self) -> None:
        """What the slots have read is not what the decoder's weights make of it."""
        self.read[:] = 0
        self.fresh[:] = self.busy

    def clear(self) -> None:
        """Forget every action and all that was read; sessions keep their slots."""
        self.busy[:] = False
        self.void()

    def _forget_if_alone(self) -> None:
        # Rollouts that follow each other must not feel in the last bits what was read for the ones before: an
        # interrupted run goes on with a new engine, bit for bit.
        if not self.of_session and not self.busy.any():
            self.read[:] = 0

    def _reserve(self, length: int) -> None:
        capacity = self.tokens.shape[1]
        if length > capacity:
            more = ((0, 0), (0, max(length, 2 * capacity, 128) - capacity))
            self.tokens = np.pad(self.tokens, more)
            self.logp, self.entropy = np.pad(self.logp, more), np.pad(self.entropy, more)

    # ---- what begins alike -------------------------------------------------------------------------------------------

    def common(self, context: Ids, slots: Ints) -> Ints:
        """(K,) how many leading ids of the context each of the K slots has read."""
        n = min(len(context), int(self.read[slots].max()))
        if not n:
            return np.zeros(len(slots), np.int64)
        return np.minimum(_equal(self.tokens[slots, :n], context[:n]), self.read[slots])

    def alike(self, rows: Ints, least: int) -> Ints:
        """(R, N) how many leading ids the contexts of R busy slots have in common with what every slot holds or will hold.

        Fewer than `least` count as none, as do all that a slot has in common with itself; a context's last id is never
        counted.
        """
        found = np.zeros((len(rows), len(self)), np.int64)
        extent = self.extent
        heads = (self.tokens[rows, None, :least] == self.tokens[:, :least]).all(-1)
        heads &= (extent >= least) & (self.length[rows, None] > least)
        heads[np.arange(len(rows)), rows] = False
        mine, other = heads.nonzero()
        if not len(mine):
            return found
        longest = int(self.length[rows].max())
        at_once = max(1, _COMPARED // longest)
        for first in range(0, len(mine), at_once):
            a, b = rows[mine[first : first + at_once]], other[first : first + at_once]
            n = int(min(self.length[a].max(), extent[b].max()))
            same = _equal(self.tokens[a, :n], self.tokens[b, :n])
            found[mine[first : first + at_once], b] = np.minimum(same, np.minimum(extent[b], self.length[a] - 1))
        return found


def _equal(a: Ids, b: Ids) -> Ints:
    """(K,) how many leading columns of the rows (K, n) are equal."""
    differs = a != b
    return np.where(differs.any(-1), differs.argmax(-1), differs.shape[-1])
