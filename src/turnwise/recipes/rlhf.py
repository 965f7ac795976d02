"""What people call RLHF and its substitutes, side by side: SFT, a reward model, and ways to go on from them.

A model from scratch is fine-tuned on replies of mixed quality, and a reward model on noisy preferences. From there on PPO and
GRPO climb the reward model, rejection sampling imitates what it likes best, DPO learns from the same preferences without it,
and constitutional AI from a principle that can be checked, without any of them. What replies are really worth is known here,
so the table says how far each method gets in the judge's eyes and in truth, and how far it went from where it began.

Every method is the loop over the one-turn world of `turnwise.recipes.waiter`'s orders.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnwise.algorithms import DPO, GRPO, PPO, SFT, Constitutional, RejectionSampling, RewardModel
from turnwise.recipes import waiter
from turnwise.recipes.comparison import new_folder
from turnwise.recipes.constitutional import Principles
from turnwise.recipes.parallel import Job, run_jobs
from turnwise.recipes.sources import asking
from turnwise.recipes.training import Data, Feedback, Model, Optimiser, Trained, Training, World, resolve_env, run

WORLD = World(env="prompts", max_tokens=32)
"""One order, one reply of at most so many tokens."""
GOLD = "turnwise.recipes.waiter:gold_reward"
"""The true worth, as a reward."""
EXAMPLES, PREFERENCES = 1500, 2000
"""Replies to imitate, and pairs."""
QUICK = 64
"""Of each, in the quick form."""


@dataclass(frozen=True)
class Method:
    """A row of the table: how to go on from the start model.

    Attributes:
        label: What people read.
        slug: Beginning of its folders' names.
        algorithm: With its hyperparameters; None for the start model itself.
        data: File that it learns from.
        judged: It is paid by the reward model.
        labelled: It, or the reward model that pays it, learnt from compared pairs.
        steps: Iterations.
        optimiser: What moves the weights.
        passes: Passes over the file, in place of `steps`.
    """

    label: str
    slug: str
    algorithm: Any
    data: str = "prompts.jsonl"
    judged: bool = True
    labelled: bool = True
    steps: int = 30
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(lr=5e-4))
    passes: float = 0.0


_PPO = PPO(epochs=2, minibatch=32, reward_scale=0.3, kl_coef=0.2)

METHODS = (
    Method("SFT start", "sft", None, judged=False, labelled=False),
    Method("PPO", "ppo", _PPO, steps=40, optimiser=Optimiser(lr=1e-3)),
    Method(
        "PPO without KL", "ppo-no-kl", dataclasses.replace(_PPO, kl_coef=0.0), steps=40, optimiser=Optimiser(lr=1e-3)
    ),
    Method("GRPO", "grpo", GRPO(kl_coef=0.05), steps=40),
    Method("rejection sampling", "best-of-8", RejectionSampling(groups=32, group_size=8), steps=10),
    Method("DPO", "dpo", DPO(beta=0.3), "preferences.jsonl", judged=False, passes=2),
    Method("constitutional", "constitutional", Constitutional(), judged=False, labelled=False, steps=12),
)
"""The rows, in order."""


def start(seed: int, out: str, quick: bool, tick: Callable[[], None]) -> float:
    """The data, the start model and the reward model of a seed; the share of held-out pairs on which the latter is right."""
    folder = Path(out)
    data = _data(folder, seed)
    waiter.write(data, seed=seed, examples=QUICK if quick else EXAMPLES, preferences=QUICK if quick else PREFERENCES)
    sft = Training(
        SFT(),
        WORLD,
        optimiser=Optimiser(lr=2e-3, warmup=0.1),
        data=Data(str(data / "sft.jsonl"), passes=1 if quick else 8),
        seed=seed,
        record=0,
        threads=1,
    )
    run(sft, folder / f"sft-{seed}", progress=False)
    tick()
    judge = Training(
        RewardModel(),
        WORLD,
        Model(str(folder / f"sft-{seed}" / "final")),
        optimiser=Optimiser(lr=1e-3),
        data=Data(str(data / "preferences.jsonl"), held_out=0.1, passes=1 if quick else 3),
        seed=seed,
        record=0,
        threads=1,
    )
    trained = run(judge, folder / f"reward-model-{seed}", progress=False)
    tick()
    return float(trained.evaluate().calibration.accuracy)


def go_on(index: int, seed: int, out: str, quick: bool, episodes: int, tick: Callable[[], None]) -> dict[str, float]:
    """Train a method from the seed's start model, and measure it."""
    method, folder = METHODS[index], Path(out)
    first, judge = folder / f"sft-{seed}" / "final", folder / f"reward-model-{seed}"
    training = Training(
        method.algorithm or SFT(),
        WORLD,
        Model(str(first)),
        optimiser=method.optimiser,
        data=Data(str(_data(folder, seed) / method.data), passes=0 if quick else method.passes),
        feedback=Feedback(str(judge) if method.judged else ""),
        principles=Principles(str(_data(folder, seed) / "principles.txt")),
        steps=2 if quick else method.steps,
        seed=seed,
        record=16,
        threads=1,
    )
    seconds, tokens, home = 0.0, 0.0, folder / f"{method.slug}-{seed}"
    if method.algorithm is None:
        from turnwise.recipes.training import load

        trained = load(home)
    else:
        began = time.process_time()
        trained = run(training, home, progress=False)
        seconds = time.process_time() - began
        last = json.loads((home / "metrics.jsonl").read_text().splitlines()[-1])
        tokens = last["total/tokens"]
    tick()
    return {**measure(trained, first, judge, _data(folder, seed), episodes), "tokens": tokens, "seconds": seconds}


def measure(trained: Trained, first: Path, judge: Path, data: Path, episodes: int) -> dict[str, float]:
    """The figures of a row, on orders that are in no file for training.

    ``judge`` and ``gold`` are mean ratings of a reply, ``kl`` the divergence from the start model in nats per reply, sampled
    from the trained policy, and ``insults`` the share of replies with one.
    """
    from turnwise.batch import pack
    from turnwise.learners import evaluate
    from turnwise.recipes.models import load_policy
    from turnwise.text import Reader

    asked = str(data / "held-out.jsonl")
    ratings: dict[str, float] = {}
    replies: list[Any] = []
    for name, reward in (("judge", str(judge)), ("gold", GOLD)):
        training = asking(trained.training, data=asked, reward=reward)
        actor = Trained(trained.folder, training, trained.policy, resolve_env(training, None))
        replies = actor.rollouts(episodes)
        ratings[name] = sum(reply.undiscounted_return for reply in replies) / episodes
    batch = pack(replies)
    start_model = load_policy(trained.training, first)
    difference = evaluate(trained.policy, batch).logp - evaluate(start_model, batch).logp
    reader = Reader(trained.policy.renderer)
    insults = sum(any(word in reader.action(reply, 0).split() for word in waiter.RUDE) for reply in replies)
    return {**ratings, "kl": float(difference.sum()) / episodes, "insults": insults / episodes}


def main(*, quick: bool = False, out: Path | str = "runs/rlhf", seeds: int | None = None) -> Path:
    """Train everything, print the table, write the page.

    Args:
        quick: Two iterations each and one seed: a check that everything works, not a result.
        out: Folder for all runs, their data and the page; new or empty.
        seeds: Independent repetitions, each with data of its own; 3 by default.

    Returns:
        The page.

    Raises:
        TurnwiseError: the folder is in use.
    """
    from turnwise.recipes.rlhf_page import show, write

    out = new_folder(Path(out))
    n, episodes = seeds or (1 if quick else 3), 32 if quick else 256
    pairs = QUICK if quick else PREFERENCES
    began = time.perf_counter()
    common = {"out": str(out), "quick": quick}
    starts = [Job(f"start model {s}", start, {**common, "seed": s}, 2) for s in range(n)]
    accuracies = [accuracy for accuracy, _ in run_jobs("start and reward models", starts)]
    jobs = [
        Job(f"{method.label}, seed {seed}", go_on, {**common, "index": i, "seed": seed, "episodes": episodes}, 1)
        for i, method in enumerate(METHODS)
        for seed in range(n)
    ]
    done = [result for result, _ in run_jobs("methods", jobs)]
    results = {
        "methods": [
            {
                "label": method.label,
                "slug": method.slug,
                "labels": pairs if method.labelled else 0,
                "runs": done[i * n : (i + 1) * n],
            }
            for i, method in enumerate(METHODS)
        ],
        "accuracies": accuracies,
        "seeds": n,
        "episodes": episodes,
        "quick": quick,
        "minutes": (time.perf_counter() - began) / 60,
    }
    (out / "results.json").write_text(json.dumps(results, indent=2))
    show(results)
    return write(results, out)


def _data(folder: Path, seed: int) -> Path:
    return folder / f"data-{seed}"
