"""The reasoning channel of an answer: what a model writes for itself before it answers."""

from __future__ import annotations

_ANSWER = ("<answer>", "</answer>")

THINK = ("<think>", "</think>")
"""Tags around the reasoning."""


def after_reasoning(text: str, think: tuple[str, str] = THINK) -> str | None:
    """What stands after the last closing tag; None if reasoning was opened and not closed.

    A text without tags has no reasoning channel and is returned whole. A closing tag without an opening one counts: many
    chat templates write the opening tag into the prompt.
    """
    opening, closing = think
    part = text[text.rfind(closing) + len(closing) :] if closing in text else text
    return None if opening in part else part


def tagged_answer(text: str) -> str | None:
    """What is inside the last ``<answer>…</answer>``, blanks included; None if there are no such tags."""
    opening, closing = _ANSWER
    end = text.rfind(closing)
    start = text.rfind(opening, 0, end) if end >= 0 else -1
    return text[start + len(opening) : end] if start >= 0 else None
