"""What an audit may look at, from a bare configuration to the world itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Episode, Source
from turnwise.runs import RunFolder, read_episodes

if TYPE_CHECKING:
    from turnwise.audit.player import Player
    from turnwise.envs.exact import Tabular
    from turnwise.models import Policy


Advantages = Callable[[Sequence[Episode]], Sequence[NDArray[np.float64]]]
"""Episodes -> for each one (n_turns,) or (n_action_tokens,) advantages, as an algorithm computes them from the rewards."""


class Level(IntEnum):
    """How much there is to look at; each level includes those below."""

    L0 = 0
    """The configuration."""
    L1 = 1
    """Episodes with their rewards."""
    L2 = 2
    """Log-probabilities and the versions of the weights that sampled and that were trained."""
    L3 = 3
    """The policy, and its environment to act in."""
    L4 = 4
    """A second policy to compare with, and an exact view of the environment."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """The episodes of one update.

    Attributes:
        episodes: What the update learnt from.
        version: Version of the weights that the update began from; None where nobody recorded it.
    """

    episodes: tuple[Episode, ...]
    version: int | None = None

    @property
    def trained(self) -> list[Episode]:
        """Those that can have trained: with a turn, and not broken by the environment."""
        return [episode for episode in self.episodes if episode.turns and not episode.failed]


@dataclass(frozen=True)
class Evidence:
    """What there is to look at. Whatever is left out, a measure that needs it says so.

    Attributes:
        config: L0: the settings of the run.
        iterations: L1, and L2 where they know the version: episodes by update, in order.
        policy: L3: the policy.
        make_env: L3: makes its environment.
        other: L4: a second policy.
        tabular: L4: the environment as a table.
        player: L3: the policy as somebody who plays environments; see `turnwise.audit.player`.
        base: L4: the policy before it was trained, likewise.
        advantages: The code that assigned credit in the run; see `turnwise.audit.credit_reach`.
        metrics: L0: the lines of the run's metrics, in order.
        plays: Episodes that a measure may play for each of its figures.
        seed: Of all random choices of a measure.
    """

    config: Mapping[str, Any] | None = None
    iterations: Sequence[Iteration] = ()
    policy: Policy | None = None
    make_env: Callable[[], Any] | None = None
    other: Policy | None = None
    tabular: Tabular | None = None
    player: Player | None = None
    base: Player | None = None
    advantages: Advantages | None = None
    metrics: Sequence[Mapping[str, float]] = ()
    plays: int = 64
    seed: int = 0

    @property
    def episodes(self) -> list[Episode]:
        """All episodes that can have trained."""
        return [episode for iteration in self.iterations for episode in iteration.trained]


def evidence_of(folder: str | Path) -> Evidence:
    """The evidence in a run folder: its configuration and its record of episodes (L0 to L2).

    A run refreshes its source before every iteration, so the newest version that sampled is the one the update began
    from, and it rises from one iteration to the next. Where it does not, the episodes come from somewhere else and the
    version of the update is unknown.

    Raises:
        RunError: no run there, or a damaged record.
    """
    run = RunFolder.view(folder)
    iterations: list[Iteration] = []
    newest = -1
    for number in run.recorded():
        episodes = tuple(read_episodes(run.episodes(number)))
        versions = [turn.version for e in episodes if e.source is Source.POLICY for turn in e.turns]
        sampled = max(versions, default=-1)
        iterations.append(Iteration(episodes, sampled if sampled > newest else None))
        newest = max(newest, sampled)
    return Evidence(config=run.config, iterations=tuple(iterations))
