"""A batch without gradient says why."""

from __future__ import annotations

import math

import numpy as np
import pytest

from turnwise import credit
from turnwise.metrics import means


@pytest.mark.parametrize(
    ("scores", "groups", "words"),
    [
        ([], [], "no episode"),
        ([math.nan, math.nan], ["a", "a"], "none of the 2 episodes has a score"),
        ([1.0, 0.0, math.nan], ["a", "b", "b"], "no group has two scored episodes"),
        ([0.0, 0.0, 0.0, 0.0], ["a", "a", "b", "b"], "all 4 scores are 0"),
        ([0.1, 0.1, 1.0, 1.0], ["a", "a", "b", "b"], "always or never solved"),
    ],
)
def test_reasons_hold_for_the_advantages_they_explain(scores: list[float], groups: list[str], words: str) -> None:
    for function in (credit.group_relative, credit.leave_one_out):
        advantages = credit.uniform(function(scores, groups), [2] * len(scores))
        reason = credit.why_zero(advantages, groups, scores)
        assert reason is not None
        assert words in reason


def test_credit_that_removes_the_difference() -> None:
    reason = credit.why_zero([[0.0], [0.0]], ["a", "a"], [0.0, 1.0])
    assert reason is not None
    assert "credit function" in reason


def test_no_reason_where_there_is_a_gradient() -> None:
    assert credit.why_zero([[0.0], [0.0, 1e-3]], ["a", "a"], [0.0, 1.0]) is None


def test_share_of_groups_without_spread() -> None:
    scores, groups = [1.0, 1.0, 0.0, 1.0, 2.0, math.nan], ["a", "a", "b", "b", "c", "c"]
    assert credit.zero_std(scores, groups).tolist() == [True, True, False, False, True, True]
    assert means(credit.zero_std_metrics(scores, groups)) == {"frac_reward_zero_std": pytest.approx(4 / 6)}


def test_explained_variance() -> None:
    targets = [np.array([1.0, 2.0]), np.array([6.0])]
    name = "value/explained_variance"
    assert means(credit.explained_variance(targets, targets))[name] == 1.0
    assert means(credit.explained_variance([[3.0, 3.0], [3.0]], targets))[name] == pytest.approx(0.0)
    assert math.isnan(means(credit.explained_variance([[1.0]], [[2.0]]))[name])
    assert math.isnan(means(credit.explained_variance([], []))[name])
