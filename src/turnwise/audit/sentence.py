"""The card in a sentence: fixed words for what was measured, chosen by rules that anybody can read.

Each group of rules is one sentence. In a group every quantity that was measured adds the words of the first of its rules
that holds; a quantity that was not measured adds nothing. Nothing is said but figures and what they are of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from turnwise.audit.measure import Measurement
from turnwise.runs.numbers import number


@dataclass(frozen=True, slots=True)
class Rule:
    """Words for one outcome of one quantity.

    Attributes:
        quantity: Its name.
        when: Whether the words are true of a measurement. Where they claim a difference from zero, the interval has to
            exclude it, and not only the figure.
        words: ``{value}`` stands for the figure with its unit, ``{low}`` and ``{high}`` for the ends of its interval.
    """

    quantity: str
    when: Callable[[Measurement], bool]
    words: str

    def say(self, measurement: Measurement) -> str:
        """The words, with the figures in their places."""
        low, high = measurement.interval
        told = {"low": _figure(low, measurement.unit), "high": _figure(high, measurement.unit)}
        unit = f" {measurement.unit}" if measurement.unit not in ("", "share") else ""
        return self.words.format_map({**told, "value": _figure(measurement.value, measurement.unit) + unit})


@dataclass(frozen=True, slots=True)
class Group:
    """One sentence.

    Attributes:
        opening: Its first words.
        rules: In the order of the clauses.
    """

    opening: str
    rules: Sequence[Rule]


def _always(_: Measurement) -> bool:
    return True


def above(bound: float) -> Callable[[Measurement], bool]:
    """The whole interval lies above `bound`."""
    return lambda m: m.interval[0] > bound


def below(bound: float) -> Callable[[Measurement], bool]:
    """The whole interval lies below `bound`."""
    return lambda m: m.interval[1] < bound


GROUPS: tuple[Group, ...] = (
    Group(
        "The update",
        (
            Rule("credit/reach", lambda m: m.interval[1] < 0.5, "reached no turn before the paid one (reach {value})"),
            Rule("credit/reach", _always, "reached back about {value}"),
            Rule(
                "online/own_share",
                lambda m: m.value >= 0.95,
                "learnt from the policy's own samples (own share {value})",
            ),
            Rule(
                "online/own_share", lambda m: m.value <= 0.05, "learnt from what others had sampled (own share {value})"
            ),
            Rule("online/own_share", _always, "learnt in part from the policy's own samples (own share {value})"),
        ),
    ),
    Group(
        "The world",
        (
            Rule("world/closed_loop_gain", above(0.0), "answered back (closed-loop gain {value})"),
            Rule(
                "world/closed_loop_gain",
                below(0.0),
                "paid a replay of other episodes' actions better than the policy (closed-loop gain {value})",
            ),
            Rule(
                "world/closed_loop_gain",
                _always,
                "paid a replay of other episodes' actions no less, as far as can be told (closed-loop gain {value}, {low} to {high})",
            ),
            Rule("world/feedback_worth", above(0.0), "left {value} to be earned by looking at its answers"),
            Rule(
                "world/feedback_worth",
                _always,
                "paid no more for looking at its answers, as far as can be told ({value})",
            ),
        ),
    ),
    Group(
        "The reward",
        (
            Rule("reward/density", _always, "was paid at {value} of the turns"),
            Rule("reward/delay", _always, "came {value} after the action"),
        ),
    ),
    Group(
        "The policy",
        (
            Rule("horizon/policy", _always, "chose like a planner that looks {value} ahead ({low} to {high})"),
            Rule("goal/return_ratio", _always, "earned {value} of what can be earned beyond random actions"),
            Rule(
                "conditions/monitored_difference",
                lambda m: m.interval[0] > 0 or m.interval[1] < 0,
                "changed its rate of violations by {value} where it was told of a monitor",
            ),
            Rule(
                "conditions/monitored_difference",
                _always,
                "did not change its rate of violations where it was told of a monitor, as far as can be told ({low} to {high})",
            ),
        ),
    ),
)
"""The rules, in the order of the text."""


def sentence(measured: Mapping[str, Measurement], groups: Sequence[Group] = GROUPS) -> str:
    """What was measured, in words; says so where nothing was.

    Args:
        measured: Quantity -> figure.
        groups: The rules.
    """
    said = [text for group in groups if (text := _group(group, measured))]
    return " ".join(said) if said else "Nothing that could be put into a sentence was measured."


def _group(group: Group, measured: Mapping[str, Measurement]) -> str:
    clauses: dict[str, str] = {}
    for rule in group.rules:
        measurement = measured.get(rule.quantity)
        if measurement is not None and rule.quantity not in clauses and rule.when(measurement):
            clauses[rule.quantity] = rule.say(measurement)
    said = list(clauses.values())
    text = ", ".join(said[:-1]) + (" and " if said[1:] else "") + said[-1] if said else ""
    return f"{group.opening} {text}." if text else ""


def _figure(value: float, unit: str) -> str:
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    return number(value, share=unit == "share")
