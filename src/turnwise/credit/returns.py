"""Returns per turn, and the moves between turns and the tokens of their actions.

A turn is one step of the decision process; its action tokens are parts of one action. Observation tokens are never
steps, so no function here knows about them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
"""float64, one entry per turn, token or episode, as the function says."""


def returns(rewards: Sequence[ArrayLike], gamma: float, bootstrap: ArrayLike | None = None) -> list[Floats]:
    """Discounted return-to-go of every turn.

    G_t = r_t + γ G_{t+1}, with G_n = `bootstrap` (Sutton & Barto, 2nd ed., eq. 3.9).

    Args:
        rewards: Per episode (n_turns,). NaN marks a reward nobody could give; it makes every earlier return NaN.
        gamma: Discount per turn, in [0, 1].
        bootstrap: (n_episodes,) value of the state after the last turn: 0 for a terminated episode, the critic's
            value of the final observation for a truncated one. None is 0 everywhere, which treats the turn limit as
            the end of the world; without a critic there is nothing better.

    Returns:
        Per episode (n_turns,) float64.

    Raises:
        ValueError: `gamma` outside [0, 1], an infinite reward, or not one bootstrap value per episode.
    """
    check_fraction("gamma", gamma)
    result: list[Floats] = []
    for r, after in zip(arrays("rewards", rewards), bootstrap_values(bootstrap, len(rewards)), strict=True):
        g = np.empty_like(r)
        running = after
        for t in range(len(r) - 1, -1, -1):
            running = float(r[t]) + gamma * running
            g[t] = running
        result.append(g)
    return result


def broadcast(per_turn: Sequence[ArrayLike], act_lengths: Sequence[ArrayLike]) -> list[Floats]:
    """Give every action token the value of its turn.

    Args:
        per_turn: Per episode (n_turns,).
        act_lengths: Per episode (n_turns,) int, action tokens of each turn (`Episode.act_lengths`).

    Returns:
        Per episode (n_action_tokens,) float64, all turns in a row.

    Raises:
        ValueError: not one length per turn.
    """
    return [
        np.repeat(values, lengths) for values, lengths in zip(*_paired("per_turn", per_turn, act_lengths), strict=True)
    ]


def place_at_end(per_turn: Sequence[ArrayLike], act_lengths: Sequence[ArrayLike]) -> list[Floats]:
    """Put each turn's value on its last action token and 0 on the others: turn rewards as token rewards.

    The world answers when the action is complete, so the reward arrives with the last token.

    Args:
        per_turn: Per episode (n_turns,).
        act_lengths: Per episode (n_turns,) int, at least 1 each.

    Returns:
        Per episode (n_action_tokens,) float64.

    Raises:
        ValueError: not one length per turn, or a turn without action tokens (its reward would be lost).
    """
    placed: list[Floats] = []
    for values, lengths in zip(*_paired("per_turn", per_turn, act_lengths), strict=True):
        require_tokens(lengths)
        tokens = np.zeros(int(lengths.sum()), dtype=np.float64)
        tokens[np.cumsum(lengths) - 1] = values
        placed.append(tokens)
    return placed


def sum_by_turn(per_token: Sequence[ArrayLike], act_lengths: Sequence[ArrayLike]) -> list[Floats]:
    """Sum the values of each turn's action tokens: a per-token penalty as a turn reward.

    Args:
        per_token: Per episode (n_action_tokens,).
        act_lengths: Per episode (n_turns,) int.

    Returns:
        Per episode (n_turns,) float64.

    Raises:
        ValueError: the lengths do not add up to the number of tokens.
    """
    sums: list[Floats] = []
    for i, (values, counts) in enumerate(zip(arrays("per_token", per_token), act_lengths, strict=True)):
        lengths = np.asarray(counts, dtype=np.int64)
        require_total("per_token", i, values, lengths)
        turn = np.repeat(np.arange(len(lengths)), lengths)
        sums.append(np.bincount(turn, weights=values, minlength=len(lengths)).astype(np.float64))
    return sums


def uniform(per_episode: ArrayLike, n_turns: Sequence[int]) -> list[Floats]:
    """Give every turn the advantage of its episode: outcome credit (GRPO, RLOO).

    It also credits what was done after the reward; harmless with a reward at the end only.

    Args:
        per_episode: (n_episodes,).
        n_turns: Turns of each episode.

    Returns:
        Per episode (n_turns,) float64.
    """
    values = np.asarray(per_episode, dtype=np.float64)
    return [np.full(n, value, dtype=np.float64) for value, n in zip(values, n_turns, strict=True)]


def arrays(name: str, values: Sequence[ArrayLike]) -> list[Floats]:
    """`values` as float64 arrays of one dimension; infinities are refused, NaN is allowed."""
    checked: list[Floats] = []
    for i, value in enumerate(values):
        array = np.asarray(value, dtype=np.float64)
        if array.ndim != 1:
            raise ValueError(f"{name}[{i}] has shape {array.shape}; give one flat array per episode")
        if np.isinf(array).any():
            raise ValueError(
                f"{name}[{i}] is infinite at index {int(np.flatnonzero(np.isinf(array))[0])}; "
                "use NaN for a value that could not be given"
            )
        checked.append(array)
    return checked


def bootstrap_values(bootstrap: ArrayLike | None, n_episodes: int) -> list[float]:
    """`bootstrap` as one finite float per episode; None is zero everywhere."""
    if bootstrap is None:
        return [0.0] * n_episodes
    values = np.asarray(bootstrap, dtype=np.float64)
    if values.shape != (n_episodes,):
        raise ValueError(
            f"bootstrap has shape {values.shape} for {n_episodes} episodes; give one value each, 0 for a terminated one"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"bootstrap of episode {int(np.flatnonzero(~np.isfinite(values))[0])} is not finite")
    return values.tolist()


def check_fraction(name: str, value: float) -> None:
    """Refuse a discount or trace parameter outside [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(
            f"{name}={value} is outside [0, 1]; a discount or trace above 1 makes returns grow without bound"
        )


def require_tokens(lengths: NDArray[Any]) -> None:
    """Refuse turns without action tokens."""
    if (lengths < 1).any():
        raise ValueError(
            f"turn {int(np.flatnonzero(lengths < 1)[0])} has no action token, so its reward has nowhere to go; "
            "every action holds at least its stop token"
        )


def require_total(name: str, episode: int, values: Floats, lengths: NDArray[np.int64]) -> None:
    """Refuse per-token values whose number is not the number of action tokens."""
    if len(values) != int(lengths.sum()):
        raise ValueError(
            f"{name}[{episode}] has {len(values)} entries for {int(lengths.sum())} action tokens; "
            "turn a per-turn array into tokens with `place_at_end` or `broadcast`"
        )


def _paired(
    name: str, per_turn: Sequence[ArrayLike], act_lengths: Sequence[ArrayLike]
) -> tuple[list[Floats], list[NDArray[np.int64]]]:
    values = arrays(name, per_turn)
    lengths = [np.asarray(count, dtype=np.int64) for count in act_lengths]
    if len(values) != len(lengths):
        raise ValueError(f"{name} has {len(values)} episodes, act_lengths has {len(lengths)}")
    for i, (value, count) in enumerate(zip(values, lengths, strict=True)):
        if value.shape != count.shape:
            raise ValueError(f"{name}[{i}] has {len(value)} turns, act_lengths[{i}] has {len(count)}")
    return values, lengths
