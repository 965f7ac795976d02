"""Planners that look h turns ahead against recursion, arithmetic and the optimum; tables as environments against their values."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.envs.test_exact import world_of
from turnwise.audit.players import table_player
from turnwise.envs import Tabular, optimal_return, policy_return
from turnwise.envs.errors import EnvError
from turnwise.envs.exact import greedy, lookahead_values, mixture, planner, policy_values, uniform_policy
from turnwise.envs.table_env import TableEnv
from turnwise.testing import check_env


def by_recursion(world: Tabular, state: int, t: int, action: int, h: int, discount: float) -> float:
    total = 0.0
    for k in range(world.probability.shape[2]):
        reward = world.reward[state, action, k] if world.reward.ndim == 3 else world.reward[t, state, action, k]
        after = 0.0
        if h > 1 and t + 1 < world.horizon and not world.ended[state, action, k]:
            to = int(world.successor[state, action, k])
            after = max(by_recursion(world, to, t + 1, b, h - 1, discount) for b in range(world.n_actions))
        total += world.probability[state, action, k] * (reward + discount * after)
    return total


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), timed=st.booleans(), h=st.integers(1, 6))
def test_look_ahead_is_the_best_over_all_trees_of_that_depth(seed: int, timed: bool, h: int) -> None:
    world = world_of(seed, horizon=4, timed=timed)
    *_, found = lookahead_values(world, h, discount=0.9)
    expected = [
        [[by_recursion(world, s, t, a, h, 0.9) for a in range(2)] for s in range(3)] for t in range(world.horizon)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("timed", [False, True])
def test_who_sees_everything_is_optimal_and_who_sees_one_turn_grabs(timed: bool) -> None:
    for seed in range(5):
        world = world_of(seed, horizon=5, timed=timed)
        for h in (5, 9):
            assert policy_return(world, planner(world, h)) == pytest.approx(optimal_return(world), abs=1e-4)
        paid = (world.probability * world.reward).sum(-1)
        at_once = paid if timed else np.repeat(paid[None], 5, axis=0)
        np.testing.assert_array_equal(planner(world, 1).argmax(-1), at_once.argmax(-1))


def line(pays: list[float], horizon: int = 9) -> Tabular:
    """Cells in a row, one pay each for entering it from the left; go on, or stay."""
    n = len(pays)
    successor = np.stack([np.minimum(np.arange(n) + 1, n - 1), np.arange(n)], axis=1)[..., None]
    reward = np.zeros((n, 2, 1))
    reward[:-1, 0, 0] = pays[1:]
    nothing = np.zeros((n, 2, 1), dtype=bool)
    return Tabular(np.ones((n, 2, 1)), successor, reward, nothing, np.eye(n)[0], horizon, ("on", "stay"))


def test_sooner_is_better_and_equals_are_equal() -> None:
    world = line([0, 0, 0, 1.0])
    # The payment is three turns away: with h < 3 nothing is in sight and both actions are equal.
    for h, go in ((1, 0.5), (2, 0.5), (3, 1.0), (6, 1.0)):
        assert planner(world, h)[0, 0, 0] == go
    assert planner(world, 9)[7, 0, 0] == 0.5, "two turns are left, the payment is three away"
    # With a discount of one, going later would be as good.
    assert planner(world, 6, discount=1.0)[0, 0, 0] == 0.5


def test_it_never_pays_to_end_for_nothing() -> None:
    world = line([0.0, 0.0])
    ended = world.ended.copy()
    ended[0, 0] = True
    world = replace(world, ended=ended)
    assert planner(world, 5)[0, 0].tolist() == [0.5, 0.5]


def test_greedy_and_mixtures() -> None:
    assert greedy(np.array([[1.0, 1.0, 0.0], [0.0, -1.0, -1.0]])).tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    assert greedy(np.zeros((1, 4))).tolist() == [[0.25] * 4]
    np.testing.assert_allclose(mixture(np.array([1.0, 0.0]), 0.5), [0.75, 0.25])
    with pytest.raises(EnvError, match="at least one turn"):
        planner(line([0.0, 1.0]), 0)


@pytest.mark.parametrize("timed", [False, True])
def test_a_table_plays_as_it_is_written(timed: bool) -> None:
    world = world_of(3, horizon=4, timed=timed)
    policy = mixture(planner(world, 2), 0.3)
    played = table_player(policy, world.actions)(lambda: TableEnv(world), range(1500))
    returns = np.array([sum(episode.rewards) for episode in played])
    expected = float(world.initial @ policy_values(world, policy)[0])
    assert abs(returns.mean() - expected) < 4 * returns.std() / np.sqrt(len(returns))


def test_a_table_is_an_environment() -> None:
    world = line([0, 0, 1.0])
    check_env(lambda: TableEnv(world))
    env = TableEnv(world)
    assert env.reset(seed=0)[0] == "turn 0 state 0"
    assert env.step("on")[0] == "turn 1 state 1"
    before = env.save()
    assert env.step("On.")[:2] == ("turn 2 state 2", 1.0)
    env.restore(before)
    assert env.step("dance")[0] == "not understood ; turn 2 state 1"
    rng = random.Random(0)
    assert {env.restore(before) or env.scatter(rng) for _ in range(40)} == {"turn 1 state 0", "turn 1 state 2"}
    assert uniform_policy(env.tabular()).shape == (3, 2)
    with pytest.raises(EnvError, match="nowhere else"):
        TableEnv(line([0.0])).scatter(rng)


def test_success_is_to_be_paid_at_the_end() -> None:
    world = line([0.0, 0.0, 1.0], horizon=2)
    ended = world.ended.copy()
    ended[1, 0] = True
    world = replace(world, ended=ended)
    for actions, success in ((("on", "on"), 1.0), (("stay", "on"), 0.0)):
        env = TableEnv(world)
        env.reset(seed=0)
        env.step(actions[0])
        *_, info = env.step(actions[1])
        assert info["success"] == success
