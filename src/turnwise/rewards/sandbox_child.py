"""What runs inside the limited process: it limits itself, and then runs code that nobody has read.

It is started as a file of its own, ``python -I sandbox_child.py '{…limits…}'``, imports nothing of turnwise and never runs
in the process that trains. See `turnwise.rewards.sandbox`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from decimal import Decimal
from fractions import Fraction
from typing import Any

_NEW_USER, _NEW_PID, _NEW_NET = 0x10000000, 0x20000000, 0x40000000
_DIE_WITH_PARENT = 1


def isolate() -> None:
    """Leave the network and the other processes behind, where the kernel lets an ordinary user do that.

    The process that goes on is the first of its own process namespace: when it ends, everything it started ends.
    """
    import ctypes

    try:
        libc = ctypes.CDLL(None)
        if libc.unshare(_NEW_USER | _NEW_PID | _NEW_NET):
            return
    except (OSError, AttributeError, TypeError):
        return
    child = os.fork()
    if not child:
        libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        return
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def limit(limits: dict[str, int]) -> None:
    """Set the limits of this process for good."""
    import resource

    wanted = {
        "RLIMIT_AS": limits["memory"],
        "RLIMIT_CPU": limits["cpu"],
        "RLIMIT_FSIZE": limits["file"],
        "RLIMIT_NPROC": limits["processes"],
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }
    for name, most in wanted.items():
        if hasattr(resource, name):
            _, hard = resource.getrlimit(getattr(resource, name))
            allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
            try:
                resource.setrlimit(getattr(resource, name), (allowed, allowed))
            except (ValueError, OSError):  # macOS refuses some of them
                continue


def encoded(value: Any) -> Any:
    """A value as JSON, as [kind, what it holds]; kind "other" for what has no plain form."""
    if value is None or isinstance(value, bool | str):
        return ["plain", value]
    if isinstance(value, int):
        return ["plain", int(value)]
    if isinstance(value, float):
        return ["plain", float(value)]
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if isinstance(value, Fraction | Decimal):
        return ["fraction", str(Fraction(value))]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.hex()]
    for kind, name in ((list, "list"), (tuple, "tuple"), (set | frozenset, "set")):
        if isinstance(value, kind):
            return [name, [encoded(part) for part in value]]
    if isinstance(value, dict):
        return ["dict", [[encoded(key), encoded(part)] for key, part in value.items()]]
    if hasattr(value, "tolist"):  # what numpy returns
        return encoded(value.tolist())
    return ["other", type(value).__name__]


def answer() -> None:
    """Answer requests, a line of JSON each, until there are no more.

    A request is ``{"nonce", "run": source}`` or ``{"nonce", "value": expression}``; the reply repeats the nonce and has
    ``value`` or ``error``. What the code prints goes nowhere, and what it reads is empty.
    """
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    names: dict[str, Any] = {"__name__": "solution"}
    for line in requests:
        request = json.loads(line)
        reply: dict[str, Any] = {"nonce": request["nonce"]}
        try:
            if "run" in request:
                exec(compile(request["run"], "<solution>", "exec"), names)
                reply["value"] = encoded(True)
            else:
                reply["value"] = encoded(eval(compile(request["value"], "<test>", "eval"), names))
            given = json.dumps(reply)
        except BaseException as error:  # also SystemExit: code that leaves has not passed
            given = json.dumps({"nonce": request["nonce"], "error": f"{type(error).__name__}: {error}"[:500]})
        _write(replies, given.encode() + b"\n")


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def main() -> None:
    """Limit this process, and do what it was started for."""
    settings = json.loads(sys.argv[1])
    isolate()
    limit(settings["limits"])
    if settings["mode"] == "answer":
        answer()
        return
    with open(settings["script"], encoding="utf-8") as file:
        source = file.read()
    sys.argv[:] = [settings["script"]]
    exec(compile(source, settings["script"], "exec"), {"__name__": "__main__", "__builtins__": __builtins__})


if __name__ == "__main__":
    main()
