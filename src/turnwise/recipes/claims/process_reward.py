"""E1: a process reward with one-step optimisation makes a one-step agent. Four judges; how far the judge sees decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from turnwise.audit.difficulty import k_star
from turnwise.envs import locks, temptation, vault
from turnwise.envs.exact import (
    Array,
    Tabular,
    greedy,
    optimal_policy,
    optimal_return,
    optimal_values,
    policy_return,
    policy_values,
    uniform_policy,
)
from turnwise.recipes.claims.claim import Chart, Claim, Comparison, Outcome
from turnwise.recipes.claims.tabular import play, to_go_mean, with_reward
from turnwise.recipes.parallel import Job

DEPTHS = (1, 2, 3, 4)
"""Depths of the locks; the base is random play, so that k* is the depth."""
DECOY = 0.6
"""What the coin beside a lock pays."""
IMMEDIATE, PROGRESS, BASE, BEST = "immediate reward", "expert's progress", "outcomes of the base", "Q*"
JUDGES = (IMMEDIATE, PROGRESS, BASE, BEST)
"""What an action is judged by."""
ENOUGH = 0.9
"""Share of the way from the base's return to the optimum that counts as all of it."""
TOLD = "k* tells if one step on outcomes is enough, share of worlds"
"""Name of a figure."""


def judge(name: str, world: Tabular, goal: Array, episodes: int, rng: np.random.Generator) -> Array:
    """(S, A) or (H, S, A): what a judge says of each action in each state.

    Args:
        name: One of `JUDGES`.
        world: The world.
        goal: (S, A, K) 1 where an outcome reaches the goal, else 0.
        episodes: Of random play, for the judge that learns from their outcomes.
        rng: What they are drawn from.
    """
    values = optimal_values(world)
    if name == IMMEDIATE:
        return world.action_values(0, values[0], 0.0)
    if name == PROGRESS:
        return progress(world, goal)
    if name == BEST:
        return np.stack([world.action_values(t, values[t + 1]) for t in range(world.horizon)])
    log = play(world, uniform_policy(world), episodes, rng)
    return to_go_mean(world, log)


def progress(world: Tabular, goal: Array) -> Array:
    """(S, A): by how many turns an action brings an expert nearer to the goal, E[D(s) − D(s')].

    D is the least expected number of turns to the goal, by dynamic programming; the horizon where it cannot be reached.
    """
    far = float(world.horizon)
    # A turn costs one; ending elsewhere costs what is left of the horizon, as if one waited it out.
    left = far - 1.0 - np.arange(world.horizon)[:, None, None, None]
    cost = -1.0 - np.where(world.ended & (goal == 0), left, 0.0)
    steps = with_reward(world, cost)
    distance = -policy_values(steps, optimal_policy(steps))[0]
    after = np.where(goal > 0, 0.0, np.where(world.ended, far, distance[world.successor]))
    return (world.probability * (distance[:, None, None] - after)).sum(-1)


def worlds(quick: bool) -> Mapping[str, tuple[Tabular, Array]]:
    """Name -> the world, and the outcomes that reach its goal."""
    found: dict[str, tuple[Tabular, Array]] = {}
    for depth in DEPTHS:
        world = locks.tabular(depth, DECOY)
        found[f"lock of {depth}"] = world, (world.ended & (world.reward > DECOY)).astype(float)
    world = vault.tabular(length=4 if quick else 6, slip=0.1)
    found["vault"] = world, world.ended.astype(float)
    return found


def others(quick: bool) -> list[Tabular]:
    """More worlds to try the prediction of k* on."""
    coinless = [vault.tabular(length, slip=0.1, coin=0.0) for length in ((4,) if quick else (4, 6))]
    return [*coinless, *(temptation.tabular(delay) for delay in (1, 2, 3, 4))]


def work(seed: int, quick: bool, tick: Callable[[], None]) -> Outcome:
    """What the exact one-step optimum of each judge does in each world."""
    rng = np.random.default_rng(seed)
    episodes = 2000 if quick else 20000
    figures: dict[str, float] = {}
    told: list[bool] = []
    for where, (world, goal) in worlds(quick).items():
        success = with_reward(world, np.broadcast_to(goal, world.probability.shape))
        for name in JUDGES:
            policy = greedy(judge(name, world, goal, episodes, rng))
            figures[f"{name}, {where}"] = policy_return(success, policy)
            if name == BASE:
                told.append(foretold(world, policy))
        tick()
    for world in others(quick):
        labels = to_go_mean(world, play(world, uniform_policy(world), episodes, rng))
        told.append(foretold(world, greedy(labels)))
    tick()
    return Outcome({**figures, TOLD: float(np.mean(told))})


def foretold(world: Tabular, policy: Array) -> bool:
    """Whether k* of random play, at most 1 or more, says rightly if the policy of one step on its outcomes is enough."""
    start, best = policy_return(world, uniform_policy(world)), optimal_return(world)
    enough = policy_return(world, policy) - start >= ENOUGH * (best - start)
    return enough == (k_star(world, share=ENOUGH) <= 1)


def jobs(seed: int, quick: bool, out: Path) -> list[Job]:
    """One job."""
    return [Job("four judges", work, {"seed": seed, "quick": quick}, len(DEPTHS) + 2)]


_DEEP = f"lock of {DEPTHS[-1]}"
CLAIM = Claim(
    key="E1",
    title="process reward + one step is only one-step",
    statement=(
        "Judging the steps and optimising each step for its own judgement gives a one-step agent, whatever the judge: it takes "
        "what is near. Said of process rewards by those for whom only multi-step optimisation is reinforcement learning."
    ),
    expected=(
        "False: a judge that sees far makes one-step optimisation far-sighted. The judge that has learnt the outcomes of the base "
        "fails exactly where greedy choice on them is not enough, k* > 1."
    ),
    learner="exact tabular",
    claimed=tuple(Comparison(f"{name}, {_DEEP}", "below", 0.5) for name in JUDGES),
    found=(
        *(Comparison(f"{name}, {where}", "above", 0.9) for name in (PROGRESS, BEST) for where in (_DEEP, "vault")),
        *(Comparison(f"{BASE}, lock of {d}", "above" if d == 1 else "below", 0.5) for d in DEPTHS),
        Comparison(TOLD, "above", 0.8),
        *(Comparison(f"{IMMEDIATE}, {where}", "below", 0.1) for where in (_DEEP, "vault")),
    ),
    how=(
        "Locks that need 1 to 4 right turns in a row, beside a coin that pays 0.6 at once and ends the task (the lock pays 1), "
        "and a vault of 6 rooms with slip 0.1 and coins. The policy is the exact optimum of one-step optimisation, the action "
        "that the judge likes best in each state, so nothing but the judge can be at fault. Judges: the reward of the turn; by how "
        "many turns an expert is nearer to the goal; the mean return after the action in 20,000 episodes of random play; the "
        "optimal action values. Figures: exact share of episodes that reach the goal. k* of a lock is its depth, by construction; that of "
        f"the other worlds comes from dynamic programming on the values of random play ({ENOUGH:.0%} of the way to the optimum). It is "
        "tried on these worlds, two vaults without coins and four temptations; it takes a judge that knows the turn and is never "
        "mistaken, and one that has learnt from samples may still fall short where k* is 1."
    ),
    jobs=jobs,
    charts=tuple(
        Chart(f"reaches the goal: {where}", tuple(f"{name}, {where}" for name in JUDGES), unit="share")
        for where in ("lock of 1", "lock of 2", _DEEP, "vault")
    ),
    seeds=5,
)
"""E1."""
