"""Rules as text, and the floor: what a constant answer earns."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.rewards import RewardError
from turnwise.rewards.floor import Floor, constant_floor
from turnwise.rewards.rules import Rule
from turnwise.rewards.verifiers import numeric


@pytest.mark.parametrize(
    ("rule", "keeps", "breaks"),
    [
        ("contains:please", "Yes, PLEASE!", "pleased"),
        ("contains:a.b", "say a.b now", "say axb now"),
        ("forbids:hate|kill", "love", "I HATE it"),
        ("requires:\\d+", "in 1912", "in May"),
        ("starts-with:Dear", "Dear you", "Oh dear"),
        ("ends-with:?", "Why?", "Because."),
        ("max-words:2", "two words", "no, three words"),
        ("min-words:2", "two words", "one"),
    ],
)
def test_a_rule_pays_who_keeps_to_it(rule: str, keeps: str, breaks: str) -> None:
    think = "<think>I hate please 1 Dear ? x y z</think>"
    assert Rule(rule)(completions=[keeps, breaks, think + keeps, think + breaks]) == [1.0, 0.0, 1.0, 0.0]
    assert Rule(rule)(completions=["<think>" + keeps]) == [0.0]


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("contain:x", "no rule is called 'contain'; there are contains"),
        ("contains:", "says nothing; write contains:SOMETHING"),
        ("contains", "says nothing"),
        ("max-words:many", "needs a whole number of words"),
        ("forbids:(", "is not a regular expression"),
    ],
)
def test_a_rule_that_is_none_is_refused(rule: str, complaint: str) -> None:
    with pytest.raises(RewardError, match=complaint):
        Rule(rule)


@given(
    st.dictionaries(
        st.text(max_size=2), st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=3, max_size=3), max_size=5
    )
)
def test_the_floor_is_the_best_mean(table: dict[str, list[float | None]]) -> None:
    means = []
    for scores in {"": [0.0] * 3, **table}.values():
        told = [score for score in scores if score is not None]
        if told:
            means.append(math.fsum(told) / len(told))
    if not means:
        return
    assert constant_floor(lambda text: table.get(text, [0.0] * 3), table).score == max(means)


def test_a_verifier_that_pays_a_constant_is_found_out() -> None:
    known = ["7", "7.0", "8", "7 km"]
    assert constant_floor(lambda text: [numeric.score(text, answer) for answer in known], known) == Floor(
        "7", 3 / 4, 4, 5
    )
    assert constant_floor(lambda text: [float(answer.startswith(text)) for answer in known], known) == Floor(
        "", 1.0, 4, 5
    )


def test_nothing_to_find_a_floor_of() -> None:
    with pytest.raises(RewardError, match="no row could score"):
        constant_floor(lambda text: [None, math.nan], ["7"])
