"""What is wrong with data, row by row, in words for the person who has to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from turnwise.errors import TurnwiseError

SHOWN = 10
"""Bad rows that an error names; the rest are counted."""


class DataError(TurnwiseError):
    """Data that cannot be read, is not what was asked for, or has bad rows."""


class BadRow(Exception):  # noqa: N818 -- it becomes a `Problem` and never reaches anybody
    """One row cannot be used.

    Args:
        what: The kind of fault, in two or three words.
        detail: What it is in this row.
    """

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(what, detail)
        self.what = what
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Problem:
    """One bad row.

    Attributes:
        where: Its place: "line 12" of a text file, "row 12" of a table, both counted from 1.
        what: The kind of fault, the same words for all rows that have it.
        detail: What it is in this row.
    """

    where: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.detail}"


def refusal(name: str, problems: Sequence[Problem], good: int) -> DataError:
    """The error that names the first bad rows and counts the rest."""
    listed = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
    more = len(problems) - SHOWN
    rest = f"\n  … and {more:,} more (turnwise data check {name} lists them all)" if more > 0 else ""
    if good:
        remedy = f"mend them, or leave them out with --skip-bad ({good:,} good {'row remains' if good == 1 else 'rows remain'})"
    else:
        remedy = "no good row remains"
    s, have = ("s", "are") if len(problems) > 1 else ("", "is")
    return DataError(f"{len(problems):,} row{s} of {name} {have} bad; {remedy}:\n{listed}{rest}")
