"""The card in a sentence: fixed words for what was measured, chosen by rules that anybody can read.

Each group of rules is one sentence. In a group every quantity that was measured adds the words of the first of its rules
that holds; a quantity that was not measured adds nothing. Nothing is said but figures and what they are of.
"""

from __future__ import annotations

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
        words: ``{value}``, ``{low}`` and ``{high}`` stand for the figures.
    """

    quantity: str
    when: Callable[[Measurement], bool]
    words: str

    def say(self, measurement: Measurement) -> str:
        """The words, with the figures in their places."""
        low, high = measurement.interval
        told = {"value": measurement.value, "low": low, "high": high}
        return self.words.format_map({name: _figure(v, measurement.unit) for name, v in told.items()})


@dataclass(frozen=True, slots=True)
class Group:
    """One sentence.

    Attributes:
        opening: Its first words.
        rules: In the order of the clauses.
        joint: Between the clauses.
    """

    opening: str
    rules: Sequence[Rule]
    joint: str = ", "


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
        "The update learnt",
        (
            Rule("online/own_share", lambda m: m.value >= 0.95, "from the policy's own samples (own share {value})"),
            Rule("online/own_share", lambda m: m.value <= 0.05, "from what others had sampled (own share {value})"),
            Rule("online/own_share", _always, "in part from the policy's own samples (own share {value})"),
        ),
    ),
    Group(
        "The reward",
        (
            Rule("reward/density", _always, "was paid at {value} of the turns"),
            Rule("reward/delay", _always, "{value} turns after the action"),
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
    return f"{group.opening} {group.joint.join(clauses.values())}." if clauses else ""


def _figure(value: float, unit: str) -> str:
    return number(value, share=unit == "share", trim=False)
