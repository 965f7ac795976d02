"""Independent runs side by side: one process per core, one progress bar, results in order.

Seeds and methods of a comparison do not share anything, so each core takes the next run as soon as it is free. Every
process computes with one thread; that is faster than two threads on one small model, and makes results repeatable.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Sequence
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
    """

    label: str
    work: Callable[..., Any]
    arguments: dict[str, Any]
    units: int


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

    Args:
        title: Shown beside the bar.
        jobs: What to do.
        workers: Processes; the number of usable cores by default.
        progress: Show a bar with the time left.

    Raises:
        TurnwiseError: a job failed; the message names it.
    """
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
    with (
        ProcessPoolExecutor(n, context, _begin, (ticks,)) as pool,
        Progress(*columns, console=console, disable=not progress) as bar,
    ):
        task = bar.add_task(title, total=sum(job.units for job in jobs))
        futures: list[Future[Any]] = [pool.submit(_work, i, job) for i, job in enumerate(jobs)]
        try:
            while not all(future.done() for future in futures):
                try:
                    ticks.get(timeout=0.2)
                    bar.advance(task)
                except queue.Empty:
                    _raise_first(jobs, futures)
            while not ticks.empty():
                ticks.get()
                bar.advance(task)
            _raise_first(jobs, futures)
        except BaseException:
            for future in futures:
                future.cancel()
            for process in list((pool._processes or {}).values()):
                # A run survives this by design, and asking politely would wait for its iteration.
                process.kill()
            raise
    return [future.result() for future in futures]


def _raise_first(jobs: Sequence[Job], futures: Sequence[Future[Any]]) -> None:
    for job, future in zip(jobs, futures, strict=True):
        if future.done() and not future.cancelled() and (error := future.exception()) is not None:
            if isinstance(error, TurnwiseError):
                raise TurnwiseError(f"{job.label}: {error}") from error
            raise error
