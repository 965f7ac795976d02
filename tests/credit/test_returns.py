"""Returns, and the moves between turns and tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise import credit

numbers = st.lists(st.floats(-10, 10, allow_nan=False), min_size=1, max_size=8)


@given(numbers, st.floats(0, 1), st.floats(-10, 10))
def test_returns_are_the_discounted_sums(rewards: list[float], gamma: float, bootstrap: float) -> None:
    expected = [
        sum(gamma**k * r for k, r in enumerate(rewards[t:])) + gamma ** (len(rewards) - t) * bootstrap
        for t in range(len(rewards))
    ]
    np.testing.assert_allclose(credit.returns([rewards], gamma, [bootstrap])[0], expected, atol=1e-9)


def test_no_discount_memory_and_terminal_reward() -> None:
    np.testing.assert_array_equal(credit.returns([[1.0, 2.0, 3.0]], 0.0)[0], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(credit.returns([[0.0, 0.0, 1.0]], 0.5)[0], [0.25, 0.5, 1.0])


def test_an_unscorable_reward_hides_what_came_before_it_only() -> None:
    np.testing.assert_array_equal(credit.returns([[1.0, np.nan, 2.0]], 1.0)[0], [np.nan, np.nan, 2.0])


def test_tokens_of_turns() -> None:
    assert credit.broadcast([[1.0, 2.0], [3.0]], [[2, 1], [3]])[0].tolist() == [1.0, 1.0, 2.0]
    assert credit.place_at_end([[1.0, 2.0], [3.0]], [[2, 1], [3]])[1].tolist() == [0.0, 0.0, 3.0]
    assert credit.sum_by_turn([[1.0, 2.0, 4.0]], [[2, 1]])[0].tolist() == [3.0, 4.0]
    assert [a.tolist() for a in credit.uniform([1.0, 2.0], [2, 0])] == [[1.0, 1.0], []]


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(1, 5)), min_size=1, max_size=8))
def test_placing_and_summing_are_inverse(turns: list[tuple[float, int]]) -> None:
    values, lengths = [value for value, _ in turns], [length for _, length in turns]
    np.testing.assert_array_equal(credit.sum_by_turn(credit.place_at_end([values], [lengths]), [lengths])[0], values)
    spread = credit.broadcast([values], [lengths])[0]
    np.testing.assert_array_equal(spread[np.cumsum(lengths) - 1], values)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="without bound"):
        credit.returns([[1.0]], 1.5)
    with pytest.raises(ValueError, match="infinite at index 1"):
        credit.returns([[1.0, np.inf]], 1.0)
    with pytest.raises(ValueError, match="one flat array per episode"):
        credit.returns([[[1.0]]], 1.0)
    with pytest.raises(ValueError, match="stop token"):
        credit.place_at_end([[1.0]], [[0]])
    with pytest.raises(ValueError, match="has 1 turns"):
        credit.broadcast([[1.0]], [[1, 1]])
    with pytest.raises(ValueError, match="2 episodes"):
        credit.broadcast([[1.0], [1.0]], [[1]])
    with pytest.raises(ValueError, match="3 entries for 2"):
        credit.sum_by_turn([[1.0, 1.0, 1.0]], [[2]])
