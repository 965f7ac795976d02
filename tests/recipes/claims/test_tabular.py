"""Tabular learners against enumeration: what they sample, their gradients, and the plans made in advance."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from turnwise.envs import locks, vault
from turnwise.envs.exact import Array, Tabular, optimal_return, optimal_values, policy_return, uniform_policy
from turnwise.errors import TurnwiseError
from turnwise.recipes.claims.open_loop import best_plan, plan_return
from turnwise.recipes.claims.own_successes import exact_gradient, imitate_successes, successes
from turnwise.recipes.claims.tabular import (
    Credit,
    Log,
    broadcast,
    clone,
    gradient,
    learn,
    occupancy,
    play,
    softmax,
    to_go,
    to_go_mean,
    with_reward,
)


def random_world(seed: int, horizon: int = 3) -> Tabular:
    """Three states, two actions, two outcomes each; one action sometimes ends."""
    rng = np.random.default_rng(seed)
    shape = (3, 2, 2)
    probability = rng.dirichlet((1.0, 1.0), size=shape[:2])
    ended = np.zeros(shape, dtype=bool)
    ended[:, 1, 0] = True
    return Tabular(
        probability,
        rng.integers(0, 3, shape),
        rng.normal(size=shape),
        ended,
        rng.dirichlet(np.ones(3)),
        horizon,
        ("a", "b"),
    )


def random_policy(world: Tabular, seed: int) -> Array:
    return softmax(np.random.default_rng(seed).normal(size=(world.n_states, world.n_actions)))


def paths(world: Tabular, policy: Array) -> list[tuple[float, list[tuple[int, int, int]], float, bool]]:
    """All episodes by enumeration: probability, (state, action, outcome) of the turns, return, whether it terminated."""
    found: list[tuple[float, list[tuple[int, int, int]], float, bool]] = []

    def walk(p: float, state: int, turns: list[tuple[int, int, int]], earned: float) -> None:
        if len(turns) == world.horizon:
            found.append((p, turns, earned, False))
            return
        for a, k in product(range(world.n_actions), range(world.probability.shape[2])):
            chance = p * policy[state, a] * world.probability[state, a, k]
            if not chance:
                continue
            then, paid = [*turns, (state, a, k)], earned + world.reward[state, a, k]
            if world.ended[state, a, k]:
                found.append((chance, then, paid, True))
            else:
                walk(chance, int(world.successor[state, a, k]), then, paid)

    for state, p in enumerate(world.initial):
        walk(float(p), state, [], 0.0)
    return found


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_the_exact_gradient_and_occupancy_are_those_of_enumeration(seed: int) -> None:
    world = random_world(seed)
    policy = random_policy(world, seed)
    slope = np.zeros_like(policy)
    visits = np.zeros((world.horizon, world.n_states))
    for p, turns, earned, _ in paths(world, policy):
        for t, (state, action, _) in enumerate(turns):
            slope[state] += p * earned * (np.eye(world.n_actions)[action] - policy[state])
            visits[t, state] += p
    np.testing.assert_allclose(exact_gradient(world, policy), slope, atol=1e-12)
    np.testing.assert_allclose(occupancy(world, policy), visits, atol=1e-12)


@pytest.mark.parametrize("credit", [to_go, broadcast])
def test_sampled_gradients_are_unbiased(credit: Credit) -> None:
    world = random_world(4)
    policy = random_policy(world, 4)
    log = play(world, policy, 40000, np.random.default_rng(0))
    found = gradient(log, policy, credit(log, log.reward))
    np.testing.assert_allclose(found, exact_gradient(world, policy), atol=0.02)


def test_play_draws_the_episodes_that_the_table_says() -> None:
    world = random_world(7)
    policy = random_policy(world, 7)
    log = play(world, policy, 50000, np.random.default_rng(1))
    exact = paths(world, policy)
    assert log.total(log.reward).mean() == pytest.approx(sum(p * r for p, _, r, _ in exact), abs=0.03)
    assert log.lengths.mean() == pytest.approx(sum(p * len(turns) for p, turns, _, _ in exact), abs=0.02)
    assert log.ended.sum() / log.n == pytest.approx(sum(p for p, _, _, end in exact if end), abs=0.02)
    # The state after a turn is the state before the next one, and turns count from 0.
    for turn, state, after in zip(*map(log.split, (log.turn, log.state, log.after)), strict=True):
        assert turn.tolist() == list(range(len(turn)))
        assert (after[:-1] == state[1:]).all()
    again = play(world, policy, 50000, np.random.default_rng(1))
    assert (again.action == log.action).all()


def test_parts_of_a_log() -> None:
    log = Log(
        np.array([2, 1, 3]),
        np.array([0, 1, 0, 0, 1, 2]),
        np.array([0, 1, 1, 0, 0, 1]),
        np.array([0, 1, 0, 1, 1, 0]),
        np.array([1.0, 2.0, 4.0, 0.0, 0.0, 8.0]),
        np.array([1, 0, 0, 0, 1, 0]),
        np.array([False, True, True, False, False, True]),
    )
    assert log.total(log.reward).tolist() == [3.0, 4.0, 8.0]
    kept = log.of(np.array([True, False, True]))
    assert kept.lengths.tolist() == [2, 3]
    assert kept.reward.tolist() == [1.0, 2.0, 0.0, 0.0, 8.0]
    world = random_world(0)
    # State 0: action 0 once, action 1 twice; state 1: action 0 twice, action 1 once; state 2 was never seen.
    np.testing.assert_allclose(clone(world, log), [[1 / 3, 2 / 3], [2 / 3, 1 / 3], [1 / 2, 1 / 2]])
    # Returns to go: 3, 2 | 4 | 8, 8, 8.
    np.testing.assert_allclose(to_go_mean(world, log), [[3.0, 8.0], [6.0, 2.0], [0.0, 0.0]])
    # Against the mean of the others: 3 − 6, 4 − 5.5, 8 − 3.5.
    assert broadcast(log, log.reward).tolist() == [-3.0, -3.0, -1.5, 4.5, 4.5, 4.5]


def test_policy_gradient_learns_the_vault() -> None:
    world = vault.tabular(4, 0.1)
    for seed in range(3):
        policies = list(
            learn(world, uniform_policy(world), np.random.default_rng(seed), rounds=60, episodes=32, lr=3.0)
        )
        assert policy_return(world, policies[-1]) > 0.95 * optimal_return(world)


@given(st.integers(0, 1000), st.integers(1, 3))
@settings(max_examples=15)
def test_the_best_plan_is_the_best_of_all_sequences(seed: int, horizon: int) -> None:
    world = random_world(seed, horizon)

    def blind(state: int, plan: tuple[int, ...]) -> float:
        if not plan:
            return 0.0
        total = 0.0
        for p, after, paid, end in zip(
            world.probability[state, plan[0]],
            world.successor[state, plan[0]],
            world.reward[state, plan[0]],
            world.ended[state, plan[0]],
            strict=True,
        ):
            total += p * (paid + (0.0 if end else blind(int(after), plan[1:])))
        return total

    for state in range(world.n_states):
        every = {plan: blind(state, plan) for plan in product(range(world.n_actions), repeat=horizon)}
        value, plan = best_plan(world, state)
        assert value == pytest.approx(max(every.values()))
        assert every[(*plan, *[0] * (horizon - len(plan)))] == pytest.approx(value)
        assert plan_return(world, state, plan) == pytest.approx(value)
        assert value <= optimal_values(world)[0, state] + 1e-12


def test_a_plan_is_as_good_as_looking_where_nothing_is_left_to_chance() -> None:
    world = vault.tabular(4, 0.0, max_turns=8)
    for state in np.flatnonzero(world.initial):
        assert best_plan(world, int(state))[0] == pytest.approx(optimal_values(world)[0, state])
    with pytest.raises(TurnwiseError, match="no best plan among 3"):
        best_plan(world, 0, limit=3)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_imitating_endless_successes_is_enumeration_and_never_hurts(seed: int) -> None:
    world = successes(random_world(seed))
    policy = random_policy(world, seed)
    weight = np.zeros_like(policy)
    for p, turns, _, ended in paths(world, policy):
        for state, action, _ in turns:
            weight[state, action] += p * ended
    expected = np.where(
        weight.sum(-1, keepdims=True) > 0, weight / np.maximum(weight.sum(-1, keepdims=True), 1e-300), policy
    )
    found = imitate_successes(world, policy)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert policy_return(world, found) >= policy_return(world, policy) - 1e-12


def test_other_rewards_leave_the_world_as_it_is() -> None:
    world = locks.tabular(2)
    doubled = with_reward(world, 2.0 * world.reward)
    assert optimal_return(doubled) == pytest.approx(2.0)
    draws: NDArray[np.int64] = doubled.successor
    assert (draws == world.successor).all()
