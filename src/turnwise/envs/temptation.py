"""Temptation: a small reward now, or a big one for waiting.

Waiting ``delay + 1`` times pays `big` with the last wait and ends the episode. Grabbing at any turn before pays
``small * (1 - i / (delay + 1))`` after i waits, and ends it: the small reward shrinks, so that it is never better, nor equal,
to grab later.

A planner that sees the rewards of its next h actions grabs at the first turn if h < delay + 1, because nothing it sees
exceeds the small reward now, and waits if h >= delay + 1. After i waits the same holds with ``delay + 1 - i``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from turnwise.envs.errors import EnvError
from turnwise.envs.small_world import Branch, SmallWorld, TextTable, check_number, tabulate

if TYPE_CHECKING:
    from turnwise.envs.exact import Tabular

ACTIONS = ("grab", "wait")
"""All actions."""
TURNS = 25
"""Turn limit."""

_GRABBED, _PAID = "grabbed", "paid"


class Temptation(SmallWorld):
    """Small now against big later, see the module's text.

    Args:
        delay: k, number of turns by which the big reward comes later than the small one; 1 to 20.
        small: Pay for grabbing at once.
        big: Pay for waiting; more than `small`.
        vary: The seed draws how long one has waited at the start, from 0 to `delay` turns, all equally likely; otherwise 0.
        max_turns: Turn limit, more than `delay`.
        noise: Changes nothing here, where nothing is left to chance.

    Raises:
        EnvError: an option outside its range.
    """

    def __init__(
        self,
        delay: int = 3,
        small: float = 0.3,
        big: float = 1.0,
        vary: bool = False,
        max_turns: int = TURNS,
        noise: int = 0,
    ) -> None:
        super().__init__("temptation", _table(delay, small, big, vary, max_turns), noise, ("success", "grabbed"))

    def goal(self) -> str:
        return "earn as much as possible"

    def events(self, state: Any, action: str | None, after: Any) -> Iterable[str]:
        if after == _PAID:
            yield "success"
        if after == _GRABBED:
            yield "grabbed"


def tabular(
    delay: int = 3, small: float = 0.3, big: float = 1.0, vary: bool = False, max_turns: int = TURNS, noise: int = 0
) -> Tabular:
    """The temptation as tables: ``delay + 3`` states, of which the last two are its ends."""
    return _table(delay, small, big, vary, max_turns).tabular


@lru_cache(maxsize=64)
def _table(delay: int, small: float, big: float, vary: bool, max_turns: int) -> TextTable:
    check_number("temptation", "delay", delay, 1, 20, whole=True)
    check_number("temptation", "small", small, 0.0, 1e6, ends=False)
    check_number("temptation", "big", big, small, 1e6, ends=False)
    check_number("temptation", "max_turns", max_turns, 1, 1000, whole=True)
    if not isinstance(vary, bool):
        raise EnvError(f"environment 'temptation': vary must be true or false, got {vary!r}")
    needed = delay + 1
    if max_turns < needed:
        raise EnvError(f"environment 'temptation': a delay of {delay} needs max_turns of at least {needed}")

    def branches(waited: int, action: str) -> Iterator[Branch]:
        if action == "grab":
            yield Branch(1.0, _GRABBED, small * (1.0 - waited / needed), True)
        elif waited + 1 < needed:
            yield Branch(1.0, waited + 1, 0.0)
        else:
            yield Branch(1.0, _PAID, big, True)

    def describe(state: int | str) -> str:
        return state if isinstance(state, str) else f"small now ; big in {needed - state}"

    starts = dict.fromkeys(range(needed if vary else 1), 1.0 / (needed if vary else 1))
    return tabulate(starts, branches, describe, ACTIONS, max_turns)
