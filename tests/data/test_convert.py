"""Rows as training takes them: (1) labels are rewards within a group, (2) prompts keep their other columns."""

from __future__ import annotations

from typing import Any

import pytest

from tests.data.test_rows import assistant, system, user
from turnwise.data import DataError, load, prompts, transcripts
from turnwise.episode import Source, Transcript
from turnwise.text import Conversation


def told(*rows: dict[str, Any]) -> list[Transcript]:
    return transcripts(load(rows))


def test_a_preference_is_two_transcripts_of_one_group() -> None:
    first = {"prompt": "a", "chosen": "b", "rejected": "c"}
    several = {
        "prompt": "a",
        "chosen": [assistant("b"), user("c"), assistant("d")],
        "rejected": [assistant("e")],
        "margin": 3,
    }
    one, other, better, worse = told(first, several)
    assert (one.observations, one.actions, one.rewards) == (("a",), ("b",), (1.0,))
    assert (other.actions, other.rewards) == (("c",), (0.0,))
    assert one.group == other.group != better.group == worse.group
    assert (better.observations, better.actions, better.rewards) == (("a", "c"), ("b", "d"), (0.0, 3.0))
    assert worse.rewards == (0.0,)
    assert {t.pays for t in (one, other, better, worse)} == {"label"}
    assert [t.seed for t in (one, other, better, worse)] == [0, 0, 1, 1]
    assert all(t.source is Source.DATASET and t.terminated and not t.truncated for t in (one, other))


@pytest.mark.parametrize("margin", [0.2, 0.5, 3.0])
def test_as_single_labels_a_preference_pays_one_and_zero_whatever_its_margin(margin: float) -> None:
    data = load([{"prompt": "a", "chosen": "b", "rejected": "c", "margin": margin}])
    assert [t.rewards for t in transcripts(data, margins=False)] == [(1.0,), (0.0,)]
    assert [t.rewards for t in transcripts(data)] == [(margin,), (0.0,)]
    steps = load([{"prompt": "a", "completions": ["b", "c"], "labels": [True, False]}])
    assert [t.rewards for t in transcripts(steps, margins=False)] == [(1.0, 0.0)]


def test_a_label_pays_and_a_demonstration_does_not() -> None:
    (good,) = told({"prompt": "a", "completion": "b", "label": True})
    assert (good.rewards, good.pays) == ((1.0,), "label")
    (shown,) = told({"prompt": "a", "completion": "b"})
    assert (shown.rewards, shown.pays, shown.separator) == ((0.0,), "environment", None)


def test_messages_are_turns() -> None:
    (talk,) = told({"messages": [system("s"), user("a"), assistant("b"), user("c"), assistant("d")]})
    assert talk.observations == (Conversation([system("s"), user("a")]), "c")
    assert isinstance(talk.observations[0], Conversation)
    assert (talk.actions, talk.rewards) == (("b", "d"), (0.0, 0.0))


def test_steps_are_joined() -> None:
    (steps,) = told({"prompt": "a", "completions": ["b", "c"], "labels": [True, False]})
    assert (steps.observations, steps.actions, steps.rewards) == (("a", ""), ("b", "c"), (1.0, 0.0))
    assert (steps.separator, steps.pays) == ("\n", "label")


def test_prompts_have_nothing_to_imitate() -> None:
    with pytest.raises(DataError, match="prompts without answers"):
        told({"prompt": "a"})


def test_prompts_keep_their_columns() -> None:
    rows = prompts(load([{"prompt": "a", "answer": 4}, {"prompt": [system("s"), user("b")], "hard": True}]))
    assert rows[0] == {"prompt": "a", "answer": 4, "hard": None}
    assert rows[1] == {"prompt": Conversation([system("s"), user("b")]), "answer": None, "hard": True}
    assert isinstance(rows[1]["prompt"], Conversation)
    assert prompts(load([{"prompt": "a", "completion": "b"}])) == [{"prompt": "a", "completion": "b"}]
    assert prompts(load([{"prompt": "a", "chosen": "b", "rejected": "c"}])) == [{"prompt": "a"}]
    with pytest.raises(DataError, match="texts without prompts"):
        prompts(load([{"text": "a"}]))
