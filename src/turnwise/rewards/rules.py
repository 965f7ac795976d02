"""Rules that a program can check, written as short texts: ``contains:please``, ``forbids:hate|kill``, ``max-words:40``,
``starts-with:Dear``.

A reply that keeps to the rule gets 1 and any other 0. Only what stands after the reasoning counts; reasoning that never
ends keeps to no rule. A pattern is a regular expression of Python and is the user's own: one that takes forever on some
reply does so here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from turnwise.rewards.answers import text_of
from turnwise.rewards.reward import RewardError
from turnwise.text.reasoning import after_reasoning

FORMS: Mapping[str, str] = {
    "contains": "the word or phrase is there, in either case",
    "forbids": "the regular expression matches nowhere, in either case",
    "requires": "the regular expression matches somewhere, in either case",
    "starts-with": "the reply begins with it",
    "ends-with": "the reply ends with it",
    "max-words": "so many words or fewer",
    "min-words": "so many words or more",
}
"""Form of a rule -> when a reply keeps to it."""


class Rule:
    """A rule as a reward function, ``f(prompts, completions, completion_ids, **columns)``.

    Args:
        text: ``form:argument`` with a form of `FORMS`.

    Raises:
        RewardError: an unknown form, or an argument that is missing, no number or no regular expression.
    """

    def __init__(self, text: str) -> None:
        form, colon, argument = text.partition(":")
        if form not in FORMS:
            raise RewardError(f"no rule is called {form!r}; there are {', '.join(FORMS)}")
        if not colon or not argument.strip():
            raise RewardError(f"the rule {text!r} says nothing; write {form}:SOMETHING")
        self.__name__ = text
        self.holds = _made(form, argument)

    def __call__(
        self,
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Any] = (),
        completion_ids: Sequence[Any] | None = None,
        **columns: Any,
    ) -> list[float]:
        """1 for each completion that keeps to the rule, 0 for the others."""
        replies = [after_reasoning(text_of(completion)) for completion in completions]
        return [float(reply is not None and self.holds(reply.strip())) for reply in replies]


def _made(form: str, argument: str) -> Callable[[str], bool]:
    if form in ("max-words", "min-words"):
        if not (argument.strip().isascii() and argument.strip().isdigit() and len(argument) < 10):
            raise RewardError(f"{form}:{argument} needs a whole number of words, such as {form}:40")
        n = int(argument)
        return lambda reply: (len(reply.split()) <= n) if form == "max-words" else (len(reply.split()) >= n)
    if form == "starts-with":
        return lambda reply: reply.startswith(argument)
    if form == "ends-with":
        return lambda reply: reply.endswith(argument)
    # The word itself: not inside of another one.
    source = rf"(?<!\w){re.escape(argument)}(?!\w)" if form == "contains" else argument
    try:
        pattern = re.compile(source, re.IGNORECASE)
    except re.error as error:
        raise RewardError(f"{argument!r} is not a regular expression: {error}") from error
    return lambda reply: (pattern.search(reply) is not None) != (form == "forbids")
