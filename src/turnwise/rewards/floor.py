"""The constant-answer floor: what always saying the same thing earns.

A verifier that pays a constant well is a finding about the verifier, and a result means something only above its floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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
