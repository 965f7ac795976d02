"""`turnwise audit`: (1) a run's card is printed and written, (2) a policy is audited without a run, (3) cards stand side by side,
(4) known answers are printed and a wrong one fails the command, (5) whatever is missing or damaged is one message."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.refusals import Captured, refused
from turnwise.audit import Control, Evidence, Iteration, Level, Quantity, Section, catalogue, planted
from turnwise.audit.card_file import read_card
from turnwise.cli.main import main
from turnwise.testing import FixedMeasure


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of the quantities that only read records."""
    cheap = tuple(q for q in catalogue.catalogue() if q.level <= Level.L2)
    monkeypatch.setattr("turnwise.audit.catalogue.catalogue", lambda: cheap)
    monkeypatch.setattr("turnwise.audit.card.catalogue", lambda: cheap)


@pytest.mark.usefixtures("quick")
def test_a_card_is_printed_and_written(trained: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["audit", str(trained), "--plays", "2"]) == 0
    page = capsys.readouterr().out
    shown = [line for line in page.splitlines() if str(trained) not in line]
    assert max(map(len, shown)) <= 80
    for part in ("own samples", "L1 2 episodes of 1 update", "known answers right", "card.html"):
        assert part in page
    card = read_card(trained / "audit")
    assert card.subject == str(trained)
    assert "online/own_share" in card.measured
    assert not card.refused
    assert (trained / "audit" / "card.html").exists()


@pytest.mark.usefixtures("quick")
def test_a_run_without_its_model_is_its_records(trained: Path, capsys: Captured) -> None:
    shutil.rmtree(trained / "final")
    assert main(["audit", str(trained), "--out", str(trained / "here")]) == 0
    assert "no final model" in capsys.readouterr().out
    assert read_card(trained / "here").notes
    assert main(["audit", str(trained), "--records"]) == 0
    assert not read_card(trained / "audit").notes


@pytest.mark.usefixtures("quick")
def test_a_policy_needs_no_run(trained: Path, tmp_path: Path, capsys: Captured) -> None:
    alone = Path(shutil.copytree(trained / "final", tmp_path / "alone"))
    arguments = ["audit", "--policy", str(alone), "--env", "errand?max_turns=4", "--memory", "0", "--max-tokens", "3"]
    assert main([*arguments, "--base", str(trained), "--plays", "2", "--out", str(tmp_path / "card")]) == 0
    card = read_card(tmp_path / "card")
    assert card.about == ("L3 policy and environment", "L4 the policy before training and exact tables")
    assert "errand?max_turns=4" in capsys.readouterr().out.split()


@pytest.mark.usefixtures("quick")
def test_cards_stand_side_by_side(trained: Path, tmp_path: Path, capsys: Captured) -> None:
    other = Path(shutil.copytree(trained, tmp_path / "other"))
    arguments = ["audit", "--compare", str(trained), str(other), "--plays", "2", "--records"]
    assert main(arguments) == 0
    first = capsys.readouterr()
    assert "other" in first.out
    assert first.err.count("auditing") == 2
    assert "audit/comparison.html" in first.out
    # Cards that are there are read, as long as they are of the same request and younger than the run.
    assert main(arguments) == 0
    assert capsys.readouterr().err.count("the card that is there") == 2
    assert main([*arguments, "--seed", "1"]) == 0
    assert capsys.readouterr().err.count("auditing") == 2
    assert main(["audit", "--compare", str(trained / "audit" / "card.json"), str(other), "--seed", "1"]) == 0


def test_known_answers(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    good = Quantity("fake/a", "a title", "A.", Section.COST, FixedMeasure(), lambda: [], Level.L1)
    episodes = Evidence(iterations=(Iteration((planted([1.0]),), 0),))
    right = replace(good, controls=lambda: [Control("said so", episodes, 0.5), Control("nothing", Evidence(), None)])
    wrong = replace(right, name="fake/b", title="b title", controls=lambda: [Control("planted wrong", episodes, 0.75)])
    monkeypatch.setattr("turnwise.audit.catalogue.catalogue", lambda: (right,))
    assert main(["audit", "--controls"]) == 0
    page = capsys.readouterr().out
    assert "2 of 2 known answers right" in page
    monkeypatch.setattr("turnwise.audit.catalogue.catalogue", lambda: (right, wrong))
    assert main(["audit", "--controls"]) == 1
    page = capsys.readouterr().out
    for part in ("planted wrong", "0.75", "FAIL", "2 of 3 known answers right", "refused on every card: b title"):
        assert part in page


def test_wrong_requests_are_explained(trained: Path, tmp_path: Path, capsys: Captured) -> None:
    refused(["audit"], capsys, "nothing to audit", "--policy FOLDER")
    refused(["audit", str(trained), "--controls"], capsys, "RUN and --controls to audit")
    refused(["audit", str(trained), "--plays", "0"], capsys, "--plays 0")
    refused(["audit", str(trained), "--seed", "-1"], capsys, "--seed -1")
    refused(["audit", str(trained), "--base", "x"], capsys, "--base belongs to --policy")
    refused(["audit", str(trained), "--env", "errand", "--records"], capsys, "choose one")
    refused(["audit", str(trained), "--env", "erand"], capsys, "did you mean 'errand'?")
    refused(["audit", "--compare", str(trained)], capsys, "at least two runs")
    refused(["audit", str(tmp_path / "nowhere")], capsys, str(tmp_path / "nowhere"))
    refused(["audit", "--policy", str(trained), "--env", "erand"], capsys, "did you mean 'errand'?")
    refused(["audit", "--policy", str(tmp_path / "nowhere"), "--env", "errand"], capsys, "nowhere")


@pytest.mark.usefixtures("quick")
def test_damaged_records_are_explained(trained: Path, capsys: Captured) -> None:
    record = next((trained / "episodes").glob("*.parquet"))
    record.write_bytes(record.read_bytes()[:100])
    # What is left can still be looked at, and the card says what is missing.
    assert main(["audit", str(trained), "--records"]) == 0
    assert any(record.name in note for note in read_card(trained / "audit").notes)
    (trained / "config.json").write_text("{")
    refused(["audit", str(trained)], capsys, "config.json")


@pytest.mark.usefixtures("quick")
def test_a_damaged_or_newer_card_is_explained(trained: Path, capsys: Captured) -> None:
    assert main(["audit", str(trained), "--records"]) == 0
    file = trained / "audit" / "card.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "schema": 99}))
    refused(["audit", "--compare", str(file), str(file)], capsys, "schema 99")
    file.write_text("{")
    refused(["audit", "--compare", str(file), str(file)], capsys, "is not JSON")


def test_credit_of_a_file(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "def flat(rewards, groups):\n    return [np.full(len(r), r.sum()) for r in rewards]\n"
        "def here(rewards, groups):\n    return rewards\n"
        "def one(rewards, groups):\n    return [0.0 for r in rewards]\n"
        "def lonely(rewards):\n    return rewards\n"
    )
    out = ["--out", str(tmp_path / "card"), "--plays", "8"]
    assert main(["audit", "--advantages", f"{file}:flat", *out]) == 0
    card = read_card(tmp_path / "card")
    assert {line.section for line in card.lines} == {Section.CREDIT}
    # A sum that every turn gets goes to turns after the payment as well, and tells none apart.
    assert card.measured["credit/acausal_share"].value > 0.3
    assert card.measured["credit/within_episode"].value == pytest.approx(0.0, abs=1e-12)
    assert main(["audit", "--advantages", f"{file}:here", *out]) == 0
    assert read_card(tmp_path / "card").measured["credit/reach"].value == pytest.approx(0.0, abs=1e-9)
    refused(["audit", "--advantages", f"{file}:one", *out], capsys, "one number for episode 0")
    refused(["audit", "--advantages", f"{file}:lonely", *out], capsys, "cannot be called")
    refused(["audit", "--advantages", f"{tmp_path}/none.py:x", *out], capsys, "none.py")
