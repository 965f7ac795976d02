"""Rows of data: which kinds there are, how they are told apart, and what makes one bad.

The columns are TRL's (its page "Dataset formats and types"). Every kind becomes the same thing, a prompt with answers and
what each answer is worth:

| kind | columns | answers |
|---|---|---|
| prompt-only | prompt | none |
| prompt-completion | prompt, completion | the completion |
| messages | messages | one turn per assistant's message |
| text | text | the text, to an empty prompt |
| preference | [prompt,] chosen, rejected[, margin] | two, worth 1 (or the margin) and 0 |
| unpaired-preference | prompt, completion, label | the completion, worth 1 or 0 |
| stepwise | prompt, completions, labels | one in steps, each worth 1 or 0 |
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from turnwise.data.problems import BadRow
from turnwise.text import Conversation
from turnwise.text.conversation import ROLES

Messages = list[dict[str, str]]
"""Chat messages, each with a role and a content."""


class Kind(StrEnum):
    """What rows hold, in TRL's words."""

    PROMPT = "prompt-only"
    COMPLETION = "prompt-completion"
    MESSAGES = "messages"
    TEXT = "text"
    PREFERENCE = "preference"
    UNPAIRED = "unpaired-preference"
    STEPWISE = "stepwise"


NEEDS: dict[Kind, tuple[str, ...]] = {
    Kind.PREFERENCE: ("chosen", "rejected"),
    Kind.STEPWISE: ("prompt", "completions", "labels"),
    Kind.UNPAIRED: ("prompt", "completion", "label"),
    Kind.COMPLETION: ("prompt", "completion"),
    Kind.MESSAGES: ("messages",),
    Kind.PROMPT: ("prompt",),
    Kind.TEXT: ("text",),
}
"""The columns of each kind. Rows are of the first kind whose columns they all have."""

_READS = {**NEEDS, Kind.PREFERENCE: ("prompt", "chosen", "rejected", "margin")}


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered to a prompt, and what it is worth.

    Attributes:
        actions: What the assistant said, or its steps.
        observations: What the world said between them; one less, and empty between steps.
        rewards: What each is worth.
    """

    actions: tuple[str, ...]
    observations: tuple[str, ...] = ()
    rewards: tuple[float, ...] = (0.0,)


@dataclass(frozen=True, slots=True)
class Row:
    """One row that is as it should be.

    Attributes:
        number: Its line or row, counted from 1.
        prompt: A text or a `Conversation`.
        answers: None, one, or the chosen and the rejected one.
        columns: The columns that its kind does not read.
    """

    number: int
    prompt: str
    answers: tuple[Answer, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])


def recognise(names: Iterable[str]) -> Kind | None:
    """The kind of rows that have these columns."""
    have = set(names)
    return next((kind for kind, needed in NEEDS.items() if have.issuperset(needed)), None)


def read_row(kind: Kind, number: int, record: Mapping[str, Any], *, cells: bool = False) -> Row:
    """Read and check one row.

    Args:
        kind: What it should be.
        number: Its line or row.
        record: Column -> value.
        cells: The values are the cells of a CSV file, so texts all of them.

    Raises:
        BadRow: it is not as it should be.
    """
    if cells:
        record = {name: _cell(name, value) for name, value in record.items()}
    columns = {name: value for name, value in record.items() if name not in _READS[kind]}
    prompt, answers = _READERS[kind](record)
    return Row(number, prompt, answers, columns)


# ---- the kinds


def _prompt_only(record: Mapping[str, Any]) -> tuple[str, tuple[Answer, ...]]:
    return _prompt(record), ()


def _completion(record: Mapping[str, Any]) -> tuple[str, tuple[Answer, ...]]:
    prompt = _prompt(record)
    return prompt, (_answer(_said(record, "completion"), "completion", 0.0),)


def _messages(record: Mapping[str, Any]) -> tuple[str, tuple[Answer, ...]]:
    messages = _dialogue(_field(record, "messages"), "messages")
    begin = 1 if messages[0]["role"] == "system" else 0
    _check_order(messages, "messages", "user", "assistant")
    return Conversation(messages[: begin + 1]), (_answer(messages[begin + 1 :], "messages", 0.0),)


def _text(record: Mapping[str, Any]) -> tuple[str, tuple[Answer, ...]]:
    return "", (Answer((_string(_field(record, "text"), "text"),)),)


def _preference(record: Mapping[str, Any]) -> tuple[str, tuple[Answer, ...]]:
    chosen, rejected = _said(record, "chosen"), _said(record, "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise BadRow("wrong type", "one of 'chosen' and 'rejected' is a text and the other messages")
    if chosen == rejected:
        raise BadRow("chosen equals rejected", "there is nothing to prefer")
    worth = _margin(record.get("margin"))
    # Answers that begin with the user hold the whole conversation, and the column 'prompt' beside them repeats it.
    whole = not isinstance(chosen, str) and chosen[0]["role"] != "assistant"
    if record.get("prompt") is None or (whole and isinstance(record["prompt"], str)):
        prompt, chosen, rejected = _shared(chosen, rejected)
    else:
        prompt = _prompt(record)
    return prompt, (_answer(chosen, "chosen", worth), _answer(rejected, "rejected", 0.0))


def _unpaired(record: Mapping[str, Any]) -> tuple[str, tuple[Answer, ...]]:
    prompt = _prompt(record)
    worth = _label(_field(record, "label"), "label")
    return prompt, (_answer(_said(record, "completion"), "completion", worth),)


def _stepwise(record: Mapping[str, Any]) -> tuple[str, tuple[Answer, ...]]:
    prompt = _prompt(record)
    steps, labels = _list(record, "completions"), _list(record, "labels")
    if len(steps) != len(labels):
        raise BadRow("steps and labels differ", f"{len(steps)} completions and {len(labels)} labels")
    actions = tuple(_string(step, f"completions[{i}]") for i, step in enumerate(steps))
    rewards = tuple(_label(label, f"labels[{i}]") for i, label in enumerate(labels))
    return prompt, (Answer(actions, ("",) * (len(actions) - 1), rewards),)


_READERS = {
    Kind.PROMPT: _prompt_only,
    Kind.COMPLETION: _completion,
    Kind.MESSAGES: _messages,
    Kind.TEXT: _text,
    Kind.PREFERENCE: _preference,
    Kind.UNPAIRED: _unpaired,
    Kind.STEPWISE: _stepwise,
}


# ---- prompts and answers


def _prompt(record: Mapping[str, Any]) -> str:
    said = _said(record, "prompt")
    if isinstance(said, str):
        return said
    _check_order(said, "prompt", "user", "user")
    return Conversation(said)


def _answer(said: str | Messages, name: str, worth: float) -> Answer:
    """What is trained on, the worth being that of its last action."""
    if isinstance(said, str):
        return Answer((said,), (), (worth,))
    if name != "messages":
        _check_order(said, name, "assistant", "assistant")
    actions = tuple(message["content"] for message in said[0::2])
    observations = tuple(message["content"] for message in said[1::2])
    return Answer(actions, observations, (*[0.0] * (len(actions) - 1), worth))


def _shared(chosen: str | Messages, rejected: str | Messages) -> tuple[str, str | Messages, str | Messages]:
    """The prompt that both begin with, and what is left of each."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        cut = shared_beginning(chosen, rejected)
        if not chosen[:cut].strip():
            raise BadRow(
                "no common prompt", "'chosen' and 'rejected' do not begin alike, and there is no column 'prompt'"
            )
        _check_left(chosen[cut:].strip(), rejected[cut:].strip())
        return chosen[:cut], chosen[cut:], rejected[cut:]
    assert not isinstance(chosen, str)
    assert not isinstance(rejected, str)
    pairs = zip(chosen, rejected, strict=False)
    cut = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    if not cut:
        raise BadRow("no common prompt", "'chosen' and 'rejected' do not begin alike, and there is no column 'prompt'")
    _check_left(chosen[cut:], rejected[cut:])
    _check_order(chosen, "chosen", "user", "assistant")
    _check_order(rejected, "rejected", "user", "assistant")
    if chosen[cut]["role"] != "assistant":
        raise BadRow("wrong role order", f"'chosen' and 'rejected' part at message {cut}, which is the user's")
    return Conversation(chosen[:cut]), chosen[cut:], rejected[cut:]


def _check_left(chosen: object, rejected: object) -> None:
    for left, name, other in ((chosen, "chosen", "rejected"), (rejected, "rejected", "chosen")):
        if not left:
            raise BadRow(
                "empty",
                f"{other!r} begins with all of {name!r}, so nothing of it is left behind the common prompt; give the prompt "
                "in a column of its own",
            )


def shared_beginning(one: str, other: str) -> int:
    """How much of two texts is their common prompt: what they begin with alike, no word split.

    Blanks at the end of it go to the answers, because tokenizers join a blank to the word behind it.
    """
    pairs = zip(one, other, strict=False)
    cut = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    inside = cut and one[cut - 1].isalnum() and any(text[cut : cut + 1].isalnum() for text in (one, other))
    while inside and cut and one[cut - 1].isalnum():
        cut -= 1
    while cut and one[cut - 1] == " ":
        cut -= 1
    return cut


# ---- values


def _field(record: Mapping[str, Any], name: str) -> Any:
    value = record.get(name)
    if value is None:
        raise BadRow("missing field", f"no {name!r}" if name not in record else f"{name!r} is null")
    return value


def _said(record: Mapping[str, Any], name: str) -> str | Messages:
    """A text or messages."""
    value = _field(record, name)
    return _string(value, name) if isinstance(value, str) else _dialogue(value, name)


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadRow("wrong type", f"{name!r} is {_type(value)}, not a text")
    if not value.strip():
        raise BadRow("empty", f"{name!r} holds no text")
    return _encodable(value, name)


def _encodable(text: str, name: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow("not UTF-8", f"{name!r} holds half a character at position {error.start}") from None
    return text


def _dialogue(value: Any, name: str) -> Messages:
    """Messages with known roles and contents that are texts; what else a message holds is not read."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadRow("wrong type", f"{name!r} is {_type(value)}, neither a text nor a list of messages")
    if not value:
        raise BadRow("empty", f"{name!r} holds no message")
    return [_message(message, f"{name}[{i}]") for i, message in enumerate(value)]


def _message(message: Any, name: str) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise BadRow("wrong type", f"{name!r} is {_type(message)}, not a message with a role and a content")
    if "role" not in message and {"from", "value"} <= set(message):
        raise BadRow("missing field", f"{name!r} has 'from' and 'value'; call them 'role' and 'content'")
    for lost in ("tool_calls", "reasoning_content", "thinking"):
        if message.get(lost):
            raise BadRow("not a text", f"{name!r} has {lost!r}, which would be lost; write it into the content")
    role, content = _field(message, "role"), message.get("content")
    if role not in ROLES:
        raise BadRow("unknown role", f"{name!r} has the role {role!r:.40}; the roles are {', '.join(ROLES)}")
    if role == "system" and content == "":
        return {"role": role, "content": content}
    return {"role": role, "content": _string(_field(message, "content"), f"{name}['content']")}


def _check_order(messages: Messages, name: str, first: str, last: str) -> None:
    """User and assistant take turns, after at most one system message where the user comes first."""
    begin = 1 if first == "user" and messages[0]["role"] == "system" else 0
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    for i, message in enumerate(messages[begin:]):
        if message["role"] != roles[i % 2]:
            raise BadRow(
                "wrong role order",
                f"'{name}[{begin + i}]' is the {message['role']}'s where the {roles[i % 2]} has to speak",
            )
    if messages[-1]["role"] != last:
        raise BadRow("wrong role order", f"{name!r} ends with the {messages[-1]['role']} instead of the {last}")


def _list(record: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = _field(record, name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadRow("wrong type", f"{name!r} is {_type(value)}, not a list")
    if not value:
        raise BadRow("empty", f"{name!r} is an empty list")
    return value


def _label(value: Any, name: str) -> float:
    # Some formats have no booleans and store 0 and 1.
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return float(value)
    raise BadRow("label not boolean", f"{name!r} is {value!r:.40}; write true or false")


def _margin(value: Any) -> float:
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise BadRow("wrong margin", f"'margin' is {value!r:.40}; it has to be a finite number above 0")
    return float(value)


def _type(value: Any) -> str:
    names = {list: "a list", dict: "an object", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), f"of type {type(value).__name__}")


# ---- cells of a CSV file

_WORDS = {"true": True, "1": True, "false": False, "0": False}


def _cell(name: str, value: Any) -> Any:
    """What a cell of a known column says; other columns stay texts."""
    if not isinstance(value, str):
        return value
    if name == "label":
        return _WORDS.get(value.strip().lower(), value)
    if name == "margin":
        return _number(value)
    if name in ("messages", "completions", "labels"):
        return _json(value, name)
    if name in ("prompt", "completion", "chosen", "rejected") and value.lstrip().startswith("[{"):
        try:
            return json.loads(value)
        except ValueError:  # a text may begin with brackets
            return value
    return value


def _number(value: str) -> Any:
    if not value.strip():
        return None
    try:
        return float(value)
    except ValueError:
        return value


def _json(value: str, name: str) -> Any:
    if not value.strip():
        raise BadRow("empty", f"{name!r} is an empty cell")
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadRow("not JSON", f"{name!r} has to hold a list written as JSON") from None
