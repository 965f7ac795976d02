"""The stopwatch of a worker process: it waits for the word to begin a step, and says what the step took.

A side calls `Meter.next` before each step and stops when that returns False. Everything between two calls is the step:
fetching data, rolling out, learning, the optimizer. So a library whose loop is its own (TRL's ``trainer.train()``) is
measured just as one that is called step by step: its callback calls `next`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

_STATUS = Path("/proc/self/status")


class Stopped(Exception):  # noqa: N818 - it ends a loop, it is not an error
    """The parent wants no further step."""


class Meter:
    """Measures steps and talks to the parent in lines of JSON.

    Args:
        source: Where the parent's orders come from.
        sink: Where the answers go.
        device: Torch device that is waited for before a clock is read.
    """

    def __init__(self, source: TextIO, sink: TextIO, device: str = "cpu") -> None:
        self._source = source
        self._sink = sink
        self._device = device
        self._phases: dict[str, list[float]] = {}
        self._counts: dict[str, float] = {}
        self._settings: dict[str, Any] = {}
        self._begun: tuple[float, float] | None = None
        self._peak: Peak | None = None

    # ---- what a side calls -------------------------------------------------------------------------------------------

    def settings(self, **chosen: Any) -> None:
        """Say once how this side is set up; it goes into the results."""
        self._settings.update(chosen)

    def next(self) -> bool:
        """End the step under way, if there is one, and wait for the order to begin another.

        Returns:
            False when there is to be none.
        """
        if self._begun is not None:
            seconds, cpu = (now - then for now, then in zip(self._clocks(), self._begun, strict=True))
            answer: dict[str, Any] = {"seconds": seconds, "cpu": cpu, "phases": self._phases, "counts": self._counts}
            if self._peak is not None:
                answer["peak"] = self._peak.rise()
                self._peak = None
            self._say(answer)
        else:
            self._say({"ready": True, "settings": self._settings})
        order = json.loads(self._source.readline() or '{"do": "close"}')
        if order["do"] != "step":
            self._begun = None
            return False
        self._phases, self._counts = {}, {}
        gc.collect()
        if order.get("memory"):
            self._peak = Peak(self._device)
        self._begun = self._clocks()
        return True

    def next_or_stop(self) -> None:
        """`next` for a loop that cannot be asked to end.

        Raises:
            Stopped: there is to be no further step.
        """
        if not self.next():
            raise Stopped

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a part of the step; parts of the same name add up. Peak memory is that of the update, and what a rollout
        needs is left out of it."""
        begun = self._clocks()
        try:
            yield
        finally:
            spent = [now - then for now, then in zip(self._clocks(), begun, strict=True)]
            before = self._phases.get(name, [0.0, 0.0])
            self._phases[name] = [a + b for a, b in zip(before, spent, strict=True)]
            if name == "rollout" and self._peak is not None:
                self._peak = Peak(self._device)

    def count(self, **counts: float) -> None:
        """Add to what was counted in this step."""
        for name, value in counts.items():
            self._counts[name] = self._counts.get(name, 0) + value

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _clocks(self) -> tuple[float, float]:
        if self._device != "cpu":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def _say(self, message: dict[str, Any]) -> None:
        self._sink.write(json.dumps(message) + "\n")
        self._sink.flush()


class Peak:
    """Memory that is needed on top of what is held at the beginning.

    On a GPU it is what the allocator says; on a CPU the rise of the resident set's high-water mark, after what the C library
    holds on to has been given back. None where the system does not tell.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device != "cpu"
        if self._cuda:
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._before: int | None = torch.cuda.memory_allocated()
            return
        gc.collect()
        give_back()
        self._before = None
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _resident("VmRSS")

    def rise(self) -> int | None:
        """Bytes, or None."""
        if self._cuda:
            import torch

            return torch.cuda.max_memory_allocated() - (self._before or 0)
        if self._before is None:
            return None
        return max(0, (_resident("VmHWM") or 0) - self._before)


def give_back() -> None:
    """Ask the C library to return freed memory to the system, where it can."""
    import ctypes

    with suppress(OSError, AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
        trim(0)


def _resident(field: str) -> int | None:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def quiet_streams() -> tuple[TextIO, TextIO]:
    """The parent's orders and the way to answer; whatever else is printed goes to standard error."""
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return sys.stdin, sink
