"""Going on with a copy of a run under profilers: which operators and which functions its iterations spend their time in.

The run's folder is only read. Its last checkpoint goes into a scratch folder, and a few further iterations are run there: one to
get warm, some under torch's profiler, which times operators, and as many under cProfile, which times Python functions. Each
of the two slows down what it looks at, so that shares mean more than seconds do.
"""

from __future__ import annotations

import cProfile
import dataclasses
import json
import os
import pstats
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from turnwise.errors import TurnwiseError
from turnwise.recipes.training import Training, run
from turnwise.runs import RunFolder, latest

PYTHON = "Python"
"""The group of everything that happens outside operators."""
GROUPS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("attention", re.compile(r"scaled_dot_product|flash_attention|efficient_attention|bmm$|baddbmm|::_?softmax")),
    ("matrix products", re.compile(r"::(mm|addmm|mv|addmv|linear|matmul|einsum|dot)\b|mkldnn|onednn")),
    (
        "sampling, log-probabilities",
        re.compile(
            r"log_softmax|logsumexp|cumsum|searchsorted|multinomial|topk|sort|argmax|gather|nll_loss|cross_entropy"
        ),
    ),
    ("optimizer", re.compile(r"_fused_adam|_foreach_")),
    (
        "copies and indexing",
        re.compile(
            r"::(cat|stack|copy_|clone|contiguous|_?to|_to_copy|index\w*|_?index_put\w*|select\w*|slice\w*|narrow|split\w*|"
            r"masked_\w+|scatter\w*|repeat\w*|nonzero|empty\w*|new_\w+|zeros\w*|ones\w*|full\w*|arange|fill_|zero_|resize_|"
            r"item|_local_scalar_dense|view|reshape|expand|transpose|permute|t|unsqueeze|squeeze|as_strided|unbind|detach\w*|"
            r"chunk|flatten|alias|lift_fresh|pin_memory)\b"
        ),
    ),
    ("autograd", re.compile(r"autograd::|Backward")),
)
"""Name and operators of each group; the first that fits has an operator, and none leaves it to ``elementwise``."""
ELEMENTWISE = "elementwise"
"""The group of all other operators: sums, products, norms, activations."""

_LEFT_OUT = shutil.ignore_patterns(
    "episodes", "tensorboard", "run.lock", "report.html", "eval.json", ".tmp-*", "*.damaged"
)
_TOP = 3


@dataclass(frozen=True)
class Group:
    """Operators of one kind.

    Attributes:
        name: Of the kind.
        seconds: Their own time, without that of operators that they call; on a GPU the time of their kernels.
        operators: The names of those that took most.
    """

    name: str
    seconds: float
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Function:
    """A Python function, or a built-in one.

    Attributes:
        name: ``file:line name``, or the name of a built-in one.
        calls: How often it was called.
        own: Seconds in it, without what it calls.
        total: Seconds in it with what it calls.
    """

    name: str
    calls: int
    own: float
    total: float


@dataclass(frozen=True)
class Profile:
    """What profilers saw of some iterations of a run.

    Attributes:
        first: Number of the first iteration under a profiler, counted from 1.
        iterations: Iterations under each profiler.
        seconds: Wall-clock time of those in which operators were timed.
        groups: Their operators by kind and Python, the most expensive first.
        functions: Of the iterations in which functions were timed, the one with the most time of its own first.
    """

    first: int
    iterations: int
    seconds: float
    groups: tuple[Group, ...]
    functions: tuple[Function, ...]


class _EnoughError(Exception):
    """The iterations that were asked for are over."""


def profile_steps(folder: str | Path, steps: int) -> Profile:
    """Profile further iterations of a run, in a copy.

    Args:
        folder: The run's folder.
        steps: Iterations under each of the two profilers.

    Raises:
        TurnwiseError: no run, a run without a checkpoint, or anything that would keep it from being resumed.
    """
    if steps < 1:
        raise TurnwiseError(f"steps={steps} leaves nothing to profile; use at least 1")
    # Read when torch is loaded: its profiler announces itself on standard error otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    begun = RunFolder.view(folder)
    newest = latest(begun.checkpoints)
    if newest is None:
        raise TurnwiseError(
            f"{begun.path} has no checkpoint to go on from; it writes one after its last iteration and in between as "
            "save_every says"
        )
    with TemporaryDirectory(prefix="turnwise-profile-") as scratch:
        copied = Path(scratch) / "run"
        training = Training.from_config(begun.config["training"])
        training = dataclasses.replace(
            training,
            data=dataclasses.replace(training.data, passes=0),
            # One iteration more than is run: none of those that are is the last, which would be saved.
            steps=newest.iteration + 2 * steps + 2,
            save_every=newest.iteration + 2 * steps + 2,
        )
        _copy(begun.path, copied, newest.folder.name)
        with RunFolder.open(copied) as taken_up:
            taken_up.reconfigure({**begun.config, "training": training.to_config()})
        watch = _Watch(newest.iteration, steps, Path(scratch) / "trace.json")
        try:
            run(training, copied, resume=True, progress=False, on_iteration=watch)
        except _EnoughError:
            pass
        finally:
            watch.close()
    return Profile(newest.iteration + 2, steps, watch.seconds, _groups(watch.events, watch.seconds), watch.functions())


def _copy(run_folder: Path, target: Path, newest: str) -> None:
    """The run as it is needed to go on from its checkpoint `newest`; large files that nobody changes are not doubled."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        own = Path(folder) == run_folder
        checkpoints = Path(folder) == run_folder / "checkpoints"
        return set(_LEFT_OUT(folder, names)) | {
            name for name in names if (own and name == "final") or (checkpoints and name != newest)
        }

    def linked(source: str, to: str) -> None:
        if Path(source).name == "metrics.jsonl":
            shutil.copyfile(source, to)
            return
        try:
            os.link(source, to)
        except OSError:  # another file system
            shutil.copyfile(source, to)

    shutil.copytree(run_folder, target, ignore=left_out, copy_function=linked)


class _Watch:
    """Called after each iteration: switches the profilers on and off, and ends the run."""

    def __init__(self, start: int, steps: int, trace: Path) -> None:
        self._start = start
        self._steps = steps
        self._trace = trace
        self._operators: Any = None
        self._functions = cProfile.Profile()
        self._begun = 0.0
        self.seconds = 0.0
        self.events: list[dict[str, Any]] = []

    def __call__(self, iteration: int, metrics: Mapping[str, float]) -> None:
        done = iteration - self._start
        if done == 1:
            from torch.profiler import profile

            self._operators = profile()
            self._operators.start()
            self._begun = time.perf_counter()
        elif done == 1 + self._steps:
            self.seconds = time.perf_counter() - self._begun
            self._operators.stop()
            self._operators.export_chrome_trace(str(self._trace))
            self._operators = None
            self.events = json.loads(self._trace.read_bytes())["traceEvents"]
            self._functions.enable()
        elif done == 1 + 2 * self._steps:
            self._functions.disable()
            raise _EnoughError

    def close(self) -> None:
        """Switch off what is still on."""
        self._functions.disable()
        if self._operators is not None:
            self._operators.stop()

    def functions(self) -> tuple[Function, ...]:
        """What cProfile saw."""
        entries: Any = pstats.Stats(self._functions).stats  # pyright: ignore[reportAttributeAccessIssue]
        found = [Function(_place(*where), calls, own, total) for where, (_, calls, own, total, _) in entries.items()]
        return tuple(sorted(found, key=lambda function: -function.own))


def _place(file: str, line: int, name: str) -> str:
    if file == "~":
        method = re.fullmatch(r"<method '(\w+)' of '(?:\w+\.)*(\w+)' objects>", name)
        return f"{method[2]}.{method[1]}" if method else name.removeprefix("<built-in method ").removesuffix(">")
    parts = Path(file).parts
    home = "site-packages" if "site-packages" in parts else "src"
    inner = parts[len(parts) - parts[::-1].index(home) :] if home in parts else parts[-2:]
    return f"{'/'.join(inner)}:{line} {name}"


def _groups(events: Iterable[Mapping[str, Any]], seconds: float) -> tuple[Group, ...]:
    """Own time of operators by kind, and the rest of the wall-clock time as Python.

    Args:
        events: Of a Chrome trace.
        seconds: Wall-clock time that they were recorded in.
    """
    own, busy = own_times(events)
    by_group: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for name, spent in own.items():
        by_group[group_of(name)][name] = spent
    groups = [
        Group(
            name, sum(members.values()), tuple(_short(op) for op in sorted(members, key=lambda op: -members[op])[:_TOP])
        )
        for name, members in by_group.items()
    ]
    groups.append(Group(PYTHON, max(0.0, seconds - busy), ()))
    return tuple(sorted(groups, key=lambda group: -group.seconds))


def _short(operator: str) -> str:
    return operator.rpartition(": ")[2].removeprefix("aten::")


def group_of(operator: str) -> str:
    """The kind of an operator, by its name."""
    return next((name for name, pattern in GROUPS if pattern.search(operator)), ELEMENTWISE)


def own_times(events: Iterable[Mapping[str, Any]]) -> tuple[dict[str, float], float]:
    """Seconds of each operator without those that it calls, and the seconds in which any of them was at work.

    Where kernels ran on a GPU, theirs count in place of the operators' that launched them.

    Args:
        events: Of a Chrome trace, as torch's profiler exports it; times in microseconds.
    """
    threads: defaultdict[Any, list[tuple[float, float, str]]] = defaultdict(list)
    launched: dict[Any, str] = {}
    kernels: list[tuple[Any, float]] = []
    for event in events:
        kind = event.get("cat")
        if kind == "cpu_op":
            threads[event["tid"]].append((event["ts"], event["dur"], event["name"]))
            launched[event.get("args", {}).get("External id")] = event["name"]
        elif kind in ("kernel", "gpu_memcpy", "gpu_memset"):
            kernels.append((event.get("args", {}).get("External id"), event["dur"]))
    own: defaultdict[str, float] = defaultdict(float)
    if kernels:
        for launcher, spent in kernels:
            own[launched.get(launcher, "unknown")] += spent * 1e-6
        return dict(own), sum(own.values())
    busy = 0.0
    for calls in threads.values():
        outer = 0.0
        # Operators that are still running, innermost last: when each ends, and its name.
        running: list[tuple[float, str]] = []
        for begins, spent, name in sorted(calls, key=lambda call: (call[0], -call[1])):
            while running and running[-1][0] <= begins:
                running.pop()
            if running:
                own[running[-1][1]] -= spent * 1e-6
            else:
                outer += spent * 1e-6
            own[name] += spent * 1e-6
            running.append((begins + spent, name))
        busy = max(busy, outer)
    return dict(own), busy
