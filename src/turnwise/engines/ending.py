"""When an action ends: at a stop id, or with the token whose text completes a stop string.

Decoding an action after each of its tokens would cost more than sampling them. Text can only be completed by a token that
brings the last character of a stop string, so that one look at a table tells nearly all tokens that go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Stop

WHY = (Stop.LENGTH, Stop.STOP, Stop.STRING)
"""Why an action ends, by what `Ending.ended` says of its last id: 0 only where the budget is used up."""

# What else a token can mean for the action that it was sampled for. Of an unknown one nobody has asked yet.
_MAY_END, _UNKNOWN = 2, 3


class Ending:
    """Tells which tokens end an action.

    Args:
        stop: Ids that end it.
        strings: Texts that end it.
        vocabulary: Number of ids.
        decode: Ids -> the text of an action.
    """

    def __init__(
        self, stop: Iterable[int], strings: Sequence[str], vocabulary: int, decode: Callable[[list[int]], str]
    ) -> None:
        self._strings = tuple(strings)
        self._last = {string[-1] for string in strings}
        self._decode = decode
        self._meaning = np.full(vocabulary, _UNKNOWN if strings else 0, np.int8)
        self._meaning[[token for token in stop if 0 <= token < vocabulary]] = 1

    def ended(self, ids: NDArray[np.int64], actions: Callable[[int], list[int]]) -> NDArray[np.int8]:
        """(R,) how each of R actions ends with the id (R,) that it has just got: not, 0; with a stop id, 1; with a string, 2.

        Args:
            ids: The latest id of each.
            actions: Row -> all ids of its action.
        """
        meaning = self._meaning[ids]
        if self._strings:
            for row in np.flatnonzero(meaning > 1).tolist():
                meaning[row] = 2 if self._may_end(int(ids[row])) and self._complete(actions(row)) else 0
        return meaning

    def _complete(self, action: list[int]) -> bool:
        text = self._decode(action)
        return any(string in text for string in self._strings)

    def _may_end(self, token: int) -> bool:
        if self._meaning[token] == _UNKNOWN:
            # Twice, because some tokenizers drop the blank before the first; part of a character decodes to U+FFFD.
            text = self._decode([token, token])
            self._meaning[token] = _MAY_END if "\ufffd" in text or not self._last.isdisjoint(text) else 0
        return self._meaning[token] == _MAY_END
