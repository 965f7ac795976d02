"""Calling a function that somebody else wrote: synchronous or not, with a deadline, and with a check of its answer."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from turnwise.rewards.reward import RewardError


def name_of(function: Callable[..., Any]) -> str:
    """What messages call a function."""
    return str(getattr(function, "__name__", type(function).__name__))


def place_of(error: BaseException, function: Callable[..., Any]) -> str:
    """`` (FILE:LINE)``: the last line of the function's own file that an error went through; empty if there is none."""
    code = getattr(inspect.unwrap(getattr(function, "func", function)), "__code__", None)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if code is not None and frame.filename == code.co_filename]
    return f" ({code.co_filename}:{lines[-1]})" if code is not None and lines else ""


def within(deadline: float, work: Callable[[], Any], who: str) -> Any:
    """The result of `work()`, awaited if it can be, from a thread of its own.

    A thread, so that a function that hangs is left behind and named, and so that a coroutine can run where an event
    loop is running already. A function that sets alarms (math-verify's time limits are made of them) can do so in
    the main thread alone; where it complains about that, it is called again there, and its own limits have to do.

    Raises:
        RewardError: no result within `deadline` seconds.
    """
    future: Future[Any] = Future()

    def target() -> None:
        try:
            result = work()
            future.set_result(_finished(result))
        except SystemExit as error:
            # It would end this process without a word.
            future.set_exception(RuntimeError(f"it called sys.exit({error.code!r})"))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=target, daemon=True, name="turnwise-reward").start()
    try:
        return future.result(deadline)
    except TimeoutError as error:
        if future.done():
            raise
        raise RewardError(
            f"{who} did not answer within its deadline of {deadline:g} s; raise `deadline`, or find out where it waits"
        ) from error
    except ValueError as error:
        if not _sets_alarms(error) or threading.current_thread() is not threading.main_thread():
            raise
        return _finished(work())


def _sets_alarms(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, is Python's own about signals outside of the main thread."""
    return error is not None and ("signal only works in main thread" in str(error) or _sets_alarms(error.__cause__))


def _finished(result: Any) -> Any:
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result


def accepted(function: Callable[..., Any], arguments: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Those of the keyword arguments that the function takes.

    Raises:
        RewardError: the function needs an argument that is not there.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some callables written in C tell nobody
        return dict(arguments)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    missing = [p.name for p in parameters if p.name in named - set(arguments) and p.default is p.empty]
    if missing:
        raise RewardError(
            f"{who} needs the argument {missing[0]!r}, which is not among {sorted(arguments)}; "
            "provide it with columns=lambda episode: {...}"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name in named}


def number(value: Any, who: str, where: str) -> float:
    """A score as a float; None, "cannot be scored", as NaN.

    Raises:
        RewardError: anything else, NaN and infinity included, naming the function and the episode.
    """
    if value is None:
        return math.nan
    try:
        result = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RewardError(f"{who} returned {value!r:.80} for {where}; return a number, or None") from error
    if not math.isfinite(result):
        raise RewardError(
            f"{who} returned {value!r:.80} for {where}; return a finite number, or None where it cannot say"
        )
    return result
