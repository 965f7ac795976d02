"""A conformance check for rewards, and rewards whose answers are known.

check_reward(MyReward())              returns quietly, or says what broke and what to do about it
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Episode
from turnwise.rewards import Reward, RewardError
from turnwise.rewards.reward import scored, where
from turnwise.testing.episodes import ragged_episodes
from turnwise.testing.errors import CheckFailed


class ConstantReward:
    """Pays `value` for every turn."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def __call__(self, episodes: list[Episode]) -> list[NDArray[np.float64]]:
        """Per episode (n_turns,)."""
        return [np.full(len(episode.turns), self.value) for episode in episodes]


class LengthReward:
    """Pays `per_token` for every token of a turn's action: what a length bias looks like."""

    def __init__(self, per_token: float = 1.0) -> None:
        self.per_token = per_token

    def __call__(self, episodes: list[Episode]) -> list[NDArray[np.float64]]:
        """Per episode (n_turns,)."""
        return [self.per_token * episode.act_lengths.astype(np.float64) for episode in episodes]


def check_reward(reward: Reward, episodes: Sequence[Episode] | None = None, *, deterministic: bool = True) -> None:
    """Check that a reward keeps the contract of `turnwise.rewards.Reward`.

    1. It returns one array (n_turns,) of numbers per episode; NaN is allowed, infinity is not.
    2. No episodes are answered with an empty list.
    3. It leaves the episodes as they are.
    4. The order of the episodes does not change what any of them is paid.
    5. Asked again, it answers the same.

    Args:
        reward: The reward.
        episodes: What to try it on; by default episodes of 1 to 4 turns in groups of two, with ids below 16. A reward
            that reads text needs episodes made with its renderer (`build_dialogue`).
        deterministic: Whether promises 4 and 5 hold; a judge that samples does not keep them.

    Raises:
        CheckFailed: the first promise that is broken.
    """
    tried = ragged_episodes() if episodes is None else list(episodes)
    before = deepcopy(tried)
    name = str(getattr(reward, "__name__", type(reward).__name__))
    first = _ask(name, reward, tried)
    if len(_ask(name, reward, [])):
        raise CheckFailed(f"reward {name!r} returned something for no episodes; return an empty list")
    for old, new in zip(before, tried, strict=True):
        if not _same(old, new):
            raise CheckFailed(f"reward {name!r} changed {where(new)}; work on copies")
    if not deterministic:
        return
    order = list(range(len(tried)))[::-1]
    turned = _ask(name, reward, [tried[i] for i in order])
    again = _ask(name, reward, tried)
    for position, i in enumerate(order):
        if not np.array_equal(first[i], again[i], equal_nan=True):
            raise CheckFailed(
                f"reward {name!r} pays {where(tried[i])} {first[i]} and, asked again, {again[i]}; seed what is random, or "
                "pass deterministic=False"
            )
        if not np.allclose(first[i], turned[position], rtol=1e-5, atol=1e-8, equal_nan=True):
            raise CheckFailed(
                f"reward {name!r} pays {where(tried[i])} {first[i]} and, with the episodes in another order, "
                f"{turned[position]}; return the arrays in the order of the episodes"
            )


def _ask(name: str, reward: Reward, episodes: list[Episode]) -> list[NDArray[np.float64]]:
    try:
        return scored(name, reward, list(episodes))
    except RewardError as error:
        raise CheckFailed(str(error)) from error


def _same(one: Episode, other: Episode) -> bool:
    turns = zip(one.turns, other.turns, strict=True)
    return len(one.turns) == len(other.turns) and all(
        np.array_equal(a.obs, b.obs)
        and np.array_equal(a.act, b.act)
        and np.array_equal(a.logp, b.logp)
        and np.array_equal([a.reward], [b.reward], equal_nan=True)
        and dict(a.rewards) == dict(b.rewards)
        for a, b in turns
    )
