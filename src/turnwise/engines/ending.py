"""When an action ends: at a stop id, or with the token whose text completes a stop string.

Decoding an action after each of its tokens would cost more than sampling them. Text can only be completed by a token that
brings the last character of a stop string, so that one look at a table tells nearly all tokens that go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

# What a token means for the action that it was sampled for. Of an unknown one nobody has asked yet.
_GOES_ON, _ENDS, _MAY_END, _UNKNOWN = range(4)


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
        self._meaning = np.full(vocabulary, _UNKNOWN if strings else _GOES_ON, np.int8)
        self._meaning[[token for token in stop if 0 <= token < vocabulary]] = _ENDS

    def ended(self, ids: NDArray[np.int64], actions: Callable[[int], list[int]]) -> NDArray[np.bool_]:
        """(R,) whether each of R actions ends with the id (R,) that it has just got; `actions` gives all ids of one."""
        meaning = self._meaning[ids]
        ends = meaning == _ENDS
        if self._strings:
            for row in np.flatnonzero(meaning > _ENDS).tolist():
                ends[row] = self._may_end(int(ids[row])) and self._complete(actions(row))
        return ends

    def _complete(self, action: list[int]) -> bool:
        text = self._decode(action)
        return any(string in text for string in self._strings)

    def _may_end(self, token: int) -> bool:
        if self._meaning[token] == _UNKNOWN:
            # Twice, because some tokenizers drop the blank before the first; part of a character decodes to U+FFFD.
            text = self._decode([token, token])
            self._meaning[token] = _MAY_END if "\ufffd" in text or not self._last.isdisjoint(text) else _GOES_ON
        return self._meaning[token] == _MAY_END
