"""A teacher's preferences become rewards: 1 and 0 in a pair, shares of won comparisons in a larger group, NaN where nobody
could say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from turnwise.episode import Cut, Episode
from turnwise.errors import TurnwiseError
from turnwise.metrics import means
from turnwise.rollout import Asked
from turnwise.runs.statistics import episode_metrics
from turnwise.teachers import Answer, Preferred, Query, ReturnTeacher, TeacherError
from turnwise.testing import build_episode


class Given:
    """A source of the given episodes."""

    def __init__(self, episodes: list[Episode]) -> None:
        self.episodes = episodes
        self.refreshed: list[Any] = []
        self.closed = False

    def rollouts(self, iteration: int, groups: int, group_size: int = 1, first: int = 0) -> list[Episode]:
        return self.episodes

    def refresh(self, learner: Any) -> None:
        self.refreshed.append(learner)

    def close(self) -> None:
        self.closed = True


def paid(episodes: list[Episode], teacher: Any = None) -> list[float]:
    source = Asked(Given(episodes), teacher or ReturnTeacher(beta=math.inf))
    asked = source.rollouts(0, 1)
    for before, after in zip(episodes, asked, strict=True):
        assert all(not turn.reward for turn in after.turns[:-1])
        assert [turn.act.tolist() for turn in after.turns] == [turn.act.tolist() for turn in before.turns]
        scored = not math.isnan(after.undiscounted_return)
        assert list(after.turns[-1].rewards) == (["teacher"] if scored else [])
        assert after.metrics.get("unscorable/teacher", 0.0) == float(not scored)
    return [episode.undiscounted_return for episode in asked]


def test_a_pair_gets_one_and_zero_and_a_tie_one_half() -> None:
    episodes = [
        build_episode([0.0, 3.0], group="a"), build_episode([1.0], group="b"),
        build_episode([5.0, 0.0], group="a"), build_episode([1.0], group="b"),
    ]  # fmt: skip
    assert paid(episodes) == [0.0, 0.5, 1.0, 0.5]


def test_a_larger_group_gets_shares_of_comparisons() -> None:
    episodes = [build_episode([reward], group="a") for reward in (2.0, 7.0, 2.0, 0.0)]
    assert paid(episodes) == pytest.approx([0.5, 1.0, 0.5, 0.0])  # 1½, 3, 1½ and 0 of 3


def test_who_has_no_answer_gets_none(caplog: pytest.LogCaptureFixture) -> None:
    broken = build_episode([9.0], group="a", cut=Cut.CRASH)
    episodes = [
        build_episode([1.0], group="a"),
        build_episode([2.0], group="a"),
        broken,
        build_episode([1.0], group="b"),
    ]
    assert paid(episodes)[:2] == [0.0, 1.0]
    assert np.isnan(paid(episodes)[2:]).all()

    def silent(queries: Sequence[Query]) -> list[Answer]:
        return [Answer(query.id, None) for query in queries]

    assert not caplog.records
    assert np.isnan(paid(episodes, silent)).all()
    (record,) = caplog.records
    assert "answered none of 1 comparisons" in record.getMessage()
    rates = means(episode_metrics(Asked(Given(episodes), silent).rollouts(0, 1)))
    assert rates["rewards/teacher/unscorable"] == 3.0
    assert math.isnan(rates["rewards/teacher/mean"])


def test_all_questions_come_at_once_with_names_that_a_resumed_run_gives_again() -> None:
    calls: list[list[str]] = []

    def teacher(queries: list[Query]) -> list[Answer]:
        calls.append([query.id for query in queries])
        return [Answer(query.id, Preferred.FIRST) for query in queries]

    episodes = [build_episode([0.0], group=f"3/{i // 2}") for i in range(4)]
    paid(episodes, teacher)
    paid(episodes[:1] + episodes[2:] + episodes[1:2], teacher)
    assert calls[0] == calls[1] == ["3/0: 0 or 1", "3/1: 0 or 1"]


def test_a_teacher_that_breaks_is_named() -> None:
    with pytest.raises(TeacherError, match="gave 0 answers to 1 questions"):
        paid([build_episode([0.0], group="a"), build_episode([0.0], group="a")], lambda queries: [])


def test_single_episodes_cannot_be_compared() -> None:
    lone = Given([build_episode([0.0], group="a"), build_episode([1.0], group="b")])
    with pytest.raises(TurnwiseError, match="samples one of each: use a method that samples groups"):
        Asked(lone, ReturnTeacher()).rollouts(0, 2)
    assert np.isnan([episode.undiscounted_return for episode in Asked(lone, ReturnTeacher()).rollouts(0, 1, 2)]).all()


def test_the_source_is_kept_fresh_and_closed() -> None:
    inner = Given([])
    source = Asked(inner, ReturnTeacher())
    learner: Any = object()
    source.refresh(learner)
    source.close()
    assert inner.refreshed == [learner]
    assert inner.closed
