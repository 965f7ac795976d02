"""What a report says about a run, gathered from its folder: status, results, curves, settings, cost.

A part that is missing or damaged never stops the others: it becomes a note that the page shows first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnwise.runs.errors import RunError
from turnwise.runs.evaluate import Estimate, summarise
from turnwise.runs.folder import RunFolder
from turnwise.runs.log import read_metrics
from turnwise.runs.record import read_episodes
from turnwise.runs.report_episodes import shorten

Rows = list[dict[str, Any]]
"""Lines of ``metrics.jsonl``."""

_ABSENT = object()
_NAMES = 200
_TEXT = 600


@dataclass(frozen=True)
class Result:
    """One figure before and after training.

    Attributes:
        name: Of the figure.
        unit: ``share`` for a rate, else empty.
        rows: (when, estimate), in order of time.
        before: The one from before training, if it is known.
        after: The one from after training, or from the last iteration, if it is known.
    """

    name: str
    unit: str
    rows: Sequence[tuple[str, Estimate]]
    before: Estimate | None
    after: Estimate | None


@dataclass(frozen=True)
class Setting:
    """One setting of the run.

    Attributes:
        name: Dotted path.
        value: As text.
        default: As text; None where no default is known.
        changed: The value is known not to be the default.
    """

    name: str
    value: str
    default: str | None
    changed: bool


@dataclass
class RunData:
    """Everything a report shows but the episodes.

    Attributes:
        path: The run's folder.
        about: Content of ``config.json``.
        metrics: Of the algorithm, by iteration.
        warm: Of the warm start, by iteration; empty where there was none.
        optimum: Return of the best policy there is, if the evaluation knows it.
        results: Before and after.
        results_from: Where they come from, in words.
        status: In words.
        finished: The run is complete.
        notes: What is missing or damaged, with the remedy.
    """

    path: Path
    about: dict[str, Any]
    metrics: Rows
    warm: Rows
    status: str
    finished: bool
    optimum: float | None = None
    results: list[Result] = field(default_factory=list)
    results_from: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def training(self) -> Mapping[str, Any]:
        """The settings under ``training``; empty for a run that was started otherwise."""
        return _mapping(_mapping(self.about["config"]).get("training"))

    def find(self, part: str, name: str) -> str:
        """A setting as short text, empty if the run has none."""
        value = _mapping(self.training.get(part)).get(name)
        return "" if value is None else shorten(str(value), 200)


def gather(run: RunFolder) -> RunData:
    """Read the folder of a run.

    Raises:
        RunError: it holds no run.
    """
    notes: list[str] = []
    about = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    metrics = _metrics(run.metrics, "", notes)
    warm_folder = run.path / "warm-start"
    warm = _metrics(warm_folder / "metrics.jsonl", "of the warm start ", notes)
    data = RunData(run.path, about, metrics, warm, "", False, notes=notes)
    data.status, data.finished = _status(data, run, warm_folder)
    if not metrics:
        notes.append("There are no metrics yet: no iteration is complete, so there are no curves and no cost.")
    if not run.recorded():
        kept = " (the run was told to keep none)" if data.training.get("record") == 0 else ""
        notes.append(f"There are no recorded episodes{kept}.")
    data.optimum = _optimum(run.evaluation)
    data.results, data.results_from = _results(run, data, notes)
    return data


def settings(about: Mapping[str, Any], defaults: Mapping[str, Any] | None) -> list[Setting]:
    """The resolved configuration as a flat list, compared with `defaults`, which has the same shape."""
    known = dict(_flat(defaults)) if defaults is not None else {}
    found = []
    for name, value in list(_flat(about["config"]))[:_NAMES]:
        default = known.get(name, _ABSENT)
        has = default is not _ABSENT
        text = shorten(_said(value), _TEXT)
        found.append(
            Setting(shorten(name, 120), text, shorten(_said(default), _TEXT) if has else None, has and default != value)
        )
    return found


def cost(data: RunData) -> list[tuple[str, Rows, dict[str, float]]]:
    """(phase, its metrics, totals by name) of each phase that has metrics."""
    phases = [("warm start", data.warm), ("training", data.metrics)]
    return [(name, rows, _totals(rows)) for name, rows in phases if rows]


def figure(row: Mapping[str, Any], name: str) -> float:
    """A metric of one iteration; NaN if it is absent or null."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


# ---- metrics and status ----------------------------------------------------------------------------------------------


def _metrics(path: Path, whose: str, notes: list[str]) -> Rows:
    """The lines that can be read, each iteration once, in order."""
    try:
        rows = read_metrics(path)
    except RunError as error:
        notes.append(f"Some metrics {whose}are missing: {error}")
        rows = _readable(path)
    return [row for _, row in sorted({int(row["iteration"]): row for row in rows}.items())]


def _readable(path: Path) -> Rows:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        # The note that the caller wrote says what the disk said.
        return []
    rows = []
    for line in lines:
        try:
            values = json.loads(line)
            int(values["iteration"])
        except (ValueError, KeyError, TypeError):
            # A damaged line is what the note is about.
            continue
        rows.append(values)
    return rows


def _status(data: RunData, run: RunFolder, warm_folder: Path) -> tuple[str, bool]:
    steps = data.training.get("steps")
    done = int(data.metrics[-1]["iteration"]) if data.metrics else 0
    whole = f" of {steps}" if isinstance(steps, int) else ""
    plural = "iteration" if whole == "" and done == 1 else "iterations"
    if run.final.exists() and done and (not isinstance(steps, int) or done >= steps):
        return f"finished: {done} {plural}", True
    if not done and warm_folder.exists() and not (warm_folder / "final").exists():
        warm_done = int(data.warm[-1]["iteration"]) if data.warm else 0
        return f"incomplete: in the warm start, after its iteration {warm_done}", False
    return f"incomplete: {done}{whole} {plural}", False


def _totals(rows: Rows) -> dict[str, float]:
    def total(name: str) -> float:
        return float(sum(v for row in rows if math.isfinite(v := figure(row, name))))

    last = rows[-1]
    sums = {name: figure(last, f"total/{name}") for name in ("episodes", "turns", "tokens")}
    seconds = {name: total(f"time/{name}") for name in ("rollout", "update")}
    spent = seconds["rollout"] + seconds["update"]
    speed = sums["tokens"] / spent if spent > 0 else math.nan
    return {"iterations": float(last["iteration"]), **sums, **seconds, "tokens_per_second": speed}


# ---- results ---------------------------------------------------------------------------------------------------------


def _results(run: RunFolder, data: RunData, notes: list[str]) -> tuple[list[Result], str]:
    """From the stored evaluation if there is one, else from the first and the last record."""
    stored = _evaluations(run.evaluation, notes)
    recorded = run.recorded()
    if stored:
        where = _conditions(run.evaluation)
        before = next((name for name, _ in stored if "before" in name.lower()), None)
        after = next((name for name, _ in reversed(stored) if "after" in name.lower()), None)
        if before is None and len(stored) == 1:
            after = stored[0][0]
            first = _recorded(run, recorded)
            if first is not None:
                before = first[0]
                stored.insert(0, first)
                where += "; the figure from before training is that of the first iteration's recorded episodes"
        return _by_figure(stored, before, after), where
    found = [entry for entry in (_recorded(run, recorded), _recorded(run, recorded[::-1])) if entry is not None]
    if not found:
        return [], ""
    if found[0][0] == found[1][0]:
        found.pop()
    where = "recorded episodes of the first and the last iteration, on training tasks; not an evaluation"
    return _by_figure(found, found[0][0], found[-1][0] if len(found) > 1 else None), where


def _conditions(path: Path) -> str:
    """How the stored evaluation was made, as far as it says so."""
    about = _mapping(json.loads(path.read_text(encoding="utf-8")))
    tasks = f" on {shorten(about['seeds'], 40)} tasks" if isinstance(about.get("seeds"), str) else ""
    return f"evaluation{tasks}{', most likely tokens' if about.get('greedy') is True else ''} (eval.json)"


def _optimum(path: Path) -> float | None:
    """The return of the best policy there is, if the stored evaluation knows it."""
    try:
        best = figure(_mapping(json.loads(path.read_text(encoding="utf-8"))), "optimal_return")
    except (ValueError, OSError):
        # There is no evaluation, or a damaged one, which has its note already.
        return None
    return best if math.isfinite(best) else None


def _recorded(run: RunFolder, order: Sequence[int]) -> tuple[str, dict[str, Estimate]] | None:
    """Figures of the first of these iterations whose record can be read and has an episode that counts."""
    for iteration in order:
        try:
            evaluation = summarise(read_episodes(run.episodes(iteration)))
        except RunError:
            # The viewer of the episodes notes what is damaged; here the next record serves as well.
            continue
        entry = {"return": evaluation.undiscounted_return, "turns": evaluation.turns}
        if evaluation.success is not None:
            entry["success"] = evaluation.success
        return f"iteration {iteration}", entry
    return None


def _by_figure(
    shown: Sequence[tuple[str, Mapping[str, Estimate]]], before: str | None, after: str | None
) -> list[Result]:
    results = []
    for name, title, unit in (("success", "Success", "share"), ("return", "Return", ""), ("turns", "Turns", "")):
        rows = [(when, found[name]) for when, found in shown if name in found]
        if rows:
            by_name = dict(rows)
            results.append(Result(title, unit, rows, by_name.get(before or ""), by_name.get(after or "")))
    return results


def _evaluations(path: Path, notes: list[str]) -> list[tuple[str, dict[str, Estimate]]]:
    """(name, figures) of every evaluation in ``eval.json``, in the order of time where names tell it."""
    if not path.exists():
        return []
    try:
        found = list(_walk(json.loads(path.read_text(encoding="utf-8")), ""))
    except (ValueError, OSError) as error:
        notes.append(f"The evaluation cannot be read: {path}: {error}. Evaluate again to replace it.")
        return []
    if not found:
        notes.append(f"{path} holds no evaluation that this version can read. Evaluate again to replace it.")
    return sorted(found, key=lambda item: "before" not in item[0].lower())[:24]


def _walk(node: Any, name: str) -> Iterator[tuple[str, dict[str, Estimate]]]:
    if not isinstance(node, dict):
        return
    entry = {
        short: estimate
        for key, short in (("undiscounted_return", "return"), ("success", "success"), ("turns", "turns"))
        if (estimate := _estimate(node.get(key))) is not None
    }
    if entry:
        yield name or "evaluation", entry
        return
    for key, child in node.items():
        yield from _walk(child, f"{name} {key}".strip())


def _estimate(node: Any) -> Estimate | None:
    if not isinstance(node, dict) or not isinstance(node.get("mean"), int | float):
        return None
    n = node.get("n")
    return Estimate(
        float(node["mean"]), figure(node, "low"), figure(node, "high"), n if isinstance(n, int) else 0,
        str(node.get("how", "")),
    )  # fmt: skip


# ---- settings --------------------------------------------------------------------------------------------------------


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            inner = str(key) if not prefix or prefix == "training" else f"{prefix}.{key}"
            yield from _flat(item, inner)
    else:
        yield prefix, value


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value if value and value == value.strip() else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)
