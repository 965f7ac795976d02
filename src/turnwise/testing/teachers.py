"""A conformance check for teachers, and a teacher who says what it was told to.

check_teacher(MyTeacher())            returns quietly, or says what broke and what to do about it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from turnwise.episode import Transcript
from turnwise.teachers import (
    Answer,
    Comparison,
    Demonstration,
    Preferred,
    Query,
    Rating,
    Segment,
    Teacher,
    TeacherError,
    ask,
)
from turnwise.testing.episodes import build_episode
from turnwise.testing.errors import CheckFailed


class ScriptedTeacher:
    """Gives the answers it was given, by the question's id, and skips every other question.

    Attributes:
        asked: All questions it was asked, in order.
    """

    def __init__(self, answers: Mapping[str, Preferred | float | Transcript | None]) -> None:
        self.answers = dict(answers)
        self.asked: list[Query] = []

    def __call__(self, queries: list[Query]) -> list[Answer]:
        """One answer per question, in order."""
        self.asked += queries
        return [Answer(query.id, self.answers.get(query.id)) for query in queries]


def example_queries() -> list[Query]:
    """A comparison without and with ties, of whole episodes and of stretches, a rating and a request to demonstrate."""
    good, bad = build_episode([0.0, 0.5, 1.0], seed=1), build_episode([0.0, 0.0], seed=2)
    return [
        Comparison("compare", Segment(good), Segment(bad)),
        Comparison("compare equals", Segment(bad), Segment(bad), ties=True),
        Comparison("compare stretches", Segment(good, 0, 2), Segment(good, 1, 3), ties=True),
        Rating("rate", Segment(good, 1), low=-1.0, high=2.0),
        Demonstration("show", "fake", 3),
    ]


def check_teacher(teacher: Teacher, queries: Sequence[Query] | None = None, *, deterministic: bool = True) -> None:
    """Check that a teacher keeps the contract of `turnwise.teachers.Teacher`.

    1. It answers every question, in order, under the question's id; None is an answer.
    2. Its answers are of the kind asked for: a tie only where ties are offered, a mark on the scale.
    3. No questions are answered with an empty list.
    4. What it says to a question does not depend on the order of the questions or on what else is asked.
    5. Asked again, it answers the same.

    Args:
        teacher: The teacher.
        queries: What to ask; by default `example_queries`.
        deterministic: Whether promises 4 and 5 hold; a person, or a model that samples, does not keep them.

    Raises:
        CheckFailed: the first promise that is broken.
    """
    asked = example_queries() if queries is None else list(queries)
    first, second = _ask(teacher, asked), _ask(teacher, asked)
    if len(_ask(teacher, [])):
        raise CheckFailed("the teacher answered although nothing was asked; return an empty list")
    if not deterministic:
        return
    turned = {answer.query: answer for answer in _ask(teacher, asked[::-1])}
    for query, answer, again in zip(asked, first, second, strict=True):
        if answer != again:
            raise CheckFailed(
                f"asked {query.id!r} twice, the teacher says {answer.value!r:.80} and {again.value!r:.80}; seed what is "
                "random, or pass deterministic=False"
            )
        (alone,) = _ask(teacher, [query])
        for other, when in ((turned[query.id], "in another order"), (alone, "alone")):
            if answer != other:
                raise CheckFailed(
                    f"the teacher says {answer.value!r:.80} to {query.id!r}, and asked {when} {other.value!r:.80}; draw "
                    "noise from a seed and the question's id"
                )


def _ask(teacher: Teacher, queries: Sequence[Query]) -> list[Answer]:
    try:
        return ask(teacher, queries)
    except TeacherError as error:
        raise CheckFailed(str(error)) from error
