"""The final answer in what a model wrote, apart from its reasoning.

The *reasoning channel* is what stands before the last closing tag (``</think>``). Nothing in it is ever read, so whatever
is written there leaves the answer, and with it the reward, as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from turnwise.rewards.reward import RewardError
from turnwise.text.reasoning import THINK, after_reasoning, tagged_answer

ORDER = ("tag", "boxed", "hashes", "phrase")
"""Where an answer is looked for: inside ``<answer>…</answer>``, inside ``\\boxed{…}``, after ``####``, after "answer is".

The first of these forms that is there decides, and of several places of that form the last one.
"""

_PHRASE = re.compile(r"\banswer\s*(?:is|:)\s*:?\s*", re.IGNORECASE)
_BOXES = ("\\boxed", "\\fbox")


def extract_answer(text: str, order: Sequence[str] = ORDER, think: tuple[str, str] = THINK) -> str | None:
    """The final answer, without surrounding blanks; None if there is none.

    Args:
        text: What the model wrote.
        order: Forms to look for, the first that is there decides: those of `ORDER`, and "whole" for everything after the
            reasoning.
        think: Opening and closing tag of the reasoning.

    Raises:
        RewardError: an unknown form.
    """
    unknown = [form for form in order if form not in _FORMS]
    if unknown:
        raise RewardError(f"no form of answers is called {unknown[0]!r}; there are {', '.join(_FORMS)}")
    part = after_reasoning(text, think)
    if part is None:
        return None
    for form in order:
        found = _FORMS[form](part)
        if found is not None:
            return found.strip() or None
    return None


def text_of(completion: Any) -> str:
    """What the policy wrote: the text itself, or the contents of the assistant's messages, on a line each.

    Raises:
        RewardError: a completion that is neither text nor a list of messages.
    """
    if isinstance(completion, str):
        return completion
    try:
        return "\n".join(str(m["content"] or "") for m in completion if m.get("role", "assistant") == "assistant")
    except (TypeError, KeyError, AttributeError) as error:
        raise RewardError(
            f"a completion is {completion!r:.80}; it should be text or a list of {{'role', 'content'}} messages"
        ) from error


def _boxed(part: str) -> str | None:
    at = max(part.rfind(box) for box in _BOXES)
    opening = part.find("{", at) if at >= 0 else -1
    if opening < 0 or part[at:opening].rstrip() not in _BOXES:
        return None
    depth = 0
    for i in range(opening, len(part)):
        escaped = part[i - 1] == "\\"
        depth += (part[i] == "{" and not escaped) - (part[i] == "}" and not escaped)
        if depth == 0:
            return part[opening + 1 : i]
    return None


def _hashes(part: str) -> str | None:
    _, found, after = part.rpartition("####")
    return after.strip().partition("\n")[0] if found else None


def _phrase(part: str) -> str | None:
    places = list(_PHRASE.finditer(part))
    if not places:
        return None
    line = part[places[-1].end() :].partition("\n")[0]
    # A sentence ends at a full stop that no digit follows.
    return re.split(r"\.(?!\d)", line, maxsplit=1)[0]


def _whole(part: str) -> str | None:
    return part


_FORMS: Mapping[str, Callable[[str], str | None]] = {
    "tag": tagged_answer,
    "boxed": _boxed,
    "hashes": _hashes,
    "phrase": _phrase,
    "whole": _whole,
}
