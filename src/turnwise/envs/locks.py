"""Locks: tasks that look-ahead of exactly `depth` turns solves, and none shorter, on the values of random play.

A lock shows a code of `depth` turns, such as "left right left", and a coin lies beside it. Taking the coin pays `decoy`
and ends the episode. Turning the lock as the code says goes on to the rest of the code, and the last right turn pays 1;
any other action jams it, which ends the episode and pays nothing. Once the lock has been turned the coin is gone.

Why k* = depth. One of three actions is right at every turn, so random play that has r turns to go opens the lock with
probability 3^-r. At the start, k-step look-ahead on the values of random play (`turnwise.audit.difficulty`) plans the
first k turns and leaves the other depth - k to chance: it values the lock at ``3^-(depth - k)``, at most 1/3 for k < depth
and 1 for k = depth. The coin pays more than 1/3 and less than 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

from turnwise.envs.errors import EnvError
from turnwise.envs.small_world import Branch, SmallWorld, TextTable, check_number, tabulate

if TYPE_CHECKING:
    from turnwise.envs.exact import Tabular

ACTIONS = ("left", "right", "take coin")
"""All actions."""
DEEPEST = 10
"""Greatest depth; the table has about 2^(depth + 1) states."""
TURNS = 12
"""Turn limit."""

_JAMMED, _OPEN, _TAKEN = ("jammed",), ("open",), ("coin taken",)


class Locks(SmallWorld):
    """A lock beside a coin, see the module's text.

    Args:
        depth: Number of turns of the code, 1 to 10.
        decoy: Pay for the coin, between 1/3 and 1.
        max_turns: Turn limit, at least `depth`.
        noise: Changes nothing here, where nothing is left to chance.

    Raises:
        EnvError: an option outside its range.
    """

    def __init__(self, depth: int = 3, decoy: float = 0.6, max_turns: int = TURNS, noise: int = 0) -> None:
        super().__init__("locks", _table(depth, decoy, max_turns), noise, ("success", "coin"))

    def goal(self) -> str:
        return "open the lock"

    def events(self, state: Any, action: str | None, after: Any) -> Iterable[str]:
        if after == _OPEN:
            yield "success"
        if after == _TAKEN:
            yield "coin"


def tabular(depth: int = 3, decoy: float = 0.6, max_turns: int = TURNS, noise: int = 0) -> Tabular:
    """The lock as tables: one state for each rest of a code, and three in which it is over."""
    return _table(depth, decoy, max_turns).tabular


@lru_cache(maxsize=32)
def _table(depth: int, decoy: float, max_turns: int) -> TextTable:
    check_number("locks", "depth", depth, 1, DEEPEST, whole=True)
    check_number("locks", "decoy", decoy, 1 / 3, 1.0, ends=False)
    check_number("locks", "max_turns", max_turns, 1, 1000, whole=True)
    if max_turns < depth:
        raise EnvError(f"environment 'locks': a code of {depth} turns needs max_turns of at least {depth}")
    codes = list(product(ACTIONS[:2], repeat=depth))

    def branches(code: tuple[str, ...], action: str) -> Iterator[Branch]:
        if action == code[0]:
            rest = code[1:]
            yield Branch(1.0, rest or _OPEN, 0.0 if rest else 1.0, not rest)
        elif action == "take coin" and len(code) == depth:
            yield Branch(1.0, _TAKEN, decoy, True)
        else:
            yield Branch(1.0, _JAMMED, 0.0, True)

    def describe(code: tuple[str, ...]) -> str:
        if code in (_JAMMED, _OPEN, _TAKEN):
            return code[0]
        return f"{'coin here' if len(code) == depth else 'no coin'} ; lock {' '.join(code)}"

    return tabulate(dict.fromkeys(codes, 1.0 / len(codes)), branches, describe, ACTIONS, max_turns)
