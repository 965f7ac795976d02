"""Revisions and judged replies from one source: (1) `distil` keeps first observation and last action verbatim, (2) a reviewer appends
a dialogue that reads as it should and keeps sampled ids, (3) dialogues that broke off teach nothing, (4) rewards and teachers by
principles, (5) a model as a writer, and what happens when it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from turnwise.engines.base import EngineError
from turnwise.envs.constitution import ConstitutionEnv
from turnwise.envs.prompts import PromptEnv
from turnwise.episode import Cut, Episode, Source, Stop
from turnwise.errors import TurnwiseError
from turnwise.models import Policy, Sampling, build_model, build_tokenizer
from turnwise.rewards.principles import PrincipleReward
from turnwise.rollout import Collector
from turnwise.rollout.constitution import Constitution, by_chat, distil, reviewer
from turnwise.teachers import Comparison, Preferred, Query, Rating, Segment, ask
from turnwise.teachers.judge import JudgeTeacher
from turnwise.teachers.principles import PrincipleTeacher, by_question
from turnwise.testing import build_dialogue, check_reward, check_teacher
from turnwise.text import Reader
from turnwise.text.principles import PrincipleError, parse_principles
from turnwise.text.procedure import Procedure, by_rule

PRINCIPLES = parse_principles("No weather. [forbids: rain|sun => moon]\nNo food. [forbids: soup]\nBe kind.")
PROCEDURE = Procedure("criticise by {principle}", "mend by {principle}")
TOKENIZER = build_tokenizer(
    ["hi say sun rain soup moon well keeps goes against the reply principle it says criticise mend by no"]
)
POLICY = Policy(build_model(TOKENIZER, seed=1, context=256), TOKENIZER, sampling=Sampling(max_tokens=4))
RENDERER = POLICY.renderer


def spoken(*replies: str, seed: int = 0, group: str = "g") -> Episode:
    exchanges = [(("hi" if i == 0 else "mend"), reply) for i, reply in enumerate(replies)]
    return build_dialogue(exchanges, RENDERER, group=group, seed=seed)


def test_distil_keeps_the_first_observation_and_the_last_action() -> None:
    made = spoken("sun", "well", "moon")
    (episode,) = distil([made])
    (turn,) = episode.turns
    assert np.array_equal(turn.obs, made.turns[0].obs)
    assert np.array_equal(turn.act, made.turns[-1].act)
    assert turn.act is made.turns[-1].act
    assert turn.fresh
    assert not turn.logp.any()
    assert episode.source is Source.TEACHER


def test_dialogues_without_a_revision_teach_nothing() -> None:
    cut = replace(spoken("sun", "well"), terminated=False, truncated=True, cut=Cut.LENGTH)
    endless = spoken("sun", "well", "moon")
    endless = replace(endless, turns=(*endless.turns[:-1], replace(endless.turns[-1], stop=Stop.LENGTH)))
    assert distil([spoken("sun"), cut, endless]) == []


def test_a_reviewer_mends_by_rule() -> None:
    episodes = [spoken("sun soup", seed=s) for s in range(6)] + [spoken("well", seed=9)]
    revised = reviewer(PRINCIPLES, by_rule, RENDERER, procedure=PROCEDURE, rounds=3)(episodes)
    reader = Reader(RENDERER)
    for before, after in zip(episodes, revised, strict=True):
        assert len(after.turns) == 7
        assert after.source is Source.TEACHER
        assert after.terminated
        for step in range(3):
            assert reader.observation(after, 2 * step + 1).startswith("criticise by")
            assert reader.observation(after, 2 * step + 2).startswith("mend by")
        assert reader.action(after, -1) == ("moon" if before.seed < 9 else "well")
        assert after.turns[0] is before.turns[0]
    assert revised[-1].turns[-1].act is episodes[-1].turns[0].act  # nothing to mend: the sampled ids stay
    again = distil(revised)
    assert all(np.array_equal(episode.turns[0].obs, RENDERER.first("hi")) for episode in again)
    assert np.array_equal(again[0].turns[0].act, RENDERER.action_ids("moon"))


def test_who_writes_nothing_revises_nothing() -> None:
    def silent(requests: list[Any]) -> list[str]:
        return ["" for _ in requests]

    cut = replace(spoken("sun"), terminated=False, truncated=True, cut=Cut.LENGTH)
    episodes = [spoken("sun"), cut]
    assert reviewer(PRINCIPLES, silent, RENDERER)(episodes) == episodes
    assert reviewer(PRINCIPLES, by_rule, RENDERER)([cut]) == [cut]
    endless = replace(episodes[0], turns=(replace(episodes[0].turns[0], stop=Stop.LENGTH),))
    assert reviewer(PRINCIPLES, by_rule, RENDERER)([endless]) == [endless]
    with pytest.raises(TurnwiseError, match="has 2 turns"):
        reviewer(PRINCIPLES, by_rule, RENDERER)([spoken("sun", "rain")])
    with pytest.raises(TurnwiseError, match="at least one of each"):
        reviewer(PRINCIPLES, by_rule, RENDERER, rounds=0)


def test_a_second_round_that_fails_takes_back_the_first() -> None:
    calls: list[int] = []

    def tires(requests: list[Any]) -> Sequence[str]:
        calls.append(len(requests))
        return by_rule(requests) if len(calls) < 3 else ["" for _ in requests]

    episodes = [spoken("sun")]
    assert reviewer(PRINCIPLES, tires, RENDERER, rounds=2)(episodes) == episodes


class Answers:
    """A chat that answers by a function of the last message, or fails."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.heard: list[list[dict[str, str]]] = []

    def complete_all(self, conversations: Any) -> list[Any]:
        self.heard += [list(conversation) for conversation in conversations]
        return [self.answer(i, conversation) for i, conversation in enumerate(conversations)]


def test_a_model_writes() -> None:
    def answer(i: int, messages: Any) -> Any:
        return EngineError("down") if i == 1 and messages[-1]["content"].startswith("criticise") else "well"

    chat = Answers(answer)
    revised = reviewer(PRINCIPLES, by_chat(chat), RENDERER, procedure=PROCEDURE)(
        [spoken("sun"), spoken("rain"), spoken("soup")]
    )
    assert [len(episode.turns) for episode in revised] == [3, 1, 3]
    assert chat.heard[0][0] == {"role": "user", "content": "hi"}
    assert chat.heard[0][1] == {"role": "assistant", "content": "sun"}
    assert chat.heard[0][2]["content"].startswith("criticise by ")
    assert len(chat.heard) == 5  # nobody is asked to revise by a critique that never came
    dead = Answers(lambda i, messages: EngineError("nobody there"))
    with pytest.raises(EngineError, match="nobody there"):
        reviewer(PRINCIPLES, by_chat(dead), RENDERER)([spoken("sun")])


def test_rewards_by_principles() -> None:
    pays = PrincipleReward(PRINCIPLES, RENDERER)
    given = pays([spoken("sun soup"), spoken("well", "rain")])
    assert [array.tolist() for array in given] == [[-2.0], [0.0, -1.0]]
    check_reward(pays, [spoken("sun soup"), spoken("well", "rain")])
    with pytest.raises(PrincipleError, match="checkable"):
        PrincipleReward(parse_principles("Be kind."), RENDERER)


def test_a_teacher_by_rule() -> None:
    teacher = PrincipleTeacher(PRINCIPLES, RENDERER)
    check_teacher(teacher)
    good, bad, worse = (Segment(spoken(text)) for text in ("well", "sun", "soup sun"))
    queries: list[Query] = [
        Comparison("1", good, bad),
        Comparison("2", worse, bad),
        Comparison("3", bad, bad, ties=True),
        Comparison("4", bad, bad),
        Rating("5", bad, 0.0, 10.0),
    ]
    assert [answer.value for answer in ask(teacher, queries)] == [
        Preferred.FIRST, Preferred.SECOND, Preferred.TIE, None, 5.0,
    ]  # fmt: skip


def test_a_principle_is_drawn_for_each_question() -> None:
    def answer(i: int, messages: Any) -> str:
        """What keeps to the principle that the question names, wherever it stands."""
        asked = messages[0]["content"]
        first_is_soup = asked.index("soup") < asked.index("rain")
        if "No food." in asked:
            return "B" if first_is_soup else "A"
        return "A" if first_is_soup else "B"

    chat = Answers(answer)
    queries = [Comparison(f"q{i}", Segment(spoken("soup")), Segment(spoken("rain"))) for i in range(40)]
    teacher = JudgeTeacher(chat, RENDERER, principle=by_question(PRINCIPLES))
    given = [answer.value for answer in ask(teacher, queries)]
    words = [by_question(PRINCIPLES)(query.id) for query in queries]
    assert set(words) == {principle.text for principle in PRINCIPLES}
    assert given == [Preferred.SECOND if word == "No food." else Preferred.FIRST for word in words]
    assert given == [answer.value for answer in ask(teacher, queries[::-1])][::-1]
    assert len(chat.heard) == 160


@pytest.mark.parametrize("who", ["policy", "rule"])
def test_one_source_of_both_worlds(who: str) -> None:
    options: Any = {"slots": 8, "where": "inline", "on_length": "act", "seed": 3}
    replies = Collector(partial(PromptEnv, ["hi", "say"], lambda *_: 0.0), POLICY, **options)
    make = partial(ConstitutionEnv, ["hi", "say"], PRINCIPLES, PROCEDURE)
    revise = Collector(make, POLICY, **options) if who == "policy" else reviewer(PRINCIPLES, by_rule, RENDERER)
    source = Constitution(replies, revise, {"principles": (1.0, PrincipleReward(PRINCIPLES, RENDERER))})
    dialogues = source.revisions(0, 24)
    for episode in dialogues:
        revised = who == "policy" or episode.turns[0].stop is Stop.STOP
        assert len(episode.turns) == (3 if revised else 1)
        assert episode.source is (Source.TEACHER if who == "rule" and revised else Source.POLICY)
    finished = [e for e in dialogues if len(e.turns) == 3 and e.turns[-1].stop is Stop.STOP]
    assert len(distil(dialogues)) == len(finished) > 0
    assert [e.turns[-1].act.tolist() for e in source.revisions(0, 24)] == [e.turns[-1].act.tolist() for e in dialogues]
    groups = source.rollouts(1, 3, 2)
    assert len(groups) == 6
    assert all(set(episode.turns[0].rewards) == {"principles"} for episode in groups)
    assert all(turn.stop in Stop for episode in groups for turn in episode.turns)
    source.close()
