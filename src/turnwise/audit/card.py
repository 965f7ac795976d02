"""The audit card: everything that was measured of a run, what was not and why, and what was refused.

A quantity whose fast controls do not all come out right on this machine is refused: the card then says which known answer
was missed in place of a figure. So is one whose measure raised, which is a mistake in the measure and named as such.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version

from turnwise.audit.catalogue import ControlResult, catalogue, checked, said
from turnwise.audit.evidence import Evidence, Level
from turnwise.audit.measure import Measurement, NotMeasurable
from turnwise.audit.quantity import Quantity, Section
from turnwise.audit.sentence import sentence
from turnwise.errors import TurnwiseError


@dataclass(frozen=True, slots=True)
class Refused:
    """What is printed in place of a figure that is not to be trusted.

    Attributes:
        name: Of what.
        why: The known answer that was missed, or what the measure raised.
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity on a card.

    Attributes:
        name: Of the quantity.
        title: For people.
        question: What it answers.
        section: Where on the card it stands.
        level: Least level of evidence that bears it.
        answer: The figure, or why there is none.
        seconds: How long measuring took.
    """

    name: str
    title: str
    question: str
    section: Section
    level: Level
    answer: Measurement | NotMeasurable | Refused
    seconds: float = 0.0


@dataclass(frozen=True)
class Card:
    """What an audit found.

    Attributes:
        subject: What was audited: a run folder, or a policy in an environment.
        about: What there was to look at, in lines.
        lines: One for each quantity, in the order of the card.
        controls: What came out where the answer is known, before anything was measured.
        seed: Of all random choices.
        plays: Episodes that a measure was allowed to play for each of its figures.
        notes: What could have been looked at and was not, and why, a line each; parts of a record that are damaged among it.
        version: The version of turnwise that measured.
    """

    subject: str
    about: tuple[str, ...]
    lines: tuple[Line, ...]
    controls: tuple[ControlResult, ...]
    seed: int = 0
    plays: int = 64
    notes: tuple[str, ...] = ()
    version: str = field(default_factory=lambda: version("turnwise"))

    @property
    def measured(self) -> dict[str, Measurement]:
        """The figures by name."""
        return {line.name: line.answer for line in self.lines if isinstance(line.answer, Measurement)}

    @property
    def missing(self) -> list[NotMeasurable]:
        """What could not be measured, under the titles that people read."""
        return [replace(x.answer, name=x.title) for x in self.lines if isinstance(x.answer, NotMeasurable)]

    @property
    def refused(self) -> list[Refused]:
        """What was refused, likewise."""
        return [replace(x.answer, name=x.title) for x in self.lines if isinstance(x.answer, Refused)]

    @property
    def sentence(self) -> str:
        """The figures in one or two sentences, by the rules of `turnwise.audit.sentence`."""
        return sentence(self.measured)

    @property
    def sections(self) -> list[tuple[Section, list[Line]]]:
        """The lines with a figure, by section, without empty sections."""
        found = [(s, [x for x in self.lines if x.section is s and x.name in self.measured]) for s in Section]
        return [(section, lines) for section, lines in found if lines]


def make_card(
    subject: str,
    evidence: Evidence,
    quantities: Sequence[Quantity] | None = None,
    *,
    notes: Sequence[str] = (),
    on_step: Callable[[str, int, int], None] | None = None,
) -> Card:
    """Measure everything that the evidence bears.

    Args:
        subject: What is audited, in words.
        evidence: What there is to look at.
        quantities: What to measure; the whole catalogue by default.
        notes: See `Card.notes`.
        on_step: Called before each quantity with its title, its place from 0, and how many there are; and at the end
            with an empty title.
    """
    chosen = catalogue() if quantities is None else quantities
    lines: list[Line] = []
    controls: list[ControlResult] = []
    for place, quantity in enumerate(chosen):
        if on_step is not None:
            on_step(quantity.title, place, len(chosen))
        began = time.perf_counter()
        answer = _ask(quantity, evidence)
        spent = time.perf_counter() - began
        # The known answers are sought only where something is going to be printed.
        if isinstance(answer, Measurement):
            results = checked(quantity)
            controls += results
            missed = next((result for result in results if not result.passed), None)
            if missed is not None:
                why = f"control {missed.control!r} measured {missed.found}, known {missed.known}"
                answer = Refused(quantity.name, why)
        lines.append(
            Line(quantity.name, quantity.title, quantity.question, quantity.section, quantity.level, answer, spent)
        )
    if on_step is not None:
        on_step("", len(chosen), len(chosen))
    return Card(
        subject, about(evidence), tuple(lines), tuple(controls), evidence.seed, evidence.plays, (*notes, *evidence.gaps)
    )


def _ask(quantity: Quantity, evidence: Evidence) -> Measurement | NotMeasurable | Refused:
    try:
        return quantity.measure(evidence)
    except TurnwiseError as error:
        # An environment that broke, or code of the user's that does not keep its contract; the message has the remedy.
        return Refused(quantity.name, str(error))
    except Exception as error:
        return Refused(quantity.name, f"the measure of {quantity.name} {said(error)}; this is a mistake in the measure")


def about(evidence: Evidence) -> tuple[str, ...]:
    """What there is to look at, in lines, from the lowest level of evidence to the highest."""
    found: list[str] = []
    if evidence.config is not None:
        found.append(f"{Level.L0.name} configuration")
    episodes = sum(len(iteration.trained) for iteration in evidence.iterations)
    if episodes:
        found.append(f"{Level.L1.name} {_count(episodes, 'episode')} of {_count(len(evidence.iterations), 'update')}")
    known = sum(iteration.version is not None for iteration in evidence.iterations)
    if known:
        found.append(f"{Level.L2.name} versions of the weights, of {_count(known, 'update')}")
    acting = [
        word
        for word, there in (
            ("policy", evidence.policy is not None),
            ("player", evidence.player is not None),
            ("environment", evidence.make_env is not None),
        )
        if there
    ]
    if acting:
        found.append(f"{Level.L3.name} {' and '.join(acting[:1] + acting[-1:]) if len(acting) > 1 else acting[0]}")
    exact = [
        word
        for word, there in (
            ("the policy before training", evidence.base is not None or evidence.other is not None),
            ("exact tables", evidence.tabular is not None),
        )
        if there
    ]
    if exact:
        found.append(f"{Level.L4.name} {' and '.join(exact)}")
    return tuple(found)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
