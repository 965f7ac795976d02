"""Asks every dataset of reasoning-gym: does its scorer accept its own answers, what does a fixed answer earn, how long do items
take, and how many held-out questions are asked in training too.

    python benchmarks/reasoning_gym/sweep.py                 all of them, a quarter of an hour on one core
    python benchmarks/reasoning_gym/sweep.py gcd puzzle24    some

A dataset gets as many items as it can make in its time. Writes a Markdown table to the standard output.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

from turnwise.envs import make
from turnwise.envs.reasoning_gym import PREFIX, names
from turnwise.recipes.reasoning import floor
from turnwise.rollout import TRAIN_SEEDS


@dataclass(frozen=True)
class Row:
    """What was found about a dataset.

    Attributes:
        name: The dataset.
        items: Held-out items asked.
        gold: Mean score of the dataset's own answers; None if it gives none.
        floor: Mean score of the best fixed answer.
        right: Share of items that this answer solves.
        answer: It.
        milliseconds: Median CPU time of an item.
        repeated: Share of held-out questions that as many training seeds asked too.
    """

    name: str
    items: int
    gold: float | None
    floor: float
    right: float
    answer: str
    milliseconds: float
    repeated: float


def sweep(name: str, items: int, seconds: float) -> Row:
    """Ask one dataset."""
    env_id = f"{PREFIX}{name}{'?run_programs=true' if name == 'codeio' else ''}"
    env = make(env_id)
    gold: list[float] = []
    asked: list[str] = []
    took: list[float] = []
    began = time.process_time()
    while len(asked) < items and time.process_time() - began < seconds:
        before = time.process_time()
        asked.append(env.reset(seed=TRAIN_SEEDS + len(asked))[0])
        took.append(time.process_time() - before)
        if env.gold() is not None:
            gold.append(env.step(env.optimal_action())[1])
    n = len(asked)
    seeds = range(TRAIN_SEEDS, TRAIN_SEEDS + n)
    # Where making an item is slow, judging it mostly is too: fewer constants on fewer items.
    tries = (seeds[:24], 8) if statistics.median(took) > 0.003 else (seeds, 32)
    best, right = (floor(env_id, tries[0], success=success, most=tries[1]) for success in (False, True))
    trained = {env.reset(seed=seed)[0] for seed in range(n)}
    repeated = sum(question in trained for question in asked) / n
    return Row(
        name,
        n,
        statistics.fmean(gold) if gold else None,
        best.score,
        right.score,
        best.answer,
        1000 * statistics.median(took),
        repeated,
    )


def main() -> None:
    """Ask the named datasets, or all, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="datasets; all by default")
    parser.add_argument("--items", type=int, default=128, help="held-out items of each dataset")
    parser.add_argument("--seconds", type=float, default=5.0, help="time to make the items of one dataset")
    given = parser.parse_args()
    print("| dataset | items | own answers | best fixed answer: mean score | solves | which | ms per item | repeated |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.names or [name for name in names() if name != "composite"]:
        row = sweep(name, given.items, given.seconds)
        gold = "none" if row.gold is None else f"{row.gold:.2f}"
        which = " ".join(row.answer.split()).replace("|", "\\|")
        which = which if len(which) <= 40 else f"{which[:40]}…"
        print(
            f"| `{row.name}` | {row.items} | {gold} | {row.floor:.2f} | {row.right:.2f} | `{which or ' '}` | "
            f"{row.milliseconds:.2f} | {row.repeated:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
