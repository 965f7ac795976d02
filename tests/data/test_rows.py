"""Rows: (1) the kind is told by the columns, (2) every kind gives its prompt and answers, in plain text and in messages,
(3) a prompt that is not given is what both answers begin with, (4) columns can be renamed, (5) cells of a CSV file say the
same things."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.data import Answer, DataError, Kind, Row, load
from turnwise.data.rows import read_row, recognise, shared_beginning
from turnwise.text import Conversation


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def one(record: dict[str, Any], **options: Any) -> Row:
    (row,) = load([record], **options).rows
    return row


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ("prompt", "prompt-only"),
        ("prompt answer", "prompt-only"),
        ("prompt completion", "prompt-completion"),
        ("messages", "messages"),
        ("text", "text"),
        ("prompt chosen rejected", "preference"),
        ("chosen rejected", "preference"),
        ("prompt messages chosen rejected score_chosen", "preference"),
        ("prompt completion label", "unpaired-preference"),
        ("prompt completions labels", "stepwise"),
        ("question answer", None),
        ("chosen", None),
        ("", None),
    ],
)
def test_columns_tell_the_kind(columns: str, kind: str | None) -> None:
    assert recognise(columns.split()) == kind


def test_a_prompt_alone() -> None:
    assert one({"prompt": "2 + 2"}) == Row(1, "2 + 2")
    row = one({"prompt": [system("be brief"), user("2 + 2")], "answer": 4})
    assert isinstance(row.prompt, Conversation)
    assert row.prompt.messages == (system("be brief"), user("2 + 2"))
    assert (row.answers, row.columns) == ((), {"answer": 4})


def test_a_prompt_and_its_completion() -> None:
    assert one({"prompt": "2 + 2 =", "completion": " 4"}).answers == (Answer((" 4",)),)
    talk = one({"prompt": [user("hi")], "completion": [assistant("hello"), user("bye"), assistant("farewell")]})
    assert talk.prompt == "hi"
    assert talk.answers == (Answer(("hello", "farewell"), ("bye",), (0.0, 0.0)),)


def test_messages_are_one_turn_for_each_answer() -> None:
    said = [system("be brief"), user("a"), assistant("b"), user("c"), assistant("d")]
    row = one({"messages": said})
    assert row.prompt == Conversation(said[:2])
    assert row.answers == (Answer(("b", "d"), ("c",), (0.0, 0.0)),)


def test_a_text_answers_nothing() -> None:
    assert one({"text": "once upon a time"}) == Row(1, "", (Answer(("once upon a time",)),))


def test_a_preference_is_two_answers() -> None:
    row = one({"prompt": "sky?", "chosen": "blue", "rejected": "green", "source": "me"})
    assert row == Row(1, "sky?", (Answer(("blue",), (), (1.0,)), Answer(("green",), (), (0.0,))), {"source": "me"})
    margin = one({"prompt": "sky?", "chosen": "blue", "rejected": "green", "margin": 2.5})
    assert [answer.rewards for answer in margin.answers] == [(2.5,), (0.0,)]
    assert "margin" not in margin.columns
    several = one(
        {"prompt": [user("a")], "chosen": [assistant("b"), user("c"), assistant("d")], "rejected": [assistant("e")]}
    )
    assert several.answers == (Answer(("b", "d"), ("c",), (0.0, 1.0)), Answer(("e",), (), (0.0,)))


def test_an_implicit_prompt_of_messages_is_what_both_begin_with() -> None:
    begin = [system("s"), user("a"), assistant("b"), user("c")]
    implicit = one({"chosen": [*begin, assistant("d")], "rejected": [*begin, assistant("e")]})
    assert implicit.prompt == Conversation(begin)
    assert implicit.answers == (Answer(("d",), (), (1.0,)), Answer(("e",), (), (0.0,)))
    # A widely used form has the prompt as a text beside it, once more.
    both = {"prompt": "a", "chosen": [user("a"), assistant("d")], "rejected": [user("a"), assistant("e")]}
    assert one(both).answers == implicit.answers
    assert one(both).prompt == "a"


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("The sky is blue.", "The sky is bright.", "The sky is"),  # not "The sky is b"
        ("\n\nHuman: hi\n\nAssistant: I am", "\n\nHuman: hi\n\nAssistant: It is", "\n\nHuman: hi\n\nAssistant:"),
        ("Q: 1\nA:\nyes", "Q: 1\nA:\nno", "Q: 1\nA:\n"),
        ("go on", "go, on", "go"),
        ("say 12", "say 13", "say"),
    ],
)
def test_an_implicit_prompt_of_text_splits_no_word(chosen: str, rejected: str, prompt: str) -> None:
    row = one({"chosen": chosen, "rejected": rejected})
    assert row.prompt == prompt
    assert [prompt + answer.actions[0] for answer in row.answers] == [chosen, rejected]


texts = st.text(st.sampled_from("ab1 .\n"), max_size=12)


@given(texts, texts, texts)
def test_where_a_prompt_ends(begin: str, one: str, other: str) -> None:
    cut = shared_beginning(begin + one, begin + other)
    prompt, answers = (begin + one)[:cut], [(begin + one)[cut:], (begin + other)[cut:]]
    assert (begin + other).startswith(prompt)
    assert not prompt.endswith(" ")
    assert not any(prompt[-1:].isalnum() and answer[:1].isalnum() for answer in answers)
    # It is the longest such beginning: what both answers have in common is blanks and the word that one goes on with.
    common = next((i for i, (a, b) in enumerate(zip(*answers, strict=False)) if a != b), min(map(len, answers)))
    shared = answers[0][:common].lstrip(" ")
    assert all(letter.isalnum() for letter in shared.rstrip(" "))
    assert shared_beginning(begin + other, begin + one) == cut


def test_a_label_is_worth_one_or_nothing() -> None:
    assert one({"prompt": "a", "completion": "b", "label": True}).answers == (Answer(("b",), (), (1.0,)),)
    assert one({"prompt": "a", "completion": "b", "label": 0}).answers == (Answer(("b",), (), (0.0,)),)


def test_steps_are_turns_with_nothing_between_them() -> None:
    row = one({"prompt": "a", "completions": ["b", "c", "d"], "labels": [True, True, False]})
    assert row.answers == (Answer(("b", "c", "d"), ("", ""), (1.0, 1.0, 0.0)),)


def test_columns_have_other_names() -> None:
    renamed = one({"question": "a", "answer": "b", "prompt": "not this"}, columns={"prompt": "question"})
    assert (renamed.prompt, renamed.columns) == ("a", {"answer": "b"})
    both = {"prompt": "question", "completion": "answer"}
    assert load([{"question": "a", "answer": "b"}], columns=both).kind is Kind.COMPLETION
    with pytest.raises(DataError, match=r"no column 'qestion' to be the prompt; did you mean 'question'\?"):
        load([{"question": "a"}], columns={"prompt": "qestion"})


def test_a_kind_can_be_asked_for() -> None:
    row = {"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"}
    assert load([row]).kind is Kind.PREFERENCE
    assert load([row], kind="prompt-only").rows[0].columns == {"completion": "b", "chosen": "c", "rejected": "d"}
    with pytest.raises(DataError, match=r"no kind of data 'preferences'; did you mean 'preference'\?"):
        load([row], kind="preferences")
    with pytest.raises(DataError, match=r"no column 'messages', which messages data needs.*--columns messages=COLUMN"):
        load([row], kind="messages")


def test_a_row_with_more_or_less_than_the_others_is_of_their_kind() -> None:
    good = {"prompt": "a", "completion": "b"}
    data = load([{"prompt": "a"}, good, good], skip_bad=True)
    assert (data.kind, len(data), data.skipped) == (Kind.COMPLETION, 2, 1)
    assert str(data.problems[0]) == "row 1: missing field: no 'completion'"


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1.5},
        {"prompt": "a", "completion": "b", "label": True},
        {"prompt": "[x]", "completion": "[{ not json"},
        {"messages": [user("a"), assistant("b")]},
        {"prompt": [user("a")], "completion": [assistant("b")]},
        {"prompt": "a", "completions": ["b", "c"], "labels": [True, False]},
    ],
)
def test_cells_say_the_same(record: dict[str, Any]) -> None:
    kind = recognise(record)
    assert kind is not None
    cells = {name: value if isinstance(value, str) else json.dumps(value) for name, value in record.items()}
    assert read_row(kind, 1, cells, cells=True) == read_row(kind, 1, record)


@pytest.mark.parametrize(("cell", "worth"), [("True", 1.0), (" true ", 1.0), ("1", 1.0), ("FALSE", 0.0), ("0", 0.0)])
def test_truth_in_cells(cell: str, worth: float) -> None:
    row = read_row(Kind.UNPAIRED, 1, {"prompt": "a", "completion": "b", "label": cell}, cells=True)
    assert row.answers[0].rewards == (worth,)


def test_a_method_says_what_it_learns_from() -> None:
    pairs = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    for learns_from in ("preferences", "labels", "rollouts"):
        assert load(pairs, learns_from=learns_from).rows
    with pytest.raises(DataError, match=r"learns from steps, so its data is stepwise \(prompt, completions, labels\)"):
        load(pairs, learns_from="steps")
