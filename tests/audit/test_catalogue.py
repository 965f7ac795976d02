"""The catalogue: (1) it holds every quantity that a module of the package exports, once, in the order of a card, (2) known
answers are put to the test, and whatever a measure or a control raises is a failure with a name."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest

from turnwise import audit
from turnwise.audit import Control, Evidence, Iteration, Level, NotMeasurable, Quantity, Section, Trial, planted
from turnwise.audit import catalogue as module
from turnwise.audit.catalogue import ControlResult, catalogue, run_controls
from turnwise.testing import FixedMeasure

EPISODES = Evidence(iterations=(Iteration((planted([0.0, 1.0]), planted([1.0])), 0),))


def quantity(measure: object, controls: list[Control | Trial], name: str = "fake/fixed") -> Quantity:
    return Quantity(name, "fixed", "What was said.", Section.COST, measure, lambda: controls, Level.L1)  # type: ignore[arg-type]


def test_every_module_with_quantities_is_in_the_catalogue() -> None:
    exporting = {
        found.name
        for found in pkgutil.iter_modules(audit.__path__)
        if hasattr(import_module(f"turnwise.audit.{found.name}"), "QUANTITIES")
    }
    assert exporting == set(module.MODULES)


def test_a_name_is_one_quantity_and_sections_are_in_order() -> None:
    found = catalogue()
    names = [q.name for q in found]
    assert len(set(names)) == len(names)
    places = [list(Section).index(q.section) for q in found]
    assert places == sorted(places)


@pytest.mark.parametrize("one", catalogue(), ids=lambda q: q.name)
def test_quantities_speak_for_themselves(one: Quantity) -> None:
    """A quantity has a short title, a definition, its name on what it returns, and a reason where there is no evidence."""
    assert 0 < len(one.title) <= 48
    # Titles stand in running text.
    assert one.title[0].islower()
    assert one.question.endswith((".", "?", ")"))
    answer = one.measure(Evidence())
    assert isinstance(answer, NotMeasurable)
    assert answer.name == one.name
    assert answer.why


def test_names_that_are_there_twice_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODULES", (*module.MODULES, module.MODULES[0]))
    catalogue.cache_clear()
    try:
        with pytest.raises(ValueError, match="are there twice"):
            catalogue()
    finally:
        catalogue.cache_clear()


def test_known_answers_are_put_to_the_test() -> None:
    controls = [
        Control("half", EPISODES, 0.5),
        Control("less than that", EPISODES, 0.4, tolerance=0.2, side="at most"),
        Control("wrong", EPISODES, 0.75),
        Control("nothing", Evidence(), None),
        Control("declined where there is a figure", Evidence(), 0.5),
        Trial("quick", lambda: 0.9, 0.95, side="at least", tolerance=0.1),
        Trial("slow", lambda: 1.0, 1.0, slow=True),
    ]
    seen: list[tuple[str, int, int]] = []

    def note(result: ControlResult, done: int, total: int) -> None:
        seen.append((result.control, done, total))

    quick = run_controls([quantity(FixedMeasure(), controls)], slow=False, on_result=note)
    assert [result.passed for result in quick] == [True, True, False, True, False, True]
    assert [result.measured for result in quick] == [0.5, 0.5, 0.5, None, None, 0.9]
    assert seen == [(result.control, i, 6) for i, result in enumerate(quick, start=1)]
    assert quick[1].known == "at most 0.4 ± 0.2"
    assert quick[3].known == quick[3].found == "not measurable"
    every = run_controls([quantity(FixedMeasure(), controls)], slow=True)
    assert [result.control for result in every][-1] == "slow"


def test_what_is_raised_is_a_failure_with_a_name() -> None:
    def raises(evidence: Evidence) -> NotMeasurable:
        raise KeyError("turns\nof a line")

    def unmade() -> list[Control | Trial]:
        raise OSError("no such world")

    one = run_controls([quantity(raises, [Control("anything", EPISODES, 0.5)])], slow=True)
    assert (one[0].passed, one[0].found) == (False, "raised KeyError: 'turns\\nof a line'")
    # A measure that raises does not pass by declining.
    two = run_controls([quantity(raises, [Control("nothing", Evidence(), None)])], slow=True)
    assert not two[0].passed
    broken = Quantity("fake/x", "x", "X.", Section.COST, FixedMeasure(), unmade, Level.L1)
    assert run_controls([broken], slow=False)[0].error == "raised OSError: no such world"
    assert not run_controls([quantity(FixedMeasure(), [])], slow=False)[0].passed
