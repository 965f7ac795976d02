"""E7: where the goal sits. One goal or many in training; the goal loop, the goal in the prompt, and a goal that contradicts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium

from turnwise.algorithms import PPO
from turnwise.audit.locus import Restated
from turnwise.envs.errand import GEMS, HELD, Errand
from turnwise.envs.text_env import Outcome, plain
from turnwise.recipes.claims.claim import Chart, Claim, Comparison
from turnwise.recipes.claims.claim import Outcome as Figures
from turnwise.recipes.parallel import Job
from turnwise.recipes.settings import World

NEAR, TURNS = 5, 15
"""Rooms that things are in at the start, and the deadline."""
SKILL = 0.5
"""Share of an expert's actions in the demonstrations; the others are random."""
TRAINED = "red"
"""The gem that all tasks of the one goal ask for."""
START, ONE, MANY = "start", "one goal", "varied goals"
ARMS = (START, ONE, MANY)
"""The start model, and what training on one goal or many makes of it."""
PARTS = ("weights", "prompt", "loop")
"""Whom success is split among, in the order of `turnwise.audit.locus.PARTS`."""


class Near(Errand):
    """The errand world with everything in its first rooms, and if asked for with one goal alone.

    Handing the guard the other gem ends the episode and pays nothing. So whoever does not know the goal has to guess.

    Args:
        wanted: The gem that all tasks ask for; the seed draws it if empty.
    """

    def __init__(self, wanted: str = "") -> None:
        super().__init__(max_turns=TURNS)
        self._only = wanted

    def begin(self, seed: int) -> str:
        super().begin(seed)
        rooms = random.Random(f"near {seed}").sample(range(NEAR), 4)
        self.me, self.gems, self.guards = rooms[0], rooms[1:3], rooms[3:]
        if self._only:
            self.wanted = GEMS.index(self._only)
        self._prefix = f"{self.goal()} ;"
        return self._observe()

    def act(self, text: str) -> Outcome:
        other = GEMS[1 - self.wanted]
        if plain(text) == f"give {other} gem" and self.me in self.guards and self.gems[1 - self.wanted] == HELD:
            return Outcome(self._observe(), 0.0, True)
        return super().act(text)


class ToldOnce(Restated):
    """A world that says its goal in the first observation and not again.

    Args:
        env: A world that says its goal in every observation.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env, lambda seed, goal: "")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        return f"{info['goal']} ; {observation}", info


class GoalLoop(gymnasium.Wrapper[str, str, str, str]):
    """A scaffold that keeps the goal: what the first observation says of it is put before each later one.

    Where the first observation does not begin with the goal there is nothing to keep. The world inside says its goal at most once.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        goal = info["goal"]
        self._kept = f"{goal} ; " if observation.startswith(goal) else ""
        return observation, info

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return f"{self._kept}{observation}", reward, terminated, truncated, info


def told_once() -> Any:
    """The world without a scaffold, its goals varied."""
    return ToldOnce(Near())


def varied() -> Any:
    """The world in its goal loop, its goals varied."""
    return GoalLoop(told_once())


def fixed() -> Any:
    """The world in its goal loop with the one goal."""
    return GoalLoop(ToldOnce(Near(TRAINED)))


_WORLDS = {START: "varied", ONE: "fixed", MANY: "varied"}


def world(arm: str) -> World:
    """The world that an arm is trained in. A context holds the present observation alone."""
    return World(f"{__name__}:{_WORLDS[arm]}", memory=0, max_tokens=5, where="inline")


def trial(seed: int, quick: bool, out: str, tick: Callable[[], None]) -> Figures:
    """All arms of a seed; those with a goal or many go on from the start model."""
    from turnwise.audit import evidence_of
    from turnwise.recipes.claims.language import go_on, teach

    home = Path(out)
    shown, warm, steps, size = (32, 6, 2, 16) if quick else (256, 24, 25, 64)
    models = {START: teach(world(START), home / START, seed, demonstrations=shown, skill=SKILL, steps=warm)}
    tick()
    for arm in (ONE, MANY):
        method = PPO(episodes=size)
        models[arm] = go_on(
            method, world(arm), home / arm, seed, start=models[START], steps=steps, lr=5e-4, record=steps
        )
        tick()
    asked = evidence_of(home / ONE).iterations
    figures: dict[str, float] = {}
    for arm, model in models.items():
        figures |= measured(arm, model, models[START], asked, seed, 8 if quick else 48)
        tick()
    return Figures(figures)


def measured(arm: str, model: Path, start: Path, asked: Any, seed: int, plays: int) -> dict[str, float]:
    """The figures of an arm.

    ``success`` and ``blanked`` are success in the goal loop with and without its goal in words; ``prompt pursued`` and ``trained
    pursued`` are whose gem is taken first where the prompt asks for the other gem than the one of `asked`; what an arm adds
    to the start model is split among weights, prompt and loop (`turnwise.audit.locus`).

    Args:
        arm: Its name.
        model: Folder of its model.
        start: Folder of the start model.
        asked: The iterations of the run with the one goal, which say what was trained.
        seed: Of tasks and noise.
        plays: Tasks.
    """
    from turnwise.audit.locus import blanked, follows_the_prompt, goal_locus
    from turnwise.audit.persistence import success
    from turnwise.recipes.claims.language import curve, evidence, value

    seen = evidence(world(MANY), model, seed, plays, base=start)
    against = replace(seen, make_env=fixed, iterations=asked)
    prompt, trained = curve(follows_the_prompt()(against), 2)
    figures = {
        f"success, {arm}": value(success(seen)),
        f"blanked, {arm}": value(success(replace(seen, make_env=lambda: blanked(varied())))),
        f"prompt pursued, {arm}": prompt,
        f"trained pursued, {arm}": trained,
    }
    if arm == START:
        return figures
    split = curve(goal_locus(replace(seen, make_env=told_once, scaffold=GoalLoop)), 3)
    return figures | {f"{part}, {arm}": share for part, share in zip(PARTS, split, strict=True)}


def jobs(seed: int, quick: bool, out: Path) -> list[Job]:
    """One job: the arms share their start model."""
    return [Job("goals", trial, {"seed": seed, "quick": quick, "out": str(out)}, 2 * len(ARMS))]


CLAIM = Claim(
    key="E7",
    title="reinforcement learning puts the goal into the weights",
    statement=(
        "What a policy pursues after RL is the goal that it was trained for, and sits in its weights; the goal in the prompt, and a "
        "loop that keeps the goal, are ornaments."
    ),
    expected=(
        "False as stated. Trained on one goal it pursues that one against the prompt. Trained on varied goals it pursues "
        "whatever the prompt says, and takes weights, prompt and loop together."
    ),
    learner="language model",
    claimed=(
        Comparison(f"trained pursued, {ONE}", "above", f"prompt pursued, {ONE}"),
        Comparison(f"trained pursued, {MANY}", "above", f"prompt pursued, {MANY}"),
        Comparison(f"prompt, {MANY}", "within", 0.0, 0.1),
        Comparison(f"loop, {MANY}", "within", 0.0, 0.1),
    ),
    found=(
        Comparison(f"prompt pursued, {MANY}", "above", 0.5),
        Comparison(f"prompt pursued, {MANY}", "above", f"prompt pursued, {ONE}", 0.2),
        Comparison(f"blanked, {MANY}", "below", f"success, {MANY}", 0.1),
        Comparison(f"weights, {ONE}", "above", f"prompt, {ONE}"),
    ),
    how=(
        f"The errand world with everything in {NEAR} rooms, {TURNS} turns; language models of 0.2 million parameters whose context holds the "
        "present observation alone, and a loop that repeats the goal in it. The wrong gem in the guard's hands ends the episode. Fine-tuned on demonstrations with varied goals, half of whose actions are random, then "
        f"25 updates of PPO on 64 episodes whose goals are varied or all {TRAINED}. Contradiction: the prompt asks for the other gem, "
        "and the first that is taken is pursued. Weights, prompt, loop: Shapley's split of success over the eight combinations, on tasks "
        "with varied goals. 48 held-out tasks for each figure."
    ),
    jobs=jobs,
    charts=(
        Chart(
            "whose gem is taken where the prompt contradicts",
            tuple(f"{whose} pursued, {arm}" for arm in ARMS for whose in ("prompt", "trained")),
            unit="share",
        ),
        Chart(
            "success, split among weights, prompt and loop",
            tuple(f"{part}, {arm}" for arm in (ONE, MANY) for part in PARTS),
        ),
        Chart(
            "success with the goal in words and without",
            tuple(f"{what}, {arm}" for arm in ARMS for what in ("success", "blanked")),
            unit="share",
        ),
    ),
)
"""E7."""
