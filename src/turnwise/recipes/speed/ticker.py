"""What the person in front of a benchmark sees: the case, the step, and how long everything may still take."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any


class Ticker:
    """A bar on a terminal, one line per case elsewhere; both on standard error.

    Args:
        weights: About how long each case takes, in any unit; the time left is worked out from those that are over.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = list(weights)
        self._over = 0
        self._begun = time.monotonic()
        self._name = ""
        self._bar: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=sum(weights) or 1.0, left="")
            self._bar.start()

    def begin(self, name: str) -> None:
        """A case begins."""
        self._name = name
        self.tell("")

    def tell(self, words: str) -> None:
        """What is going on in it."""
        if self._bar is not None:
            done = sum(self._weights[: self._over])
            text = f"{self._place()} {self._name}: {words}" if words else f"{self._place()} {self._name}"
            self._bar.update(self._task, description=text, completed=done, left=self._left())

    def done(self, summary: str) -> None:
        """A case is over; a line about it."""
        place = self._place()
        self._over += 1
        line = f"{place} {self._name}: {summary}  {self._left()}".rstrip()
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def _place(self) -> str:
        return f"[{min(self._over + 1, len(self._weights))}/{len(self._weights)}]"

    def _left(self) -> str:
        done = sum(self._weights[: self._over])
        if not done:
            return ""
        seconds = (time.monotonic() - self._begun) / done * sum(self._weights[self._over :])
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"
