"""One writer per run.

The lock is a POSIX record lock on a file that names its holder. The kernel drops it when the holder dies, however it
dies, so nobody has to guess whether a process id is stale; and, unlike `flock`, it is not inherited by forked
environment workers that outlive a killed trainer. Needs Linux, macOS or another POSIX system.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from pathlib import Path

from turnwise.runs.atomic import disk
from turnwise.runs.errors import RunError

log = logging.getLogger(__name__)

_held: set[Path] = set()
"""Locks of this process. Record locks do not exclude their own process, and closing a second descriptor of a locked
file would drop the lock: so this process must know without opening the file."""


class RunLock:
    """The right to write into one run folder, from construction to `release`.

    Raises:
        RunError: another process, named in the message, is writing this run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._file = None
        if self._path in _held:
            raise RunError(f"this process already writes the run {path.parent}; close that RunFolder first")
        with disk(path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        file = os.fdopen(descriptor, "r+")
        with disk(path, "lock"):
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                holder = _read(file.read())
                file.close()
                raise RunError(
                    f"the run {path.parent} is being written by process {holder.get('pid', '?')} on "
                    f"{holder.get('host', '?')}; wait for it, stop it, or choose another folder"
                ) from None
            before = _read(file.read())
            if before and before.get("pid") != os.getpid():
                log.info("process %s, which held the run %s, is gone; taking over", before["pid"], path.parent)
            file.seek(0)
            file.truncate()
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            file.flush()
        self._file = file
        _held.add(self._path)

    def release(self) -> None:
        """Give the run free. Doing it twice is harmless."""
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()
            self._file.close()
            self._file = None
            _held.discard(self._path)


def _read(text: str) -> dict[str, object]:
    # A process killed between truncating and writing leaves this empty: the lock decides, the text only informs.
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        return {}
