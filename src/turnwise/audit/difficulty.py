"""Difficulty: how far ahead one has to look, on the values of the policy one starts from, to be optimal.

A judge that knows what each action is worth to the base policy, Q of the base, and a learner that takes the best action by
that judge are one step of policy improvement. Where k* is 1 that step is all there is to do; where it is more, it is not
enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.controls import Control, Trial
from turnwise.audit.evidence import Evidence, Level
from turnwise.audit.measure import Measurement, NotMeasurable, Series
from turnwise.audit.quantity import Quantity, Section
from turnwise.envs.exact import Array, Tabular, greedy, optimal_return, policy_return, policy_values, uniform_policy

_NAME = "world/k_star"

_EQUAL = 1e-9
"""Returns closer than this share of the largest payment, or of the optimum, are equal."""


def improvements(tabular: Tabular, base: NDArray[Any] | None = None) -> Iterator[tuple[Array, float]]:
    """For k = 1 .. H, the policy of k-step look-ahead on the values of the base, and its expected return.

    ``Q_1 = Q of the base`` and ``Q_{k+1}(s, a) = E[r + max_b Q_k(s', b)]``: the first k actions are planned and the base acts
    after them. The policy plans anew at each turn and chooses uniformly among the actions of greatest Q_k (Bertsekas 2019,
    section 2.4, multistep look-ahead with rollout at its leaves). At k = H it is optimal.

    Args:
        tabular: The world.
        base: As for `turnwise.envs.exact.policy_values`; every action with equal probability by default.

    Yields:
        (H, S, A) probabilities, and the return from the start distribution.

    Raises:
        EnvError: a base that does not fit the table.
    """
    turns = tabular.horizon
    values = policy_values(tabular, uniform_policy(tabular) if base is None else base)
    for _ in range(turns):
        q = np.stack([tabular.action_values(t, values[t + 1]) for t in range(turns)])
        policy = greedy(q)
        yield policy, policy_return(tabular, policy)
        values[:turns] = q.max(-1)


def k_star(tabular: Tabular, base: NDArray[Any] | None = None, *, share: float = 1.0) -> int:
    """The least k for which k-step look-ahead on the values of the base is optimal; see `improvements`.

    Args:
        tabular: The world.
        base: See `improvements`.
        share: Be content with this share of the way from the return of the base to the optimum.

    Raises:
        EnvError: a base that does not fit the table.
    """
    return _far_enough(_returns(tabular, base), share)


def difficulty(evidence: Evidence) -> Measurement | NotMeasurable:
    """k* of the world for a base that chooses every action with equal probability: `k_star`. Needs L4 (the table).

    It is computed and not sampled: the interval is the figure. The curve is the return of k-step look-ahead for k up to k*,
    and of the base at 0.
    """
    tabular = evidence.tabular
    if tabular is None:
        return NotMeasurable(_NAME, Level.L4, "the environment has no exact table of its states")
    returns = _returns(tabular, None)
    k = float(len(returns) - 1)
    how = (
        f"dynamic programming on the table of {tabular.n_states:,} states, exact; the base, uniform, earns {returns[0]:.4g}, "
        f"k = 1 {returns[1]:.4g}, the optimum {returns[-1]:.4g}; 99 % of the way from k = {_far_enough(returns, 0.99)}"
    )
    steps = tuple(float(step) for step in range(len(returns)))
    curve = Series("look-ahead on the base's values", steps, tuple(returns), x_label="k, turns", y_label="return")
    return Measurement(_NAME, k, (k, k), tabular.n_states, how, "turns", (curve,))


def controls() -> list[Control | Trial]:
    """Known answers of `difficulty`."""
    from turnwise.envs.locks import tabular as locks
    from turnwise.envs.temptation import tabular as temptation

    return [
        *(Control(f"a lock of depth {k}", Evidence(tabular=locks(depth=k)), float(k)) for k in range(1, 6)),
        # Uniform play that waits pays more than grabbing 0.01, which looking at its values once already shows.
        Control("a temptation that is too small", Evidence(tabular=temptation(delay=3, small=0.01)), 1.0),
        Control("every action is worth the same", Evidence(tabular=_indifferent()), 1.0),
        Control("no table", Evidence(config={}), None),
    ]


def _indifferent() -> Tabular:
    one = np.ones((1, 2, 1))
    return Tabular(one, np.zeros((1, 2, 1), np.int64), one, np.zeros((1, 2, 1), bool), np.ones(1), 3, ("left", "right"))


def _returns(tabular: Tabular, base: NDArray[Any] | None) -> list[float]:
    """Return of the base, then of look-ahead for k = 1 .. k*."""
    best = optimal_return(tabular)
    margin = _EQUAL * max(abs(best), float(np.abs(tabular.reward).max()))
    found = [policy_return(tabular, uniform_policy(tabular) if base is None else base)]
    for _, earned in improvements(tabular, base):
        found.append(earned)
        if earned >= best - margin:
            break
    return found


def _far_enough(returns: list[float], share: float) -> int:
    """The least k >= 1 that goes `share` of the way from the base, at 0, to the optimum, at the end."""
    wanted = returns[0] + share * (returns[-1] - returns[0])
    return next((k for k in range(1, len(returns)) if returns[k] >= wanted), len(returns) - 1)


QUANTITIES = (
    Quantity(
        _NAME,
        "difficulty k*",
        "How many turns must be planned ahead, on the values of random play, to be optimal? At 1, one step of improvement "
        "on a judge that knows those values is enough.",
        Section.WORLD,
        difficulty,
        controls,
        Level.L4,
    ),
)
"""What this module measures."""
