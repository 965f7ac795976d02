"""What a reward is, and the check that every reward's answer passes before anybody is paid with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Episode
from turnwise.errors import TurnwiseError

Reward = Callable[[list[Episode]], Sequence[NDArray[np.float64]]]
"""Episodes -> for each one an array (n_turns,) float64, what every turn is paid; NaN marks a turn nobody could score.

All episodes of an iteration come in one call, so that a reward may compare the episodes of a group or judge in batches.
"""


class RewardError(TurnwiseError):
    """A reward raised, or answered with something that is not one number per turn."""


def scored(name: str, reward: Reward, episodes: list[Episode]) -> list[NDArray[np.float64]]:
    """Ask a reward, and check the answer.

    Args:
        name: What messages call the reward.
        reward: Whom to ask.
        episodes: Episodes with at least one turn each.

    Returns:
        Per episode (n_turns,) float64, NaN where a turn could not be scored.

    Raises:
        RewardError: the reward raised, or its answer has the wrong length, the wrong shape, or an infinite number.
    """
    try:
        answer = list(reward(episodes))
    except TurnwiseError:
        raise
    except Exception as error:
        raise RewardError(
            f"reward {name!r} raised {type(error).__name__}: {error}, asked about {len(episodes)} episodes"
        ) from error
    if len(answer) != len(episodes):
        raise RewardError(
            f"reward {name!r} returned {len(answer)} arrays for {len(episodes)} episodes; return one per episode, in order"
        )
    result = []
    for episode, given in zip(episodes, answer, strict=True):
        try:
            values = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise RewardError(
                f"reward {name!r} returned {given!r:.80} for {where(episode)}; return an array of numbers"
            ) from error
        if values.shape != (len(episode.turns),):
            raise RewardError(
                f"reward {name!r} returned an array of shape {values.shape} for {where(episode)}, which has "
                f"{len(episode.turns)} turns; return one number per turn"
            )
        if np.isinf(values).any():
            raise RewardError(
                f"reward {name!r} returned an infinite number for {where(episode)}, turn {int(np.isinf(values).argmax())}; "
                "return a finite one, or NaN where a turn cannot be scored"
            )
        result.append(values)
    return result


def where(episode: Episode) -> str:
    """What messages call an episode: environment, seed and group."""
    return f"the episode of {episode.env or 'an unnamed environment'}, seed {episode.seed}, group {episode.group!r}"
