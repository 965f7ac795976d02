"""Verifiers: the final answer against the known one. They have the common signature of reward functions,
``f(prompts, completions, completion_ids, answer, **columns)``, and need nothing but the columns they name.

    EpisodeJudge(numeric, renderer, columns=lambda episode: rows[episode.seed])

Right is 1, wrong and "no answer" are 0, and a row without a known answer is None: it cannot be scored. The known answer may
be the whole solution in any of the forms of `turnwise.rewards.answers.ORDER`. Only what stands after the reasoning
counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from turnwise.rewards.answers import ORDER, extract_answer, text_of
from turnwise.rewards.equivalence import equivalent
from turnwise.rewards.numbers import same_number
from turnwise.rewards.reward import RewardError
from turnwise.text.reasoning import THINK

EVERYTHING = (*ORDER, "whole")
"""Where verifiers look for an answer: a marked one, else all that stands after the reasoning."""


class Verifier:
    """A comparison of final answers as a reward function.

    Args:
        name: What messages and metrics call it.
        same: Whether the given answer is the known one.
        order: Forms in which the answer may be given; see `turnwise.rewards.answers.extract_answer`.
        think: Tags around the reasoning.
    """

    def __init__(
        self,
        name: str,
        same: Callable[[str, str], bool],
        *,
        order: Sequence[str] = EVERYTHING,
        think: tuple[str, str] = THINK,
    ) -> None:
        self.__name__ = name
        self.same = same
        self.order = tuple(order)
        self.think = think
        extract_answer("", self.order, think)  # refuses unknown forms

    def score(self, completion: Any, answer: Any) -> float | None:
        """1 if the completion's final answer is the known one, 0 if not, None if no answer is known.

        Raises:
            RewardError: a known answer that says nothing, or a completion that is neither text nor messages.
        """
        if answer is None:
            return None
        known = extract_answer(str(answer), EVERYTHING, self.think)
        if known is None:
            raise RewardError(f"{self.__name__}: the known answer is {str(answer)!r:.80}, which holds no answer")
        given = extract_answer(text_of(completion), self.order, self.think)
        return 0.0 if given is None else float(self.same(given, known))

    def __call__(
        self,
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Any] = (),
        completion_ids: Sequence[Any] | None = None,
        *,
        answer: Sequence[Any],
        **columns: Any,
    ) -> list[float | None]:
        """One score per completion; see `score`."""
        if len(answer) != len(completions):
            raise RewardError(f"{self.__name__}: {len(answer)} answers for {len(completions)} completions")
        return [self.score(text, known) for text, known in zip(completions, answer, strict=True)]


def same_text(one: str, other: str) -> bool:
    """Whether two answers are the same words: case, blanks, quotes, and a full stop at the end do not count."""
    return _normalised(one) == _normalised(other)


def _normalised(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"^[\s\"'`$*]+|[\s\"'`$*.!]+$", "", text)
    return " ".join(text.split())


exact = Verifier("exact", same_text)
"""The same words; see `same_text`."""

numeric = Verifier("numeric", same_number)
"""The same number; see `turnwise.rewards.numbers.same_number`."""

symbolic = Verifier("symbolic", equivalent)
"""The same mathematics; see `turnwise.rewards.equivalence.equivalent`."""

VERIFIERS = {verifier.__name__: verifier for verifier in (exact, numeric, symbolic)}
"""Verifiers by name."""
