"""Reward functions of text: (1) they see what was said, (2) synchronous or not, (3) an episode's score falls on its last
turn, (4) None is NaN, (5) whatever else goes wrong names the function and the episode, (6) nothing hangs without a name."""

from __future__ import annotations

import asyncio
import functools
import math
import signal
import threading
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.episode import Episode
from turnwise.models import build_tokenizer
from turnwise.rewards import EpisodeJudge, RewardError, TurnJudge, judged
from turnwise.testing import build_dialogue, check_reward
from turnwise.text import Renderer

WORDS = ["what is 2 + 2 ?", "higher", "lower", "4", "go", "leave the room", "thank you"]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(build_tokenizer(WORDS))


@pytest.fixture
def episodes(renderer: Renderer) -> list[Episode]:
    return [
        build_dialogue([("what is 2 + 2 ?", "4")], renderer, seed=3, group="sum"),
        build_dialogue([("what is 2 + 2 ?", "9"), ("lower", "4"), ("lower", "go")], renderer, seed=8, group="long"),
    ]


def test_the_common_signature_sees_prompts_completions_ids_and_columns(
    renderer: Renderer, episodes: list[Episode]
) -> None:
    seen: dict[str, Any] = {}

    def correct(
        prompts: list[str], completions: list[str], completion_ids: list[list[int]], **columns: Any
    ) -> list[float]:
        seen.update(prompts=prompts, completions=completions, completion_ids=completion_ids, columns=columns)
        return [float(c.endswith(a)) for c, a in zip(completions, columns["answer"], strict=True)]

    paid = EpisodeJudge(correct, renderer, columns=lambda e: {"answer": "4", "seed": e.seed})(episodes)
    assert [array.tolist() for array in paid] == [[1.0], [0.0, 0.0, 0.0]]
    assert seen["prompts"] == ["what is 2 + 2 ?"] * 2
    assert seen["completions"] == ["4", "9\n4\ngo"]
    assert seen["completion_ids"] == [np.concatenate([t.act for t in e.turns]).tolist() for e in episodes]
    assert all(type(token) is int for ids in seen["completion_ids"] for token in ids)
    assert seen["columns"] == {"answer": ["4", "4"], "seed": [3, 8]}


def test_messages_are_the_dialogue_after_the_prompt(renderer: Renderer, episodes: list[Episode]) -> None:
    seen: list[Any] = []

    def read(prompts: Any, completions: Any) -> list[float]:
        seen.extend(zip(prompts, completions, strict=True))
        return [0.0] * len(prompts)

    EpisodeJudge(read, renderer, form="messages")(episodes)
    (prompt, completion) = seen[1]
    assert [(m["role"], m["content"]) for m in prompt] == [("user", "what is 2 + 2 ?")]
    assert [(m["role"], m["content"]) for m in completion] == [
        ("assistant", "9"),
        ("user", "lower"),
        ("assistant", "4"),
        ("user", "lower"),
        ("assistant", "go"),
    ]


async def patient(completions: list[str], **_: Any) -> list[float | None]:
    await asyncio.sleep(0.001)
    return [None if c == "4" else float(len(c.split())) for c in completions]


def test_async_functions_are_awaited_also_inside_a_running_loop(renderer: Renderer, episodes: list[Episode]) -> None:
    judge = EpisodeJudge(patient, renderer)
    check_reward(judge, episodes)
    outside = judge(episodes)

    async def notebook() -> list[np.ndarray]:
        return judge(episodes)

    inside = asyncio.run(notebook())
    for one, other in zip(outside, inside, strict=True):
        np.testing.assert_array_equal(one, other)
    assert math.isnan(outside[0][0])
    assert outside[1].tolist() == [0.0, 0.0, 3.0]


@pytest.mark.parametrize("answer", [[1, True], (1.0, 1.0), np.array([1.0, 1.0]), torch.tensor([1.0, 1.0])])
def test_any_sequence_of_numbers_is_an_answer(renderer: Renderer, episodes: list[Episode], answer: Any) -> None:
    assert [array[-1] for array in EpisodeJudge(lambda prompts: answer, renderer)(episodes)] == [1.0, 1.0]


def test_a_judge_of_turns_pays_every_turn(renderer: Renderer, episodes: list[Episode]) -> None:
    def obeys(observation: str, action: str) -> float | None:
        return None if observation == "lower" and action == "go" else float(action == "4")

    async def obeys_later(observation: str, action: str) -> float | None:
        await asyncio.sleep(0)
        return obeys(observation, action)

    for function in (obeys, obeys_later, functools.partial(obeys)):
        judge = TurnJudge(function, renderer)
        check_reward(judge, episodes)
        first, second = judge(episodes)
        assert first.tolist() == [1.0]
        assert second[:2].tolist() == [0.0, 1.0]
        assert math.isnan(second[2])


def test_a_judge_of_turns_limits_what_is_in_flight(renderer: Renderer, episodes: list[Episode]) -> None:
    flying, most = 0, 0

    async def slow(observation: str, action: str) -> float:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.005)
        flying -= 1
        return 0.0

    TurnJudge(slow, renderer, concurrency=2)(episodes * 3)
    assert most == 2
    with pytest.raises(RewardError, match="concurrency=0"):
        TurnJudge(slow, renderer, concurrency=0)


def raises(completions: list[str]) -> list[float]:
    return [1 / 0]


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (
            raises,
            r"'raises' raised ZeroDivisionError: .* \(.*test_functions\.py:\d+\), .*2 episodes.*first of them .*seed 3, group 'sum'",
        ),
        (lambda prompts: [1.0], r"1 scores for 2 completions"),
        (lambda prompts: 1.0, r"returned 1.0; return a list"),
        (lambda prompts: {"a": 1}, r"return a list"),
        (lambda prompts: "ab", r"return a list"),
        (lambda prompts: [1.0, "0.5"], r"returned '0.5' for .*seed 8, group 'long'"),
        (lambda prompts: [math.nan, 1.0], r"returned nan for .*seed 3.* or None"),
        (lambda prompts: [1.0, math.inf], r"returned inf for .*seed 8"),
        (lambda prompts: [1.0, [1.0, 2.0]], r"returned \[1.0, 2.0\] for .*seed 8"),
        (lambda prompts, gold: [1.0, 1.0], r"needs the argument 'gold'.*columns="),
    ],
)
def test_what_goes_wrong_names_function_and_episode(
    renderer: Renderer, episodes: list[Episode], function: Any, complaint: str
) -> None:
    with pytest.raises(RewardError, match=complaint) as caught:
        judged(episodes, {"judge": (1.0, EpisodeJudge(function, renderer))})
    assert "reward function" in str(caught.value)


def test_a_judge_of_turns_names_the_turn(renderer: Renderer, episodes: list[Episode]) -> None:
    def picky(observation: str, action: str) -> Any:
        return {"4": 1.0, "9": 1.0}[action]

    async def vague(observation: str, action: str) -> Any:
        return "good" if action == "go" else 0.0

    with pytest.raises(RewardError, match=r"'picky' raised KeyError: 'go', at turn 2 of .*seed 8"):
        TurnJudge(picky, renderer)(episodes)
    with pytest.raises(RewardError, match=r"'vague' returned 'good' for turn 2 of .*seed 8"):
        TurnJudge(vague, renderer)(episodes)


def test_columns_are_checked(renderer: Renderer, episodes: list[Episode]) -> None:
    with pytest.raises(RewardError, match="names 'prompts', which is filled in"):
        EpisodeJudge(patient, renderer, columns=lambda e: {"prompts": 1})(episodes)
    with pytest.raises(RewardError, match=r"names \[\] .*seed 8"):
        EpisodeJudge(patient, renderer, columns=lambda e: {"a": 1} if e.seed == 3 else {})(episodes)
    with pytest.raises(RewardError, match="form='chat'"):
        EpisodeJudge(patient, renderer, form="chat")  # type: ignore[arg-type]


def test_a_function_that_hangs_is_named_and_left_behind(renderer: Renderer, episodes: list[Episode]) -> None:
    released = threading.Event()

    def stuck(completions: list[str]) -> list[float]:
        released.wait(10)
        return []

    with pytest.raises(RewardError, match=r"'stuck' did not answer within its deadline of 0.05 s"):
        EpisodeJudge(stuck, renderer, deadline=0.05)(episodes)
    released.set()

    def impatient(completions: list[str]) -> list[float]:
        raise TimeoutError("its own")

    with pytest.raises(RewardError, match="'impatient' raised TimeoutError: its own"):
        EpisodeJudge(impatient, renderer)(episodes)


def test_nobody_to_ask_about(renderer: Renderer) -> None:
    assert EpisodeJudge(raises, renderer)([]) == []
    assert TurnJudge(lambda o, a: 1.0, renderer)([]) == []


def test_a_function_that_sets_alarms_is_called_where_it_can(renderer: Renderer, episodes: list[Episode]) -> None:
    def alarmed(completions: list[str]) -> list[float]:
        try:
            signal.signal(signal.SIGALRM, signal.signal(signal.SIGALRM, signal.SIG_IGN))
        except ValueError as error:
            raise ValueError("threads are not supported") from error
        return [float(len(c)) for c in completions]

    assert EpisodeJudge(alarmed, renderer)(episodes)[0].tolist() == [1.0]

    def wrong(completions: list[str]) -> list[float]:
        raise ValueError("something else")

    with pytest.raises(RewardError, match="'wrong' raised ValueError: something else"):
        EpisodeJudge(wrong, renderer)(episodes)
