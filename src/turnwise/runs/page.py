"""Pages that need nothing but a browser: one HTML file, its styles, scripts and charts inside, nothing loaded from anywhere.

Whatever is given as a plain string is shown as text. Only `markupsafe.Markup` is taken as HTML, and it comes from
`turnwise.runs.figures` and `table`. The page tells the browser to run no script but its own, so that even a mistake in
escaping would show a text of an environment or a model and not execute it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from turnwise.runs.atomic import disk, write_bytes
from turnwise.runs.figures import STYLE, clean

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent / "html"


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: Its heading.
        blocks: In order: a string is a paragraph of text, `Markup` (a chart, a table) stands as it is. Charts that
            follow each other stand side by side where there is room.
    """

    title: str
    blocks: Sequence[str | Markup]


def write_page(title: str, sections: Sequence[Section], out: str | Path, *, lead: str = "") -> Path:
    """Write a self-contained page and return its path.

    Args:
        title: Of the page.
        sections: In order.
        out: The HTML file; folders on the way are made.
        lead: A paragraph under the title.

    Raises:
        RunError: the disk refused; a file that was there before is as it was.
    """
    parts = [{"title": section.title, "blocks": _runs(section.blocks)} for section in sections]
    return save(render("sections.html", title=title, lead=lead, sections=parts), out)


def table(
    head: Sequence[str], rows: Sequence[Sequence[str | Markup]], *, caption: str = "", figures: int = 0
) -> Markup:
    """A table, its cells escaped.

    Args:
        head: Names of the columns.
        rows: One cell per column; the first names the row.
        caption: Above it.
        figures: The last so many columns hold figures and are aligned to the right.

    Raises:
        ValueError: a row with another number of cells.
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"the row {row[0]!r} has {len(row)} cells for {len(head)} columns")
    start = len(head) - figures
    return Markup(_environment().get_template("table.html").render(head=head, rows=rows, caption=caption, start=start))


def render(template: str, *, scripts: Sequence[str] = (), data: Any = None, **values: Any) -> str:
    """A page from a template of this package.

    Args:
        template: Its file name.
        scripts: Files of this package to run, besides the one that serves the charts.
        data: JSON data for the scripts, in the element with the id ``data``.
        values: For the template.
    """
    code = "\n".join(_read(name) for name in ("charts.js", *scripts))
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup(STYLE + _read("style.css")),
            script=Markup(code),
            digest=digest,
            data=None if data is None else embedded_json(data),
            **values,
        )
    )


def save(page: str, out: str | Path) -> Path:
    """Write the page, whole or not at all, and return its path.

    Raises:
        RunError: the disk refused.
    """
    out = Path(out)
    with disk(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    # Records may hold text that is not valid Unicode; a page is.
    write_bytes(out, page.encode("utf-8", "replace"))
    return out


def embedded_json(data: Any) -> Markup:
    """JSON that may stand inside a ``<script>`` element, whatever texts it holds.

    No ``<`` is left in it, so it can neither end the element nor open a comment in it.

    Raises:
        ValueError: a figure that is not finite.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _runs(blocks: Sequence[str | Markup]) -> Sequence[Mapping[str, Any]]:
    """Blocks with neighbouring charts gathered."""
    gathered: list[dict[str, Any]] = []
    for block in blocks:
        kind = "text" if not isinstance(block, Markup) else "charts" if block.startswith("<svg") else "other"
        if kind == "charts" and gathered and gathered[-1]["kind"] == "charts":
            gathered[-1]["items"].append(block)
        else:
            gathered.append({"kind": kind, "items": [block]})
    return gathered


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["wide"] = _wide
    environment.finalize = _finalize
    return environment


def _finalize(value: Any) -> Any:
    """Plain text loses the control characters that HTML forbids; markup stays."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return Markup(clean(value))
    return value


def _wide(chart: str) -> bool:
    """The chart's natural width asks for a row of its own."""
    found = re.search(r'viewBox="0 0 (\d+)', chart)
    return found is not None and int(found.group(1)) > 480
