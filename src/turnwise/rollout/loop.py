"""Asynchronous work from synchronous code, also where an event loop is running already (a notebook)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` to its end, in a thread of its own if this one has a running loop; an interruption cancels it."""
    outcome: list[Result] = []
    failure: list[BaseException] = []
    cancel: list[Callable[[], object]] = []

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
        loop.set_exception_handler(_report)
        # Kept out of the task: when a loop ends, `signal` spells out its handler, which holds the task with its result.
        outcome.append(await work)

    def target() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failure.append(error)

    if not _loop_is_running():
        asyncio.run(main())
        return outcome[0]
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


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An interruption that strikes inside a task ends the loop by itself; nobody needs the task's traceback besides."""
    if not isinstance(context.get("exception"), KeyboardInterrupt):
        loop.default_exception_handler(context)


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
