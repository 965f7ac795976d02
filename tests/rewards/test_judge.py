"""Judges: (1) opinions are read robustly, (2) who has none is asked again and then left out, (3) a judge who is of no use ends
the iteration before anything is trained, (4) a model's probabilities are those of its words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engines.chat_server import nobody, said, serving
from turnwise.engines import Endpoint, LocalChat
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError
from turnwise.models import Policy, Sampling, build_model, build_tokenizer
from turnwise.models.choices import choice_log_probs
from turnwise.rewards import RewardError, judged
from turnwise.rewards.judge import Judge, ModelJudge, parse_rating, parse_yes_no
from turnwise.testing import build_dialogue, check_reward
from turnwise.text import Conversation, Renderer
from turnwise.text.template import TemplateError

TOKENIZER = build_tokenizer(
    ["say something nice : good bad awful fine yes no Rating 0 1 2 3 4 5 6 7 8 9 user assistant"]
)
RENDERER = Renderer(TOKENIZER)


def episodes(*replies: str) -> list[Episode]:
    return [build_dialogue([("say something", text)], RENDERER, seed=i, group=text) for i, text in enumerate(replies)]


def judge(url: str, **changes: Any) -> Judge:
    return Judge(Endpoint(url, "m", backoff=0.005, retries=1, timeout=5.0), RENDERER, **changes)


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: 7", 0.7), ("7", 0.7), ("**Rating:** 10", 1.0), ("7/10", 0.7), ("I give it 3 out of 10.", 0.3), ("0", 0.0),
        ("Of 2 claims 1 is wrong. Score: 4.5", 0.45), ("<think>9 or 8?</think>Rating: 2", 0.2), ("rating is 6", 0.6),
        ("", None), ("great!", None), ("11", None), ("-3", None), ("Rating: 3 ... Rating: 5", None), ("3 or 4", None),
        ("<think>7", None), ("Rating: 700", None),
    ],
)  # fmt: skip
def test_ratings(text: str, rating: float | None) -> None:
    assert parse_rating(text) == (None if rating is None else pytest.approx(rating))


@pytest.mark.parametrize(
    ("text", "answer"),
    [("Yes.", 1.0), ("no", 0.0), ("**No**, it does not", 0.0), ("<think>yes</think>no", 0.0), ("yes and no", None), ("", None),
     ("nobody", None), ("<think>yes", None)],
)  # fmt: skip
def test_yes_and_no(text: str, answer: float | None) -> None:
    assert parse_yes_no(text) == answer


def test_the_rating_is_paid_at_the_last_turn_and_the_question_holds_it_all() -> None:
    def rate(text: str, number: int) -> Any:
        return said("Rating: 9" if "good" in text.partition("The answer to grade")[2] else "Rating: 1")

    two = build_dialogue([("say something", "bad"), ("nice :", "good")], RENDERER, seed=1)
    with serving(rate) as server:
        reward = judge(server.url, principle="be nice")
        first, second = reward([*episodes("bad"), two])
        check_reward(reward, [*episodes("bad", "good"), two])
    assert first.tolist() == [pytest.approx(0.1)]
    assert second.tolist() == [0.0, pytest.approx(0.9)]
    question = next(
        asked["messages"][0]["content"] for asked in server.asked if "bad\ngood" in asked["messages"][0]["content"]
    )
    assert "be nice" in question
    assert "say something" in question
    assert "{" not in question


def test_nonsense_is_asked_once_more_and_then_left_out(caplog: pytest.LogCaptureFixture) -> None:
    tries: dict[str, int] = {}

    def sometimes(text: str, number: int) -> Any:
        word = next(w for w in ("good", "fine", "awful") if w in text.partition("The answer to check")[2])
        tries[word] = tries.get(word, 0) + 1
        return said({"good": "yes", "fine": "hm" if tries[word] == 1 else "no", "awful": "hm"}[word])

    with serving(sometimes) as server:
        reward = judge(server.url, answers="yes-no")
        given = reward(episodes("good", "fine", "awful"))
        assert [float(array[-1]) for array in given[:2]] == [1.0, 0.0]
        assert math.isnan(given[2][-1])
        assert tries == {"good": 1, "fine": 2, "awful": 2}
        assert (reward.asked, reward.unscorable) == (5, 1)
        (_, _, paid) = judged(episodes("good", "fine", "awful"), {"judge": (1.0, reward)})
    assert "no usable opinion on 1 of 3 episodes" in caplog.text
    assert math.isnan(paid.turns[0].reward)
    assert paid.metrics == {"unscorable/judge": 1.0}


@pytest.mark.parametrize(
    ("answers", "asks"),
    [("rating", "one number from 0 to 10, and nothing else"), ("yes-no", "\n\nWrite nothing but yes or no.")],
)
def test_the_second_question_says_in_which_form(answers: Any, asks: str) -> None:
    """The same question again, at temperature 0, has the same answer; a request that was lost is asked again as it was."""

    def obedient(text: str, number: int) -> Any:
        if "bad" in text:
            return (400, b"lost", {}) if text not in before else said("Rating: 1" if answers == "rating" else "no")
        return (
            said("Rating: 5" if answers == "rating" else "yes")
            if asks in text[-200:] and text not in before
            else said("hm")
        )

    before: set[str] = set()
    with serving(lambda text, number: (obedient(text, number), before.add(text))[0]) as server:
        good, bad = judge(server.url, answers=answers)(episodes("good", "bad"))
    assert good[-1] == (0.5 if answers == "rating" else 1.0)
    assert bad[-1] == (0.1 if answers == "rating" else 0.0)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (said("I would rather not"), r"no usable opinion on 2 of 2 episodes.*rather not.*Nothing was trained"),
        ((500, b"broken", {}), r"gives no answer.*answers 500 every time.*Nothing was trained; resume"),
        ((200, b"<html>", {}), r"gives no answer.*not answer with a chat completion"),
    ],
)
def test_a_judge_of_no_use_ends_the_iteration(answer: Any, complaint: str) -> None:
    with serving(lambda text, number: answer) as server, pytest.raises(RewardError, match=complaint):
        judge(server.url)(episodes("good", "bad"))


def test_nobody_at_the_address() -> None:
    with pytest.raises(RewardError, match=r"nobody answers at http.*start the server there"):
        judge(nobody())(episodes("good"))


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("Mark {completion} {braces and all}.", encoding="utf-8")
    with serving(lambda text, number: said("5")) as server:
        judge(server.url, template=own)(episodes("good"))
    assert server.asked[0]["messages"][0]["content"] == "Mark good {braces and all}."
    for text, complaint in (("Mark it.", "where {completion} goes"), ("{completion} {promt}", r"the gap \{promt\}")):
        own.write_text(text, encoding="utf-8")
        with pytest.raises(TemplateError, match=complaint):
            judge("http://localhost/v1", template=own)
    with pytest.raises(TemplateError, match="cannot read the template"):
        judge("http://localhost/v1", template=tmp_path / "none.txt")
    with pytest.raises(RewardError, match="answers='stars'"):
        judge("http://localhost/v1", answers="stars")


def test_braces_in_an_answer_reach_nothing() -> None:
    tokenizer = build_tokenizer(["say {principle} { prompt } principle prompt"])
    renderer = Renderer(tokenizer)
    episode = build_dialogue([("say", "{ principle } {principle}")], renderer)
    with serving(lambda text, number: said("5")) as server:
        Judge(Endpoint(server.url, "m"), renderer, principle="SECRET")([episode])
    question = server.asked[0]["messages"][0]["content"]
    assert question.count("SECRET") == 1


# ---- a model in this process -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Policy:
    return Policy(build_model(TOKENIZER, seed=3), TOKENIZER, sampling=Sampling(temperature=0.3, top_k=2, max_tokens=4))


@pytest.fixture(scope="module")
def alone() -> Any:
    """The same model, not run by a policy."""
    return build_model(TOKENIZER, seed=3)


def test_choices_are_the_models_own_probabilities(model: Policy, alone: Any) -> None:
    conversations = [[{"role": "user", "content": text}] for text in ("say good", "say something nice : fine", "bad")]
    words = ("yes", "no", "good bad")
    for budget in (8, 10_000):
        found = choice_log_probs(model, conversations, words, max_tokens=budget)
        for row, messages in enumerate(conversations):
            context = model.renderer.first(Conversation(messages))
            for column, word in enumerate(words):
                ids = model.renderer.action_ids(word)[:-1]
                both = torch.tensor(np.concatenate([context, ids]))[None].long()
                with torch.no_grad():
                    logits = alone(both).logits[0].float()
                logp = logits.index_fill(-1, model.banned, -torch.inf).log_softmax(-1)
                expected = sum(float(logp[len(context) - 1 + k, int(ids[k])]) for k in range(len(ids)))
                assert found[row, column] == pytest.approx(expected, abs=1e-4)


def test_a_model_as_judge(model: Policy, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("say {completion}", encoding="utf-8")
    reward = ModelJudge(model, RENDERER, template=own)
    check_reward(reward, episodes("good", "awful"))
    (good,) = reward(episodes("good"))
    yes, no = choice_log_probs(model, [[{"role": "user", "content": "say good"}]], ("yes", "no"))[0]
    assert good[-1] == pytest.approx(math.exp(yes) / (math.exp(yes) + math.exp(no)))
    turned = ModelJudge(model, RENDERER, template=own, words=("no", "yes"))
    assert turned(episodes("good"))[0][-1] == pytest.approx(1 - good[-1])
    with pytest.raises(TurnwiseError, match="cannot tell 'aye', 'nay' apart"):
        ModelJudge(model, RENDERER, words=("aye", "nay"))


def test_a_model_that_cannot_read_it_all_says_so(model: Policy) -> None:
    long = build_dialogue([("say something", "good " * 3000)], RENDERER)
    with pytest.raises(RewardError, match=r"1 of 1 episodes: its context holds \d+ tokens"):
        ModelJudge(model, RENDERER)([long])
    (first, *rest) = ModelJudge(model, RENDERER)([long, *episodes("good", "bad")])
    assert math.isnan(first[-1])
    assert all(0 < array[-1] < 1 for array in rest)


def test_a_model_to_talk_to(model: Policy, alone: Any) -> None:
    chat = LocalChat(model, max_tokens=5)
    conversations = [[{"role": "user", "content": text}] for text in ("say good", "nice : bad", "say good")]
    answers = chat.complete_all(conversations)
    assert answers[0] == answers[2]
    assert chat.complete_all(conversations[:1]) == answers[:1]
    assert chat.complete_all([]) == []
    greedy = model.renderer.first("say good").tolist()
    with torch.no_grad():
        for _ in range(5):
            logits = alone(torch.tensor([greedy])).logits[0, -1]
            greedy.append(int(logits.index_fill(-1, model.banned, -torch.inf).argmax()))
            if greedy[-1] in model.renderer.stop:
                break
    assert answers[0] == model.renderer.action_text(np.array(greedy[len(model.renderer.first("say good")) :]))
    noisy = LocalChat(model, max_tokens=5, temperature=1.0, seed=1)
    assert noisy.complete_all(conversations) == noisy.complete_all(conversations)
    (failed,) = chat.complete_all([[{"role": "user", "content": "good " * 9000}]])
    assert isinstance(failed, TurnwiseError)
    assert "exceed the model" in str(failed)
