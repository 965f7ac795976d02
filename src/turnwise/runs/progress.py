"""What the person in front of a run sees: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

_LINE_SECONDS = 10.0


class Progress(Protocol):
    """Shows how far a run is."""

    def phase(self, name: str) -> None:
        """What the run is doing now."""
        ...

    def step(self, iteration: int, values: Mapping[str, float]) -> None:
        """An iteration, counted from 1, is complete."""
        ...

    def say(self, text: str) -> None:
        """Print a line without disturbing the bar."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def show(start: int, steps: int, *, enabled: bool = True) -> Progress:
    """The display that fits standard error."""
    if not enabled:
        return Silent()
    return Bar(start, steps) if sys.stderr.isatty() else Lines(start, steps)


class Silent:
    """Shows warnings only."""

    def phase(self, name: str) -> None:
        """Nothing."""

    def step(self, iteration: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Print the line."""
        print(text, file=sys.stderr)

    def close(self) -> None:
        """Nothing."""


class Lines:
    """One plain line for the first and the last iteration, and at most one every ten seconds between them."""

    def __init__(self, start: int, steps: int) -> None:
        self._start = start
        self._steps = steps
        self._begun = time.monotonic()
        self._shown = -math.inf

    def phase(self, name: str) -> None:
        """Nothing: a log needs no ticker."""

    def step(self, iteration: int, values: Mapping[str, float]) -> None:
        """A line, if it is time for one."""
        now = time.monotonic()
        if now - self._shown < _LINE_SECONDS and iteration != self._steps:
            return
        self._shown = now
        left = (now - self._begun) / (iteration - self._start) * (self._steps - iteration)
        self.say(f"[{iteration}/{self._steps}] {_figures(values)}  ETA {_duration(left)}")

    def say(self, text: str) -> None:
        """Print the line."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing."""


class Bar:
    """A bar with the iteration, the phase, the latest figures and the time left."""

    def __init__(self, start: int, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns: list[Any] = [
            TextColumn("{task.description:8}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True),
        ]
        self._progress = RichProgress(*columns, console=Console(stderr=True), speed_estimate_period=120)
        self._task = self._progress.add_task("starting", total=steps, completed=start, figures="")
        self._progress.start()

    def phase(self, name: str) -> None:
        """Show the phase in front of the bar."""
        self._progress.update(self._task, description=name)

    def step(self, iteration: int, values: Mapping[str, float]) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=iteration, figures=_figures(values))

    def say(self, text: str) -> None:
        """Print the line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the last state on the terminal."""
        self._progress.stop()


def _figures(values: Mapping[str, float]) -> str:
    parts = []
    if "success" in values:
        parts.append(f"success {values['success']:.0%}")
    if "reward" in values:
        parts.append(f"return {values['reward']:.3g}")
    elif "loss" in values:
        parts.append(f"loss {values['loss']:.4g}")
    if "time/tokens_per_second" in values:
        parts.append(f"{values['time/tokens_per_second']:,.0f} tokens/s")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
