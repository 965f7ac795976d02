"""The file of a benchmark: one JSON document that says what was measured, on what machine, and how.

    {"schema": 1, "turnwise": ..., "created": ..., "settings": {...}, "machine": {...},
     "measurements": [see `turnwise.recipes.speed.measure.Measurement`], "startup": {kind: [[seconds, CPU seconds], ...]}}

Every figure of the tables is read off it again, so a rendering can be repeated without measuring.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from turnwise import __version__
from turnwise.errors import TurnwiseError
from turnwise.recipes.speed.cases import Case
from turnwise.recipes.speed.measure import OURS, THEIRS
from turnwise.runs.atomic import disk, write_bytes

SCHEMA = 1
"""Version of the file's layout."""

FILE = "results.json"
"""Its name."""

_LIBRARIES = ("torch", "transformers", "trl", "accelerate", "numpy")


def new_results(created: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A document without measurements.

    Args:
        created: When, in ISO 8601.
        settings: What was asked for.
    """
    return {
        "schema": SCHEMA, "turnwise": __version__, "created": created, "settings": dict(settings),
        "machine": machine(), "measurements": [], "startup": {},
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """The processor, the memory, the system, and the versions of the libraries that do the work."""
    versions: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(), "cores": len(_cores()), "memory_gb": round(_memory() / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(), "versions": versions,
    }  # fmt: skip


def save(results: Mapping[str, Any], folder: Path) -> Path:
    """Write the document, whole or not at all."""
    path = folder / FILE
    with disk(path):
        folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(results, indent=1) + "\n").encode())
    return path


def load(folder: Path) -> dict[str, Any]:
    """Read the document of a folder.

    Raises:
        TurnwiseError: there is none, or it is of another layout.
    """
    path = folder / FILE
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TurnwiseError(
            f"{folder} holds no {FILE}: {error.strerror}. turnwise bench --out {folder} makes one"
        ) from error
    except ValueError as error:
        raise TurnwiseError(f"{path} is not JSON: {error}") from error
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        raise TurnwiseError(f"{path} is not a benchmark of layout {SCHEMA}, which this version reads; measure again")
    return results


class Record:
    """One measurement, read again.

    Args:
        data: As `turnwise.recipes.speed.measure.Measurement.as_dict` gave it.

    Attributes:
        question: What it was measured for.
        case: What was done.
        sides: Participant's name -> its figures.
        skipped: Participant's name -> why it has none.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.question: str = data["question"]
        self.case = Case(**data["case"])
        self.sides: Mapping[str, Any] = data["sides"]
        self.skipped: Mapping[str, str] = data["skipped"]
        self._gemm: Mapping[str, Sequence[float]] = data["gemm"]

    @property
    def clock(self) -> str:
        """Which clock its ratios are of: CPU seconds on one thread, where others may use the machine too; else seconds."""
        return "cpu" if self.case.threads == 1 and self.case.device == "cpu" else "seconds"

    def times(self, name: str) -> list[float]:
        """Seconds of each round by that clock; none if the participant has no figures."""
        return list(self.sides[name][self.clock]) if name in self.sides else []

    def time(self, name: str) -> float | None:
        """Their median."""
        times = self.times(name)
        return median(times) if times else None

    def best(self, side: str) -> str | None:
        """The participant of a side whose median is least."""
        times = {name: self.time(name) for name in self.sides if name.startswith(side + " ")}
        known = {name: seconds for name, seconds in times.items() if seconds is not None}
        return min(known, key=lambda name: known[name]) if known else None

    def ratios(self, theirs: str | None, ours: str | None) -> list[float]:
        """How many times as long the other side takes, in each round in which both were measured."""
        if theirs is None or ours is None:
            return []
        return [a / b for a, b in zip(self.times(theirs), self.times(ours), strict=False)]

    def same_dtype(self, dtype: str) -> list[float]:
        """Ratios of the two sides in one dtype."""
        return self.ratios(f"{THEIRS} {dtype}", f"{OURS} {dtype}")

    def against_best(self, dtype: str) -> list[float]:
        """Ratios of the other side's best dtype and ours in `dtype`."""
        return self.ratios(self.best(THEIRS), f"{OURS} {dtype}")

    def phase(self, name: str, phase: str) -> float | None:
        """Median seconds of a phase of a participant, by the same clock."""
        spent = self.sides.get(name, {}).get("phases", {}).get(phase)
        return median(pair[1 if self.clock == "cpu" else 0] for pair in spent) if spent else None

    def count(self, name: str, what: str) -> float | None:
        """What a participant counted in its last step."""
        return self.sides.get(name, {}).get("counts", {}).get(what)

    def peak(self, name: str) -> int | None:
        """Bytes that its update needs at most."""
        return self.sides.get(name, {}).get("peak")

    def rate(self, dtype: str) -> float | None:
        """The machine's rate of products in `dtype` meanwhile, by the faster route: GFLOP/s, median over the rounds."""
        rates = [median(found) for route, found in self._gemm.items() if route.startswith(dtype + " ") and found]
        return max(rates) if rates else None

    def routes(self) -> dict[str, float]:
        """Route -> its median rate in GFLOP/s."""
        return {route: median(found) for route, found in self._gemm.items() if found}


def records(results: Mapping[str, Any], question: str | None = None) -> Iterator[Record]:
    """Its measurements, or those for one question."""
    for data in results["measurements"]:
        if question is None or data["question"] == question:
            yield Record(data)


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
