"""Asynchronous work from synchronous code, also where an event loop is running already (a notebook)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` to its end, in a thread of its own if this one has a running loop; an interruption cancels it."""
    if not _loop_is_running():
        return asyncio.run(_quietly(work))
    outcome: list[Result] = []
    failure: list[BaseException] = []
    cancel: list[Callable[[], object]] = []

    async def main() -> Result:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
        return await _quietly(work)

    def target() -> None:
        try:
            outcome.append(asyncio.run(main()))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    try:
        thread.join()
    except BaseException:
        # Interrupted while waiting: nothing may go on collecting behind our back.
        for stop in cancel:
            stop()
        thread.join()
        raise
    if failure:
        raise failure[0]
    return outcome[0]


async def _quietly(work: Coroutine[Any, Any, Result]) -> Result:
    """An interruption that strikes inside a task ends the loop by itself; nobody needs the task's traceback besides."""

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), KeyboardInterrupt):
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(report)
    return await work


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
