"""Dynamic programming against values known from elsewhere and against enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.envs import Tabular, optimal_policy, optimal_return, policy_return, spec
from turnwise.envs.errors import EnvError
from turnwise.envs.exact import uniform_policy


@pytest.mark.parametrize(
    ("env_id", "random_return", "optimum"),
    [
        ("FrozenLake-v1?is_slippery=false", 0.014, 1.0),
        ("FrozenLake8x8-v1?is_slippery=false", 0.002, 1.0),
        ("CliffWalking-v1", -2079.1, -13.0),
        ("Taxi-v4", -771.1, 7.93),
    ],
)
def test_known_values(env_id: str, random_return: float, optimum: float) -> None:
    exact = spec(env_id).exact
    assert exact is not None
    world = exact()
    assert policy_return(world, uniform_policy(world)) == pytest.approx(random_return, rel=2e-4, abs=5e-4)
    assert optimal_return(world) == pytest.approx(optimum, abs=1e-9)
    assert policy_return(world, optimal_policy(world)) == pytest.approx(optimum, abs=1e-9)


def world_of(seed: int, horizon: int = 3, timed: bool = False) -> Tabular:
    rng = np.random.default_rng(seed)
    s, a, k = 3, 2, 2
    probability = rng.dirichlet(np.ones(k), size=(s, a))
    shape = (horizon, s, a, k) if timed else (s, a, k)
    return Tabular(
        probability=probability,
        successor=rng.integers(s, size=(s, a, k)),
        reward=rng.normal(size=shape),
        ended=rng.random((s, a, k)) < 0.3,
        initial=rng.dirichlet(np.ones(s)),
        horizon=horizon,
        actions=("a", "b"),
    )


def value_by_recursion(world: Tabular, state: int, t: int) -> float:
    if t == world.horizon:
        return 0.0
    best = -np.inf
    for a in range(world.n_actions):
        total = 0.0
        for k in range(world.probability.shape[2]):
            reward = world.reward[state, a, k] if world.reward.ndim == 3 else world.reward[t, state, a, k]
            after = (
                0.0 if world.ended[state, a, k] else value_by_recursion(world, int(world.successor[state, a, k]), t + 1)
            )
            total += world.probability[state, a, k] * (reward + after)
        best = max(best, total)
    return best


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), timed=st.booleans())
def test_optimum_is_the_best_over_all_trees_and_no_policy_beats_it(seed: int, timed: bool) -> None:
    world = world_of(seed, timed=timed)
    expected = sum(p * value_by_recursion(world, s, 0) for s, p in enumerate(world.initial))
    assert optimal_return(world) == pytest.approx(expected)
    policies = np.random.default_rng(seed).dirichlet(np.ones(2), size=(5, 3, 3))
    assert all(policy_return(world, policy) <= expected + 1e-9 for policy in policies)


def test_shapes_and_probabilities_are_checked() -> None:
    good = world_of(0)
    parts = {name: getattr(good, name) for name in good.__dataclass_fields__}
    for broken in (
        {"probability": good.probability * 0.5},
        {"initial": good.initial[:2]},
        {"reward": good.reward[:2]},
        {"ended": good.ended[..., :1]},
    ):
        with pytest.raises(EnvError):
            Tabular(**{**parts, **broken})
    with pytest.raises(EnvError, match="does not fit"):
        policy_return(good, np.ones((2, 2)))
    with pytest.raises(EnvError, match="outside"):
        optimal_return(world_of(0, timed=True), 9)
