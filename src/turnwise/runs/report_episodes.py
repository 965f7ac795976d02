"""The episodes that a report shows: a few of some iterations, as JSON data of bounded size.

Episodes are the first ones of a record. A record is a random choice already, so they are not picked by their outcome.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwise.episode import Cut
from turnwise.runs.errors import RunError
from turnwise.runs.folder import RunFolder
from turnwise.runs.record import read_rows

BUDGET = 1_100_000
"""Bytes of JSON that the episodes of a report may take."""

_FAILED = {Cut.TIMEOUT.value, Cut.CRASH.value}
_CUTS = {
    Cut.TURN_LIMIT.value: "stopped at the turn limit",
    Cut.CONTEXT.value: "stopped: the next observation no longer fits into the context",
    Cut.LENGTH.value: "stopped: an action used up its token budget",
    Cut.TIMEOUT.value: "failed: the environment missed its deadline",
    Cut.CRASH.value: "failed: the environment crashed",
}
_KEYS = 12


@dataclass(frozen=True)
class Limits:
    """How much of a record is shown.

    Attributes:
        iterations: Number of iterations, the first and the last among them.
        episodes: Per iteration.
        turns: Per episode; beyond it the middle is left out.
        text: Characters of one text; beyond it the middle is left out.
    """

    iterations: int
    episodes: int
    turns: int
    text: int


_LADDER = (
    Limits(9, 4, 240, 4000),
    Limits(5, 4, 160, 2000),
    Limits(3, 3, 120, 1000),
    Limits(2, 2, 80, 500),
    Limits(2, 1, 40, 250),
    Limits(2, 1, 20, 100),
)
"""Tried in order until the episodes fit into `BUDGET`; the last always does."""


def gather(run: RunFolder, notes: list[str]) -> dict[str, Any] | None:
    """JSON data of the episodes to show, or None if there are none; what is damaged is added to `notes`."""
    recorded = run.recorded()
    read: dict[int, list[dict[str, Any]] | None] = {}

    def rows(iteration: int) -> list[dict[str, Any]] | None:
        if iteration not in read:
            try:
                read[iteration] = read_rows(run.episodes(iteration))
            except RunError as error:
                notes.append(f"The episodes of iteration {iteration} cannot be shown: {error}")
                read[iteration] = None
        return read[iteration]

    first = next((k for k in recorded if rows(k)), None)
    last = next((k for k in reversed(recorded) if rows(k)), None)
    if first is None or last is None:
        return None
    between = [k for k in recorded if first <= k <= last]
    data: dict[str, Any] = {}
    for limits in _LADDER:
        chosen = [k for k in spread(between, limits.iterations) if rows(k)]
        data = {"iterations": [_iteration(k, rows(k) or [], limits) for k in chosen]}
        if len(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")) <= BUDGET:
            break
    return data


def spread(values: Sequence[int], count: int) -> list[int]:
    """At most `count` of the values, evenly spread, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    if count == 1:
        return [values[0]]
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def shorten(text: str, limit: int) -> str:
    """The text, or its beginning and end with the number of characters left out between them."""
    if len(text) <= limit:
        return text
    head, tail = limit - limit // 4, limit // 4
    return f"{text[:head]}\n[… {len(text) - head - tail:,} characters left out …]\n{text[len(text) - tail :]}"


def _iteration(number: int, rows: Sequence[Mapping[str, Any]], limits: Limits) -> dict[str, Any]:
    episodes = _some(rows, limits)
    return {"iteration": number, "of": len(rows), "episodes": episodes, "scale": _scale(episodes)}


def _some(rows: Sequence[Mapping[str, Any]], limits: Limits) -> list[dict[str, Any]]:
    chosen = list(rows[: limits.episodes])
    # What the environment broke is rare and the first thing to look at.
    broken = next((row for row in rows[limits.episodes :] if row["cut"] in _FAILED), None)
    if broken is not None and not any(row["cut"] in _FAILED for row in chosen):
        chosen.append(broken)
    return [_episode(row, limits) for row in chosen]


def _episode(row: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    turns = row["turns"]
    head = limits.turns - limits.turns // 4
    tail = len(turns) - limits.turns // 4
    kept = [t for t in range(len(turns)) if len(turns) <= limits.turns or t < head or t >= tail]
    small = min(limits.text, 400)
    metrics = _figures(row["metrics"])
    return {
        "env": shorten(row["env"], small),
        "seed": row["seed"],
        "goal": shorten(row["goal"] or "", small),
        "agent": shorten(row["agent"], small),
        "world": shorten(row["world"], small) if row["agent"] != "agent" else "",
        "source": row["source"],
        "outcome": _outcome(row),
        "kind": "failed" if row["cut"] in _FAILED else "truncated" if row["truncated"] else "terminated",
        "detail": shorten(row["detail"], small),
        "success": metrics.get("success"),
        "metrics": {name: value for name, value in metrics.items() if name != "success"},
        "return": _finite(sum(turn["reward"] for turn in turns)),
        "length": len(turns),
        "turns": [_turn(turns[t], t, limits.text) for t in kept],
        "last": shorten(row["last_obs_text"], limits.text),
    }


def _turn(turn: Mapping[str, Any], index: int, limit: int) -> dict[str, Any]:
    return {
        "t": index + 1,
        "obs": shorten(turn["obs_text"], limit),
        "act": shorten(turn["act_text"], limit),
        "reward": _finite(turn["reward"]),
        "rewards": _figures(turn["rewards"]),
        "streams": {name: value for name, value in _figures(turn["streams"]).items() if value is not None},
        "probability": _finite(math.exp(min(0.0, sum(turn["logp"])))) if turn["logp"] else None,
        "tokens": len(turn["act"]),
        "read": len(turn["obs"]),
        "version": turn["version"],
        "fresh": turn["fresh"],
        "stop": turn["stop"],
    }


def _outcome(row: Mapping[str, Any]) -> str:
    if row["terminated"]:
        return "ended by itself"
    if row["truncated"]:
        return _CUTS.get(row["cut"], f"stopped: {row['cut']}")
    return "not over"


def _figures(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """The first few, with names of bounded length and null for what is not finite."""
    return {shorten(name, 60): _finite(value) for name, value in list(values.items())[:_KEYS]}


def _finite(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    # Six digits are more than anybody reads, and short in the file.
    return float(f"{value:.6g}")


def _scale(episodes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The largest size of each stream in these episodes, so that their bars compare.

    One scale per iteration: advantages are often normalised over an iteration and mean nothing across two.
    """
    largest: dict[str, float] = {}
    for episode in episodes:
        for turn in episode["turns"]:
            for name, value in turn["streams"].items():
                largest[name] = max(largest.get(name, 0.0), abs(value))
    return largest
