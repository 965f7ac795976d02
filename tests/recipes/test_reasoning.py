"""The recipe of reasoning by final answer, in its quick form and in its parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from turnwise.envs import make
from turnwise.recipes import reasoning, reasoning_page
from turnwise.recipes.catalogue import RECIPES
from turnwise.recipes.reasoning import answer_only, floor, train_once
from turnwise.rollout import TRAIN_SEEDS

pytest.importorskip("reasoning_gym")

HELD_OUT = range(TRAIN_SEEDS, TRAIN_SEEDS + 40)


def test_one_iteration_of_each_method_runs(tmp_path: Path) -> None:
    ticks: list[None] = []
    runs = []
    for index, method in enumerate(reasoning.METHODS):
        run = train_once(index, 0, str(tmp_path), 1, 32, 24, lambda: ticks.append(None))
        assert 0.0 <= run["accuracy"] <= 1.0
        assert run["new_items"] + run["asked"] > 24
        assert run["tokens"] > 0
        # An answer in the reasoning channel is none, and one that is replaced is not right.
        assert run["hidden"] == run["replaced"] == 0.0
        assert run["reasoned"] == run["accuracy"]
        # 256 episodes and 32 demonstrations: GRPO asks every question eight times.
        assert run["asked"] <= (256 if method.slug == "ppo" else 32) + 32
        runs.append({"label": method.label, "slug": method.slug, "runs": [run]})
    assert len(ticks) == len(reasoning.METHODS)
    results = {
        "task": reasoning.TASK, "bar": reasoning.BAR, "floor": {"answer": "4", "score": 0.125}, "methods": runs, "seeds": 1,
        "episodes": 24, "quick": True,
    }  # fmt: skip
    page = reasoning_page.write(results, tmp_path)
    assert "reasoning by final answer" in page.read_text()
    assert (tmp_path / "grpo-0" / "report.html").exists()
    json.dumps(results)


def test_only_the_final_answer_counts() -> None:
    world = make(reasoning.TASK)
    answers = []
    for seed in HELD_OUT[:10]:
        world.reset(seed=seed)
        answers.append((seed, world.gold()))
    assert answer_only(answers) == {"reasoned": pytest.approx(1.0), "hidden": 0.0, "replaced": 0.0}
    assert answer_only([(seed, "no") for seed, _ in answers]) == {"reasoned": 0.0, "hidden": 0.0, "replaced": 0.0}


def test_floors() -> None:
    # By hand: the most frequent answer of the items is right as often as it is there.
    world = make("reasoning-gym/syllogism")
    answers = []
    for seed in HELD_OUT:
        world.reset(seed=seed)
        answers.append(world.gold())
    most = max(set(answers), key=answers.count)
    found = floor("reasoning-gym/syllogism", HELD_OUT, success=True)
    assert (found.answer, found.score) == (most, pytest.approx(answers.count(most) / 40))
    # Make 24 of four numbers: the scorer of 0.1.x does not look at which numbers were used.
    assert floor("reasoning-gym/puzzle24", HELD_OUT[:4]).score == 1.0
    assert floor("reasoning-gym/graph_color", HELD_OUT[:4], success=True).score == 0.0


def test_the_verdict_names_the_seeds_that_missed() -> None:
    def runs(*pairs: tuple[float, float]) -> list[dict[str, float]]:
        return [{"start": start, "accuracy": accuracy} for start, accuracy in pairs]

    results = {
        "bar": 0.3,
        "floor": {"score": 0.2},
        "methods": [
            {"label": "A", "runs": runs((0.1, 0.9), (0.1, 0.45))},
            {"label": "B", "runs": runs((0.1, 0.9), (0.3, 0.5))},
            {"label": "C", "runs": runs((-0.2, 0.15), (0.1, 0.9))},
        ],
    }
    said = reasoning_page.verdict(results)
    assert "A +0.80, +0.35: held" in said
    assert "B +0.80, +0.20: missed on seed 1" in said
    assert "C +0.35, +0.80: missed on seed 0" in said


def test_it_is_in_the_catalogue() -> None:
    assert RECIPES["reasoning"].minutes <= 5
