"""Baselines: equivalences at one turn bit for bit, invariances, and what is left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from turnwise import credit

Returns = list[NDArray[np.float64]]
finite = st.floats(-10, 10, allow_nan=False)
ragged = st.lists(st.tuples(st.sampled_from("abc"), st.lists(finite, min_size=1, max_size=5)), min_size=1, max_size=8)
Case = list[tuple[str, list[float]]]


def split(case: Case) -> tuple[Returns, list[str]]:
    return [np.array(values) for _, values in case], [group for group, _ in case]


def per_turn(name: str) -> Callable[[Returns, list[str]], Returns]:
    if name == "leave_one_out_alive":
        return credit.leave_one_out_alive
    return lambda returns, _: getattr(credit, name)(returns)


def test_leave_one_out_alive_by_hand() -> None:
    advantages = credit.leave_one_out_alive([[1.0, 4.0], [2.0, 0.0, 7.0], [6.0]], ["g", "g", "g"])
    np.testing.assert_allclose(advantages[0], [1 - 4, 4 - 0])
    # Alone at turn 2, so compared with those who reached turn 1: 7 − 4.
    np.testing.assert_allclose(advantages[1], [2 - 3.5, 0 - 4, 7 - 4])
    np.testing.assert_allclose(advantages[2], [6 - 1.5])


def test_group_relative_by_hand() -> None:
    scores, groups = [1.0, 0.0, 0.0, 5.0, 3.0], ["a", "a", "a", "b", "b"]
    std_a, std_b = np.sqrt((4 / 9 + 1 / 9 + 1 / 9) / 2), np.sqrt(2.0)
    centred = np.array([2 / 3, -1 / 3, -1 / 3, 1.0, -1.0])
    scale = np.array([std_a] * 3 + [std_b] * 2)
    np.testing.assert_allclose(credit.group_relative(scores, groups), centred / (scale + 1e-4))
    np.testing.assert_allclose(credit.group_relative(scores, groups, epsilon=0.5), centred / (scale + 0.5))
    np.testing.assert_allclose(credit.group_relative(scores, groups, normalise=False), centred)


def test_batch_baseline_by_hand() -> None:
    advantages = credit.batch_baseline([[1.0, 2.0], [6.0], [4.0]])
    np.testing.assert_allclose(advantages[0], [1 - 5, 2 - 5])
    np.testing.assert_allclose(advantages[1], [6 - 7 / 3])
    np.testing.assert_allclose(advantages[2], [4 - 9 / 3])


def test_whiten_has_mean_zero_and_deviation_one() -> None:
    values = np.concatenate(credit.whiten([[3.0, 5.0, 9.0], [100.0]]))
    np.testing.assert_allclose([values.mean(), values.std(ddof=1)], [0.0, 1.0], atol=1e-9)


@given(st.lists(st.tuples(st.sampled_from("ab"), finite), min_size=1, max_size=8))
def test_at_one_turn_alive_is_leave_one_out_bit_for_bit(case: list[tuple[str, float]]) -> None:
    groups, rewards = [g for g, _ in case], [r for _, r in case]
    alive = credit.leave_one_out_alive(credit.returns([[r] for r in rewards], 0.9), groups)
    np.testing.assert_array_equal(np.concatenate(alive), credit.leave_one_out(rewards, groups))


@given(ragged, finite)
@pytest.mark.parametrize("name", ["leave_one_out_alive", "batch_baseline", "whiten"])
def test_shifting_all_returns_changes_nothing(name: str, case: Case, shift: float) -> None:
    returns, groups = split(case)
    function = per_turn(name)
    moved = function([r + shift for r in returns], groups)
    # Whitening divides by the deviation, which is rounding noise when all returns are nearly equal.
    spread = np.concatenate(returns).std()
    if name == "whiten" and spread < 1e-3:
        return
    for before, after in zip(function(returns, groups), moved, strict=True):
        lone = sum(g == groups[0] for g in groups) == len(returns) == 1
        assert lone or np.allclose(before, after, atol=1e-8)


@given(ragged, st.randoms(use_true_random=False))
@pytest.mark.parametrize("name", ["leave_one_out_alive", "batch_baseline", "whiten"])
def test_the_order_of_episodes_does_not_matter(name: str, case: Case, random: object) -> None:
    order = list(range(len(case)))
    random.shuffle(order)  # type: ignore[attr-defined]
    returns, groups = split(case)
    function = per_turn(name)
    if name == "whiten" and np.concatenate(returns).std() < 1e-3:
        return
    straight = function(returns, groups)
    shuffled = function([returns[i] for i in order], [groups[i] for i in order])
    for position, i in enumerate(order):
        np.testing.assert_allclose(shuffled[position], straight[i], atol=1e-9)


@given(ragged)
def test_groups_do_not_mix(case: Case) -> None:
    returns, groups = split(case)
    together = credit.leave_one_out_alive(returns, groups)
    for group in set(groups):
        mine = [i for i, g in enumerate(groups) if g == group]
        alone = credit.leave_one_out_alive([returns[i] for i in mine], [group] * len(mine))
        for i, advantage in zip(mine, alone, strict=True):
            np.testing.assert_array_equal(advantage, together[i])


@given(ragged)
def test_the_own_return_never_enters_the_own_baseline(case: Case) -> None:
    """Raising one rollout's returns by 1 raises its own advantages by exactly that, wherever it has a baseline."""
    returns, groups = split(case)
    raised = [returns[0] + 1.0, *returns[1:]]
    for name in ("leave_one_out_alive", "batch_baseline"):
        before, after = per_turn(name)(returns, groups)[0], per_turn(name)(raised, groups)[0]
        company = groups.count(groups[0]) > 1 if name == "leave_one_out_alive" else len(returns) > 1
        np.testing.assert_allclose(after - before, 1.0 if company else 0.0, atol=1e-8)


@given(st.lists(finite, min_size=2, max_size=6))
def test_leave_one_out_is_a_rescaled_centred_score(scores: list[float]) -> None:
    n, groups = len(scores), ["g"] * len(scores)
    centred = credit.group_relative(scores, groups, normalise=False)
    np.testing.assert_allclose(credit.leave_one_out(scores, groups), n / (n - 1) * centred, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e6 + 0.1])
def test_equal_rewards_give_exactly_zero(value: float) -> None:
    groups = ["g"] * 7
    assert not credit.leave_one_out([value] * 7, groups).any()
    assert not credit.group_relative([value] * 7, groups).any()
    assert not np.concatenate(credit.leave_one_out_alive([[value, value]] * 7, groups)).any()
    assert not np.concatenate(credit.batch_baseline([[value, value]] * 7)).any()
    assert not np.concatenate(credit.whiten([[value, value]] * 7)).any()


def test_unscorable_episodes_leave_the_baseline_and_get_zero() -> None:
    scores, groups = np.array([1.0, np.nan, 3.0]), ["g", "g", "g"]
    for function in (credit.leave_one_out, credit.group_relative):
        with_nan = function(scores, groups)
        without = function(scores[[0, 2]], ["g", "g"])
        np.testing.assert_array_equal(with_nan, [without[0], 0.0, without[1]])
    returns = [np.array([1.0, 2.0]), np.array([np.nan, np.nan, 5.0]), np.array([3.0]), None]
    advantages = credit.leave_one_out_alive(returns, ["g"] * 4)
    np.testing.assert_array_equal(advantages[0], [1 - 3, 2 - 3])
    np.testing.assert_array_equal(advantages[1], [0.0, 0.0, 5 - 2])
    np.testing.assert_array_equal(advantages[2], [3 - 1])
    assert advantages[3].shape == (0,)
    assert credit.batch_baseline([[1.0], [np.nan], [3.0], None])[1].tolist() == [0.0]
    assert [a.tolist() for a in credit.whiten([[np.nan], None])] == [[0.0], []]


def test_a_group_of_one_trains_nothing() -> None:
    assert credit.leave_one_out([3.0], ["g"]).tolist() == [0.0]
    assert credit.group_relative([3.0, np.nan], ["g", "g"]).tolist() == [0.0, 0.0]
    assert credit.leave_one_out_alive([[3.0, 2.0], None], ["g", "g"])[0].tolist() == [0.0, 0.0]
    assert credit.batch_baseline([[3.0, 2.0]])[0].tolist() == [0.0, 0.0]


def test_each_trajectory_counts_once() -> None:
    """A rollout of forty turns has the same say in a group's statistics as one of a single turn."""
    short, long = np.array([0.0]), np.full(40, 1.0)
    advantages = credit.leave_one_out_alive([short, long, np.array([0.5])], ["g"] * 3)
    np.testing.assert_allclose(advantages[2], [0.5 - (0.0 + 1.0) / 2])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="2 groups for 1 episodes"):
        credit.leave_one_out([1.0], ["a", "b"])
    with pytest.raises(ValueError, match="one number per trajectory"):
        credit.group_relative([[1.0, 2.0]], ["a"])
    with pytest.raises(ValueError, match="infinite"):
        credit.leave_one_out_alive([[np.inf]], ["a"])


def test_no_episodes() -> None:
    assert credit.leave_one_out_alive([], []) == []
    assert credit.leave_one_out([], []).shape == (0,)
    assert credit.batch_baseline([]) == []
    assert credit.whiten([]) == []
