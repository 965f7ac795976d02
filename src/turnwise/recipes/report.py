"""The report of a run that was started from settings, with those that differ from their defaults marked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnwise.runs.folder import RunFolder
from turnwise.runs.report import write_report


def report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a run and return its path.

    Args:
        run: The run's folder.
        out: The HTML file; ``report.html`` in the run's folder by default.

    Raises:
        RunError: there is no run, or the disk refused.
    """
    return write_report(run, out, defaults=defaults(RunFolder.view(run).config))


def defaults(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration of a run of the same algorithm with everything else at its default; None if it is unknown."""
    from turnwise import algorithms
    from turnwise.recipes.settings import Training

    training = config.get("training")
    algorithm = training.get("algorithm") if isinstance(training, Mapping) else None
    name = algorithm.get("name") if isinstance(algorithm, Mapping) else None
    if name not in algorithms.NAMES:
        return None
    made = getattr(algorithms, algorithms.NAMES[name])()
    return {"training": Training(made).to_config()}
