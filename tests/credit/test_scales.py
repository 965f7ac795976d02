"""Scales of the batch: (1) whitened rewards keep their mean, (2) a group's scores over the deviation of all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise import credit


@given(st.lists(st.lists(st.floats(-100, 100), min_size=1, max_size=5), min_size=2, max_size=6))
def test_whitened_rewards_have_unit_deviation_and_their_own_mean(values: list[list[float]]) -> None:
    rewards = [np.array(v) for v in values]
    flat = np.concatenate(rewards)
    whitened = np.concatenate(credit.whiten_rewards(rewards))
    if len(flat) < 2 or flat.std() < 1e-3:
        return
    assert whitened.mean() == pytest.approx(flat.mean(), abs=1e-6)
    assert whitened.std(ddof=1) == pytest.approx(1.0, abs=1e-4)
    assert (np.diff(whitened[np.argsort(flat)]) >= 0).all()


def test_whitened_rewards_by_hand() -> None:
    """Mean 2, deviation 2 (Bessel): 0, 2, 4 become 1, 2, 3; what nobody could score stays so."""
    first, second = credit.whiten_rewards([[0.0, np.nan], [2.0, 4.0]])
    assert first[0] == pytest.approx(1.0)
    assert np.isnan(first[1])
    assert second.tolist() == pytest.approx([2.0, 3.0])


def test_what_has_no_deviation_stays_as_it_is() -> None:
    assert credit.whiten_rewards([[3.0, 3.0], [3.0]])[0].tolist() == [3.0, 3.0]
    assert credit.whiten_rewards([[5.0]])[0].tolist() == [5.0]
    assert credit.whiten_rewards([]) == []


def test_the_deviation_of_all_scores() -> None:
    """Two groups of two, by hand: scores 0, 2, 10, 10 have the deviation sqrt(83/3); NaN takes no part."""
    scores, groups = [0.0, 2.0, 10.0, 10.0, np.nan], ["a", "a", "b", "b", "b"]
    deviation = float(np.sqrt((5.5**2 + 3.5**2 + 4.5**2 + 4.5**2) / 3))
    found = credit.group_relative(scores, groups, spread="batch", epsilon=0.0)
    assert found.tolist() == pytest.approx([-1 / deviation, 1 / deviation, 0.0, 0.0, 0.0])
    assert not credit.group_relative([np.nan, np.nan], ["a", "a"], spread="batch").any()
