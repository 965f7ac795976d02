"""Figures of a score against preferences and labels: (1) hand-computed examples, (2) a judge that is what it says has no
calibration error, (3) the area under the curve is the share of ordered pairs, by counting them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.rewards.calibration import area_under_curve, calibration, calibration_error, correlation


def test_a_small_example_by_hand() -> None:
    found = calibration([2.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, -3.0], [5, 2, 3, 4], [3, 2, 6, 1])
    assert found.pairs == 4
    assert found.accuracy == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert found.margin == pytest.approx((2 - 1 + 0 + 4) / 4)
    assert (found.chosen_mean, found.rejected_mean) == pytest.approx((1.0, -0.25))
    assert found.chosen_std == pytest.approx(math.sqrt((1 + 1 + 0 + 0) / 4))
    assert found.longer_is_chosen == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    # Confidences .8808, .7311, .5 and .9820 in bins 7, 4, 0 and 9 of width .05 from one half on.
    expected = (1 - 0.880797) + 0.731059 + abs(0.5 - 0.5) + (1 - 0.982014)
    assert found.error == pytest.approx(expected / 4, abs=1e-5)


def test_a_judge_that_is_what_it_says_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(0, 2, 200_000)
    first_wins = rng.random(len(difference)) < 1 / (1 + np.exp(-difference))
    chosen = np.where(first_wins, difference, 0.0)
    rejected = np.where(first_wins, 0.0, difference)
    ones = np.ones(len(difference))
    found = calibration(chosen, rejected, ones, ones)
    assert found.error < 0.006
    assert math.isnan(found.length_correlation)
    loud = calibration(5 * chosen, 5 * rejected, ones, ones)
    assert loud.accuracy == pytest.approx(found.accuracy)
    assert loud.error > 0.1


def test_nothing_to_say_is_nan_and_nonsense_is_refused() -> None:
    assert math.isnan(area_under_curve([1.0, 2.0], [1, 1]))
    assert math.isnan(correlation([1.0, 1.0], [1.0, 2.0]))
    assert calibration_error([0.5, 0.5], [0.0, 1.0]) == 0.0
    with pytest.raises(ValueError, match="one of each per pair"):
        calibration([1.0], [1.0, 2.0], [1], [1])


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_the_area_under_the_curve_counts_ordered_pairs(data: list[tuple[int, bool]]) -> None:
    score, label = [float(s) for s, _ in data], [float(y) for _, y in data]
    ordered = [(a > b) + 0.5 * (a == b) for a, y in zip(score, label, strict=True) if y
               for b, z in zip(score, label, strict=True) if not z]  # fmt: skip
    found = area_under_curve(score, label)
    assert math.isnan(found) if not ordered else found == pytest.approx(np.mean(ordered))


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=20))
def test_correlation_is_numpys(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points, dtype=float).T
    found = correlation(x, y)
    if x.std() == 0 or y.std() == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
