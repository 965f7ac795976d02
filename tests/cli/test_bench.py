"""``turnwise bench`` on the command line: what it refuses, and that its results can be rendered again."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.test_speed import scripted
from turnwise.cli.main import main
from turnwise.recipes.speed import run


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["bench", *arguments]) == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return " ".join(told.err.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gropo"], "there is no workload 'gropo'; did you mean 'grpo'?; the workloads are grpo, turns"),
        (["--sizes", "S,XL"], "--sizes S,XL: sizes are XS, S, M, L"),
        (["--threads", "one"], "--threads one: it wants whole numbers above 0"),
        (["--threads", "0"], "--threads 0: it wants whole numbers above 0"),
        (["--dtypes", "fp16"], "--dtypes fp16: dtypes are fp32 and bf16"),
        (["--pairs", "0"], "--pairs 0 --minutes 20: both are more than 0"),
        (["--render", "nowhere"], "nowhere holds no results.json"),
    ],
)
def test_nonsense_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert words in refused(capsys, *arguments)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "is there already and is not empty" in refused(capsys, "--ours-only", "--out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_is_missing_can_be_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    told = refused(capsys, "--out", str(tmp_path / "bench"))
    assert "TRL, which is not installed; install it (python -m pip install 'trl==1.16.*')" in told
    assert "--ours-only" in told
    monkeypatch.setattr(metadata, "version", lambda name: "1.17.0")
    assert "TRL 1.17.0 is installed, and the other side is written for 1.16" in refused(capsys)
    assert not (tmp_path / "bench").exists()


def test_another_layout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text('{"schema": 0}')
    assert "is not a benchmark of layout 1" in refused(capsys, "--render", str(tmp_path))
    (tmp_path / "results.json").write_text("{")
    assert "is not JSON" in refused(capsys, "--render", str(tmp_path))


def test_the_workloads_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "list"]) == 0
    assert "reward-model" in capsys.readouterr().out


def test_results_are_written_and_rendered_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def launcher(log: Path, old: Path) -> Any:
        asked.append(old)
        return scripted([])

    monkeypatch.setattr(run, "launcher", launcher)
    out = tmp_path / "bench"
    chosen = ["sft", "ppo", "--sizes", "s", "--pairs", "3", "--device", "cpu", "--old-trl", "elsewhere"]
    assert main(["bench", *chosen, "--ours-only", "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "results.md" in told.out
    assert "[2/2] ppo S, 1 thread" in told.err
    assert asked == [Path("elsewhere")]
    results = json.loads((out / "results.json").read_text())
    assert results["settings"]["workloads"] == ["sft", "ppo"]
    assert [len(data["sides"]["ours fp32"]["seconds"]) for data in results["measurements"]] == [3, 3]
    assert main(["bench", "--render", str(out)]) == 0
    assert capsys.readouterr().out == (out / "results.md").read_text()


def test_the_quick_form_measures_few_cases_of_the_smallest_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "launcher", lambda log, old: scripted([]))
    out = tmp_path / "bench"
    assert main(["bench", "grpo", "ppo", "--quick", "--ours-only", "--device", "cpu", "--out", str(out)]) == 0
    measured = json.loads((out / "results.json").read_text())["measurements"]
    assert [(data["case"]["workload"], data["case"]["size"]) for data in measured] == [("grpo", "XS")]
