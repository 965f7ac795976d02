"""Rounds: the model waits for the environments, so that what it is asked together does not depend on time.

How many rows a forward pass has moves its floating-point results in the last bits. Whoever answers first must therefore
not decide who shares a pass: a pass begins when every slot either asks the model or has nothing left to play.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


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

    async def wait(self) -> None:
        """Until every slot asks the model or has left; the deadline of an environment bounds its part of the wait."""
        await self._settled.wait()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A slot waits for the model."""
        self.leave()
        try:
            yield
        finally:
            self._busy += 1
            self._settled.clear()

    def leave(self) -> None:
        """A slot has nothing left to play."""
        self._busy -= 1
        if not self._busy:
            self._settled.set()
