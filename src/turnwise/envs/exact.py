"""Exact values of small worlds by dynamic programming.

A world whose states can be counted has an optimum that can be computed, and a claim about learning can then say how
far from it a policy is. Everything here is undiscounted and finite-horizon unless a discount is given; a horizon
that cuts an episode short ends it with nothing more to come, which is what an observed return contains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnwise.envs.errors import EnvError

Array = NDArray[np.float64]
"""Any float64 array."""

HURRY = 1.0 - 1e-6
"""Discount that breaks ties: enough to prefer the sooner of two equal payments. It acts on payments and not on turns, so
that it never pays to end an episode for nothing."""

_TIE = 1e-9
"""Values closer than this share of the largest are equal."""


@dataclass(frozen=True)
class Tabular:
    """A finite-horizon Markov decision process with S states, A actions and at most K outcomes per action.

    Attributes:
        probability: (S, A, K), of each outcome; sums to one over K.
        successor: (S, A, K) integers, the state each outcome leads to.
        reward: (S, A, K), or (H, S, A, K) when it depends on the turn.
        ended: (S, A, K) bool, the outcome terminates the episode.
        initial: (S,), distribution of the start state.
        horizon: H, number of turns after which the episode is cut.
        actions: The text of each action.

    Raises:
        EnvError: shapes that do not fit, or probabilities that do not sum to one.
    """

    probability: Array
    successor: NDArray[Any]
    reward: Array
    ended: NDArray[np.bool_]
    initial: Array
    horizon: int
    actions: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = self.probability.shape
        if len(shape) != 3 or shape[0] != len(self.initial) or shape[1] != len(self.actions):
            raise EnvError(
                f"probability has shape {shape}; it needs (states, actions, outcomes) with {len(self.initial)} states "
                f"and {len(self.actions)} actions"
            )
        if self.successor.shape != shape or self.ended.shape != shape:
            raise EnvError(f"successor {self.successor.shape} and ended {self.ended.shape} need the shape {shape}")
        if self.reward.shape not in (shape, (self.horizon, *shape)):
            raise EnvError(f"reward has shape {self.reward.shape}; it needs {shape} or {(self.horizon, *shape)}")
        if not np.allclose(self.probability.sum(-1), 1.0) or not np.isclose(self.initial.sum(), 1.0):
            raise EnvError("the probabilities of the outcomes, and of the start states, must sum to one")

    @property
    def n_states(self) -> int:
        """S."""
        return self.probability.shape[0]

    @property
    def n_actions(self) -> int:
        """A."""
        return self.probability.shape[1]

    @property
    def scale(self) -> float:
        """What an episode could pay at most if every turn paid the largest reward: the size of a large value."""
        return float(np.abs(self.reward).max()) * self.horizon

    def action_values(self, t: int, value: Array, discount: float = 1.0) -> Array:
        """(S, A): ``Q_t(s, a) = sum_k p_k (r_k + discount * [not ended_k] * V_{t+1}(s'_k))`` for `value` = V_{t+1}."""
        reward = self.reward if self.reward.ndim == 3 else self.reward[t]
        after = np.where(self.ended, 0.0, value[self.successor])
        return (self.probability * (reward + discount * after)).sum(-1)

    def _turns(self, horizon: int | None) -> int:
        turns = self.horizon if horizon is None else horizon
        if turns < 0 or (self.reward.ndim == 4 and turns > self.horizon):
            raise EnvError(f"horizon {turns} is outside 0 .. {self.horizon}, for which rewards are known")
        return turns


def from_transitions(
    transitions: Any, initial: Sequence[float] | Array, horizon: int, actions: Sequence[str]
) -> Tabular:
    """Tables from Gymnasium's ``P[state][action] = [(probability, successor, reward, terminated), ...]``."""
    n, m = len(transitions), len(actions)
    k = max(len(transitions[s][a]) for s in range(n) for a in range(m))
    probability, reward = np.zeros((n, m, k)), np.zeros((n, m, k))
    successor, ended = np.zeros((n, m, k), dtype=np.int64), np.zeros((n, m, k), dtype=bool)
    for s in range(n):
        for a in range(m):
            for i, (p, after, r, end) in enumerate(transitions[s][a]):
                probability[s, a, i], successor[s, a, i], reward[s, a, i], ended[s, a, i] = p, after, r, end
    return Tabular(probability, successor, reward, ended, np.asarray(initial, float), horizon, tuple(actions))


def optimal_values(tabular: Tabular, horizon: int | None = None, *, discount: float = 1.0) -> Array:
    """(H + 1, S): V*_t(s) by backward induction, ``V_t = max_a Q_t`` and ``V_H = 0``."""
    return _induce(tabular, horizon, discount)[0]


def optimal_policy(tabular: Tabular, horizon: int | None = None, *, discount: float = 1.0) -> NDArray[np.int64]:
    """(H, S): an optimal action for each turn and state, the lowest index among equals.

    A discount just below one makes it hurry where an undiscounted agent would not mind the time.
    """
    return _induce(tabular, horizon, discount)[1]


def optimal_return(tabular: Tabular, horizon: int | None = None) -> float:
    """Greatest expected sum of rewards over `horizon` turns from the start distribution."""
    return float(tabular.initial @ optimal_values(tabular, horizon)[0])


def policy_values(
    tabular: Tabular, policy: NDArray[Any], horizon: int | None = None, *, discount: float = 1.0
) -> Array:
    """(H + 1, S): V_t(s) of a policy.

    Args:
        tabular: The world.
        policy: Action indices (S,) or (H, S), or probabilities (S, A) or (H, S, A). An integer array is read as
            indices, a float array as probabilities.
        horizon: Number of turns; the world's own by default.
        discount: Of each further turn.
    """
    turns = tabular._turns(horizon)
    table = np.eye(tabular.n_actions)[policy] if np.issubdtype(policy.dtype, np.integer) else policy
    shape = (tabular.n_states, tabular.n_actions)
    if table.shape != shape and (table.ndim != 3 or table.shape[1:] != shape or len(table) < turns):
        raise EnvError(
            f"the policy of shape {policy.shape} does not fit {turns} turns, {shape[0]} states, {shape[1]} actions"
        )
    values = np.zeros((turns + 1, tabular.n_states))
    for t in reversed(range(turns)):
        chosen = table if table.ndim == 2 else table[t]
        values[t] = (chosen * tabular.action_values(t, values[t + 1], discount)).sum(-1)
    return values


def policy_return(tabular: Tabular, policy: NDArray[Any], horizon: int | None = None) -> float:
    """Expected sum of rewards of a policy (see `policy_values`) from the start distribution."""
    return float(tabular.initial @ policy_values(tabular, policy, horizon)[0])


def lookahead_values(tabular: Tabular, deepest: int, *, discount: float = HURRY) -> Iterator[Array]:
    """For h = 1 .. `deepest` in order, (H, S, A): what the first action is worth to someone who looks h turns ahead.

    ``Q^1_t = r_t`` and ``Q^h_t(s, a) = E[r_t + discount * max_b Q^{h-1}_{t+1}(s', b)]``: the greatest expected sum of rewards
    over the next h turns, or over those that are left where they are fewer (Sutton & Barto 2018, section 8.11, full depth-h
    look-ahead with nothing at its leaves).

    Args:
        tabular: The world.
        deepest: Largest h.
        discount: Of each further turn.
    """
    turns = tabular.horizon
    if tabular.reward.ndim == 3:
        # The same at all turns but for the end, where fewer than h turns are left.
        depths = np.zeros((0, tabular.n_states, tabular.n_actions))
        value = np.zeros(tabular.n_states)
        for h in range(1, deepest + 1):
            if h <= turns:
                q = tabular.action_values(0, value, discount)
                value = q.max(-1)
                depths = np.concatenate([depths, q[None]])
            yield depths[np.minimum(h, turns - np.arange(turns)) - 1]
        return
    values = np.zeros((turns + 1, tabular.n_states))
    for _ in range(deepest):
        found = np.stack([tabular.action_values(t, values[t + 1], discount) for t in range(turns)])
        values[:turns] = found.max(-1)
        yield found


def planner(tabular: Tabular, h: int, *, discount: float = HURRY) -> Array:
    """(H, S, A): the policy that looks h turns ahead, plans anew each turn, and is paid nothing beyond.

    It chooses uniformly among the actions that are best by `lookahead_values`, the sooner of equal payments first. With
    h = 1 it grabs, with h = H it is optimal.

    Raises:
        EnvError: `h` below 1.
    """
    if h < 1:
        raise EnvError(f"a planner looks at least one turn ahead, got h={h}")
    if h < tabular.horizon:
        return greedy(deque(lookahead_values(tabular, h, discount=discount), maxlen=1).pop(), tabular.scale)
    q, value = np.zeros((tabular.horizon, tabular.n_states, tabular.n_actions)), np.zeros(tabular.n_states)
    for t in reversed(range(tabular.horizon)):
        q[t] = tabular.action_values(t, value, discount)
        value = q[t].max(-1)
    return greedy(q, tabular.scale)


def greedy(values: Array, scale: float | None = None) -> Array:
    """(..., A): equal probabilities for the actions of greatest value.

    Args:
        values: (..., A) action values.
        scale: Values differ that lie further apart than 1e-9 of this; the largest absolute value by default.
    """
    size = float(np.abs(values).max()) if scale is None else scale
    best = values >= values.max(-1, keepdims=True) - _TIE * size
    return best / best.sum(-1, keepdims=True)


def mixture(policy: Array, epsilon: float) -> Array:
    """(..., A): with probability `epsilon` a uniform action, otherwise the policy's.

    Args:
        policy: (..., A) probabilities.
        epsilon: Between 0 and 1.
    """
    return (1.0 - epsilon) * policy + epsilon / policy.shape[-1]


def uniform_policy(tabular: Tabular) -> Array:
    """(S, A): every action with equal probability."""
    return np.full((tabular.n_states, tabular.n_actions), 1.0 / tabular.n_actions)


def _induce(tabular: Tabular, horizon: int | None, discount: float) -> tuple[Array, NDArray[np.int64]]:
    turns = tabular._turns(horizon)
    values = np.zeros((turns + 1, tabular.n_states))
    policy = np.zeros((turns, tabular.n_states), dtype=np.int64)
    for t in reversed(range(turns)):
        q = tabular.action_values(t, values[t + 1], discount)
        policy[t] = q.argmax(-1)
        values[t] = np.take_along_axis(q, policy[t][:, None], axis=-1)[:, 0]
    return values, policy
