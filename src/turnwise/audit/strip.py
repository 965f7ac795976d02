"""The strip of three horizons, drawn: bars over turns on a terminal and as SVG.

Distances are those of log2(1 + turns), so that doubling a long horizon adds the same piece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from turnwise.audit.card import Card, Refused
from turnwise.audit.card_words import interval_text, value_text
from turnwise.audit.horizons import horizons
from turnwise.audit.measure import Measurement, NotMeasurable
from turnwise.runs.figures import clean

if TYPE_CHECKING:
    from rich.text import Text

_LEAST = 8.0
"""Turns that an axis shows at least."""
_ROW = 30

Row = tuple[str, Measurement | NotMeasurable | Refused]
"""Whose horizon, and how far it reaches or why that is not known."""


def strip_rows(card: Card) -> list[Row]:
    """The three horizons of a card, the present turn included; empty where none of them was measured."""
    found = horizons({line.name: line.answer for line in card.lines})
    return list(found.rows) if found.measured else []


def strip_text(rows: Sequence[Row], width: int) -> list[Text]:
    """The strip as lines of a terminal.

    Args:
        rows: Whose horizon and how far it reaches.
        width: Columns.
    """
    from rich.text import Text

    room = max(12, width - 46)
    most = longest(rows)
    lines = []
    for who, answer in rows:
        line = Text(f"  {who:<8}", style="bold")
        if isinstance(answer, Measurement):
            line.append_text(_bar(answer, most, room))
            line.append(f" {value_text(answer)} ", style="bold")
            line.append(f"{interval_text(answer)} n={answer.n:,}", style="dim")
        else:
            line.append(_why(answer, width - 12), style="dim")
        lines.append(line)
    axis = [" "] * room
    for turns in _ticks(most):
        label, at = f"{turns:g}", _at(turns, most, room)
        start = max(0, min(at - len(label) + 1, room - len(label)))
        if all(mark == " " for mark in axis[max(0, start - 1) : start + len(label)]):
            axis[start : start + len(label)] = label
    lines.append(Text(f"  {'':<8}{''.join(axis)} turns", style="dim"))
    return lines


def strip_chart(
    rows: Sequence[Row], title: str = "Three horizons", width: int = 640, *, most: float | None = None
) -> Markup:
    """The strip as one SVG element.

    Args:
        rows: Whose horizon and how far it reaches.
        title: Stands above it.
        width: In CSS pixels at its natural size.
        most: Turns at the end of the axis; by default what the figures need.
    """
    most, left, top = most or longest(rows), 64.0, 28.0
    plot, floor = width - left - 230.0, top + _ROW * len(rows)
    parts: list[str] = []

    def px(turns: float) -> float:
        return left + plot * math.log2(1 + min(max(turns, 0.0), most)) / math.log2(1 + most)

    for turns in _ticks(most):
        parts.append(f'<path class="grid" d="M{px(turns):.1f} {top:g}V{floor:g}"/>')
        parts.append(f'<text x="{px(turns):.1f}" y="{floor + 15:g}" text-anchor="middle">{turns:g}</text>')
    parts.append(f'<text x="{left + plot + 14:g}" y="{floor + 15:g}">turns</text>')
    told = []
    for i, (who, answer) in enumerate(rows):
        y = top + _ROW * i + _ROW / 2
        parts.append(f'<text class="name" x="{left - 12:g}" y="{y + 4:g}" text-anchor="end">{who}</text>')
        if not isinstance(answer, Measurement):
            words = _why(answer, 60)
            parts.append(f'<text x="{left + 6:g}" y="{y + 4:g}">{clean(words)}</text>')
        else:
            words = f"{value_text(answer)} {interval_text(answer)} n={answer.n:,}"
            low, high = (px(end) for end in answer.interval)
            at = px(answer.value)
            parts.append(f"<g><title>{who}: {clean(words)}; {clean(answer.how)}</title>")
            if at > left:
                parts.append(
                    f'<rect class="f{i}" x="{left:g}" y="{y - 6:g}" width="{at - left:.1f}" height="12" rx="2"/>'
                )
            parts.append(f'<path class="reference" style="stroke-dasharray:none" d="M{low:.1f} {y:g}H{high:.1f}"/>')
            parts.append(f'<circle class="dot f{i}" cx="{at:.1f}" cy="{y:g}" r="5"/>')
            parts.append(f'<text class="figure" x="{left + plot + 14:g}" y="{y + 4:g}">{clean(words)}</text></g>')
        told.append(f"{who}: {words}")
    return Markup(
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {floor + 24:g}" role="img" '
        f'aria-label="{clean(title)}: {clean("; ".join(told))}"><text class="name" x="0" y="12" font-weight="600">'
        f"{clean(title)}</text>{''.join(parts)}</svg>"
    )


def longest(rows: Sequence[Row]) -> float:
    """Turns at the end of an axis that has room for the rows."""
    found = [answer for _, answer in rows if isinstance(answer, Measurement)]
    ends = [v for answer in found for v in (answer.value, answer.interval[1]) if math.isfinite(v)]
    return max([_LEAST, *ends])


def _ticks(most: float) -> list[int]:
    return [0, *(2**k for k in range(64) if 2**k <= most)][: 2 + int(math.log2(most))]


def _at(turns: float, most: float, room: int) -> int:
    """Column of a number of turns, from 0."""
    share = math.log2(1 + min(max(turns, 0.0), most)) / math.log2(1 + most)
    return round(share * (room - 1))


def _bar(answer: Measurement, most: float, room: int) -> Text:
    """A bar up to the figure, with the interval in thin lines on both sides of it."""
    from rich.text import Text

    low, high = answer.interval
    at, start, stop = (_at(v, most, room) for v in (answer.value, low, high))
    text = Text()
    for column in range(room):
        if column == at:
            text.append("●", style="bold cyan")
        elif column < at:
            text.append("━" if column < start else "╌", style="cyan")
        else:
            text.append("╌" if column <= stop else " ", style="dim")
    return text


def _why(answer: NotMeasurable | Refused | Measurement, room: int) -> str:
    if isinstance(answer, Measurement):
        return ""
    words = f"refused: {answer.why}" if isinstance(answer, Refused) else f"not measurable (needs {answer.needs.name})"
    return words if len(words) <= room else words[: room - 1] + "…"
