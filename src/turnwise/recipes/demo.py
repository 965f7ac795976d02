"""The main demonstration: one start model, several ways to go on from it, one table.

The errand world wants several actions of several tokens each before it pays, and offers a small reward at once for telling
a joke. A model from scratch is warm-started on mediocre demonstrations; then each method gets the same number of
episodes. What differs between two of the rows is only how far back a reward reaches: with γ = 0 the
joke wins. A second table shows a world that none of us wrote, before and after.

What this file leaves out: one-step preference methods; their rows join the table with the methods themselves.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise.algorithms import PPO, SFT, Reinforce
from turnwise.recipes.parallel import Job, run_jobs
from turnwise.recipes.training import Model, Optimiser, Trained, Training, run
from turnwise.recipes.vetted import ERRAND, MEDIOCRE, VETTED

OTHER_WORLD = "frozenlake"
"""Name of the vetted setting for the world that none of us wrote."""


@dataclass(frozen=True)
class Method:
    """A row of the table: how to go on from the start model.

    Attributes:
        label: What people read.
        slug: Beginning of its folders' names.
        algorithm: With its hyperparameters; None for the start model itself.
    """

    label: str
    slug: str
    algorithm: Any


METHODS = (
    Method("SFT start", "sft", None),
    Method("PPO, γ = 0", "ppo-gamma0", PPO(gamma=0.0)),
    Method("PPO", "ppo", PPO()),
    Method("REINFORCE", "reinforce", Reinforce()),
)
"""The rows, in order."""


def start(seed: int, out: str, tick: Callable[[], None], steps: int) -> None:
    """The common start model of a seed: a model from scratch, fine-tuned on mediocre demonstrations."""
    training = Training(
        SFT(),
        ERRAND,
        warm_start=MEDIOCRE,
        optimiser=Optimiser(lr=2e-3, warmup=0.1),
        steps=steps,
        seed=seed,
        save_every=steps,
        record=0,
        threads=1,
    )
    run(training, Path(out) / f"start-{seed}", progress=False, on_iteration=lambda *_: tick())


def go_on(index: int, seed: int, out: str, tick: Callable[[], None], steps: int, episodes: int) -> dict[str, float]:
    """Train a method from the seed's start model, and measure it."""
    method = METHODS[index]
    first = Path(out) / f"start-{seed}" / "final"
    training = Training(
        method.algorithm or SFT(),
        ERRAND,
        Model(str(first)),
        optimiser=Optimiser(lr=5e-4),
        steps=steps,
        seed=seed,
        record=8,
        threads=1,
    )
    seconds, tokens = 0.0, 0.0
    if method.algorithm is None:
        trained = _loaded(training, first)
    else:
        began = time.process_time()
        folder = Path(out) / f"{method.slug}-{seed}"
        trained = run(training, folder, progress=False, on_iteration=lambda *_: tick())
        seconds = time.process_time() - began
        tokens = _last_line(folder)["total/tokens"]
    return {**measure(trained, episodes), "seconds": seconds, "tokens": tokens}


def _loaded(training: Training, folder: Path) -> Trained:
    from turnwise.recipes.training import load_policy, resolve_env

    return Trained(folder, training, load_policy(training, folder), resolve_env(training, None))


def _last_line(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def measure(trained: Trained, episodes: int) -> dict[str, float]:
    """The figures of a row, on held-out tasks.

    ``rating`` is the mean immediate reward of one reply in common situations, ``interrupted`` the success when the agent is
    put elsewhere after its third action and loses what it holds.
    """
    from turnwise.envs import Interrupted, OneReply

    make = trained.env.make
    whole = trained.evaluate(episodes)
    disturbed = trained.evaluate(episodes, env=lambda: Interrupted(make(), turn=3, moves=0, scatter=True))
    reply = trained.evaluate(4 * episodes, env=lambda: OneReply(make()))
    assert whole.success is not None
    assert disturbed.success is not None
    return {
        "rating": reply.undiscounted_return.mean,
        "return": whole.undiscounted_return.mean,
        "success": whole.success.mean,
        "interrupted": disturbed.success.mean,
        "turns": whole.turns.mean,
    }


def elsewhere(
    seed: int, out: str, tick: Callable[[], None], steps: int, demonstrations: int, episodes: int
) -> dict[str, float]:
    """Before and after in the world that none of us wrote."""
    vetted = VETTED[OTHER_WORLD].training
    warm = dataclasses.replace(vetted.warm_start, demonstrations=demonstrations)
    training = dataclasses.replace(vetted, seed=seed, threads=1, record=8, steps=steps, warm_start=warm)
    folder = Path(out) / f"{OTHER_WORLD}-{seed}"
    trained = run(training, folder, progress=False, on_iteration=lambda *_: tick())
    before = _loaded(training, folder / "warm-start" / "final").evaluate(episodes)
    after = trained.evaluate(episodes)
    assert before.success is not None
    assert after.success is not None
    return {
        "before_success": before.success.mean,
        "before_return": before.undiscounted_return.mean,
        "success": after.success.mean,
        "return": after.undiscounted_return.mean,
    }


def main(*, quick: bool = False, out: Path | str = "runs/demo", seeds: int | None = None) -> Path:
    """Train everything, print the tables, write the page.

    Args:
        quick: Fewer iterations and one seed: a check that everything works, not a result.
        out: Folder for all runs and the page; new or empty.
        seeds: Independent repetitions; 3 by default.

    Returns:
        The page.
    """
    from turnwise.recipes.demo_page import show, write

    out = Path(out)
    _refuse_used(out)
    n = seeds or (1 if quick else 3)
    steps, warm, episodes = (2, 8, 32) if quick else (20, 28, 256)
    shown = 16 if quick else VETTED[OTHER_WORLD].training.warm_start.demonstrations
    began = time.perf_counter()
    common = {"out": str(out)}
    other = [
        Job(f"{OTHER_WORLD}, seed {seed}", elsewhere, {**common, "seed": seed, "steps": steps, "demonstrations": shown, "episodes": episodes}, steps)
        for seed in range(n)
    ]  # fmt: skip
    starts = [Job(f"start model {seed}", start, {**common, "seed": seed, "steps": warm}, warm) for seed in range(n)]
    # The other world goes along with the start models, so that no core waits for the last of them.
    first = run_jobs("start models and another world", [*starts, *other])
    rows = [
        Job(
            f"{method.label}, seed {seed}",
            go_on,
            {**common, "index": index, "seed": seed, "steps": steps, "episodes": episodes},
            steps if method.algorithm else 0,
        )
        for index, method in sorted(enumerate(METHODS), key=lambda item: item[1].slug != "ppo-gamma0")
        for seed in range(n)
    ]
    done = dict(
        zip([(j.arguments["index"], j.arguments["seed"]) for j in rows], run_jobs("methods", rows), strict=True)
    )
    results = {
        "methods": [
            {"label": method.label, "slug": method.slug, "runs": [done[i, seed][0] for seed in range(n)]}
            for i, method in enumerate(METHODS)
        ],
        "other": {
            "slug": OTHER_WORLD,
            "env": VETTED[OTHER_WORLD].training.world.env,
            "runs": [result for result, _ in first[n:]],
        },
        "seeds": n,
        "episodes": episodes,
        "quick": quick,
        "minutes": (time.perf_counter() - began) / 60,
    }
    (out / "results.json").write_text(json.dumps(results, indent=2))
    show(results)
    return write(results, out)


def _refuse_used(out: Path) -> None:
    from turnwise.errors import TurnwiseError

    if out.exists() and any(out.iterdir()):
        raise TurnwiseError(f"{out} is not empty; choose another folder with --out, or remove it")
    out.mkdir(parents=True, exist_ok=True)
