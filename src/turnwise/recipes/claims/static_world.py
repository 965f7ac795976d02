"""E2: there is no dynamic environment. The best plan made in advance against the best play that looks, by slip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from turnwise.envs import vault
from turnwise.envs.exact import optimal_return
from turnwise.recipes.claims.claim import Chart, Claim, Comparison, Curve, Outcome
from turnwise.recipes.claims.open_loop import best_plan
from turnwise.recipes.parallel import Job

SLIPS = (0.0, 0.1, 0.3)
"""Probabilities that an action fails."""
MARGIN = 0.05
"""A share of the return that counts as nothing."""


def loss(slip: float, coin: float, length: int, turns: int) -> tuple[float, float]:
    """Exact expected return of the best play turn by turn, and of the best plan for each start state."""
    world = vault.tabular(length, slip, coin, turns)
    planned = 0.0
    for state in np.flatnonzero(world.initial):
        planned += float(world.initial[state]) * best_plan(world, int(state))[0]
    return optimal_return(world), planned


def work(seed: int, length: int, turns: int, tick: Callable[[], None]) -> Outcome:
    """The loss at each slip, in a vault whose coins pay what the seed draws."""
    coin = float(np.random.default_rng(seed).uniform(0.05, 0.15))
    figures: dict[str, float] = {}
    lost: list[float] = []
    for slip in SLIPS:
        looking, planned = loss(slip, coin, length, turns)
        figures[f"turn by turn, slip {slip:g}"] = looking
        figures[f"plan, slip {slip:g}"] = planned
        figures[f"lost by not looking, slip {slip:g}"] = (looking - planned) / looking
        lost.append((looking - planned) / looking)
        tick()
    return Outcome(
        figures, (Curve("share of the return lost by not looking", "best plan", SLIPS, tuple(lost), "slip"),)
    )


def jobs(seed: int, quick: bool, out: Path) -> list[Job]:
    """One job."""
    length, turns = (4, 10) if quick else (5, 15)
    return [Job("plans", work, {"seed": seed, "length": length, "turns": turns}, len(SLIPS))]


CLAIM = Claim(
    key="E2",
    title="there is no dynamic environment",
    statement=(
        "For a language model there is no environment that answers back, so acting turn by turn comes to the same as writing the "
        "whole sequence in advance. Said of training on text by those who deny that it is reinforcement learning."
    ),
    expected=(
        "It depends on the world and can be measured: nothing is lost by not looking where nothing is left to chance, and more "
        "the more often actions fail. As a statement about all worlds it is false."
    ),
    learner="exact tabular",
    claimed=tuple(Comparison(f"lost by not looking, slip {slip:g}", "within", 0.0, MARGIN) for slip in SLIPS),
    found=(
        Comparison("lost by not looking, slip 0", "within", 0.0, 1e-6),
        Comparison("lost by not looking, slip 0.3", "above", "lost by not looking, slip 0.1", MARGIN),
    ),
    how=(
        "A vault of 5 rooms, 15 turns. The seed draws what a coin pays, between 0.05 and 0.15. Turn by turn: the optimum by "
        "dynamic programming. Plan: for each start state the best of all sequences of actions, by exact search (A*). Both are "
        "expected returns over all start states; nothing is sampled or learnt."
    ),
    jobs=jobs,
    charts=(
        Chart("expected return", tuple(f"{who}, slip {slip:g}" for slip in SLIPS for who in ("turn by turn", "plan"))),
    ),
    seeds=5,
)
"""E2."""
