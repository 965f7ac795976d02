"""Bad data: (1) every fault of a row is named with its kind and place, (2) training on it stops with the first ones and a
count of the others, or says how many were left out, (3) what is wrong with a whole file is one message with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.test_rows import assistant, system, user
from tests.text import templates
from turnwise.data import DataError, check, load
from turnwise.text import Renderer

PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
TALK = {"messages": [user("a"), assistant("b")]}
LABEL = {"prompt": "a", "completion": "b", "label": True}
STEPS = {"prompt": "a", "completions": ["b", "c"], "labels": [True, False]}

FAULTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (PAIR, {"rejected": None}, "missing field: 'rejected' is null"),
    (PAIR, {"chosen": 3}, "wrong type: 'chosen' is a number, neither"),
    (PAIR, {"chosen": " \n"}, "empty: 'chosen' holds no text"),
    (PAIR, {"prompt": ""}, "empty: 'prompt' holds no text"),
    (PAIR, {"chosen": "c"}, "chosen equals rejected"),
    (PAIR, {"chosen": [assistant("b")]}, "wrong type: one of 'chosen' and 'rejected' is a text"),
    (PAIR, {"prompt": [user("a"), assistant("b")]}, "wrong role order: 'prompt' ends with the assistant"),
    (PAIR, {"prompt": None, "chosen": "x", "rejected": "y"}, "no common prompt"),
    (PAIR, {"prompt": None, "chosen": "Q: a\nA:", "rejected": "Q: a\nA: no"}, "empty: 'rejected' begins with all of 'chosen'"),
    (PAIR, {"prompt": None, "chosen": [user("a"), assistant("b")], "rejected": [user("c"), assistant("b")]}, "no common"),
    (PAIR, {"chosen": [user("a"), assistant("b"), user("c")], "rejected": [user("a"), assistant("b"), user("d")]}, "wrong role"),
    (PAIR, {"chosen": "half \ud800"}, "not UTF-8: 'chosen' holds half a character at position 5"),
    (PAIR, {"margin": 0}, "wrong margin: 'margin' is 0"),
    (PAIR, {"margin": float("nan")}, "wrong margin: 'margin' is nan"),
    (TALK, {"messages": []}, "empty: 'messages' holds no message"),
    (TALK, {"messages": "a"}, "wrong type"),
    (TALK, {"messages": [user("a")]}, "wrong role order: 'messages' ends with the user instead of the assistant"),
    (TALK, {"messages": [assistant("a")]}, "wrong role order: 'messages[0]' is the assistant's"),
    (TALK, {"messages": [user("a"), user("b"), assistant("c")]}, "'messages[1]' is the user's where the assistant has to"),
    (TALK, {"messages": [user("a"), system("b"), assistant("c")]}, "'messages[1]' is the system's"),
    (TALK, {"messages": [system("b")]}, "wrong role order: 'messages' ends with the system"),
    (TALK, {"messages": [{"role": "tool", "content": "x"}]}, "unknown role: 'messages[0]' has the role 'tool'"),
    (TALK, {"messages": [user("a"), {"role": "assistant", "content": None}]}, "missing field: 'content' is null"),
    (TALK, {"messages": [user(""), assistant("b")]}, "empty: \"messages[0]['content']\" holds no text"),
    (TALK, {"messages": [{"from": "human", "value": "x"}]}, "call them 'role' and 'content'"),
    (TALK, {"messages": [user("a"), {**assistant("b"), "tool_calls": [{}]}]}, "has 'tool_calls', which would be lost"),
    (TALK, {"messages": ["a"]}, "wrong type: 'messages[0]' is of type str"),
    (LABEL, {"label": "yes"}, "label not boolean: 'label' is 'yes'"),
    (LABEL, {"label": 2}, "label not boolean: 'label' is 2"),
    (LABEL, {"label": None}, "missing field"),
    (STEPS, {"labels": [True]}, "steps and labels differ: 2 completions and 1 labels"),
    (STEPS, {"labels": [True, 0.5]}, "label not boolean: 'labels[1]' is 0.5"),
    (STEPS, {"completions": ["b", ""]}, "empty: 'completions[1]'"),
    (STEPS, {"completions": "b"}, "wrong type: 'completions' is of type str, not a list"),
    (STEPS, {"completions": [], "labels": []}, "empty: 'completions' is an empty list"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "fault", "said"), FAULTS, ids=[said[:40] for _, _, said in FAULTS])
def test_every_fault_is_named(good: dict[str, Any], fault: dict[str, Any], said: str) -> None:
    report = check([good, {**good, **fault}, good])
    assert (report.good, len(report.problems)) == (2, 1)
    assert str(report.problems[0]).startswith("row 2: ")
    assert said in str(report.problems[0])
    with pytest.raises(DataError) as caught:
        load([good, {**good, **fault}])
    assert str(report.problems[0]) in str(caught.value)


def test_training_stops_with_the_first_and_counts_the_rest() -> None:
    rows = [PAIR, *({**PAIR, "chosen": "c"} for _ in range(13))]
    with pytest.raises(DataError) as caught:
        load(rows)
    message = str(caught.value)
    assert message.startswith(
        "13 rows of the data are bad; mend them, or leave them out with --skip-bad (1 good row remains)"
    )
    assert message.count("chosen equals rejected") == 10
    assert "and 3 more" in message
    data = load(rows, skip_bad=True)
    assert (len(data), data.skipped) == (1, 13)


def test_nothing_good_is_refused_even_if_bad_rows_may_be_skipped() -> None:
    with pytest.raises(DataError, match="no good row remains"):
        load([{**PAIR, "chosen": "c"}], skip_bad=True)


def test_over_length_counts_tokens_of_the_prompt_and_the_longer_answer() -> None:
    renderer = Renderer(templates.byte_level(templates.CHATML, eos="<|im_end|>"))
    row = {"prompt": "go on", "chosen": "x y", "rejected": "a longer answer"}
    prompt = len(renderer.first("go on"))
    answer = len(renderer.action_ids("a longer answer"))
    assert load([row], renderer=renderer, max_length=prompt + answer).rows
    with pytest.raises(
        DataError, match=rf"over length: {prompt} tokens of the prompt and {answer} of the answer, more"
    ):
        load([row], renderer=renderer, max_length=prompt + answer - 1)
    with pytest.raises(DataError, match="so no room for an answer"):
        load([{"prompt": "go on"}], renderer=renderer, max_length=prompt)
    with pytest.raises(DataError, match="2 words of the prompt and 3 of the answer, more than 4 in all"):
        load([row], max_length=4)


def test_a_system_message_that_the_template_refuses_is_a_bad_row() -> None:
    renderer = Renderer(templates.byte_level(templates.BRACKETS, eos="</s>", bos="<|bos|>", adds_bos=True))
    talk = {"messages": [system("be brief"), user("a"), assistant("b")]}
    (problem,) = check([TALK, talk], renderer=renderer).problems
    assert "row 2: cannot be rendered" in str(problem)
    assert "no system role" in str(problem)


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    for name, text in [("a.jsonl", "\n \n"), ("a.json", "[]"), ("a.csv", ""), ("b.csv", "prompt,completion\n")]:
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=rf"{name} is empty"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "a", "answer": "b"}, "--columns prompt=question,completion=answer"),
        ({"promt": "a"}, "--columns prompt=promt"),
        ({"chosen": "a"}, r"'chosen' and no 'rejected'.*--kind prompt-completion --columns completion=chosen"),
        ({"x": 1, "y": 2}, "its columns are x, y, and data has prompt"),
        ({"steps": ["a"], "prompt": "b", "labels": [True]}, None),
    ],
)
def test_unknown_columns_are_listed_with_a_suggestion(row: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert load([row]).kind == "prompt-only"
        with pytest.raises(DataError, match="name yours with --columns completions=steps"):
            load([row], kind="stepwise")
        return
    with pytest.raises(DataError, match=said):
        load([row])


@pytest.mark.parametrize(
    ("label", "said"), [(True, "all answers are desirable"), (False, "all answers are undesirable")]
)
def test_one_sided_labels_are_noted(label: bool, said: str) -> None:
    rows = [{**LABEL, "label": label}] * 2
    assert said in load(rows).notes[0]
    assert said in check(rows).notes[0]
    assert not load([LABEL, {**LABEL, "label": False}]).notes
    assert "every step" in load([{**STEPS, "labels": [label, label]}]).notes[0]


def test_lengths_are_those_of_rows() -> None:
    rows = [{"prompt": "w " * n, "completion": "w"} for n in range(1, 101)]
    report = check(rows)
    assert report.percentiles("prompt") == (50, 90, 99, 100)
    assert report.percentiles("completion") == (1, 1, 1, 1)
    assert report.measured == "words"


def test_counting_is_told() -> None:
    counted: list[int] = []
    check([PAIR] * 3, on_row=counted.append)
    assert counted == [1, 2, 3]
