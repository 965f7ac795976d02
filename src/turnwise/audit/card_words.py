"""The figures of a card as people read them, on a terminal and on a page alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from turnwise.audit.card import Card, Line
from turnwise.audit.measure import Measurement, NotMeasurable
from turnwise.audit.quantity import Section
from turnwise.runs.numbers import number


def value_text(measurement: Measurement) -> str:
    """The figure with its unit; shares in per cent."""
    share = measurement.unit == "share"
    text = number(measurement.value, share=share, trim=False)
    return text if share or not measurement.unit else f"{text} {measurement.unit}"


def bare_text(measurement: Measurement) -> str:
    """The figure without its unit; shares in per cent."""
    return number(measurement.value, share=measurement.unit == "share", trim=False)


def title_with_unit(line: Line, answers: Sequence[Line | None]) -> str:
    """The title of a row of several cards, with the unit of the figures behind it."""
    units = [a.answer.unit for a in answers if a is not None and isinstance(a.answer, Measurement)]
    unit = next((unit for unit in units if unit not in ("", "share")), "")
    return f"{line.title}, {unit}" if unit else line.title


def interval_text(measurement: Measurement) -> str:
    """``[low, high]``; an end without a bound is infinite."""
    return "[" + ", ".join(_end(end, measurement.unit) for end in measurement.interval) + "]"


def _end(end: float, unit: str) -> str:
    if math.isinf(end):
        return "−∞" if end < 0 else "∞"
    return number(end, share=unit == "share", trim=False)


def rows_of(cards: Sequence[Card]) -> list[tuple[Section, list[tuple[Line, list[Line | None]]]]]:
    """The quantities that at least one of several cards has a figure for, or refuses, by section.

    Returns:
        For each section with such quantities: for each one, a line that knows its title and question, and each card's
        own line; None where a card does not know the quantity.
    """
    known: dict[str, Line] = {}
    for card in cards:
        for line in card.lines:
            known.setdefault(line.name, line)
    own = [{line.name: line for line in card.lines} for card in cards]
    told = _told(cards)
    found = []
    for section in Section:
        rows = [
            (line, [lines.get(line.name) for lines in own])
            for line in known.values()
            if line.section is section and line.name in told
        ]
        if rows:
            found.append((section, rows))
    return found


def reasons(card: Card) -> list[tuple[str, str, list[str]]]:
    """What could not be measured, by what it needs and why, so that one reason is read once.

    Returns:
        (level, why, titles), in the order of the card.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for missing in card.missing:
        found.setdefault((missing.needs.name, missing.why), []).append(missing.name)
    return [(level, why, titles) for (level, why), titles in found.items()]


def unmeasured(cards: Sequence[Card]) -> list[str]:
    """Titles of the quantities that none of the cards has evidence for."""
    titles, told = {line.name: line.title for card in cards for line in card.lines}, _told(cards)
    return [title for name, title in titles.items() if name not in told]


def _told(cards: Sequence[Card]) -> set[str]:
    return {line.name for card in cards for line in card.lines if not isinstance(line.answer, NotMeasurable)}


def control_counts(card: Card) -> tuple[int, int]:
    """How many known answers came out right, and how many were sought."""
    return sum(result.passed for result in card.controls), len(card.controls)
