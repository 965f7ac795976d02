"""Pairs and winners of groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.credit import best_and_worst, best_of

NAN = math.nan


def test_the_extremes_of_each_group_are_paired_in_the_order_of_the_groups() -> None:
    scores = [0.0, 5.0, 1.0, 4.0, 3.0]
    groups = ["b", "a", "b", "a", "b"]
    assert best_and_worst(scores, groups) == [(4, 0), (1, 3)]
    assert best_of(scores, groups) == [4, 1]


def test_ties_and_missing_scores_give_no_pair() -> None:
    scores = [1.0, 1.0, NAN, 2.0, NAN, NAN, 7.0, 6.0, NAN]
    groups = ["tie", "tie", "one", "one", "none", "none", "rest", "rest", "rest"]
    assert best_and_worst(scores, groups) == [(6, 7)]
    assert best_of(scores, groups) == [0, 3, 6]  # of equal scores the first


def test_nothing_gives_nothing() -> None:
    assert best_and_worst([], []) == []
    assert best_of([], []) == []


@pytest.mark.parametrize("choose", [best_and_worst, best_of])
def test_scores_that_make_no_sense_are_refused(choose: object) -> None:
    assert callable(choose)
    with pytest.raises(ValueError, match="one score per episode"):
        choose([1.0], ["a", "b"])
    with pytest.raises(ValueError, match="episode 1 has an infinite score"):
        choose([1.0, math.inf], ["a", "b"])


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.one_of(st.integers(-3, 3).map(float), st.just(NAN))),
        min_size=1,
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_a_pair_has_the_spread_of_its_group_and_order_does_not_matter(
    rows: list[tuple[str, float]], random: object
) -> None:
    groups, scores = [g for g, _ in rows], [s for _, s in rows]
    pairs = best_and_worst(scores, groups)
    found = {groups[c]: (scores[c], scores[r]) for c, r in pairs}
    for group in set(groups):
        own = [s for g, s in rows if g == group and not math.isnan(s)]
        spread = (max(own), min(own)) if own and max(own) > min(own) else None
        assert found.get(group) == spread
    order = np.arange(len(rows))
    random.shuffle(order)  # pyright: ignore[reportAttributeAccessIssue]
    shuffled = best_and_worst([scores[i] for i in order], [groups[i] for i in order])
    assert {groups[order[c]]: (scores[order[c]], scores[order[r]]) for c, r in shuffled} == found
