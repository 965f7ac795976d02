"""Cards as pages of HTML that need nothing but a browser, and as a folder of both forms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from turnwise.audit.card import Card, Line, Refused
from turnwise.audit.card_file import write_json
from turnwise.audit.card_words import (
    bare_text,
    control_counts,
    interval_text,
    reasons,
    rows_of,
    title_with_unit,
    unmeasured,
    value_text,
)
from turnwise.audit.measure import Measurement, Series
from turnwise.audit.strip import longest, strip_chart, strip_rows
from turnwise.runs.evaluate import Estimate
from turnwise.runs.figures import SERIES, dot_interval_chart, line_chart
from turnwise.runs.figures import Line as Curve
from turnwise.runs.page import Section as Part
from turnwise.runs.page import table, write_page

_HORIZONS = (
    "Reward: how far ahead one has to look to act as the reward pays. Update: how far back the advantages of a reward reach. "
    "Policy: how far ahead a planner has to look to choose as the policy does. Each counts the present turn, so that one-step is 1 "
    "for all of them. They are measured apart."
)


def write_card(card: Card, folder: str | Path) -> Path:
    """Write ``card.json`` and ``card.html``, and return the path of the page.

    Raises:
        RunError: the disk refused.
    """
    folder = Path(folder)
    write_json(card, folder / "card.json")
    return write_page(f"Audit card: {card.subject}", _parts(card), folder / "card.html", lead=card.sentence)


def write_comparison(cards: Sequence[Card], names: Sequence[str], out: str | Path) -> Path:
    """Write a page with cards side by side, and return its path.

    Args:
        cards: What was found.
        names: Of the cards, short.
        out: The HTML file.

    Raises:
        RunError: the disk refused.
    """
    return write_page("Audit cards side by side", comparison_parts(cards, names), out)


def comparison_parts(cards: Sequence[Card], names: Sequence[str]) -> list[Part]:
    """The sections of a page that sets cards side by side; see `write_comparison`."""
    rows = [(name, found) for card, name in zip(cards, names, strict=True) if (found := strip_rows(card))]
    most = max((longest(found) for _, found in rows), default=0.0)
    strips = [strip_chart(found, name, 560, most=most) for name, found in rows]
    parts = [Part("How far each one looks", [*strips, _HORIZONS])] if strips else []
    parts += [Part("In a sentence each", [table(["run", ""], [*zip(names, (c.sentence for c in cards), strict=True)])])]
    for section, rows in rows_of(cards):
        cells = [[title_with_unit(line, answers), *map(_cell, answers)] for line, answers in rows]
        charts = []
        for line, answers in rows:
            dots = [
                (name, _estimate(answer.answer))
                for name, answer in zip(names, answers, strict=True)
                if answer is not None and isinstance(answer.answer, Measurement)
            ]
            if len(dots) > 1:
                unit = next(a.answer.unit for a in answers if a is not None and isinstance(a.answer, Measurement))
                charts.append(dot_interval_chart(dots, title=line.title, unit=unit))
        parts.append(Part(_capital(section.value), [table(["quantity", *names], cells), *charts]))
    absent = unmeasured(cards)
    if absent:
        parts.append(Part("Measured of none", [", ".join(absent)]))
    return parts


def _parts(card: Card) -> list[Part]:
    rows = strip_rows(card)
    parts = [Part("How far each one looks", [strip_chart(rows), _HORIZONS])] if rows else []
    if card.notes:
        parts.append(Part("Notes", list(card.notes)))
    for section, lines in card.sections:
        rows = [_row(line, line.answer) for line in lines if isinstance(line.answer, Measurement)]
        charts = [chart for line in lines for chart in _charts(line)]
        head = ["quantity", "what, and how it was measured", "figure", "95 % interval", "n"]
        parts.append(Part(_capital(section.value), [table(head, rows, figures=3), *charts]))
    if card.refused:
        rows = [[r.name, r.why] for r in card.refused]
        parts.append(
            Part("Refused", ["A known answer was missed, so no figure is shown.", table(["quantity", "why"], rows)])
        )
    if card.missing:
        rows = [[", ".join(titles), level, why] for level, why, titles in reasons(card)]
        parts.append(Part("Not measurable", [table(["quantity", "needs", "why"], rows)]))
    right, sought = control_counts(card)
    rows = [
        [r.quantity, r.control, r.known, r.found, "pass" if r.passed else Markup('<strong class="bad">FAIL</strong>')]
        for r in card.controls
    ]
    told = [
        f"Before a figure is printed, its measure is asked where the answer is known: {right} of {sought} came out right.",
        _folded("All known answers", table(["quantity", "control", "expected", "measured", ""], rows)),
    ]
    parts.append(Part("Known answers", told if rows else ["Nothing was measured, so none was sought."]))
    seen = [*([line[:2], line[3:]] for line in card.about), ["seed", str(card.seed)], ["plays", str(card.plays)]]
    seen.append(["turnwise", card.version])
    parts.append(Part("What there was to look at", [table(["", ""], seen)]))
    return parts


def _row(line: Line, found: Measurement) -> list[str | Markup]:
    what = Markup('{}<br><small class="note">{}</small>').format(line.question, found.how)
    return [line.title, what, value_text(found), interval_text(found), f"{found.n:,}"]


def _folded(title: str, content: Markup) -> Markup:
    return Markup("<details><summary>{}</summary>{}</details>").format(title, content)


def _cell(line: Line | None) -> str | Markup:
    if line is not None and isinstance(line.answer, Refused):
        return Markup('<strong class="bad">refused</strong>')
    if line is None or not isinstance(line.answer, Measurement):
        return "–"
    found = line.answer
    return Markup("<strong>{}</strong> n={}<br>{}").format(bare_text(found), f"{found.n:,}", interval_text(found))


def _estimate(found: Measurement) -> Estimate:
    return Estimate(found.value, *found.interval, found.n, found.how)


def _charts(line: Line) -> list[Markup]:
    """The curves behind a figure: those on the same axes in one chart, as long as a chart can tell them apart."""
    assert isinstance(line.answer, Measurement)
    axes: dict[tuple[str, str], list[Series]] = {}
    for series in line.answer.series:
        axes.setdefault((series.x_label, series.y_label), []).append(series)
    charts = []
    for (x_label, y_label), curves in axes.items():
        for start in range(0, len(curves), SERIES):
            drawn = [_curve(series) for series in curves[start : start + SERIES]]
            title = line.title if len(drawn) > 1 else f"{line.title}: {drawn[0].name}"
            charts.append(line_chart(drawn, title=title, x_label=x_label, unit=y_label, width=520, height=230))
    return charts


def _curve(series: Series) -> Curve:
    order = sorted(range(len(series.x)), key=series.x.__getitem__)
    picked = [[part[i] for i in order] for part in (series.x, series.y, series.low, series.high) if part]
    x, y = picked[:2] if picked else ([], [])
    low, high = picked[2:] if len(picked) == 4 else (None, None)
    return Curve(series.label, x, y, low, high)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
