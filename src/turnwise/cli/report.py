"""``turnwise report``: one HTML page about a run."""

from __future__ import annotations

from collections.abc import Sequence

from turnwise.cli.parsing import REQUIRED, Flag, parse

_OWN = (
    Flag("run", str, REQUIRED, "Run folder.", metavar="RUN", positional=True),
    Flag("out", str, "", "The page.", hint="report.html in the run folder", metavar="FILE"),
)

_DESCRIPTION = "Write one page about a run: its curves, its settings, its evaluation, and episodes to read."


def main(arguments: Sequence[str]) -> int:
    """Write the page and print its path.

    Raises:
        TurnwiseError: there is no run, or the disk refused.
    """
    values = parse("report", _DESCRIPTION, {"": _OWN}, arguments)
    from turnwise.recipes.report import report

    print(report(values["run"], values["out"] or None))
    return 0
