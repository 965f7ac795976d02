"""The vault: fetch the key, open the door, reach the treasure, past coins that pay a little every turn.

`length` rooms lie in a line from west to east. The treasure is in the last one, behind a locked door; the agent and the
key start in two different rooms before the door. Each turn the agent goes east or west, takes the key, opens the door
with it from the room before, or picks up a coin:

* walking into the treasure's room pays ``10 * (1 - 0.9 * t / T)`` and ends the episode, where t counts the actions
  before it and T is the deadline (as in the errand world);
* a coin pays `coin` at once and changes nothing;
* anything impossible or not understood costs 0.1 and changes nothing; everything else pays nothing.

With probability `slip` an action that is possible fails: a move goes the other way, or nowhere where that is a wall, and a
hand takes or opens nothing. So a plan that does not look where it has got to fails. Coins are never missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

from turnwise.envs.errand import DEADLINE, PAY, pay
from turnwise.envs.small_world import IMPOSSIBLE, Branch, SmallWorld, TextTable, check_number, tabulate

if TYPE_CHECKING:
    from turnwise.envs.exact import Tabular

ACTIONS = ("go east", "go west", "take key", "open door", "take coin")
"""All actions."""
HELD = -1
"""Place of the key that the agent holds."""


class Place(NamedTuple):
    """A state of the world."""

    me: int
    """Room of the agent, 0 (west) to length - 1 (the treasure's)."""
    key: int
    """Room of the key; `HELD` while the agent holds it."""
    open: bool
    """The door is open."""


class Vault(SmallWorld):
    """The vault, see the module's text.

    Args:
        length: Number of rooms, the treasure's included.
        slip: Probability that an action fails.
        coin: Pay for a coin.
        max_turns: The deadline T.
        noise: Another one lets other actions slip in the same task; ``reset(options={"noise": 3})`` sets it for one
            episode.

    Raises:
        EnvError: an option outside its range.
    """

    def __init__(
        self, length: int = 6, slip: float = 0.1, coin: float = 0.1, max_turns: int = DEADLINE, noise: int = 0
    ) -> None:
        table = _table(length, slip, coin, max_turns)
        super().__init__("vault", table, noise, ("success", "impossible", "coins"))
        self.length = length

    def goal(self) -> str:
        return "reach the treasure"

    def events(self, state: Any, action: str | None, after: Any) -> Iterable[str]:
        if after.me == self.length - 1:
            yield "success"
        if action is None or _intended(state, action, self.length) is None:
            yield "impossible"
        if action == "take coin":
            yield "coins"


def tabular(
    length: int = 6, slip: float = 0.1, coin: float = 0.1, max_turns: int = DEADLINE, noise: int = 0
) -> Tabular:
    """The vault as tables: ``(length - 1) (length + 1) + 1`` states, rewards that depend on the turn."""
    return _table(length, slip, coin, max_turns).tabular


@lru_cache(maxsize=32)
def _table(length: int, slip: float, coin: float, max_turns: int) -> TextTable:
    check_number("vault", "length", length, 3, 20, whole=True)
    check_number("vault", "slip", slip, 0.0, 1.0)
    check_number("vault", "coin", coin, 0.0, PAY)
    check_number("vault", "max_turns", max_turns, 1, 1000, whole=True)
    last = length - 1
    starts = [Place(me, key, False) for me, key in permutations(range(last), 2)]

    def branches(state: Place, action: str) -> Iterator[Branch]:
        if action == "take coin":
            yield Branch(1.0, state, coin)
            return
        meant = _intended(state, action, length)
        if meant is None:
            yield Branch(1.0, state, IMPOSSIBLE)
            return
        other = {"go east": "go west", "go west": "go east"}.get(action)
        slipped = (_intended(state, other, length) if other else None) or state
        for probability, after in ((1.0 - slip, meant), (slip, slipped)):
            ended = after.me == last
            yield Branch(probability, after, float(ended), ended)

    def describe(state: Place) -> str:
        if state.me == last:
            return "treasure"
        key = "held" if state.key == HELD else _where(state.key - state.me)
        return f"key {key} ; door {_where(last - 1 - state.me)} {'open' if state.open else 'locked'}"

    return tabulate(
        dict.fromkeys(starts, 1.0 / len(starts)), branches, describe, ACTIONS, max_turns, lambda t: pay(t, max_turns)
    )


def _intended(state: Place, action: str, length: int) -> Place | None:
    """Where an action leads that does not slip; None where it is impossible. A coin changes nothing."""
    before = length - 2
    if action == "go east" and (state.me < before or state.open):
        return state._replace(me=state.me + 1)
    if action == "go west" and state.me > 0:
        return state._replace(me=state.me - 1)
    if action == "take key" and state.key == state.me:
        return state._replace(key=HELD)
    if action == "open door" and state.key == HELD and state.me == before and not state.open:
        return state._replace(open=True)
    return state if action == "take coin" else None


def _where(distance: int) -> str:
    return "here" if distance == 0 else f"{abs(distance)} {'east' if distance > 0 else 'west'}"
