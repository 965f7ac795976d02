"""Results as Markdown, as pictures, and as a page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from turnwise.recipes.speed.results import Record, records
from turnwise.recipes.speed.tables import answers, missing
from turnwise.runs.atomic import disk, write_bytes
from turnwise.runs.figures import STYLE
from turnwise.runs.numbers import number
from turnwise.runs.page import Section, write_page
from turnwise.runs.page import table as html_table

MARKDOWN, PAGE = "results.md", "report.html"
"""Names of the files."""


def write(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``results.md``, ``report.html`` and one SVG file for each chart; the paths."""
    found = answers(results)
    written = [folder / MARKDOWN]
    write_bytes(written[0], (markdown(results) + "\n").encode())
    for answer in found:
        for i, chart in enumerate(answer.charts):
            path = folder / f"{answer.key}{f'-{i + 1}' if len(answer.charts) > 1 else ''}.svg"
            with disk(path):
                write_bytes(path, _standalone(chart).encode())
            written.append(path)
    sections = [Section("Machine", [html_table(["", ""], described(results)), *_left_out(results)])]
    for answer in found:
        numbers = sum(any(c.isdigit() for c in cell[:1]) or cell == "–" for cell in answer.rows[0])
        sections.append(
            Section(
                answer.title, [answer.text, html_table(answer.heading, answer.rows, figures=numbers), *answer.charts]
            )
        )
    written.append(write_page("turnwise: speed", sections, folder / PAGE, lead=_lead(results)))
    return written


def markdown(results: Mapping[str, Any]) -> str:
    """All tables, ready for a document."""
    parts = [_lead(results), _markdown_table(["machine", ""], described(results)), *_left_out(results)]
    for answer in answers(results):
        parts += [f"### {answer.title}", answer.text, _markdown_table(answer.heading, answer.rows)]
    return "\n\n".join(parts)


def described(results: Mapping[str, Any]) -> list[list[str]]:
    """The machine and the settings, a row each."""
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    memory = f", {machine['memory_gb']:g} GB" if machine["memory_gb"] else ""
    rows = [
        ["processor", f"{machine['processor']}, {machine['cores']} cores{memory}, {machine['system']}"],
        ["libraries", f"turnwise {results['turnwise']}, Python {machine['python']}, {versions}"],
    ]
    if machine.get("gpu"):
        rows.append(["device", machine["gpu"]])
    rates = _rates(list(records(results)))
    if rates:
        rows.append(["matrix products", rates])
    rows.append(["settings", ", ".join(f"{name} {_told(value)}" for name, value in settings.items())])
    return rows


def _rates(found: Sequence[Record]) -> str:
    """Rates of each route, smallest and largest median, for the smallest number of threads."""
    few = min((record.case.threads for record in found), default=1)
    seen: dict[str, list[float]] = {}
    for record in found:
        for route, rate in record.routes().items() if record.case.threads == few else ():
            seen.setdefault(route, []).append(rate)
    told = [f"{route} {number(min(rates))}–{number(max(rates))}" for route, rates in seen.items()]
    return f"{', '.join(told)} GFLOP/s on {few} thread{'s' * (few > 1)}" if told else ""


def _lead(results: Mapping[str, Any]) -> str:
    return f"Measured {results['created'][:10]} by `turnwise bench`, both sides in one run, taking turns step by step."


def _left_out(results: Mapping[str, Any]) -> list[str]:
    reasons = missing(results)
    return [f"Not measured: {'; '.join(reasons)}."] if reasons else []


def _told(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _standalone(chart: Markup) -> str:
    """A chart as a file of its own: with its styles, on white."""
    head, tail = str(chart).split(">", 1)
    return f"{head}><style>{STYLE}svg{{background:#fff}}</style>{tail}\n"
