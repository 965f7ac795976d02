"""Which episodes of a group to learn from: the best one, or the best against the worst.

A score is one number per episode, most often its return. NaN says "nobody could score this": such an episode is never
chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def best_and_worst(scores: ArrayLike, groups: Sequence[str]) -> list[tuple[int, int]]:
    """One preference pair per group: its highest and its lowest score.

    With a group of two this is the pair itself; with more it is the pair that differs most. Among equal scores the first
    episode is taken, so the answer does not depend on how equal ones are ordered elsewhere.

    Args:
        scores: (N,) one per episode; NaN where nobody could score.
        groups: (N,) the group of each episode; episodes of a group need not be neighbours.

    Returns:
        (chosen, rejected) indices, in the order in which groups first appear. A group with fewer than two scored
        episodes, or whose scores are all equal, has no preference to give and is left out.

    Raises:
        ValueError: another number of scores than of groups, or an infinite score.
    """
    values = _checked(scores, groups)
    pairs: list[tuple[int, int]] = []
    for members in _members(values, groups):
        chosen = max(members, key=lambda i: values[i])
        rejected = min(members, key=lambda i: values[i])
        if values[chosen] > values[rejected]:
            pairs.append((chosen, rejected))
    return pairs


def best_of(scores: ArrayLike, groups: Sequence[str]) -> list[int]:
    """The episode with the highest score of each group: best-of-n, rejection sampling.

    Args:
        scores: (N,) one per episode; NaN where nobody could score.
        groups: (N,) the group of each episode.

    Returns:
        Indices in the order in which groups first appear; of equal scores the first. A group without a score is left out.

    Raises:
        ValueError: another number of scores than of groups, or an infinite score.
    """
    values = _checked(scores, groups)
    return [max(members, key=lambda i: values[i]) for members in _members(values, groups)]


def _checked(scores: ArrayLike, groups: Sequence[str]) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(groups),):
        raise ValueError(f"scores of shape {values.shape} for {len(groups)} groups; give one score per episode")
    if np.isinf(values).any():
        raise ValueError(
            f"episode {int(np.isinf(values).argmax())} has an infinite score; use NaN where there is no score"
        )
    return values


def _members(values: NDArray[np.float64], groups: Sequence[str]) -> list[list[int]]:
    """Indices of the scored episodes of each group that has any."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        if not np.isnan(values[index]):
            members.setdefault(group, []).append(index)
    return list(members.values())
