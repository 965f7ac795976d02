"""What to roll out: start states and how many samples of each."""

from __future__ import annotations

from dataclasses import dataclass

from turnwise.engines.noise import mix

TRAIN_SEEDS = 2**30
"""Training tasks use seeds below this; evaluation lists lie above it, so no run ever trains on them."""


@dataclass(frozen=True, slots=True)
class Task:
    """One episode to roll out.

    Attributes:
        seed: Seed of the environment: the start state.
        group: Episodes of one group share a start state and are compared with each other.
        key: 64-bit key of the episode's sampling noise.
    """

    seed: int
    group: str
    key: int


def training_tasks(run_seed: int, iteration: int, groups: int, group_size: int = 1, *, first: int = 0) -> list[Task]:
    """`groups` start states, each `group_size` times, drawn anew for every (run seed, iteration).

    `first` numbers the first of them, for a method that asks for more within an iteration.
    """
    tasks = []
    for g in range(first, first + groups):
        seed = mix(run_seed, iteration, g) % TRAIN_SEEDS
        for sample in range(group_size):
            tasks.append(Task(seed, f"{iteration}/{g}", mix(run_seed, iteration, g, sample, 1)))
    return tasks


def held_out_tasks(n: int, *, first: int = TRAIN_SEEDS, run_seed: int = 0) -> list[Task]:
    """The first `n` tasks of an evaluation list, the same for every policy that is asked."""
    return [Task(first + i, f"held-out/{i}", mix(run_seed, first + i, 2)) for i in range(n)]
