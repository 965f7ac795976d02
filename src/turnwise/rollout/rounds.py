"""Rounds: the model waits for the environments, so that what it is asked together does not depend on time.

How many rows a forward pass has moves its floating-point results in the last bits. Whoever answers first must therefore
not decide who shares a pass: a pass begins when every slot either asks the model or has nothing left to play.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager


class Rounds:
    """Knows whether any slot of one collect may still come to ask the model.

    Which tasks are under way at the end of the wait is the same whichever slot took them: tasks are taken in order, and
    each either asks or is over, after which its slot takes the next one.

    Args:
        slots: Slots that play; none of them asks yet.
    """

    def __init__(self, slots: int) -> None:
        self._busy = slots
        self._settled = asyncio.Event()
        self._asking = _Asking(self)

    async def wait(self) -> None:
        """Until every slot asks the model or has left; the deadline of an environment bounds its part of the wait."""
        await self._settled.wait()

    def asking(self) -> AbstractContextManager[None]:
        """A slot waits for the model."""
        return self._asking

    def leave(self) -> None:
        """A slot has nothing left to play."""
        self._busy -= 1
        if not self._busy:
            self._settled.set()

    def go_on(self) -> None:
        """A slot plays on."""
        self._busy += 1
        self._settled.clear()


class _Asking:
    """A slot waits for the model; one object for all slots, entered once for each action."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds

    def __enter__(self) -> None:
        self._rounds.leave()

    def __exit__(self, *_: object) -> None:
        self._rounds.go_on()
