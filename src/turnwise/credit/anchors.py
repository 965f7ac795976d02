"""Step-level groups of equal states (GiGPO, Feng et al. 2025, arXiv 2505.10978).

Rollouts of one task often pass through the same state. The turns taken there form a group of their own, in which
returns can be compared like the rollouts' scores: credit per turn without a critic and without extra rollouts.

What this file leaves out: similarity between states. Two states are the same if their keys are equal.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from turnwise.credit.baselines import group_relative
from turnwise.credit.returns import Floats, arrays, uniform


def anchor_groups(keys: Sequence[Sequence[Hashable]], groups: Sequence[Hashable]) -> list[NDArray[np.int64]]:
    """Number the distinct states within each task group.

    Args:
        keys: Per episode, the key of the state before each turn: its observation as text or as a tuple of token ids,
            or whatever identifies the state. A key must hold all that matters; in a partially observed world the
            last observation alone merges states of different value.
        groups: Group of each episode; equal keys in different groups stay apart.

    Returns:
        Per episode (n_turns,) int64; two turns share a number exactly if they share group and key.

    Raises:
        ValueError: not one group per episode.
    """
    if len(keys) != len(groups):
        raise ValueError(f"keys of {len(keys)} episodes for {len(groups)} groups; give the group of each episode")
    numbers: dict[tuple[Hashable, Hashable], int] = {}
    return [
        np.array([numbers.setdefault((group, key), len(numbers)) for key in episode], dtype=np.int64)
        for episode, group in zip(keys, groups, strict=True)
    ]


def anchor_advantages(
    returns: Sequence[ArrayLike], anchors: Sequence[NDArray[np.int64]], *, normalise: bool = True, epsilon: float = 1e-6
) -> list[Floats]:
    """Return-to-go relative to all turns taken in the same state (arXiv 2505.10978, step-level advantage).

    A^S_{i,t} = (G_{i,t} − mean) / (std + ε) over the turns with the same anchor; `normalise=False` leaves out std.
    As published, a state that one rollout visits twice counts twice: a rollout's own later visit is part of its
    baseline, a bias that shrinks with the number of rollouts.

    Args:
        returns: Per episode (n_turns,) discounted return-to-go; NaN where not scorable.
        anchors: Per episode (n_turns,), from `anchor_groups`.
        normalise: Divide by the standard deviation.
        epsilon: Added to the standard deviation.

    Returns:
        Per episode (n_turns,) float64; 0 where a state was met only once.

    Raises:
        ValueError: not one anchor per turn.
    """
    values = arrays("returns", returns)
    if len(values) != len(anchors):
        raise ValueError(f"returns of {len(values)} episodes, anchors of {len(anchors)}")
    for i, (value, anchor) in enumerate(zip(values, anchors, strict=True)):
        if value.shape != anchor.shape:
            raise ValueError(f"episode {i} has {len(value)} turns and {len(anchor)} anchors")
    if not values:
        return []
    labels: list[Hashable] = np.concatenate(anchors).tolist()
    flat = group_relative(np.concatenate(values), labels, normalise=normalise, epsilon=epsilon)
    return np.split(flat, np.cumsum([len(value) for value in values])[:-1])


def episode_and_step(
    scores: ArrayLike,
    returns: Sequence[ArrayLike],
    keys: Sequence[Sequence[Hashable]],
    groups: Sequence[Hashable],
    *,
    omega: float = 1.0,
    normalise: bool = True,
    epsilon: float = 1e-6,
) -> list[Floats]:
    """GiGPO's advantage: the episode's among its rollouts plus ω times the turn's among equal states.

    A_{i,t} = A^E_i + ω A^S_{i,t} (arXiv 2505.10978).

    Args:
        scores: (n_episodes,) undiscounted return of each trajectory; NaN where there is none.
        returns: Per episode (n_turns,) discounted return-to-go.
        keys: Per episode, the key of the state before each turn.
        groups: Group of each episode.
        omega: Weight of the step-level part.
        normalise: Divide both parts by their standard deviations.
        epsilon: Added to the standard deviations.

    Returns:
        Per episode (n_turns,) float64.
    """
    episode = group_relative(scores, groups, normalise=normalise, epsilon=epsilon)
    step = anchor_advantages(returns, anchor_groups(keys, groups), normalise=normalise, epsilon=epsilon)
    spread = uniform(episode, [len(part) for part in step])
    return [whole + omega * part for whole, part in zip(spread, step, strict=True)]
