"""Runs side by side: one process per core, one progress bar, results in order.

Seeds and methods of a comparison share nothing but what they start from, so each core takes the next run that can begin as
soon as it is free. Every process computes with one thread; that is faster than two threads on one small model, and makes
results repeatable.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from turnwise.errors import TurnwiseError


@dataclass(frozen=True)
class Job:
    """A run to do.

    Attributes:
        label: What people see.
        work: Module-level function; gets ``tick`` (call it once per finished unit) and `arguments`.
        arguments: Keyword arguments, plain data.
        units: How often `work` will call ``tick``.
        after: Places in the list of jobs of those that have to be done before.
    """

    label: str
    work: Callable[..., Any]
    arguments: dict[str, Any]
    units: int
    after: tuple[int, ...] = ()


# What a finished job puts where others put their places.
_DONE = None
_ticks: Any = None


def _begin(ticks: Any) -> None:
    global _ticks
    _ticks = ticks
    import torch

    torch.set_num_threads(1)


def _work(index: int, job: Job) -> Any:
    began = time.process_time()
    result = job.work(tick=lambda: _ticks.put(index), **job.arguments)
    return result, time.process_time() - began


def run_jobs(title: str, jobs: Sequence[Job], *, workers: int | None = None, progress: bool = True) -> list[Any]:
    """The results of all jobs, in their order, each with its CPU seconds: ``(result, seconds)``.

    A free process takes the first job that can begin, so long ones should come early.

    Args:
        title: Shown beside the bar.
        jobs: What to do. Each comes after those that it waits for.
        workers: Processes; the number of usable cores by default.
        progress: Show a bar with the time left.

    Raises:
        TurnwiseError: a job failed; the message names it.
        ValueError: a job waits for one that comes after it.
    """
    late = [job.label for i, job in enumerate(jobs) if any(before >= i for before in job.after)]
    if late:
        raise ValueError(f"{late[0]} waits for a job that comes after it; put it behind what it waits for")
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    context = multiprocessing.get_context("spawn")
    ticks = context.Queue()
    n = max(1, min(len(jobs), workers or len(os.sched_getaffinity(0))))
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    ]
    console = Console(stderr=True)
    waiting = list(range(len(jobs)))
    futures: dict[int, Future[Any]] = {}
    with (
        ProcessPoolExecutor(n, context, _begin, (ticks,)) as pool,
        Progress(*columns, console=console, disable=not progress) as bar,
    ):
        task = bar.add_task(title, total=sum(job.units for job in jobs))
        try:
            while waiting or not all(future.done() for future in futures.values()):
                done = {i for i, future in futures.items() if future.done()}
                _raise_first(jobs, futures)
                ready = [i for i in waiting if done.issuperset(jobs[i].after)]
                for i in ready[: n - (len(futures) - len(done))]:
                    waiting.remove(i)
                    futures[i] = pool.submit(_work, i, jobs[i])
                    futures[i].add_done_callback(lambda _: ticks.put(_DONE))
                if ticks.get() is not _DONE:
                    bar.advance(task)
            while not ticks.empty():
                if ticks.get() is not _DONE:
                    bar.advance(task)
            _raise_first(jobs, futures)
        except BaseException:
            for future in futures.values():
                future.cancel()
            for process in list((pool._processes or {}).values()):
                # A run survives this by design, and asking politely would wait for its iteration.
                process.kill()
            raise
    return [futures[i].result() for i in range(len(jobs))]


def _raise_first(jobs: Sequence[Job], futures: Mapping[int, Future[Any]]) -> None:
    for i, future in sorted(futures.items()):
        if future.done() and not future.cancelled() and (error := future.exception()) is not None:
            if isinstance(error, TurnwiseError):
                raise TurnwiseError(f"{jobs[i].label}: {error}") from error
            raise error
