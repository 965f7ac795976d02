"""Asynchronous work from synchronous code: an interruption ends it without noise, anything else is still heard."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from turnwise.rollout.loop import run_to_end


async def struck(error: BaseException) -> None:
    """Waits for ever while `error` strikes in a task that nobody awaits."""

    async def pump() -> None:
        raise error

    task = asyncio.ensure_future(pump())
    await (asyncio.Event().wait() if isinstance(error, KeyboardInterrupt) else asyncio.sleep(0.01))
    del task


def test_an_interruption_inside_a_task_leaves_no_traceback(caplog: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_to_end(struck(KeyboardInterrupt()))
    gc.collect()
    assert not caplog.records


def test_other_errors_are_still_reported(caplog: Any) -> None:
    run_to_end(struck(ValueError("the pump broke")))
    gc.collect()
    assert "never retrieved" in caplog.text
    assert "the pump broke" in caplog.text


@pytest.mark.parametrize("running", [False, True])
def test_results_and_errors_come_through(running: bool) -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    async def fails() -> int:
        raise ValueError("no")

    def both() -> int:
        with pytest.raises(ValueError, match="no"):
            run_to_end(fails())
        return run_to_end(work())

    async def notebook() -> int:
        return both()

    assert (asyncio.run(notebook()) if running else both()) == 7
