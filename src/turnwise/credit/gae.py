"""Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438) over turns or over action tokens.

Only actions are steps: an observation token is not a decision, and treating it as one decays credit with the length
of what the world said. Only truncation bootstraps, from a value the caller read at the final observation; neither
padding nor the critic's output at observation tokens is ever consulted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from turnwise.credit.returns import (
    Floats,
    arrays,
    bootstrap_values,
    check_fraction,
    require_tokens,
    require_total,
)


def gae_turns(
    rewards: Sequence[ArrayLike], values: Sequence[ArrayLike], bootstrap: ArrayLike | None, gamma: float, lam: float
) -> tuple[list[Floats], list[Floats]]:
    """GAE with one step per turn.

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γλ A_{t+1} (arXiv 1506.02438, eqs. 11 and 16), where V_t is the value of
    the context before the turn's first action token.

    Args:
        rewards: Per episode (n_turns,). NaN marks a reward nobody could give.
        values: Per episode (n_turns,), the critic at each turn's first action token.
        bootstrap: (n_episodes,) value of the state after the last turn; 0 for terminated episodes. None is 0 everywhere.
        gamma: Discount per turn.
        lam: Trace decay per turn.

    Returns:
        Advantages and value targets A + V, per episode (n_turns,) float64. Where an unscorable reward reaches, the
        advantage is NaN (which `whiten` and `unit_scale` leave out and make 0) and the target is the value itself.

    Raises:
        ValueError: shapes that do not match, or `gamma` or `lam` outside [0, 1].
    """
    rewards_, values_ = _checked(rewards, values, gamma, lam)
    steps = [(np.full(len(r), gamma), np.full(len(r), gamma * lam)) for r in rewards_]
    return _gae(rewards_, values_, bootstrap, steps)


def gae_tokens(
    rewards: Sequence[ArrayLike],
    values: Sequence[ArrayLike],
    bootstrap: ArrayLike | None,
    act_lengths: Sequence[ArrayLike],
    gamma: float,
    lam: float,
    *,
    discount_turns: bool = False,
) -> tuple[list[Floats], list[Floats]]:
    """GAE with one step per action token; the successor of a turn's last token is the next turn's first one.

    By default γ and λ apply at every token, so that a reward fades with the number of *tokens* on the way. With
    `discount_turns` both apply only between turns and are 1 within a turn: the advantage at a turn's first token is then
    the one of `gae_turns`, and a longer phrasing costs nothing.

    Args:
        rewards: Per episode (n_action_tokens,). `place_at_end` makes it from turn rewards; a KL penalty may be added.
        values: Per episode (n_action_tokens,), the critic before each action token.
        bootstrap: (n_episodes,) value after the last turn; 0 for terminated episodes. None is 0 everywhere.
        act_lengths: Per episode (n_turns,) int, at least 1 each.
        gamma: Discount per token (per turn with `discount_turns`).
        lam: Trace decay per token (per turn with `discount_turns`).
        discount_turns: Apply γ and λ only between turns.

    Returns:
        Advantages and value targets A + V, per episode (n_action_tokens,) float64; unscorable rewards as in `gae_turns`.

    Raises:
        ValueError: shapes that do not match, a turn without action tokens, or `gamma` or `lam` outside [0, 1].
    """
    rewards_, values_ = _checked(rewards, values, gamma, lam)
    steps: list[tuple[Floats, Floats]] = []
    for i, (r, counts) in enumerate(zip(rewards_, act_lengths, strict=True)):
        lengths = np.asarray(counts, dtype=np.int64)
        require_tokens(lengths)
        require_total("rewards", i, r, lengths)
        decays = np.ones(len(r), dtype=bool)
        if discount_turns:
            decays[:] = False
            decays[np.cumsum(lengths) - 1] = True
        steps.append((np.where(decays, gamma, 1.0), np.where(decays, gamma * lam, 1.0)))
    return _gae(rewards_, values_, bootstrap, steps)


def _checked(
    rewards: Sequence[ArrayLike], values: Sequence[ArrayLike], gamma: float, lam: float
) -> tuple[list[Floats], list[Floats]]:
    check_fraction("gamma", gamma)
    check_fraction("lam", lam)
    rewards_, values_ = arrays("rewards", rewards), arrays("values", values)
    if len(rewards_) != len(values_):
        raise ValueError(f"rewards has {len(rewards_)} episodes, values has {len(values_)}")
    for i, (r, v) in enumerate(zip(rewards_, values_, strict=True)):
        if r.shape != v.shape:
            raise ValueError(
                f"rewards[{i}] has {len(r)} steps, values[{i}] has {len(v)}; the critic is read once per step, "
                "never at observation tokens"
            )
    return rewards_, values_


def _gae(
    rewards: list[Floats],
    values: list[Floats],
    bootstrap: ArrayLike | None,
    steps: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[list[Floats], list[Floats]]:
    advantages: list[Floats] = []
    targets: list[Floats] = []
    after = bootstrap_values(bootstrap, len(rewards))
    for r, v, final, (discount, trace) in zip(rewards, values, after, steps, strict=True):
        following = np.append(v, final)[1:]
        delta: list[float] = (r + discount * following - v).tolist()
        decay: list[float] = trace.tolist()
        advantage = np.empty_like(r)
        running = 0.0
        for t in range(len(delta) - 1, -1, -1):
            running = delta[t] + decay[t] * running
            advantage[t] = running
        advantages.append(advantage)
        # A target equal to the value teaches the critic nothing.
        targets.append(np.where(np.isnan(advantage), v, advantage + v))
    return advantages, targets
