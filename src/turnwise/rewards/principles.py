"""Principles as a reward: minus the number of those that an action offends against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Episode
from turnwise.text import Reader, Renderer
from turnwise.text.principles import Principle, require_checks, violations


class PrincipleReward:
    """Pays every turn minus the number of checkable principles that its action offends against.

    Args:
        principles: What actions are judged by; those without a checkable form do not count.
        renderer: The renderer that the episodes are made with.

    Raises:
        PrincipleError: none of the principles is checkable.
    """

    def __init__(self, principles: Sequence[Principle], renderer: Renderer) -> None:
        require_checks(principles, "this reward")
        self.principles = tuple(principles)
        self.reader = Reader(renderer)

    def __call__(self, episodes: list[Episode]) -> list[NDArray[np.float64]]:
        """Per episode (n_turns,)."""
        return [
            np.array([-len(self.offended(episode, t)) for t in range(len(episode.turns))], dtype=np.float64)
            for episode in episodes
        ]

    def offended(self, episode: Episode, turn: int = -1) -> tuple[Principle, ...]:
        """The principles that one action offends against; the last one by default."""
        return violations(self.principles, self.reader.action(episode, turn))
