"""The sentence: (1) it says figures of what was measured and nothing else, (2) a difference is claimed only where the interval
bears it, (3) words that nobody measured never occur."""

from __future__ import annotations

import math

import pytest

from turnwise.audit.catalogue import catalogue
from turnwise.audit.measure import Measurement
from turnwise.audit.sentence import GROUPS, Group, Rule, above, below, sentence

NAMES = [rule.quantity for group in GROUPS for rule in group.rules]


def figure(name: str, value: float, low: float | None = None, high: float | None = None, unit: str = "") -> Measurement:
    return Measurement(
        name, value, (value if low is None else low, value if high is None else high), 9, "planted", unit
    )


def said(*figures: Measurement) -> str:
    return sentence({f.name: f for f in figures})


def test_rules_are_about_quantities_that_there_are() -> None:
    assert set(NAMES) <= {q.name for q in catalogue()}


def test_nothing_measured_says_so() -> None:
    assert said() == "Nothing that could be put into a sentence was measured."
    assert said(figure("no/such", 1.0)) == said()


@pytest.mark.parametrize("value", [-1e9, -1.0, -0.3, 0.0, 0.02, 0.5, 0.97, 1.0, 12.0, 3e7])
@pytest.mark.parametrize("spread", [0.0, 0.5, math.inf])
def test_every_figure_has_words(value: float, spread: float) -> None:
    """Each rule can be met alone, all can be met together, and the figure stands in the words."""
    figures = [figure(name, value, value - spread, value + spread) for name in dict.fromkeys(NAMES)]
    for one in figures:
        text = said(one)
        assert text.endswith(".")
        assert "{" not in text
        assert "nan" not in text
    text = said(*figures)
    for word in ("want", "true RL", "desire", "believ", "intend", "trying"):
        assert word not in text


def test_no_quantity_has_two_clauses() -> None:
    for group in GROUPS:
        opened = [rule.quantity for rule in group.rules]
        # Rules of one quantity stand together: the first that holds speaks.
        assert [q for i, q in enumerate(opened) if i == 0 or opened[i - 1] != q] == list(dict.fromkeys(opened))


def test_the_first_rule_that_holds_speaks() -> None:
    groups = [
        Group(
            "It",
            [
                Rule("a", above(0.0), "rose by {value}"),
                Rule("a", below(0.0), "fell"),
                Rule("a", lambda _: True, "stood"),
            ],
        )
    ]
    tell = lambda *ends: sentence({"a": figure("a", *ends)}, groups)  # noqa: E731
    assert tell(0.5, 0.1, 0.9) == "It rose by 0.500."
    assert tell(-0.5, -0.9, -0.1) == "It fell."
    # A figure above zero whose interval is not.
    assert tell(0.5, -0.1, 1.1) == "It stood."
    assert tell(0.5, -math.inf, math.inf) == "It stood."


def test_clauses_are_joined_and_groups_are_sentences() -> None:
    groups = [
        Group("The update", [Rule("a", lambda _: True, "reached {value}"), Rule("b", lambda _: True, "at {value}")]),
        Group("The policy", [Rule("c", lambda _: True, "scored {value} in [{low}, {high}]")]),
    ]
    found = {"a": figure("a", 12.0), "b": figure("b", 0.25, unit="share"), "c": figure("c", 0.5, 0.25, 0.75)}
    text = sentence(found, groups)
    assert text == "The update reached 12 and at 25 %. The policy scored 0.500 in [0.250, 0.750]."
    del found["a"]
    assert sentence(found, groups).startswith("The update at 25 %.")
