"""The metrics of a run: one JSON object per iteration, and the same for TensorBoard.

TensorBoard events are written here and now and not through a background writer: one whose thread dies of a full disk
blocks the training loop for ever once its queue is full.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnwise.runs.atomic import disk, write_bytes
from turnwise.runs.errors import RunError

_FLUSH_SECONDS = 5.0


class MetricsLog:
    """Appends to ``metrics.jsonl`` and to TensorBoard.

    Args:
        metrics: The JSON lines file. Lines after iteration `start` are dropped.
        tensorboard: Folder of event files; None writes none.
        start: Completed iterations to keep. Events after it are marked for TensorBoard to forget.

    Raises:
        RunError: the disk refused, or the file is damaged before its last line.
    """

    def __init__(self, metrics: Path, tensorboard: Path | None, start: int) -> None:
        self._path = metrics
        self._folder = tensorboard
        before = metrics.read_bytes() if metrics.exists() else b""
        kept = b"".join(_line(values) for values in read_metrics(metrics) if values["iteration"] <= start)
        if kept != before:
            write_bytes(metrics, kept)
        with disk(metrics):
            self._file = metrics.open("ab", buffering=0)
        self._events = None
        self._flushed = -math.inf
        if tensorboard is not None:
            with disk(tensorboard):
                self._events = _open_events(tensorboard, start)

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        """Add the figures of one iteration, counted from 1. A figure that is not finite is written as null.

        Raises:
            RunError: the disk refused.
        """
        with disk(self._path):
            line = _line({"iteration": iteration, **values})
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._events is not None and self._folder is not None:
            with disk(self._folder):
                self._events.write_event(_event(iteration, values))
                if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                    self._events.flush()
                    self._flushed = time.monotonic()

    def sync(self) -> None:
        """Bring everything written so far onto the disk, before a checkpoint that relies on it.

        Raises:
            RunError: the disk refused.
        """
        with disk(self._path):
            os.fsync(self._file.fileno())
        if self._events is not None and self._folder is not None:
            with disk(self._folder):
                self._events.flush()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._events is not None and self._folder is not None:
            with disk(self._folder):
                self._events.close()
            self._events = None


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``. A last line that was cut off is left out.

    Raises:
        RunError: another line is damaged, with its number.
    """
    path = Path(path)
    if not path.exists():
        return []
    with disk(path, "read"):
        *lines, unfinished = path.read_bytes().split(b"\n")
    parsed = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            int(values["iteration"])
        except (ValueError, KeyError, TypeError):
            if number == len(lines) and not unfinished:
                break
            raise RunError(f"{path}, line {number} is damaged; delete that line to go on without it") from None
        parsed.append(values)
    return parsed


def _line(values: Mapping[str, Any]) -> bytes:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return json.dumps(finite, allow_nan=False).encode() + b"\n"


def _open_events(folder: Path, start: int) -> Any:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

    folder.mkdir(parents=True, exist_ok=True)
    resumed = any(folder.iterdir())
    # The time in the name has a resolution of one second, and a run may be resumed within one.
    events = EventsWriter(str(folder / "events"), f".{time.monotonic_ns()}")
    if resumed:
        events.write_event(
            Event(step=start + 1, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START))
        )
    return events


def _event(iteration: int, values: Mapping[str, float]) -> Any:
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

    scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    return Event(step=iteration, wall_time=time.time(), summary=Summary(value=scalars))
