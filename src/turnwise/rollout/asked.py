"""A source whose episodes are paid by what a teacher prefers."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import combinations
from math import isnan, nan

from turnwise.episode import UNSCORABLE, Episode
from turnwise.errors import TurnwiseError
from turnwise.rollout.judged import Rollouts, Wrapper
from turnwise.teachers import Comparison, Preferred, Segment, Teacher, ask

log = logging.getLogger(__name__)

_WORTH = {Preferred.FIRST: 1.0, Preferred.TIE: 0.5, Preferred.SECOND: 0.0}


class Asked(Wrapper):
    """Hands out the episodes of another source, paid by comparisons within their groups.

    The teacher is asked about every two episodes of a group, once per iteration and all at once. An episode's reward, at
    its last turn, is the share of its comparisons that it won, a tie counting one half: 1 and 0 for a group of two. It
    replaces what the source paid, which the teacher sees. An episode without an answer gets NaN, booked to nobody and
    counted under `UNSCORABLE` in its `metrics`: nobody could say. A warning says so if that is every one.

    Args:
        source: A collector, or stored episodes.
        teacher: Whom to ask.
        name: What the reward is booked under.
    """

    def __init__(self, source: Rollouts, teacher: Teacher, *, name: str = "teacher") -> None:
        super().__init__(source)
        self.teacher = teacher
        self.name = name

    def rollouts(self, iteration: int, groups: int, group_size: int = 1, first: int = 0) -> list[Episode]:
        """The source's episodes, compared.

        Raises:
            TeacherError: the teacher raised, or gave an answer that does not fit its question.
            TurnwiseError: every group has one episode, because no more were asked for.
        """
        episodes = self.source.rollouts(iteration, groups, group_size, first)
        members: dict[str, list[int]] = {}
        for index, episode in enumerate(episodes):
            if episode.turns and not episode.failed:
                members.setdefault(episode.group, []).append(index)
        asked = [
            (Comparison(f"{group}: {i} or {j}", Segment(episodes[a]), Segment(episodes[b]), ties=True), a, b)
            for group, own in members.items()
            for (i, a), (j, b) in combinations(enumerate(own), 2)
        ]
        if members and not asked and group_size == 1:
            raise TurnwiseError(
                "a teacher compares episodes of one start state, and this method samples one of each: use a method that "
                "samples groups, such as dpo or rloo, or a reward in place of the teacher"
            )
        won: dict[int, list[float]] = {}
        with self.booked():
            answers = ask(self.teacher, [query for query, _, _ in asked])
        for (_, a, b), answer in zip(asked, answers, strict=True):
            if isinstance(answer.value, Preferred):
                won.setdefault(a, []).append(_WORTH[answer.value])
                won.setdefault(b, []).append(1.0 - _WORTH[answer.value])
        if asked and not won:
            log.warning("the teacher answered none of %d comparisons; nothing can be learnt from them", len(asked))
        return [self._paid(episode, won.get(index, [])) for index, episode in enumerate(episodes)]

    def _paid(self, episode: Episode, won: list[float]) -> Episode:
        worth = sum(won) / len(won) if won else nan
        last = len(episode.turns) - 1
        pay = [worth if t == last else 0.0 for t in range(len(episode.turns))]
        turns = tuple(
            replace(turn, reward=reward, rewards={} if isnan(reward) else {self.name: reward})
            for turn, reward in zip(episode.turns, pay, strict=True)
        )
        metrics = dict(episode.metrics) if won else {**episode.metrics, f"{UNSCORABLE}{self.name}": 1.0}
        return replace(episode, turns=turns, metrics=metrics)
