"""Settings that are known to learn, by name, with the bar they are held to.

``benchmarks/learning/run.py`` measures each over at least five seeds; the demo is made of the same settings. A bar that
is not met any more is a regression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from turnwise.algorithms import PPO, Reinforce
from turnwise.recipes.settings import Training, WarmStart, World

ERRAND = World("errand", memory=0, max_tokens=5)
"""The errand world without memory: its observation says everything."""
MEDIOCRE = WarmStart(demonstrations=300, skill=0.2)
"""A warm start on demonstrations that are mediocre on purpose."""


@dataclass(frozen=True)
class Vetted:
    """One vetted run.

    Attributes:
        summary: What is learnt, in a line.
        training: The settings.
        success: Success rate on held-out tasks, sampling, that the mean over seeds has to reach; None where it says nothing.
        optimum: Share of the best known return that the mean over seeds has to reach, acting greedily.
        minutes: How long three seeds take on two cores.
    """

    summary: str
    training: Training
    success: float | None = None
    optimum: float | None = None
    minutes: float = 3


VETTED: Mapping[str, Vetted] = {
    "errand": Vetted(
        "multi-turn PPO in the errand world",
        Training(PPO(), ERRAND, warm_start=MEDIOCRE),
        success=0.97,
        optimum=0.95,
    ),
    "errand-reinforce": Vetted(
        "the same without a critic: return-to-go in groups",
        Training(Reinforce(), ERRAND, warm_start=MEDIOCRE),
        success=0.95,
        optimum=0.9,
    ),
    "frozenlake": Vetted(
        "FrozenLake 8x8 without slipping, against its optimum by dynamic programming",
        Training(
            PPO(reward_scale=1.0),
            World("FrozenLake8x8-v1?is_slippery=false", memory=0, max_tokens=4),
            warm_start=WarmStart(demonstrations=200, skill=0.3),
        ),
        success=0.95,
        optimum=0.95,
    ),
    "doorkey": Vetted(
        "MiniGrid DoorKey 5x5 in words",
        Training(
            PPO(reward_scale=1.0),
            World("MiniGrid-DoorKey-5x5-v0", memory=0, max_tokens=4),
            warm_start=WarmStart(demonstrations=100, skill=0.3),
            steps=20,
        ),
        success=0.95,
        optimum=0.9,
    ),
}
"""Name -> vetted run."""
