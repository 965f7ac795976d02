"""Running code that a model wrote, in a process with limits on time, memory, files and processes.

A limit on resources and not a security boundary. The process starts in an empty temporary folder, with a clean environment
(no keys, no tokens), and is killed with all its group at the deadline. On Linux, where ordinary users may make namespaces,
it has no network, cannot see into other processes, and nothing that it starts outlives it. Files are open to it as they
are to you. To train against code that may want to do harm, run the whole training in a container.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from turnwise.rewards.reward import RewardError

_CHILD = Path(__file__).with_name("sandbox_child.py")
_LONGEST_REPLY = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one completion's code may use.

    Attributes:
        seconds: Wall-clock time for all its tests together; the processor time is limited to a second more.
        memory_mb: Address space, in MiB.
        file_mb: Size of a file that it writes, its output included, in MiB.
        processes: Processes and threads beside the first. The kernel counts all of a user's, and does not count root's.

    Raises:
        RewardError: a limit that leaves nothing.
    """

    seconds: float = 10.0
    memory_mb: int = 1024
    file_mb: int = 8
    processes: int = 0

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.memory_mb >= 64 and self.file_mb >= 1 and self.processes >= 0):
            raise RewardError(f"{self} leaves no room to run; memory_mb is at least 64, file_mb 1 and processes 0")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a limited process said about one request.

    Attributes:
        ok: The code ran to its end and answered.
        value: What an expression was, as a plain Python value.
        error: What went wrong, in words.
    """

    ok: bool
    value: Any = None
    error: str = ""


class LimitedProcess:
    """A process that runs sources and evaluates expressions, one after the other, in one namespace of its own.

    Requests carry a number that is drawn for each of them, and only a reply that repeats it counts: a solution that prints,
    or leaves the process, says nothing. Use it in a ``with`` statement, which ends the process.

    Args:
        limits: What it may use.
        until: When it is killed, on `time.monotonic`; by default `limits.seconds` from now.
    """

    def __init__(self, limits: Limits, until: float | None = None) -> None:
        self.limits = limits
        self.until = time.monotonic() + limits.seconds if until is None else until
        self._folder = tempfile.TemporaryDirectory(prefix="turnwise-", ignore_cleanup_errors=True)
        self._process = _start({"mode": "answer"}, limits, self._folder.name, subprocess.PIPE, subprocess.PIPE)
        self._buffer = b""

    def __enter__(self) -> LimitedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _kill(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._folder.cleanup()

    def run(self, source: str) -> Reply:
        """Run statements."""
        return self._ask({"run": source})

    def evaluate(self, expression: str) -> Reply:
        """Evaluate an expression."""
        return self._ask({"value": expression})

    def _ask(self, request: dict[str, str]) -> Reply:
        nonce = secrets.token_hex(16)
        line = json.dumps({"nonce": nonce, **request}).encode() + b"\n"
        try:
            self._send(line)
            reply = json.loads(self._receive())
            if reply.get("nonce") != nonce:
                raise ValueError("a reply to something else")
            if "error" in reply:
                return Reply(False, error=str(reply["error"]))
            return Reply(True, _decoded(reply["value"]))
        except TimeoutError:
            error = f"it took longer than {self.limits.seconds:g} s"
        except (EOFError, BrokenPipeError):
            error = "the process ended, by itself or at one of its limits"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            error = "the process answered with nonsense"
        _kill(self._process)  # nothing it says from here on could be believed
        return Reply(False, error=error)

    def _send(self, data: bytes) -> None:
        pipe = _pipe(self._process.stdin)
        os.set_blocking(pipe, False)
        while data:
            _, ready, _ = select.select([], [pipe], [], self._left())
            if not ready:
                raise TimeoutError
            data = data[os.write(pipe, data[:65536]) :]

    def _receive(self) -> bytes:
        pipe = _pipe(self._process.stdout)
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([pipe], [], [], self._left())
            if not ready:
                raise TimeoutError
            part = os.read(pipe, 65536)
            if not part:
                raise EOFError
            self._buffer += part
            if len(self._buffer) > _LONGEST_REPLY:
                raise ValueError("too long a reply")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def run_script(source: str, stdin: str, limits: Limits, until: float | None = None) -> Reply:
    """Run a program from its beginning, as ``__main__``.

    Args:
        source: The program.
        stdin: What it reads.
        limits: What it may use.
        until: When it is killed, on `time.monotonic`; by default `limits.seconds` from now.

    Returns:
        Whether it ended by itself with status 0, and what it wrote to its standard output.
    """
    end = time.monotonic() + limits.seconds if until is None else until
    with (
        tempfile.TemporaryDirectory(prefix="turnwise-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as written,
    ):
        script = Path(folder, "solution.py")
        script.write_text(source, encoding="utf-8", errors="replace")
        given.write(stdin.encode("utf-8", "replace"))
        given.seek(0)
        process = _start({"mode": "script", "script": str(script)}, limits, folder, given, written)
        try:
            status = process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            return Reply(False, error=f"it took longer than {limits.seconds:g} s")
        finally:
            _kill(process)
        written.seek(0)
        output = written.read(_LONGEST_REPLY).decode("utf-8", "replace")
    return Reply(status == 0, output, "" if status == 0 else f"it ended with status {status}")


def _start(settings: dict[str, Any], limits: Limits, folder: str, stdin: Any, stdout: Any) -> subprocess.Popen[bytes]:
    if os.name != "posix":
        raise RewardError("code is run under limits that only Linux and macOS have; use a container or WSL")
    mb = 2**20
    settings["limits"] = {
        "memory": limits.memory_mb * mb,
        "cpu": int(limits.seconds) + 1,
        "file": limits.file_mb * mb,
        "processes": limits.processes + 1,
    }
    environment = {
        "PATH": os.defpath,
        "HOME": folder,
        "TMPDIR": folder,
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", str(_CHILD), json.dumps(settings)],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise RewardError(f"no process could be started to run code in: {error}") from error


def _pipe(pipe: IO[bytes] | None) -> int:
    assert pipe is not None
    return pipe.fileno()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and everything in its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _decoded(value: Any) -> Any:
    kind, held = value
    if kind == "plain":
        return held
    if kind == "list":
        return [_decoded(part) for part in held]
    if kind == "tuple":
        return tuple(_decoded(part) for part in held)
    if kind == "set":
        return {_decoded(part) for part in held}
    if kind == "dict":
        return {_decoded(key): _decoded(part) for key, part in held}
    if kind == "complex":
        return complex(*held)
    if kind == "fraction":
        return Fraction(held)
    if kind == "bytes":
        return bytes.fromhex(held)
    return Unspeakable(str(held))


@dataclass(frozen=True, slots=True, eq=False)
class Unspeakable:
    """A value that has no plain form, and so is equal to nothing.

    Attributes:
        kind: Name of its class.
    """

    kind: str
