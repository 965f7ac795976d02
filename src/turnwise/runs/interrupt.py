"""Ctrl-C at a moment when nothing is half done.

While episodes are collected the learner is untouched, so the run can stop at once. While the weights move, stopping
would leave them between two iterations: the signal is remembered, and the iteration completed first. A second signal
does not wait.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptGuard:
    """Handles SIGINT and SIGTERM within a ``with`` block of the main thread; elsewhere it does nothing.

    Both become `KeyboardInterrupt`: SIGTERM is how clusters announce that they want their machine back.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._busy = False
        self._requested = False
        self._process = os.getpid()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Complete the block before the first signal takes effect."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._requested:
            self._requested = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Forked environment workers inherit this handler; they hold nothing worth saving.
        if os.getpid() != self._process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self._requested or not self._busy:
            self._requested = False
            raise KeyboardInterrupt
        self._requested = True
        # A handler may run in the middle of a print; the descriptor has no lock that it could hold.
        os.write(2, b"\nstopping after this iteration; once more stops at once\n")
