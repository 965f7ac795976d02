"""Recipes run from end to end in their quick form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from turnwise.cli.main import main
from turnwise.envs.registry import spec
from turnwise.errors import TurnwiseError
from turnwise.recipes.learning import share_of_best
from turnwise.recipes.parallel import Job, run_jobs
from turnwise.recipes.yardstick import best_return


def test_the_demonstration_prints_its_tables_and_writes_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", "demo", "--quick", "--out", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("SFT start", "PPO, γ = 0", "REINFORCE", "optimum", "FrozenLake8x8"))
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "turnwise: the demonstration" in page
    assert (tmp_path / "demo" / "ppo-0" / "report.html").exists()
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    start = next(method for method in results["methods"] if method["slug"] == "sft")
    assert start["runs"][0]["tokens"] == 0
    # A second demonstration does not write over the first.
    assert main(["recipe", "demo", "--quick", "--out", str(tmp_path / "demo")]) == 2


def test_a_vetted_setting_is_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "errand", "--quick", "--out", str(tmp_path / "errand")]) == 0
    assert "errand" in (tmp_path / "errand" / "results.md").read_text()
    assert (tmp_path / "errand" / "errand-0" / "report.html").exists()
    assert "greedy" in capsys.readouterr().out


def test_best_returns_come_from_tables_or_from_the_expert() -> None:
    known = best_return(spec("errand"))
    assert known is not None
    assert known[0] == pytest.approx(7.9)
    assert known[1] == "dynamic programming"
    shown = best_return(spec("MiniGrid-Empty-5x5-v0"), tasks=4)
    assert shown is not None
    assert 0.8 < shown[0] < 1.0


def test_the_share_of_the_best_keeps_its_meaning_below_zero() -> None:
    assert share_of_best(-13.0, -13.0) == 1.0
    assert share_of_best(-13.65, -13.0) == pytest.approx(0.95)
    assert share_of_best(7.505, 7.9) == pytest.approx(0.95)


def fail(tick: object) -> None:
    """A job that cannot be done."""
    raise TurnwiseError("the reason")


def double(x: int, tick: object) -> int:
    """A job that is done at once."""
    assert callable(tick)
    tick()
    return 2 * x


def test_jobs_come_back_in_order_and_a_failure_names_its_job() -> None:
    jobs = [Job(f"job {x}", double, {"x": x}, 1) for x in range(3)]
    assert [result for result, _ in run_jobs("doubling", jobs, workers=2, progress=False)] == [0, 2, 4]
    with pytest.raises(TurnwiseError, match="the bad one: the reason"):
        run_jobs("failing", [jobs[0], Job("the bad one", fail, {}, 1)], workers=2, progress=False)
