"""`turnwise profile`: (1) the table says where the time went and fits a terminal of 80 columns; (2) with --steps, what it was
spent on; (3) bad input is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnwise.cli.main import main

Captured = pytest.CaptureFixture[str]


def test_where_the_time_went(trained: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["profile", str(trained), "--steps", "1", "--top", "5"]) == 0
    page = capsys.readouterr().out
    for part in (
        "rollout",
        "engine",
        "update",
        "saving",
        "other",
        "tokens sampled",
        "per second",
        "matrix products",
        "own s",
    ):
        assert part in page
    assert max(map(len, page.replace(str(trained), "RUN").splitlines())) <= 80


def test_wrong_profiles_are_explained(trained: Path, tmp_path: Path, capsys: Captured) -> None:
    def refused(*arguments: str) -> str:
        assert main(["profile", *arguments]) == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        return message

    assert "holds no run" in refused(str(tmp_path / "nowhere"))
    assert "steps are not negative" in refused(str(trained), "--steps", "-1")
    (trained / "metrics.jsonl").write_text("")
    assert "has not finished an iteration" in refused(str(trained))
    (trained / "metrics.jsonl").write_text("nonsense\n{}\n")
    assert "line 1 is damaged" in refused(str(trained))
