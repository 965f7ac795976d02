"""The reasoning channel of an answer: what a model writes for itself before it answers."""

from __future__ import annotations

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
