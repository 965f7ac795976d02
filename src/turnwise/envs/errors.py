"""What goes wrong with environments, in words for the person at the keyboard."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from turnwise.errors import TurnwiseError


class EnvError(TurnwiseError):
    """An environment was asked for, written or used in a way that cannot work."""


class NotOffered(EnvError):  # noqa: N818 -- it says that a thing is not there, not that something failed
    """An environment does not have an optional ability, such as an expert."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` with the known word nearest to `word`, or an empty string if none is near."""
    lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[near[0]]!r}?" if near else ""
