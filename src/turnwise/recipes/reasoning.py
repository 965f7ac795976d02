"""Reasoning by final answer: a tiny model from scratch on a task of reasoning-gym, with PPO and with GRPO.

The task is the one of "Alice in Wonderland" (Nezhurina et al. 2024, arXiv 2406.02061): Mary has 3 brothers and 4 sisters, how many
sisters does Mary's brother have? The model learns to read and to answer from a few demonstrations of which most
are wrong, and the rest from what the dataset's scorer says of its answers: 1 for the right one, a part for one that contains it
among more, 0 else.

Held-out items have seeds of their own, but a generator asks some questions twice, so that the questions of training are noted
and the accuracy on the others is told apart.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

from turnwise.algorithms import GRPO, PPO
from turnwise.envs.registry import make, spec
from turnwise.recipes.comparison import new_folder
from turnwise.recipes.parallel import Job, run_jobs
from turnwise.recipes.training import Model, Optimiser, Training, WarmStart, World, load_policy, run
from turnwise.rewards.floor import Floor, constant_floor

TASK = "reasoning-gym/aiw?task_types=siblings&task_type_weights=1&max_entities=9"
"""The task: up to nine brothers and sisters."""
BAR = 0.3
"""Rise of the held-out accuracy over the start model that every seed has to show."""
GUESSES = ("0", "1", "2", "yes", "no", "Yes", "No", "True", "False", "None", "[]", "A")
"""Constant answers that are tried beside the answers of the items."""


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        label: What people read.
        slug: Beginning of its folders' names.
        algorithm: With its hyperparameters.
        lr: Peak learning rate.
    """

    label: str
    slug: str
    algorithm: Any
    lr: float = 1e-3


METHODS = (
    Method("PPO", "ppo", PPO(episodes=256, reward_scale=1.0)),
    Method("GRPO", "grpo", GRPO(groups=32, group_size=8, minibatch=128)),
)
"""The rows, in order. Both see the same number of episodes; those of PPO all ask different questions."""


class _Noted(gymnasium.Wrapper[str, str, str, str]):
    """Notes every question that is asked."""

    def __init__(self, env: Any, asked: set[str]) -> None:
        super().__init__(env)
        self.asked = asked

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.asked.add(observation)
        return observation, info


def training_of(method: Method, seed: int, steps: int, demonstrations: int) -> Training:
    """The settings of a run."""
    return Training(
        method.algorithm,
        World(TASK, max_tokens=4, where="inline"),
        Model("tiny"),
        warm_start=WarmStart(demonstrations=demonstrations, skill=0.3, epochs=4),
        optimiser=Optimiser(lr=method.lr),
        steps=steps,
        seed=seed,
        record=8,
        save_every=steps,
        threads=1,
    )


def train_once(
    index: int, seed: int, out: str, steps: int, demonstrations: int, episodes: int, tick: Callable[[], None]
) -> dict[str, float]:
    """One run: warm start, method, and both of their models on the same held-out items."""
    method = METHODS[index]
    training = training_of(method, seed, steps, demonstrations)
    folder = Path(out) / f"{method.slug}-{seed}"
    asked: set[str] = set()
    world = dataclasses.replace(spec(TASK), make=lambda **options: _Noted(make(TASK, **options), asked))
    began = time.process_time()
    trained = run(training, folder, env=world, progress=False, on_iteration=lambda *_: tick())
    seconds = time.process_time() - began
    noted = frozenset(asked)
    before = dataclasses.replace(trained, policy=load_policy(training, folder / "warm-start" / "final"))
    start, after, greedy = (
        before.rollouts(episodes),
        trained.rollouts(episodes),
        trained.rollouts(episodes, greedy=True),
    )
    items = make(TASK)
    new = [episode for episode in after if items.reset(seed=episode.seed)[0] not in noted]
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "start": _accuracy(start),
        "accuracy": _accuracy(after),
        "greedy": _accuracy(greedy),
        "new": _accuracy(new),
        "new_items": len(new),
        "asked": len(noted),
        **answer_only([(e.seed, trained.policy.renderer.action_text(e.turns[0].act)) for e in after]),
        "reward": log[-1]["reward"],
        "first_reward": log[0]["reward"],
        "tokens": log[-1]["total/tokens"],
        "seconds": seconds,
    }


def _accuracy(episodes: Sequence[Any]) -> float:
    """Share of right final answers; NaN of none."""
    return sum(episode.metrics["success"] for episode in episodes) / len(episodes) if episodes else float("nan")


def answer_only(completions: Sequence[tuple[int, str]]) -> dict[str, float]:
    """The same completions judged in three other places: only the final answer counts.

    Args:
        completions: Seeds of items, and what was replied to each.

    Returns:
        ``reasoned``: accuracy with a wrong number in the reasoning before the answer; ``hidden``: with the answer in the
        reasoning and nothing after it; ``replaced``: with the answer in the reasoning and another one after it.
    """
    world = make(TASK)
    forms = {"reasoned": "<think>17</think>{}", "hidden": "<think>{}</think>", "replaced": "<think>{}</think>17"}
    right = dict.fromkeys(forms, 0.0)
    for seed, completion in completions:
        for name, form in forms.items():
            world.reset(seed=seed)
            *_, info = world.step(form.format(completion))
            right[name] += info["success"] / len(completions)
    return right


def floor(env_id: str, seeds: Sequence[int], *, success: bool = False, most: int = 32) -> Floor:
    """The constant-answer floor of a task of reasoning-gym: what always giving the same answer earns.

    Args:
        env_id: A name of `turnwise.envs.make` that begins with ``reasoning-gym/``.
        seeds: The items.
        success: Count right answers, instead of the mean score.
        most: Answers of the items to try, the most frequent first.

    Raises:
        EnvError: no such task.
    """
    from collections import Counter

    from turnwise.envs.reasoning_gym import SUCCESS

    worlds = [make(env_id) for _ in seeds]
    for world, seed in zip(worlds, seeds, strict=True):
        world.reset(seed=seed)
    known = Counter(answer for world in worlds if (answer := world.gold()) is not None)

    def scores(text: str) -> list[float]:
        paid = [world.score(text) if text else 0.0 for world in worlds]
        return [float(score >= SUCCESS) for score in paid] if success else paid

    return constant_floor(scores, [*(answer for answer, _ in known.most_common(most)), *GUESSES])


def main(*, quick: bool = False, out: Path | str = "runs/reasoning", seeds: int | None = None) -> Path:
    """Train everything, print the table, write the page.

    Args:
        quick: One iteration and one seed: a check that everything works, not a result.
        out: Folder for all runs and the page; new or empty.
        seeds: Independent repetitions; 3 by default.

    Returns:
        The page.

    Raises:
        TurnwiseError: reasoning-gym is not installed, or the folder is in use.
    """
    from turnwise.recipes.reasoning_page import show, write
    from turnwise.rollout import TRAIN_SEEDS

    make(TASK).close()
    out = new_folder(Path(out))
    n = seeds or (1 if quick else 3)
    steps, demonstrations, episodes = (1, 32, 16) if quick else (80, 512, 512)
    began = time.perf_counter()
    fixed = {"out": str(out), "steps": steps, "demonstrations": demonstrations, "episodes": episodes}
    jobs = [
        Job(f"{method.label}, seed {seed}", train_once, {**fixed, "index": index, "seed": seed}, steps)
        for index, method in enumerate(METHODS)
        for seed in range(n)
    ]
    done = [result for result, _ in run_jobs("reasoning", jobs)]
    best = floor(TASK, range(TRAIN_SEEDS, TRAIN_SEEDS + episodes), success=True)
    results = {
        "task": TASK,
        "bar": BAR,
        "floor": dataclasses.asdict(best),
        "methods": [
            {"label": method.label, "slug": method.slug, "runs": done[i * n : (i + 1) * n]}
            for i, method in enumerate(METHODS)
        ],
        "seeds": n,
        "episodes": episodes,
        "quick": quick,
        "minutes": (time.perf_counter() - began) / 60,
    }
    (out / "results.json").write_text(json.dumps(results, indent=2))
    show(results)
    return write(results, out)
