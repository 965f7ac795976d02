"""Both sides in one run: each in a process of its own on the same cores, taking turns step by step.

    A B A B A B ...     a pair is one step of each, one after the other; its ratio is less moved by what else the machine does
                        than either time is

Each participant does one step first that is not counted. The rate of matrix products is measured once in every round.
After the last round each does one more step under the eyes of `turnwise.recipes.speed.meter.Peak`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from turnwise.errors import TurnwiseError
from turnwise.recipes.speed.cases import Case, Dtype

CALIBRATION = "gemm"
"""Name of the participant that measures the machine."""

OURS, THEIRS = "ours", "trl"
"""Names of the two sides."""


@dataclass(frozen=True)
class Participant:
    """Who takes part in a case.

    Attributes:
        side: `OURS`, `CALIBRATION`, or a `turnwise.recipes.speed.cases.Rival`.
        dtype: What it computes in.
        variant: What is different about it, in words; nothing for the usual settings.
        options: (name, value) of the settings that are different.
    """

    side: str
    dtype: Dtype = "fp32"
    variant: str = ""
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """In results: ``ours fp32``, ``trl bf16``, and the variant after that. The other side is called so whichever library
        and release does the work."""
        side = self.side if self.side in (OURS, CALIBRATION) else THEIRS
        return f"{side} {self.dtype}{', ' * bool(self.variant)}{self.variant}"


class Process(Protocol):
    """A worker under way."""

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Give it an order and wait for the answer; ``error`` in it says what went wrong."""
        ...

    def end(self) -> None:
        """Let it end."""
        ...


Launch = Callable[[Participant, Case], Process]
"""(who, first case) -> its process."""


class Worker:
    """`turnwise.recipes.speed.worker` in a process of its own, on as many cores as it may have threads.

    Args:
        participant: Whose side it is.
        case: Says how many threads, and on which device.
        log: File that gets what it prints.
        path: Folder put in front of the import path, for another release of TRL.
    """

    def __init__(self, participant: Participant, case: Case, log: Path, path: Path | None = None) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(case.threads), "MKL_NUM_THREADS": str(case.threads), "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1",
        }  # fmt: skip
        if case.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if path is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(path), *filter(None, [environment.get("PYTHONPATH")])])
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "turnwise.recipes.speed.worker", participant.side],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
            )  # fmt: skip
        if case.device == "cpu" and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, sorted(os.sched_getaffinity(0))[: case.threads])

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """See `Process`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            return {"error": f"its process ended with status {self._process.wait()}; {self._log} may say why"}
        return json.loads(answer)

    def end(self) -> None:
        """See `Process`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@dataclass
class Measurement:
    """What one case gave.

    Attributes:
        question: What it was measured for; `turnwise.recipes.speed.plan` has them.
        case: What was done.
        sides: Participant's name -> ``settings``, and lists with one entry per round: ``seconds``, ``cpu``, ``phases`` (name ->
            list of [seconds, CPU seconds]); ``counts`` of the last step, and ``peak`` bytes of an update, or None.
        skipped: Participant's name -> why there are no figures of it.
        gemm: Route -> GFLOP/s in each round.
        machine: What the calibrating process says about the machine.
    """

    question: str
    case: Case
    sides: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    gemm: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    machine: dict[str, Any] = field(default_factory=dict[str, Any])

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "question": self.question, "case": self.case.as_dict(), "sides": self.sides, "skipped": self.skipped,
            "gemm": self.gemm,
        }  # fmt: skip


Tell = Callable[[str], None]
"""Told what is being done, in a few words."""


class Arena:
    """Keeps the processes between cases, because they take long to start.

    Args:
        launch: Starts a process.
    """

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._running: dict[tuple[Participant, int, str], Process] = {}

    def close(self) -> None:
        """End all processes."""
        while self._running:
            self._running.popitem()[1].end()

    def measure(
        self,
        question: str,
        case: Case,
        participants: Sequence[Participant],
        *,
        pairs: int,
        seconds: float,
        memory: bool = True,
        tell: Tell = lambda words: None,
    ) -> Measurement:
        """Let the participants take turns.

        Args:
            question: What it is measured for.
            case: What to do.
            participants: Who takes part, in the order of their turns.
            pairs: Rounds.
            seconds: Begin no further round after so long; there is always one.
            memory: Look at the memory of one more step.
            tell: Told what is going on.
        """
        result = Measurement(question, case)
        tell("starting")
        gauge = self._open(Participant(CALIBRATION), case, result)
        players = {who: process for who in participants if (process := self._open(who, case, result))}
        for who in list(players):
            tell(f"first step of {who.name}")
            self._step(who, players, result)
        begun = time.monotonic()
        for pair in range(pairs):
            if not players or (pair and time.monotonic() - begun > seconds):
                break
            if gauge is not None:
                for route, rate in gauge.ask({"do": "step"}).get("counts", {}).items():
                    result.gemm.setdefault(route, []).append(rate)
            for who in list(players):
                tell(f"pair {pair + 1} of {pairs}, {who.name}{_latest(result, who)}")
                answer = self._step(who, players, result)
                if answer is not None:
                    _keep(result.sides[who.name], answer)
        for who in list(players) if memory else ():
            tell(f"memory of {who.name}")
            answer = self._step(who, players, result, memory=True)
            if answer is not None:
                result.sides[who.name]["peak"] = answer["peak"]
        for process in (*players.values(), *filter(None, [gauge])):
            self._close_case(process)
        return result

    def _open(self, who: Participant, case: Case, result: Measurement) -> Process | None:
        key = (who, case.threads, case.device)
        stale = [other for other in self._running if other[1:] != key[1:]]
        for other in stale:
            self._running.pop(other).end()
        if key not in self._running:
            try:
                self._running[key] = self._launch(who, case)
            except TurnwiseError as error:
                result.skipped[who.name] = str(error)
                return None
        order = {"do": "open", "case": case.as_dict(), "dtype": who.dtype, "options": dict(who.options)}
        answer = self._running[key].ask(order)
        if "error" in answer:
            result.skipped[who.name] = answer["error"]
            self._running.pop(key).end()
            return None
        if who.side == CALIBRATION:
            result.machine = answer["settings"]
        else:
            result.sides[who.name] = _new_side(answer["settings"])
        return self._running[key]

    def _step(
        self, who: Participant, players: dict[Participant, Process], result: Measurement, *, memory: bool = False
    ) -> dict[str, Any] | None:
        answer = players[who].ask({"do": "step", "memory": memory})
        if "error" not in answer:
            return answer
        result.skipped[who.name] = answer["error"]
        result.sides.pop(who.name, None)
        broken = players.pop(who)
        for key in [key for key, process in self._running.items() if process is broken]:
            del self._running[key]
        broken.end()
        return None

    @staticmethod
    def _close_case(process: Process) -> None:
        process.ask({"do": "close"})


def _new_side(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"settings": dict(settings), "seconds": [], "cpu": [], "phases": {}, "counts": {}, "peak": None}


def _latest(result: Measurement, who: Participant) -> str:
    seconds = result.sides[who.name]["seconds"]
    return f" ({seconds[-1]:.3g} s)" if seconds else ""


def _keep(side: dict[str, Any], answer: Mapping[str, Any]) -> None:
    side["seconds"].append(answer["seconds"])
    side["cpu"].append(answer["cpu"])
    for name, spent in answer["phases"].items():
        side["phases"].setdefault(name, []).append(spent)
    side["counts"] = answer["counts"]
