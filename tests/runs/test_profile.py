"""Where the time of a run went: (1) the parts are those of the metrics and add up; (2) phases before the algorithm come first;
(3) a run that is under way is read, and one without a line is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs.toy import ToyAlgorithm, ToyLearner, ToySource
from turnwise.runs import RunError, RunFolder, train
from turnwise.runs.profile import Spending, time_spent, trend

LINE = {
    "time/rollout": 3.0,
    "time/environment": 1.0,
    "time/engine": 1.5,
    "time/update": 4.0,
    "time/saving": 0.5,
    "time/other": 0.25,
    "tokens/action": 10,
    "tokens/read": 30,
    "tokens/shared": 70,
}


def a_run(folder: Path, lines: list[dict[str, float | None]]) -> Path:
    RunFolder.create(folder, {}).close()
    text = "".join(json.dumps({"iteration": i, **line}) + "\n" for i, line in enumerate(lines, 1))
    (folder / "metrics.jsonl").write_text(text)
    return folder


def totals(spending: Spending) -> dict[str, float]:
    return {part.name: part.total for part in spending.parts}


def test_parts_by_hand(tmp_path: Path) -> None:
    (spending,) = time_spent(a_run(tmp_path / "run", [LINE, {**LINE, "time/update": 8.0}]))
    assert totals(spending) == {
        "rollout": 6.0,
        "environment": 2.0,
        "engine": 3.0,
        "bookkeeping": 1.0,
        "update": 12.0,
        "saving": 1.0,
        "other": 0.5,
    }
    assert spending.total == 19.5
    assert spending.iterations == 2
    assert spending.tokens == {"sampled": 20, "read": 60, "shared": 140}
    assert {part.name for part in spending.parts if part.within == "rollout"} == {
        "environment",
        "engine",
        "bookkeeping",
    }


def test_figures_that_a_run_does_not_have(tmp_path: Path) -> None:
    """Stored episodes have no engine, and a figure that was not finite is null."""
    (spending,) = time_spent(a_run(tmp_path / "run", [{"time/rollout": 1.0, "time/update": None, "tokens/action": 4}]))
    assert totals(spending) == {"rollout": 1.0, "update": 0.0, "saving": 0.0, "other": 0.0}
    assert spending.tokens == {"sampled": 4}


def test_phases_come_first_and_a_run_under_way_is_read(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", [])
    with pytest.raises(RunError, match=rf"has not finished an iteration.*turnwise train --resume {run}"):
        time_spent(run)
    a_run(run / "warm-start", [LINE])
    (run / "final").mkdir()
    (run / "final" / "config.json").write_text("{}")
    assert [spending.name for spending in time_spent(run)] == ["warm-start"]
    (run / "metrics.jsonl").write_text(json.dumps({"iteration": 1, **LINE}) + '\n{"itera')
    assert [(spending.name, spending.iterations) for spending in time_spent(run)] == [("warm-start", 1), ("", 1)]


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        time_spent(tmp_path)


def test_what_the_driver_writes_adds_up(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", {}) as run:
        train(ToyAlgorithm(pause=0.01), ToySource(), ToyLearner(), run, steps=3, progress=False, tensorboard=False)
    (spending,) = time_spent(run.path)
    assert totals(spending)["rollout"] >= 0.03
    assert totals(spending)["update"] >= 0.03
    assert "engine" not in totals(spending)


def test_a_trend_is_the_means_of_stretches() -> None:
    import numpy as np

    assert trend(np.array([1.0, 3.0, 5.0, 7.0, 9.0]), 2) == [3.0, 8.0]
    assert trend(np.array([1.0, 2.0]), 5) == [1.0, 2.0]
    assert trend(np.zeros(0), 5) == []
