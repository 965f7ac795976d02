"""An observation that is a conversation: several messages that read as one text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from turnwise.errors import TurnwiseError

ROLES = ("system", "user", "assistant")
"""Who can speak in a conversation."""


class Conversation(str):
    """Chat messages as a text, so that whatever reads observations can read it.

    A single message of the user reads as its content alone; otherwise there is a line ``role: content`` for each
    message. `Renderer.first` renders the messages through the chat template. It compares and hashes as its text, and
    survives pickling.

    It is made of what was said so far, messages of the form ``{"role": ..., "content": ...}``; the policy speaks next, so
    the last one is not the assistant's.

    Attributes:
        messages: The messages, with their roles and contents alone.

    Raises:
        TurnwiseError: no message, a message without a role and a text, an unknown role, a system message that is not
            the first, or an assistant's message at the end.
    """

    messages: tuple[dict[str, str], ...]

    def __new__(cls, messages: Sequence[Mapping[str, Any]]) -> Conversation:
        said = tuple(_message(message, place) for place, message in enumerate(messages))
        if not said:
            raise TurnwiseError("a conversation needs at least one message")
        if said[-1]["role"] == "assistant":
            raise TurnwiseError(
                "a conversation that a policy is to answer ends with the assistant; leave that message out"
            )
        alone = len(said) == 1 and said[0]["role"] == "user"
        text = said[0]["content"] if alone else "\n".join(f"{m['role']}: {m['content']}" for m in said)
        conversation = super().__new__(cls, text)
        conversation.messages = said
        return conversation

    def __reduce__(self) -> tuple[Any, ...]:
        return Conversation, (self.messages,)

    @property
    def system(self) -> str | None:
        """What its system message says, if it has one."""
        first = self.messages[0]
        return first["content"] if first["role"] == "system" else None


def _message(message: Mapping[str, Any], place: int) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise TurnwiseError(f"message {place} is a {type(message).__name__}; write {{'role': ..., 'content': ...}}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise TurnwiseError(f"message {place} has the role {role!r}; the roles are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise TurnwiseError(f"message {place} has a content of type {type(content).__name__}; it has to be a text")
    if role == "system" and place:
        raise TurnwiseError(f"message {place} is a system message, which can only be the first")
    return {"role": role, "content": content}
