"""Do the vetted settings still learn? Each over several seeds, with intervals, against its bar.

    python benchmarks/learning/run.py                      all of them, five seeds
    python benchmarks/learning/run.py errand --seeds 10    one of them, ten seeds

Prints a table and writes ``results.json`` and ``results.md`` into the output folder. The exit status is 1 when a bar is
missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from turnwise.envs.registry import spec
from turnwise.recipes.parallel import Job, run_jobs
from turnwise.recipes.training import run
from turnwise.recipes.vetted import VETTED
from turnwise.recipes.yardstick import best_return
from turnwise.runs import across_runs


def train_once(name: str, seed: int, out: str, episodes: int, tick: Any) -> dict[str, float]:
    """One run and its evaluation on held-out tasks."""
    training = dataclasses.replace(VETTED[name].training, seed=seed, threads=1, record=0)
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


def main() -> int:
    """Run, print, write; 1 when a bar is missed."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(VETTED), help=f"of {', '.join(VETTED)}")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each setting")
    parser.add_argument("--episodes", type=int, default=512, help="held-out tasks of each evaluation")
    parser.add_argument("--out", type=Path, default=None, help="folder for runs and results")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in VETTED]
    if unknown:
        parser.error(f"no vetted setting {unknown[0]!r}; there are {', '.join(VETTED)}")
    out = arguments.out or Path(tempfile.mkdtemp(prefix="turnwise-learning-"))
    jobs = [
        Job(
            f"{name}, seed {seed}",
            train_once,
            {"name": name, "seed": seed, "out": str(out), "episodes": arguments.episodes},
            VETTED[name].training.steps,
        )
        for name in arguments.names
        for seed in range(arguments.seeds)
    ]
    done = run_jobs("learning", jobs)
    table = Table(title=f"mean over {arguments.seeds} seeds [95 % interval], {arguments.episodes} held-out tasks each")
    for column in ("setting", "success", "return", "greedy return", "best known", "share", "CPU s", "bar", "held"):
        table.add_column(column)
    results: dict[str, Any] = {}
    held = True
    for i, name in enumerate(arguments.names):
        rows = done[i * arguments.seeds : (i + 1) * arguments.seeds]
        vetted, world = VETTED[name], spec(VETTED[name].training.world.env)
        best = best_return(world)
        success, returned, greedy = (across_runs([row[key] for row, _ in rows]) for key in ("success", "return", "greedy_return"))
        share = share_of_best(returned.mean, best[0]) if best else float("nan")
        bars = {"success": (vetted.success, success.mean), "optimum": (vetted.optimum, share)}
        ok = all(bar is None or value >= bar for bar, value in bars.values())
        held &= ok
        bar = ", ".join(f"{key} ≥ {bar:g}" for key, (bar, _) in bars.items() if bar is not None)
        cells = [name, _show(success), _show(returned), _show(greedy), f"{best[0]:.3f} ({best[1]})" if best else "unknown"]
        cells += [f"{share:.3f}", f"{sum(seconds for _, seconds in rows) / len(rows):.0f}", bar, "yes" if ok else "NO"]
        table.add_row(*cells)
        results[name] = {
            "runs": [{**row, "cpu_seconds": seconds} for row, seconds in rows],
            "best": best,
            "share": share,
            "bar": bar,
            "held": ok,
            "cells": cells,
        }
    Console().print(table)
    (out / "results.json").write_text(json.dumps(results, indent=2))
    header = [str(column.header) for column in table.columns]
    lines = [header, ["---"] * len(header), *(result["cells"] for result in results.values())]
    (out / "results.md").write_text("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    print(f"wrote {out / 'results.json'} and {out / 'results.md'}")
    return 0 if held else 1


def _show(estimate: Any) -> str:
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
