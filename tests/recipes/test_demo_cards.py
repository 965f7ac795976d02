"""Cards of a demonstration: they are part of the whole card, land in the runs' folders, and stand side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnwise.audit.card import Refused
from turnwise.audit.card_file import read_card
from turnwise.audit.catalogue import catalogue
from turnwise.cli.main import main
from turnwise.recipes import demo_cards
from turnwise.runs.page import write_page


def test_shown_quantities_are_in_the_catalogue() -> None:
    assert set(demo_cards.SHOWN) <= {quantity.name for quantity in catalogue()}


def test_cards_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env = "errand?max_turns=4"
    train = ["train", "reinforce", "--env", env, "--memory", "0", "--max-tokens", "3", "--steps", "1", "--threads", "1"]
    run = tmp_path / "run"
    assert main([*train, "--quiet", "--groups", "1", "--group-size", "2", "--out", str(run)]) == 0
    monkeypatch.setattr(demo_cards, "PLAYS", 4)
    ticks: list[int] = []
    found = read_card(demo_cards.card(str(run), "errand?max_turns=3", lambda: ticks.append(1)))
    assert ticks == [1]
    assert not any(isinstance(line.answer, Refused) for line in found.lines)
    # Its own record, and its policy in the world that was named.
    assert found.measured["world/interaction_depth"].value == pytest.approx(3.0)
    assert "goal/return_ratio" in found.measured
    assert any("played in errand?max_turns=3" in note for note in found.notes)
    capsys.readouterr()
    both = {"one": found, "two": found}
    demo_cards.show(both)
    assert "return ratio" in capsys.readouterr().out
    page = write_page("cards", demo_cards.sections(both, {"one": run, "two": run}, tmp_path), tmp_path / "page.html")
    assert 'href="run/audit/card.html"' in page.read_text()
