"""Cards: (1) a figure stands on a card only where its known answers came out right, (2) what has no figure has a reason,
(3) `card.json` holds everything, strictly, and comes back the same, (4) pages and terminals show text as text."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from turnwise.audit import (
    Control,
    Evidence,
    Iteration,
    Level,
    Measurement,
    NotMeasurable,
    Quantity,
    Section,
    Series,
    Trial,
    planted,
    speaker,
)
from turnwise.audit.card import Card, Refused, make_card
from turnwise.audit.card_file import SCHEMA, as_data, read_card
from turnwise.audit.card_page import write_card, write_comparison
from turnwise.audit.card_text import card_text, comparison_text, controls_text
from turnwise.audit.card_words import interval_text, value_text
from turnwise.audit.errors import AuditError
from turnwise.envs import make, spec
from turnwise.errors import TurnwiseError
from turnwise.testing import FixedMeasure

EVIDENCE = Evidence(config={}, iterations=(Iteration((planted([0.0, 1.0]), planted([1.0])), 0),), seed=3, plays=5)
RIGHT = Control("said so", EVIDENCE, 0.5)
CURVE = Series(
    "<b>reach", (0.0, 1.0, 2.0), (1.0, math.nan, 0.25), (0.9, -math.inf, 0.2), (1.1, math.inf, 0.3), "k", "C"
)


def quantity(
    measure: Any = None, *controls: Control, name: str = "fake/fixed", section: Section = Section.COST
) -> Quantity:
    known: list[Control | Trial] = [*controls] or [RIGHT]
    return Quantity(
        name, f"title of {name}", "What it is.", section, measure or FixedMeasure(name=name), lambda: known, Level.L1
    )


def measured(**changes: Any) -> Measurement:
    given: dict[str, Any] = {
        "name": "fake/curve", "value": 2.0, "interval": (-math.inf, math.inf), "n": 1, "how": "planted", "unit": "turns",
        "series": (CURVE,),
    }  # fmt: skip
    return Measurement(**{**given, **changes})


def card() -> Card:
    """One of everything."""

    def broken(evidence: Evidence) -> Measurement:
        raise ZeroDivisionError("division by zero")

    def world_broke(evidence: Evidence) -> Measurement:
        raise TurnwiseError("the environment broke in turn 3; mend it")

    return make_card(
        "runs/<script>alert(1)</script>",
        EVIDENCE,
        [
            quantity(),
            quantity(
                lambda e: measured(), Control("two turns", EVIDENCE, 2.0), name="fake/curve", section=Section.CREDIT
            ),
            quantity(None, RIGHT, Control("off", EVIDENCE, 0.75), name="fake/wrong"),
            quantity(broken, name="fake/broken"),
            quantity(world_broke, name="fake/world"),
            quantity(lambda e: NotMeasurable("fake/no", Level.L4, "there is no table"), name="fake/no"),
            quantity(lambda e: NotMeasurable("fake/nor", Level.L4, "there is no table"), name="fake/nor"),
        ],
        notes=["the policy does not play: its folder is gone"],
    )


def answers() -> dict[str, Any]:
    return {line.name: line.answer for line in card().lines}


def test_a_figure_needs_its_known_answers() -> None:
    found = answers()
    assert found["fake/fixed"].value == 0.5
    assert found["fake/wrong"] == Refused("fake/wrong", "control 'off' measured 0.5, known 0.75")


def test_a_measure_that_raises_costs_nobody_else() -> None:
    found = answers()
    assert "fake/broken raised ZeroDivisionError: division by zero" in found["fake/broken"].why
    assert "mistake in the measure" in found["fake/broken"].why
    # What the user can mend is said as it is.
    assert found["fake/world"].why == "the environment broke in turn 3; mend it"
    assert isinstance(found["fake/curve"], Measurement)


def test_controls_are_sought_once_in_a_process() -> None:
    asked: list[int] = []

    def counting() -> list[Any]:
        asked.append(1)
        return [RIGHT]

    one = replace(quantity(name="fake/once"), controls=counting)
    for _ in range(3):
        assert "fake/once" in make_card("x", EVIDENCE, [one]).measured
    assert len(asked) == 1
    # Where nothing is going to be printed, none is sought.
    silent = replace(one, name="fake/silent")
    make_card("x", Evidence(), [silent])
    assert len(asked) == 1


def test_steps_are_told() -> None:
    seen: list[tuple[str, int, int]] = []
    make_card("x", EVIDENCE, [quantity()], on_step=lambda *step: seen.append(step))
    assert seen == [("title of fake/fixed", 0, 1), ("", 1, 1)]


def test_what_there_was_to_look_at() -> None:
    assert card().about == ("L0 configuration", "L1 2 episodes of 1 update", "L2 versions of the weights, of 1 update")
    assert make_card("x", Evidence(), []).about == ()


# ---- card.json


def test_a_card_comes_back_the_same(tmp_path: Path) -> None:
    made = card()
    write_card(made, tmp_path)
    found = read_card(tmp_path)
    # NaN is unlike itself: the one in the curve is compared by hand.
    (curve,), (again,) = made.measured["fake/curve"].series, found.measured["fake/curve"].series
    assert math.isnan(again.y[1])
    assert (again.low, again.high, again.x) == (curve.low, curve.high, curve.x)
    assert as_data(found) == as_data(made)
    assert found.measured["fake/curve"].interval == (-math.inf, math.inf)
    assert found.controls == made.controls
    assert found.notes == made.notes


def test_figures_that_are_not_finite_are_null(tmp_path: Path) -> None:
    write_card(card(), tmp_path)

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    data = json.loads((tmp_path / "card.json").read_text(), parse_constant=refuse)
    line = next(line for line in data["quantities"] if line["name"] == "fake/curve")
    assert (line["low"], line["high"], line["series"][0]["y"][1]) == (None, None, None)
    assert data["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema=SCHEMA + 1, version="9.0"), "written by turnwise 9.0 in schema 2"),
        (lambda d: d.pop("schema"), "is not an audit card"),
        (lambda d: d.update(schema=True), "is not an audit card"),
        (lambda d: d.pop("quantities"), "KeyError 'quantities'"),
        (lambda d: d["quantities"][0].update(value=None), "is a damaged card"),
        (lambda d: d["quantities"][0].update(value="1"), "is no figure"),
        (lambda d: d["quantities"][0].update(n=0), "is no measurement"),
        (lambda d: d["quantities"][0].update(status="guessed"), "has the status 'guessed'"),
        (lambda d: d["quantities"][0].update(section="soul"), "'soul' is not a valid Section"),
        (lambda d: d["quantities"][0].update(title=3), "it has to be text"),
        (lambda d: d["controls"][0].pop("expected"), "KeyError 'expected'"),
    ],
)
def test_damaged_and_newer_cards_are_refused(change: Any, said: str, tmp_path: Path) -> None:
    data = as_data(card())
    change(data)
    (tmp_path / "card.json").write_text(json.dumps(data))
    with pytest.raises(AuditError) as refusal:
        read_card(tmp_path)
    assert said in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"card"', '{"schema": 1, "x": NaN}', "null"])
def test_what_is_no_card_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(AuditError, match="audit"):
        read_card(tmp_path / "card.json")
    with pytest.raises(AuditError, match="cannot read the card"):
        read_card(tmp_path / "nowhere.json")


# ---- for people


def printed(what: Any, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width, highlight=False, markup=False)
    console.print(what)
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_terminal_shows_everything_in_its_width(width: int) -> None:
    lines = printed(card_text(card(), width), width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for part in (
        "2.00 [−∞, ∞] 1 turns",
        "[−∞, ∞]",
        "0.500",
        "refused",
        "control 'off' measured 0.5, known 0.75",
        "needs L4",
        "note: ",
    ):
        assert part in text
    assert text.count("there is no table") == 1
    assert ("planted" in text) == (width >= 112)


@pytest.mark.parametrize(("width", "tables"), [(80, 3), (120, 2), (200, 1)])
def test_cards_side_by_side_break_where_the_width_ends(width: int, tables: int) -> None:
    cards = [card()] * 7
    lines = printed(comparison_text(cards, [f"run-{i}" for i in range(7)], width), width)
    assert max(map(len, lines)) <= width
    assert sum("title of fake/fixed" in line for line in lines) == tables
    assert "title of fake/no," in next(line for line in lines if "measured of none" in line)


def test_a_quantity_that_one_run_lacks_is_a_dash() -> None:
    other = make_card("x", Evidence(), [quantity()])
    lines = printed(comparison_text([card(), other], ["a", "b"], 80), 80)
    row = next(line for line in lines if "title of fake/fixed" in line)
    assert "0.500 n=2" in row
    assert row.rstrip().endswith("–")


def test_pages_show_text_as_text(tmp_path: Path) -> None:
    made = card()
    page = write_card(made, tmp_path).read_text()
    assert "<script>alert" not in page
    assert "&lt;b&gt;reach" in page
    for part in ("fake/broken", "there is no table", "What it is.", "planted", "two turns", "http-equiv"):
        assert part in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    both = write_comparison([made, made], ["one", "<i>two"], tmp_path / "both.html").read_text()
    assert "<i>two" not in both
    assert "refused" in both


def test_known_answers_in_a_table() -> None:
    made = card()
    text = "\n".join(printed(controls_text(made.controls, {}), 80))
    assert text.count("FAIL") == 1
    assert text.count("pass") == len(made.controls) - 1


def test_figures_in_words() -> None:
    assert value_text(measured(value=0.256, unit="share", interval=(0.0, 1.0))) == "26 %"
    assert value_text(measured(value=1234.0, unit="tokens")) == "1,234 tokens"
    assert interval_text(measured(interval=(-0.5, math.inf), unit="")) == "[−0.500, ∞]"


def test_a_policy_that_never_says_an_action_of_the_world() -> None:
    env = spec("vault")
    silent = Evidence(
        config={}, player=speaker(lambda *_: "banana"), make_env=lambda: make("vault"), tabular=env.exact(), plays=8
    )
    card = make_card("silent", silent)
    assert not [line.name for line in card.lines if isinstance(line.answer, Refused)]
    # It can be seen to do nothing; nothing is said of how far it looks.
    assert "revealed horizon" in {missing.name for missing in card.missing}
    assert all(math.isfinite(found.value) for found in card.measured.values())
    assert card.measured["goal/success"].value == 0.0
