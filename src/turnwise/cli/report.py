"""``turnwise report``: one HTML page about a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from turnwise.cli.parsing import REQUIRED, Flag, parse

OWN = (
    Flag("run", str, REQUIRED, "Run folder.", metavar="RUN", positional=True),
    Flag("out", str, "", "The page.", hint="report.html in the run folder", metavar="FILE"),
)

DESCRIPTION = "Write one page about a run: its curves, its settings, its evaluation, and episodes to read."


def main(arguments: Sequence[str]) -> int:
    """Write the page and print its path.

    Raises:
        TurnwiseError: there is no run, or the disk refused.
    """
    values = parse("report", DESCRIPTION, {"": OWN}, arguments)
    print(write(Path(values["run"]), Path(values["out"]) if values["out"] else None))
    return 0


def write(run: Path, out: Path | None = None) -> Path:
    """Write the page of a run, with the settings that are not the defaults marked."""
    from turnwise.recipes.settings import Training
    from turnwise.runs import RunFolder
    from turnwise.runs.report import write_report

    config = RunFolder.view(run).config
    if "training" not in config:
        return write_report(run, out)
    training = Training.from_config(config["training"])
    defaults = {**config, "training": Training(type(training.algorithm)()).to_config()}
    return write_report(run, out, defaults=defaults)
