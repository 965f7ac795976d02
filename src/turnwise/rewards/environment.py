"""The environment's own reward, as a reward among others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Episode

ENVIRONMENT = "environment"
"""The source under which a rollout books what the environment paid."""


def environment(episodes: list[Episode]) -> list[NDArray[np.float64]]:
    """What the environment paid for each turn, (n_turns,) per episode.

    A turn that names no source was paid by the environment alone.
    """
    return [
        np.array([turn.rewards.get(ENVIRONMENT, 0.0) if turn.rewards else turn.reward for turn in episode.turns])
        for episode in episodes
    ]
