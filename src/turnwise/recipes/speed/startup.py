"""How long it takes until something happens: the help page, and the first training step of a tiny model."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from turnwise.recipes.speed.cases import case
from turnwise.recipes.speed.measure import OURS, Launch, Participant, Tell

_HELP = "import sys; from turnwise.cli.main import main; sys.exit(main(['--help']))"
_TINY = {"groups": 2, "group_size": 4, "prompt": 16, "actions": 16}


def measure_startup(launch: Launch, *, pairs: int, rivals: bool, tell: Tell) -> dict[str, list[list[float]]]:
    """By what was waited for: [seconds, CPU seconds] of each try.

    A first step is that of a process that was not there before: imports, model, trainer, rollout, update. Files are in the
    system's cache, because every kind is tried once before it counts.

    Args:
        launch: Starts a process.
        pairs: Tries of each kind, in turns.
        rivals: Measure the other side too.
        tell: Told what is going on.
    """
    kinds: dict[str, Callable[[], None]] = {"turnwise --help": _help, "ours, first step": lambda: _first(launch, OURS)}
    if rivals:
        kinds["trl, first step"] = lambda: _first(launch, "trl")
    found: dict[str, list[list[float]]] = {name: [] for name in kinds}
    for attempt in range(pairs + 1):
        for name, work in kinds.items():
            tell(f"{name}, {attempt} of {pairs}")
            before, begun = _children(), time.perf_counter()
            work()
            spent = [time.perf_counter() - begun, _children() - before]
            if attempt:
                found[name].append(spent)
    return found


def _help() -> None:
    subprocess.run([sys.executable, "-c", _HELP], stdout=subprocess.DEVNULL, check=True)


def _first(launch: Launch, side: Any) -> None:
    tiny = case("grpo", "XS", **_TINY)
    process = launch(Participant(side), tiny)
    try:
        for order in ({"do": "open", "case": tiny.as_dict(), "dtype": "fp32", "options": {}}, {"do": "step"}):
            answer = process.ask(order)
            if "error" in answer:
                raise RuntimeError(answer["error"])
    finally:
        process.end()


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
