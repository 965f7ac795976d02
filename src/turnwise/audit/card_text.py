"""Cards on a terminal, 80 columns or more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from turnwise.audit.card import Card, Line, Refused
from turnwise.audit.card_words import (
    bare_text,
    control_counts,
    interval_text,
    reasons,
    rows_of,
    title_with_unit,
    unmeasured,
)
from turnwise.audit.catalogue import ControlResult
from turnwise.audit.measure import Measurement
from turnwise.audit.strip import strip_rows, strip_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

HOW_FROM = 112
"""Columns from which on a terminal has room for how a figure came about."""

_TITLE = 30
_NARROW = 26
_UNIT = 14
_CELL = 16


def card_text(card: Card, width: int) -> RenderableType:
    """One card.

    Args:
        card: What was found.
        width: Columns of the terminal.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text.assemble(("audit  ", "bold"), card.subject),
        Text(" · ".join(card.about) or "nothing to look at", style="dim"),
        *(Text(f"note: {note}", style="yellow") for note in card.notes),
        Text(""),
        *_strip(card, width),
        Text(card.sentence),
    ]
    if card.measured:
        parts.append(_figures(card, width))
    if card.refused:
        parts += [Text("\nrefused", style="bold red"), _listed(_together(card.refused))]
    if card.missing:
        rows = [(", ".join(titles), f"needs {level}: {why}") for level, why, titles in reasons(card)]
        parts += [Text("\nnot measurable", style="bold"), _listed(rows)]
    right, sought = control_counts(card)
    parts.append(
        Text(f"\n{right} of {sought} known answers right · seed {card.seed} · intervals are 95 %", style="dim")
    )
    return Group(*parts)


def _strip(card: Card, width: int) -> list[Text]:
    from rich.text import Text

    rows = strip_rows(card)
    return [*strip_text(rows, width), Text("")] if rows else []


def _figures(card: Card, width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    roomy = width >= HOW_FROM
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("", min_width=24, max_width=_TITLE, overflow="fold")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("unit", style="dim", overflow="fold", max_width=None if roomy else _UNIT)
    if roomy:
        table.add_column("how", style="dim", overflow="fold")
    for section, lines in card.sections:
        table.add_row(Text(section.value, style="bold cyan"))
        for line in lines:
            assert isinstance(line.answer, Measurement)
            found = line.answer
            unit = found.unit if found.unit != "share" else ""
            cells = [bare_text(found), interval_text(found), f"{found.n:,}", unit]
            cells += [line.answer.how] * roomy
            table.add_row(_indented(line.title), *(Text(cell) for cell in cells))
    return table


def _together(refused: Sequence[Refused]) -> list[tuple[str, str]]:
    """One line for what was refused for one reason."""
    whys = dict.fromkeys(r.why for r in refused)
    return [(", ".join(r.name for r in refused if r.why == why), why) for why in whys]


def _listed(rows: Sequence[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(max_width=_TITLE, overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for name, why in rows:
        table.add_row(_indented(name), Text(why))
    return table


def _indented(text: str) -> Padding:
    """Words that keep their distance from the margin where they are folded."""
    from rich.padding import Padding
    from rich.text import Text

    return Padding(Text(text), (0, 0, 0, 2))


def comparison_text(cards: Sequence[Card], names: Sequence[str], width: int) -> RenderableType:
    """Cards side by side: each figure with its n, and its interval under it; as many tables as the width asks for.

    Args:
        cards: What was found.
        names: Of the cards, short.
        width: Columns of the terminal.
    """
    from rich.console import Group
    from rich.text import Text

    each = max(1, (width - _NARROW) // (_CELL + 2))
    parts: list[RenderableType] = []
    for start in range(0, len(cards), each):
        block = list(range(start, min(start + each, len(cards))))
        parts.append(_side_by_side(cards, names, block))
    absent = unmeasured(cards)
    if absent:
        parts.append(Text.assemble(("measured of none: ", "bold"), (", ".join(absent), "dim")))
    parts.append(Text("– is not measurable, with the reason on the run's own card; intervals are 95 %", style="dim"))
    return Group(*parts)


def _side_by_side(cards: Sequence[Card], names: Sequence[str], block: Sequence[int]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("", width=_NARROW, overflow="fold")
    for at in block:
        table.add_column(names[at], justify="right", overflow="fold", width=_CELL)
    for section, rows in rows_of(cards):
        table.add_row(Text(section.value, style="bold cyan"))
        for line, answers in rows:
            table.add_row(_indented(title_with_unit(line, answers)), *(_cell(answers[at]) for at in block))
    return table


def _cell(line: Line | None) -> Text:
    from rich.text import Text

    if line is not None and isinstance(line.answer, Refused):
        return Text("refused", style="red")
    if line is None or not isinstance(line.answer, Measurement):
        return Text("–", style="dim")
    found = line.answer
    return Text.assemble(bare_text(found), (f" n={found.n:,}\n{interval_text(found)}", "dim"))


def controls_text(results: Sequence[ControlResult], titles: dict[str, str], *, failed_only: bool = False) -> Table:
    """A table of known answers: quantity, what was planted, the answer, what was measured, and whether it is right.

    Args:
        results: What came out.
        titles: Name of a quantity -> what people read.
        failed_only: Leave out what came out right.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("control", overflow="fold")
    table.add_column("expected", justify="right", overflow="fold", min_width=8)
    table.add_column("measured", justify="right", overflow="fold", min_width=8)
    table.add_column("", no_wrap=True)
    before = ""
    for result in results:
        if failed_only and result.passed:
            continue
        if result.quantity != before:
            table.add_row(Text(titles.get(result.quantity, result.quantity), style="bold cyan"))
            before = result.quantity
        verdict = Text("pass", style="green") if result.passed else Text("FAIL", style="bold red")
        table.add_row(_indented(result.control), result.known, result.found, verdict)
    return table
