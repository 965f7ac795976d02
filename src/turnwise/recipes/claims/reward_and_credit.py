"""E5: rewards at every step are what multi-step RL is made of. Sparse, dense and wrong rewards; broadcast against return-to-go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from turnwise.envs import vault
from turnwise.envs.exact import Array, Tabular, optimal_return, optimal_values, policy_return, uniform_policy
from turnwise.recipes.claims.claim import Chart, Claim, Comparison, Curve, Outcome
from turnwise.recipes.claims.tabular import Credit, Log, broadcast, learn, to_go, with_reward
from turnwise.recipes.parallel import Job

BAR = 0.9
"""Share of the optimal return that has to be reached."""
EPISODES, ROUNDS, QUICK_ROUNDS = 32, 400, 100
"""Episodes of a round, rounds, and those of the quick form."""
LENGTH = 6
"""Rooms."""
EVERY = 10
"""Rounds between two points of a curve."""
SPARSE, DENSE, WRONG = "sparse", "dense", "wrong dense"
DOORSTEP = 1.0
"""What the wrong reward pays for each arrival at the door."""

Reward = Callable[[Log], Array]
"""What the turns of a log are paid."""


def sparse_world(world: Tabular) -> Tabular:
    """The vault with its treasure as the only reward."""
    return with_reward(world, np.where(world.ended, world.reward, 0.0))


def rewards(world: Tabular, length: int) -> Mapping[str, Reward]:
    """Name -> reward.

    ``dense`` adds Φ(s') − Φ(s) with Φ_t = V*_t of the sparse world, and 0 where the episode is over: shaping that leaves the
    optimum where it is (Ng, Harada & Russell 1999). ``wrong dense`` adds a payment for each arrival at the door instead.
    """
    potential = optimal_values(world)
    door = doorstep(length)

    def dense(log: Log) -> Array:
        after = np.where(log.ended, 0.0, potential[log.turn + 1, log.after])
        return log.reward + after - potential[log.turn, log.state]

    def wrong(log: Log) -> Array:
        return log.reward + DOORSTEP * (door[log.after] & ~door[log.state] & ~log.ended)

    return {SPARSE: lambda log: log.reward, DENSE: dense, WRONG: wrong}


def doorstep(length: int) -> NDArray[np.bool_]:
    """(S,) whether the agent stands in the room before the treasure."""
    return np.array([state.me == length - 2 for state in vault.Vault(length).world.states])


def at_once(log: Log, reward: Array) -> Array:
    """What a turn is paid, less the mean of all turns: one-step credit."""
    return reward - reward.mean()


ARMS: Mapping[str, tuple[str, Credit]] = {
    "sparse, to go": (SPARSE, to_go),
    "sparse, broadcast": (SPARSE, broadcast),
    "dense, to go": (DENSE, to_go),
    "dense, broadcast": (DENSE, broadcast),
    "dense, one step": (DENSE, at_once),
    "wrong dense, to go": (WRONG, to_go),
}
"""Name -> reward and credit."""


def arm(name: str, seed: int, quick: bool, tick: Callable[[], None]) -> Outcome:
    """Learn with a reward and a credit; what counts is the return of the sparse world."""
    length, rounds = (4, QUICK_ROUNDS) if quick else (LENGTH, ROUNDS)
    world = sparse_world(vault.tabular(length, 0.1))
    reward, credit = ARMS[name]
    best = optimal_return(world)
    learning = learn(
        world,
        uniform_policy(world),
        np.random.default_rng(seed),
        rounds=rounds,
        episodes=EPISODES,
        lr=3.0,
        credit=credit,
        reward=rewards(world, length)[reward],
    )
    reached, shares = rounds, [policy_return(world, uniform_policy(world)) / best]
    for i, policy in enumerate(learning, 1):
        share = policy_return(world, policy) / best
        if share >= BAR:
            reached = min(reached, i)
        if i % EVERY == 0:
            shares.append(share)
    tick()
    x = tuple(float(EPISODES * EVERY * i) for i in range(len(shares)))
    return Outcome(
        {f"episodes, {name}": float(EPISODES * reached), f"share of the optimum, {name}": shares[-1]},
        (Curve("share of the optimal return", name, x, tuple(shares), "episodes"),),
    )


def jobs(seed: int, quick: bool, out: Path) -> list[Job]:
    """A job for each arm."""
    return [Job(name, arm, {"name": name, "seed": seed, "quick": quick}, 1) for name in ARMS]


CLAIM = Claim(
    key="E5",
    title="rewards at every step make it multi-step RL",
    statement=(
        "A reward at every step is what multi-step RL is made of: with dense rewards the task is learnt in fewer episodes than "
        "with a single reward at the end. Said of outcome rewards by those who call them a bandit."
    ),
    expected=(
        "False without a condition on the reward. A right dense reward (shaping) needs fewer episodes; a wrong one defeats "
        "multi-step RL. How credit is given matters as well: broadcast needs more episodes than return-to-go."
    ),
    learner="exact tabular",
    claimed=(
        Comparison("episodes, dense, to go", "below", "episodes, sparse, to go"),
        Comparison("episodes, wrong dense, to go", "below", "episodes, sparse, to go"),
    ),
    found=(
        Comparison("share of the optimum, sparse, to go", "above", BAR),
        Comparison("share of the optimum, wrong dense, to go", "below", 0.5),
        Comparison("share of the optimum, dense, one step", "above", BAR),
        Comparison("episodes, dense, to go", "below", "episodes, dense, broadcast"),
        Comparison("episodes, sparse, to go", "below", "episodes, sparse, broadcast"),
    ),
    how=(
        f"A vault of {LENGTH} rooms with slip 0.1 whose only pay is the treasure; softmax policy gradient on {EPISODES} episodes a round, "
        f"{ROUNDS} rounds, from random play. Episodes: until the exact return is {BAR:.0%} of the optimum; all {EPISODES * ROUNDS:,} where "
        "it never is. Dense: shaping by the optimal values (potential-based, so the optimum stays). Wrong dense: "
        f"{DOORSTEP:g} for each arrival at the door, which pays more for walking to and fro than the treasure does. To go: the reward "
        "from the action on, less that of the other episodes alive at the turn. Broadcast: the return of the whole episode to "
        "all its actions. One step: the reward of the turn alone."
    ),
    jobs=jobs,
    charts=(
        Chart("episodes to the bar", tuple(f"episodes, {name}" for name in ARMS)),
        Chart("share of the optimal return at the end", tuple(f"share of the optimum, {name}" for name in ARMS)),
    ),
    seeds=8,
)
"""E5."""
