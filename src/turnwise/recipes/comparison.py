"""What recipes that set methods side by side have in common: a folder of their own, cells, tables and links."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from turnwise.errors import TurnwiseError


def new_folder(out: Path) -> Path:
    """A folder for all runs of a comparison.

    Raises:
        TurnwiseError: there is something in it.
    """
    if out.exists() and any(out.iterdir()):
        raise TurnwiseError(f"{out} is not empty; choose another folder with --out, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    return out


def measured(values: Sequence[float], digits: int = 2) -> str:
    """The mean over seeds with half of its 95 % t interval; seeds without a figure (NaN) are left out."""
    from turnwise.runs import across_runs

    known = [value for value in values if value == value]
    if not known:
        return "–"
    estimate = across_runs(known)
    mean = f"{estimate.mean:.{digits}f}"
    return mean if estimate.n == 1 else f"{mean} ± {estimate.high - estimate.mean:.{digits}f}"


def counted(values: Sequence[float], unit: float = 1.0) -> str:
    """The mean over seeds of what a method cost, in whole units; a dash where it cost nothing."""
    mean = sum(values) / len(values)
    return f"{mean / unit:.0f}" if mean else "–"


def print_table(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]], *, leave_out: str = "") -> None:
    """Print a table that fits 80 columns; all but its first column hold figures.

    Args:
        title: Above it.
        heading: Names of the columns.
        rows: Cells.
        leave_out: Heading of a column that only the page has room for.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = [i for i, name in enumerate(heading) if name != leave_out]
    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for i in shown:
        grid.add_column(heading[i], justify="right" if i else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*(row[i].replace(" ± ", "±") for i in shown))
    Console().print(grid)


def print_caption(*lines: str) -> None:
    """Print how figures came about; the last line is the caption."""
    from rich.console import Console

    console = Console()
    for line in lines[:-1]:
        console.print(line)
    console.print(lines[-1], style="dim")


def links(folders: Sequence[Path], out: Path, text: str) -> list[list[str | Markup]]:
    """Rows of a table: the name of a run, and a link to its report, which is written here."""
    from turnwise.recipes.report import report

    return [[folder.name, Markup(f'<a href="{report(folder).relative_to(out)}">{text}</a>')] for folder in folders]
