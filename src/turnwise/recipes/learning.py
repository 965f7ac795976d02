"""Training vetted settings over several seeds and holding them to their bars: what `turnwise recipe NAME` and the benchmark do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from turnwise.envs.registry import spec
from turnwise.recipes.parallel import Job, run_jobs
from turnwise.recipes.training import run
from turnwise.recipes.vetted import VETTED
from turnwise.recipes.yardstick import best_return

HEADING = ("setting", "success", "return", "greedy return", "best known", "greedy share", "CPU s", "bar", "held")
"""Columns of the table."""


def train_once(
    name: str, seed: int, out: str, steps: int, demonstrations: int, episodes: int, tick: Callable[[], None]
) -> dict[str, float]:
    """One run of a vetted setting and its evaluation on held-out tasks."""
    training = dataclasses.replace(VETTED[name].training, seed=seed, threads=1, steps=steps)
    warm = dataclasses.replace(training.warm_start, demonstrations=demonstrations)
    training = dataclasses.replace(training, warm_start=warm)
    trained = run(training, Path(out) / f"{name}-{seed}", progress=False, on_iteration=lambda *_: tick())
    sampled, greedy = trained.evaluate(episodes), trained.evaluate(episodes, greedy=True)
    return {
        "success": sampled.success.mean if sampled.success else float("nan"),
        "return": sampled.undiscounted_return.mean,
        "greedy_return": greedy.undiscounted_return.mean,
        "turns": sampled.turns.mean,
    }


def share_of_best(value: float, best: float) -> float:
    """1 at the optimum, 0.95 when 5 % of the optimum's size is missing, whatever its sign."""
    return 1 - (best - value) / abs(best)


def measure(
    names: Sequence[str], out: Path, *, seeds: int = 5, episodes: int = 512, quick: bool = False
) -> dict[str, Any]:
    """Train and evaluate, print the table, write ``results.json`` and ``results.md``.

    Args:
        names: Of vetted settings.
        out: Folder for runs and results.
        seeds: Runs of each setting.
        episodes: Held-out tasks of each evaluation.
        quick: Two iterations each: it shows that everything works.

    Returns:
        By name: ``runs``, ``best``, ``share``, ``bar``, ``held`` and ``cells`` of the table.
    """
    steps = {name: 2 if quick else VETTED[name].training.steps for name in names}
    shown = {name: 32 if quick else VETTED[name].training.warm_start.demonstrations for name in names}
    jobs = [
        Job(
            f"{name}, seed {seed}",
            train_once,
            {
                "name": name,
                "seed": seed,
                "out": str(out),
                "steps": steps[name],
                "demonstrations": shown[name],
                "episodes": episodes,
            },
            steps[name],
        )
        for name in names
        for seed in range(seeds)
    ]
    done = run_jobs("learning", jobs)
    results = {name: _judge(name, done[i * seeds : (i + 1) * seeds]) for i, name in enumerate(names)}
    _show(results, seeds, episodes)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    lines = [HEADING, ["---"] * len(HEADING), *(result["cells"] for result in results.values())]
    (out / "results.md").write_text("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return results


def _judge(name: str, rows: Sequence[tuple[dict[str, float], float]]) -> dict[str, Any]:
    from turnwise.runs import across_runs

    vetted = VETTED[name]
    best = best_return(spec(vetted.training.world.env))
    success, returned, greedy = (
        across_runs([row[k] for row, _ in rows]) for k in ("success", "return", "greedy_return")
    )
    share = share_of_best(greedy.mean, best[0]) if best else float("nan")
    bars = {"success": (vetted.success, success.mean), "share": (vetted.optimum, share)}
    held = all(bar is None or value >= bar for bar, value in bars.values())
    bar = ", ".join(f"{key} ≥ {bar:g}" for key, (bar, _) in bars.items() if bar is not None)
    seconds = sum(seconds for _, seconds in rows) / len(rows)
    known = f"{best[0]:.3f} ({best[1]})" if best else "unknown"
    figures = [_interval(estimate) for estimate in (success, returned, greedy)]
    return {
        "runs": [{**row, "cpu_seconds": seconds} for row, seconds in rows],
        "best": best,
        "share": share,
        "bar": bar,
        "held": held,
        "cells": [name, *figures, known, f"{share:.3f}", f"{seconds:.0f}", bar, "yes" if held else "NO"],
    }


def _interval(estimate: Any) -> str:
    if estimate.n == 1:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _show(results: dict[str, Any], seeds: int, episodes: int) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"mean over {seeds} seed{'s' * (seeds > 1)} [95 % t interval], {episodes} held-out tasks each"
    table = Table(title=title, title_justify="left")
    for column in HEADING:
        table.add_column(column)
    for result in results.values():
        table.add_row(*result["cells"])
    Console().print(table)
