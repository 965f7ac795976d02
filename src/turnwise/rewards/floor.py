"""The constant-answer floor: what always saying the same thing earns.

A verifier that pays a constant well is a finding about the verifier, and a result means something only above its floor.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwise.rewards.answers import ORDER, extract_answer
from turnwise.rewards.reward import RewardError


@dataclass(frozen=True, slots=True)
class Floor:
    """The best constant answer that was found.

    Attributes:
        answer: It, word for word.
        score: Its mean score.
        rows: Rows that could score it.
        tried: Different answers that were tried.
    """

    answer: str
    score: float
    rows: int
    tried: int


def constant_floor(scores: Callable[[str], Sequence[float | None]], candidates: Iterable[str]) -> Floor:
    """The best mean score of a fixed text.

    Args:
        scores: Text -> its score on every row; None and NaN where a row cannot say.
        candidates: Texts to try; the empty one is always among them. Of equally good ones the first counts.

    Raises:
        RewardError: no row could score anything.
    """
    tried = list(dict.fromkeys(["", *candidates]))
    best: Floor | None = None
    for text in tried:
        given = [float(score) for score in scores(text) if score is not None and not math.isnan(score)]
        if given and (best is None or math.fsum(given) / len(given) > best.score):
            best = Floor(text, math.fsum(given) / len(given), len(given), len(tried))
    if best is None:
        raise RewardError("no row could score any constant answer; is the column of known answers empty?")
    return best


def verifier_floor(
    function: Callable[..., Sequence[float | None]],
    rows: Sequence[Mapping[str, Any]],
    *,
    column: str = "answer",
    candidates: Iterable[str] = (),
    most: int = 256,
) -> Floor:
    """The floor of a reward function over a set of rows.

    Args:
        function: ``f(prompts, completions, completion_ids, **columns)``, such as `turnwise.rewards.verifiers.numeric`.
        rows: Columns of each row; all of them are passed on.
        column: Column of the known answers, which are tried themselves.
        candidates: Further texts to try.
        most: Known answers to try, the most frequent ones first.

    Raises:
        RewardError: no rows, or none that could score anything.
    """
    if not rows:
        raise RewardError("there are no rows to find a constant answer for")
    names = dict.fromkeys(name for row in rows for name in row if name not in ("prompt", "completion"))
    columns = {name: [row.get(name) for row in rows] for name in names}
    prompts = [row.get("prompt", "") for row in rows]
    known = Counter(extract_answer(str(row[column]), (*ORDER, "whole")) for row in rows if row.get(column) is not None)
    frequent = [answer for answer, _ in known.most_common(most) if answer is not None]

    def scores(text: str) -> Sequence[float | None]:
        return function(prompts=prompts, completions=[text] * len(rows), completion_ids=[[]] * len(rows), **columns)

    return constant_floor(scores, [*candidates, *frequent])
