"""The small language models of the claims: trained from nothing or from each other, compared, and put to play.

What they reach is measured by the audit's own measures, on tasks that no run trains on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnwise.algorithms import SFT
from turnwise.audit import Evidence, Measurement, NotMeasurable
from turnwise.recipes.evidence import of_policy
from turnwise.recipes.settings import Model, Optimiser, Training, WarmStart, World
from turnwise.recipes.training import run

if TYPE_CHECKING:
    from turnwise.episode import Transcript


def teach(
    world: World,
    out: Path,
    seed: int,
    *,
    demonstrations: int = 0,
    skill: float = 1.0,
    shown: Sequence[Transcript] | None = None,
    start: Path | None = None,
    steps: int,
    lr: float = 2e-3,
) -> Path:
    """Fine-tune on demonstrations, a model from scratch or one that is there.

    Args:
        world: The world.
        out: Folder of the run.
        seed: Of the model and of everything drawn.
        demonstrations: Episodes that the world itself demonstrates.
        skill: Share of their actions that are an expert's; the others are random.
        shown: Demonstrations of somebody else in their place.
        start: The model to go on from; None for one from scratch.
        steps: Updates on 32 episodes each.
        lr: Peak learning rate.

    Returns:
        The folder of the model.
    """
    warm = WarmStart(demonstrations=demonstrations, skill=skill)
    return _train(SFT(), world, out, seed, start=start, steps=steps, lr=lr, shown=shown, warm=warm)


def go_on(
    algorithm: Any,
    world: World,
    out: Path,
    seed: int,
    *,
    start: Path,
    steps: int,
    lr: float = 1e-3,
    shown: Sequence[Transcript] | None = None,
    record: int = 0,
) -> Path:
    """Go on from a model with a method; returns the folder of the new one.

    Args:
        algorithm: The method with its hyperparameters.
        world: The world.
        out: Folder of the run.
        seed: Of everything drawn.
        start: The model.
        steps: Iterations.
        lr: Peak learning rate.
        shown: What a method learns from that does not roll out.
        record: Episodes are kept of every so many iterations; 0 keeps none.
    """
    return _train(algorithm, world, out, seed, start=start, steps=steps, lr=lr, shown=shown, record=record)


def evidence(world: World, model: Path, seed: int, plays: int, *, base: Path | None = None) -> Evidence:
    """What the audit may look at: the model as a player of the world, and the one before it.

    Args:
        world: The world.
        model: Its folder.
        seed: Of the tasks and of the noise.
        plays: Episodes that a measure may play for each of its figures.
        base: Folder of the model before training.
    """
    return of_policy(
        Training(SFT(), world, seed=seed), model, base=base or "", plays=plays, seed=seed
    ).evidence  # fmt: skip


def value(found: Measurement | NotMeasurable) -> float:
    """The figure; not-a-number where there is none."""
    return found.value if isinstance(found, Measurement) else math.nan


def curve(found: Measurement | NotMeasurable, n: int) -> tuple[float, ...]:
    """The n values of the first curve behind a figure; not-a-number where there is none."""
    return found.series[0].y if isinstance(found, Measurement) else (math.nan,) * n


def pairs(world: World, model: Path, seed: int, n: int) -> list[Transcript]:
    """Pairs of whole episodes that a model played on the same training tasks, of different returns: what DPO compares.

    Args:
        world: The world.
        model: Folder of the model.
        seed: Of the tasks and of the noise.
        n: Tasks to play; those on which both episodes return the same are left out.
    """
    import numpy as np

    from turnwise.rollout import TRAIN_SEEDS

    found = evidence(world, model, seed, 1)
    assert found.player is not None
    assert found.make_env is not None
    tasks = np.random.default_rng(seed).choice(TRAIN_SEEDS, n, replace=False).tolist()
    played = found.player(found.make_env, [task for task in tasks for _ in range(2)])
    twos = zip(played[::2], played[1::2], strict=True)
    return [episode for two in twos if sum(two[0].rewards) != sum(two[1].rewards) for episode in two]


def _train(
    algorithm: Any,
    world: World,
    out: Path,
    seed: int,
    *,
    start: Path | None,
    steps: int,
    lr: float,
    shown: Sequence[Transcript] | None,
    warm: WarmStart | None = None,
    record: int = 0,
) -> Path:
    training = Training(
        algorithm,
        world,
        Model("tiny" if start is None else str(start)),
        warm_start=warm or WarmStart(),
        optimiser=Optimiser(lr=lr, warmup=0.1 if start is None else 0.0),
        steps=steps,
        seed=seed,
        save_every=steps,
        record=record,
        threads=1,
    )
    run(training, out, demonstrations=shown, progress=False)
    return out / "final"
