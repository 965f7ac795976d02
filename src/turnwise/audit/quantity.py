"""What a card can say: one quantity each, with the measure that finds it and the known answers that the measure must hit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from turnwise.audit.controls import Control, Trial
from turnwise.audit.evidence import Level
from turnwise.audit.measure import Measure


class Section(StrEnum):
    """Part of a card, in the order of the page."""

    HORIZONS = "horizons"
    ONLINE = "online-ness"
    WORLD = "world"
    REWARD = "reward signal"
    CREDIT = "credit"
    FEEDBACK = "feedback bill"
    GOAL = "goal"
    CONDITIONS = "conditional behaviour"
    REASONING = "reasoning"
    COST = "cost"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One line of a card.

    Attributes:
        name: As its measure calls it, ``section/what``.
        title: For people, a few words.
        question: What it answers, in one sentence, with the definition and where it comes from.
        section: Where on the card it stands.
        measure: Finds it.
        controls: Makes the known answers.
        level: Least level of evidence that bears it.
    """

    name: str
    title: str
    question: str
    section: Section
    measure: Measure
    controls: Callable[[], list[Control | Trial]]
    level: Level
