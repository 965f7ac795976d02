"""Questions about behaviour and the answers to them.

Every question has an `id` of its own, by which its answer finds it again, however many teachers work at once and in
whatever order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from turnwise.episode import Episode, Transcript, Turn


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of an episode: turns `start` to `stop`, the latter excluded; all of them by default.

    Raises:
        ValueError: a stretch without turns, or one that leaves the episode.
    """

    episode: Episode
    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        n = len(self.episode.turns)
        end = n if self.stop is None else self.stop
        if not 0 <= self.start < end <= n:
            raise ValueError(
                f"turns {self.start} to {end} of an episode of {n} turns; a segment needs at least one turn"
            )

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns of the stretch."""
        return self.episode.turns[self.start : self.stop]

    @property
    def total(self) -> float:
        """Undiscounted sum of the rewards of the stretch."""
        return float(sum(turn.reward for turn in self.turns))


class Preferred(StrEnum):
    """Which of two is better."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Which of the two is better?

    Attributes:
        id: Name of the question.
        first: One of the two.
        second: The other.
        ties: "They are equally good" is an answer.
    """

    id: str
    first: Segment
    second: Segment
    ties: bool = False


@dataclass(frozen=True, slots=True)
class Rating:
    """How good is this, on a scale from `low` to `high`?

    Attributes:
        id: Name of the question.
        segment: What is rated.
        low: Worst mark.
        high: Best mark.
    """

    id: str
    segment: Segment
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a scale from {self.low} to {self.high} has no room; low must be below high")


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What would you do, from this start state?

    Attributes:
        id: Name of the question.
        env: Name of the environment.
        seed: Seed it is reset with.
    """

    id: str
    env: str
    seed: int


Query = Comparison | Rating | Demonstration
"""A question to a teacher."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a teacher said.

    Attributes:
        query: `id` of the question.
        value: `Preferred` for a comparison, a mark for a rating, a transcript for a demonstration; None for "I cannot
            say" (skipped, not shown, out of the teacher's competence).
    """

    query: str
    value: Preferred | float | Transcript | None
