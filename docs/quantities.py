"""Writes the list of quantities of the audit, with their known answers, into ``docs/audit.md``.

Usage: ``python docs/quantities.py [--check]``. The list stands between two marks and is not to be edited by hand. With ``--check``
nothing is written, and the exit status is 1 where the page and the catalogue differ.
"""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path

from turnwise.audit.catalogue import ControlResult, catalogue
from turnwise.audit.controls import Control, Trial

PAGE = Path(__file__).parent / "audit.md"
BEGIN, END = "% quantities", "% end of quantities"


def listed() -> str:
    """The quantities by section as Markdown."""
    lines: list[str] = []
    for section, quantities in groupby(catalogue(), key=lambda quantity: quantity.section):
        lines += [f"### {section.value.capitalize()}", ""]
        for quantity in quantities:
            lines += [
                f"**{quantity.title}** (`{quantity.name}`, needs {quantity.level.name})",
                f": {quantity.question}",
                "",
            ]
            told = "; ".join(answer(control) for control in quantity.controls())
            lines += [f"  *Known answers:* {told}.", ""]
    return "\n".join(lines).replace("<", "\\<").replace("k*", "k\\*")


def answer(control: Control | Trial) -> str:
    """A control in words."""
    result = ControlResult(
        "", control.name, control.expected, None, True, 0.0, tolerance=control.tolerance, side=control.side
    )
    return f"{control.name} → {result.known}"


def page(text: str) -> str:
    """The page with the list as it should be."""
    # A function, because the list may hold backslashes.
    return re.sub(f"{BEGIN}\n.*?{END}", lambda _: f"{BEGIN}\n\n{listed()}\n{END}", text, flags=re.DOTALL)


def main(arguments: list[str]) -> int:
    """Write or check the page; the exit status."""
    before = PAGE.read_text(encoding="utf-8")
    after = page(before)
    if arguments == ["--check"]:
        if before != after:
            print(f"the list of quantities in {PAGE} is out of date; run python docs/quantities.py", file=sys.stderr)
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
