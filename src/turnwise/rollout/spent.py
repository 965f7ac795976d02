"""What rolling out costs: wall-clock seconds by who was at work, and tokens.

Environments and the model may work at the same time. Seconds are therefore those of the one thread in which the loop runs,
and no second is booked twice: what an environment does while the model computes costs the rollout nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def spent_by(*sources: Any) -> dict[str, float]:
    """What the sources have spent since they were last asked, by the names of ``docs/metrics.md``; nothing for one that does
    not say."""
    booked: defaultdict[str, float] = defaultdict(float)
    for source in sources:
        spent = getattr(source, "spent", None)
        for name, value in spent().items() if spent is not None else ():
            booked[name] += value
    return dict(booked)


class Clock:
    """Books the seconds and tokens of a collector.

    The loop's thread is always at one of these: bookkeeping between two waits, an environment that runs in the loop, a pass of
    the engine, or waiting. What is left of the total is the wait: for environments in threads or processes, or for an
    engine elsewhere, of which nothing but the wait is known.

    Args:
        engine: What samples. Its ``seconds`` and ``tokens_read`` are read if it counts them.
        inline: Environments run in the loop.
    """

    def __init__(self, engine: Any, *, inline: bool) -> None:
        self._engine = engine
        self._inline = inline
        self._mark = 0.0
        self._own = 0.0
        self._environment = 0.0
        self._asked = 0
        self._booked: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Everything within is a rollout."""
        self._own = self._environment = 0.0
        self._asked = 0
        seconds, read = self._counted("seconds"), self._counted("tokens_read")
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._book(time.perf_counter() - begun, seconds, read)

    def _counted(self, name: str) -> float | None:
        return getattr(self._engine, name, None)

    def _book(self, total: float, seconds: float | None, read: float | None) -> None:
        engine, passed = self._counted("seconds"), self._counted("tokens_read")
        spent = 0.0 if engine is None or seconds is None else engine - seconds
        waited = max(0.0, total - self._own - self._environment - spent)
        if seconds is None:
            spent = waited
        elif not self._inline:
            self._environment += waited
        self._booked["time/environment"] += self._environment
        self._booked["time/engine"] += spent
        if passed is not None and read is not None:
            self._booked["tokens/read"] += passed - read
            self._booked["tokens/shared"] += self._asked - (passed - read)

    def resume(self) -> None:
        """A slot begins, or goes on after a wait."""
        self._mark = time.perf_counter()

    def suspend(self) -> None:
        """A slot is about to wait, or ends."""
        now = time.perf_counter()
        self._own += now - self._mark
        self._mark = now

    def environment_answered(self) -> None:
        """A slot goes on with what its environment, for which it was suspended, has said."""
        now = time.perf_counter()
        if self._inline:
            self._environment += now - self._mark
        self._mark = now

    def sampled(self, context: int, action: int) -> None:
        """An action of so many tokens has followed so many of context; its last one has not been read."""
        self._asked += context + action - 1

    def spent(self) -> dict[str, float]:
        """What was booked since this was last asked."""
        booked = dict(self._booked)
        self._booked.clear()
        return booked
