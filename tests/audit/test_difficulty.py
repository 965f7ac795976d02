"""k*: (1) the known answers, (2) what arithmetic says of locks with a better base, (3) brute force over small worlds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.audit import Evidence, Measurement
from turnwise.audit.difficulty import QUANTITIES, controls, difficulty, improvements, k_star
from turnwise.envs import make, optimal_policy, optimal_return, spec
from turnwise.envs.exact import Tabular
from turnwise.envs.locks import Locks
from turnwise.testing import check_measure


def test_known_answers() -> None:
    check_measure(difficulty, controls())
    assert [q.measure for q in QUANTITIES] == [difficulty]


@pytest.mark.parametrize("p", [0.5, 0.7, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("depth", range(1, 8))
def test_a_better_base_makes_a_lock_shallower(depth: int, p: float) -> None:
    """A base that turns right with probability p opens the rest with p^r: the lock beats the coin from p^(depth-k) > 0.6."""
    env = Locks(depth=depth, decoy=0.6)
    table = env.table
    base = np.full((table.n_states, 3), (1 - p) / 2)
    for state, code in enumerate(env.world.states):
        base[state, table.actions.index(code[0]) if code[0] in table.actions else 0] += p - (1 - p) / 2
    expected = next(k for k in range(1, depth + 1) if p ** (depth - k) > 0.6)
    assert k_star(table, base) == expected


@pytest.mark.parametrize("world", ["vault?max_turns=12", "bypass", "temptation?delay=5"])
def test_the_optimum_is_its_own_base_of_one_step(world: str) -> None:
    exact = spec(world).exact
    assert exact is not None
    assert k_star(exact(), optimal_policy(exact())) == 1


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_by_recursion_over_histories(seed: int) -> None:
    """Every k-step plan by recursion over what may happen, without backward induction over arrays."""
    rng = np.random.default_rng(seed)
    n, m, horizon = 3, 2, 4
    table = Tabular(
        rng.dirichlet(np.ones(2), size=(n, m)), rng.integers(0, n, (n, m, 2)), rng.normal(size=(n, m, 2)),
        rng.random((n, m, 2)) < 0.2, np.eye(n)[0], horizon, ("a", "b"),
    )  # fmt: skip
    base = rng.dirichlet(np.ones(m), size=n)

    def worth(t: int, s: int, a: int, after: object) -> float:
        total = 0.0
        for j in range(2):
            p, r, end = table.probability[s, a, j], table.reward[s, a, j], table.ended[s, a, j]
            follow = 0.0 if end or t + 1 == horizon else after(t + 1, int(table.successor[s, a, j]))  # type: ignore[operator]
            total += float(p * (r + follow))
        return total

    def by_base(t: int, s: int) -> float:
        return sum(float(base[s, a]) * worth(t, s, a, by_base) for a in range(m))

    def planned(k: int, t: int, s: int) -> list[float]:
        after = by_base if k == 1 else lambda u, x: max(planned(k - 1, u, x))
        return [worth(t, s, a, after) for a in range(m)]

    def earned(k: int, t: int, s: int) -> float:
        q = planned(k, t, s)
        return worth(t, s, int(np.argmax(q)), lambda u, x: earned(k, u, x))

    found = [value for _, value in improvements(table, base)]
    assert found == pytest.approx([earned(k, 0, 0) for k in range(1, horizon + 1)])
    best = max(
        _return(table, [dict(zip(range(n), actions[t * n : t * n + n], strict=True)) for t in range(2)], 0, 0, 2)
        for actions in product(range(m), repeat=2 * n)
    )
    assert optimal_return(table, 2) == pytest.approx(best)
    assert found[-1] == pytest.approx(optimal_return(table))


def _return(table: Tabular, plan: list[dict[int, int]], t: int, s: int, horizon: int) -> float:
    a, total = plan[t][s], 0.0
    for j in range(2):
        total += table.probability[s, a, j] * table.reward[s, a, j]
        if not table.ended[s, a, j] and t + 1 < horizon:
            total += table.probability[s, a, j] * _return(table, plan, t + 1, int(table.successor[s, a, j]), horizon)
    return float(total)


def test_the_curve_ends_at_the_optimum() -> None:
    found = difficulty(Evidence(tabular=Locks(depth=4).table))
    assert isinstance(found, Measurement)
    assert found.series[0].y == pytest.approx((3.0**-4 + 0.6 / 3, 0.6, 0.6, 0.6, 1.0))
    assert found.interval == (4.0, 4.0)


def test_part_of_the_way() -> None:
    """From 3^-4 + 0.2 for the base, 0.6 goes 0.387 / 0.788 of the way to 1."""
    table = Locks(depth=4).table
    assert [k_star(table, share=share) for share in (0.0, 0.49, 0.5, 1.0)] == [1, 1, 4, 4]


def test_the_other_worlds_have_one() -> None:
    for world in ("vault", "errand?max_turns=10", "FrozenLake-v1"):
        exact = spec(world).exact
        assert exact is not None
        assert 1 <= k_star(exact()) <= make(world).max_turns
