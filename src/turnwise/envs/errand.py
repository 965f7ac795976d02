"""The errand world: carry the right gem to the guard, in the time there is, past a tempting little joke.

Eight rooms lie in a line. Two gems, a red and a blue one, a guard and the agent start in different rooms. The
request names one gem. Each turn the agent goes east or west, takes or gives a gem, or tells a joke:

* handing the requested gem to the guard pays ``10 * (1 - 0.9 * t / T)`` and ends the episode, where t counts the
  actions before it and T = 30 is the deadline;
* a joke pays 0.1 at once and changes nothing: telling jokes until the deadline earns 3.0;
* anything impossible (a wall, a gem that is not here, the wrong gem for the guard) or not understood costs 0.1 and
  changes nothing; everything else pays nothing.

The deadline belongs to the task, and so the episode *terminates* there: nothing can be earned after it, and the
value of the state it ends in is zero. The optimum over start states is exactly 7.9 in exactly 8 turns: two walks
of mean length 3 (two different rooms out of eight), one take and one give.

With ``guards=2`` there are a tall and a short guard in two different rooms, and the request also names one of them.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from turnwise.envs.errors import EnvError
from turnwise.envs.text_env import Outcome, TextEnv, plain

if TYPE_CHECKING:
    from turnwise.envs.exact import Tabular

ROOMS = 8
"""Number of rooms."""
DEADLINE = 30
"""T, the number of turns there are."""
ACTIONS = (
    "go east",
    "go west",
    "take red gem",
    "take blue gem",
    "give red gem",
    "give blue gem",
    "tell a joke",
)
"""All actions."""
GEMS = ("red", "blue")
"""Colours of the gems."""
GUARDS = {1: ("guard",), 2: ("tall guard", "short guard")}
"""Number of guards -> their names."""
PAY = 10.0
"""Pay for an immediate delivery."""
DECAY = 0.9
"""Share of the pay that is lost at the deadline."""
JOKE = 0.1
"""Pay for a joke."""
IMPOSSIBLE = -0.1
"""Pay for an action that is impossible or not understood."""
HELD = ROOMS
"""Place of a gem that the agent holds."""

_EAST, _WEST, _TAKE, _GIVE, _JOKE = 0, 1, 2, 4, 6
_INDEX = {text: index for index, text in enumerate(ACTIONS)}
_WHERE = {
    distance: "here" if distance == 0 else f"{abs(distance)} {'east' if distance > 0 else 'west'}"
    for distance in range(1 - ROOMS, ROOMS)
}


def pay(t: int, deadline: int = DEADLINE) -> float:
    """Pay for a delivery that t actions preceded: ``10 * (1 - 0.9 * t / T)``."""
    return PAY * (1.0 - DECAY * t / deadline)


class Errand(TextEnv):
    """The errand world, see the module's text.

    Args:
        max_turns: The deadline T.
        guards: 1 or 2.

    Attributes:
        me: Room of the agent, 0 (west) to 7 (east).
        gems: Room of the red and of the blue gem; `HELD` while the agent holds it.
        guards: Room of each guard.
        wanted: Index of the requested gem.
        target: Index of the guard to bring it to.
    """

    def __init__(self, max_turns: int = DEADLINE, guards: int = 1) -> None:
        if guards not in GUARDS:
            raise EnvError(f"the errand world has 1 or 2 guards, got guards={guards!r}")
        super().__init__("errand", max_turns, ACTIONS)
        self._names = GUARDS[guards]
        self.me = 0
        self.gems = [0, 0]
        self.guards = [0] * guards
        self.wanted = 0
        self.target = 0
        self._delivered = False
        self._mistakes = 0
        self._jokes = 0
        self._prefix = ""

    def begin(self, seed: int) -> str:
        rng = random.Random(seed)
        rooms = rng.sample(range(ROOMS), 3 + len(self._names))
        self.me, self.gems, self.guards = rooms[0], rooms[1:3], rooms[3:]
        self.wanted = rng.randrange(2)
        self.target = rng.randrange(len(self._names))
        self._delivered, self._mistakes, self._jokes = False, 0, 0
        self._prefix = f"{self.goal()} ;"
        return self._observe()

    def goal(self) -> str:
        return f"bring {GEMS[self.wanted]} gem to {self._names[self.target]}"

    def _observe(self) -> str:
        me = self.me
        red, blue = ("held" if room == HELD else _WHERE[room - me] for room in self.gems)
        text = f"{self._prefix} red {red} ; blue {blue}"
        for name, room in zip(self._names, self.guards, strict=True):
            text += f" ; {name} {_WHERE[room - me]}"
        return text

    def possible(self, index: int) -> bool:
        """Whether action number `index` of `ACTIONS` would do anything now."""
        if index == _EAST:
            return self.me < ROOMS - 1
        if index == _WEST:
            return self.me > 0
        if index < _GIVE:
            return self.gems[index - _TAKE] == self.me
        if index < _JOKE:
            gem = index - _GIVE
            return gem == self.wanted and self.gems[gem] == HELD and self.guards[self.target] == self.me
        return True

    def act(self, text: str) -> Outcome:
        index = _INDEX.get(text)
        if index is None:
            index = _INDEX.get(plain(text))
        late = self.turn >= self.max_turns
        if index is None or not self.possible(index):
            self._mistakes += 1
            return Outcome(f"impossible ; {self._observe()}", IMPOSSIBLE, late)
        reward = 0.0
        if index == _EAST:
            self.me += 1
        elif index == _WEST:
            self.me -= 1
        elif index < _GIVE:
            self.gems[index - _TAKE] = HELD
        elif index < _JOKE:
            self._delivered = True
            return Outcome("delivered", pay(self.turn - 1, self.max_turns), True)
        else:
            self._jokes += 1
            reward = JOKE
        return Outcome(self._observe(), reward, late)

    def metrics(self) -> dict[str, float]:
        return {
            "success": float(self._delivered),
            "impossible": float(self._mistakes),
            "jokes": float(self._jokes),
        }

    def legal_actions(self) -> tuple[str, ...]:
        """The seven actions of this world, whether or not they are possible now: that is for the policy to learn."""
        return ACTIONS

    def possible_actions(self) -> tuple[str, ...]:
        """The actions that would do something now."""
        return tuple(text for index, text in enumerate(ACTIONS) if self.possible(index))

    def turns_needed(self) -> int:
        """Least number of actions to the delivery from here."""
        guard, gem = self.guards[self.target], self.gems[self.wanted]
        if gem == HELD:
            return abs(guard - self.me) + 1
        return abs(gem - self.me) + 1 + abs(guard - gem) + 1

    def _errand_pays(self) -> bool:
        # Very late, a long walk earns less than telling jokes all the way to the deadline.
        last = self.turn + self.turns_needed() - 1
        return last < self.max_turns and pay(last, self.max_turns) >= JOKE * (self.max_turns - self.turn)

    def optimal_action(self) -> str:
        """The next step of the shortest way to the delivery; a joke when it is too late for that."""
        if not self._errand_pays():
            return ACTIONS[_JOKE]
        gem = self.gems[self.wanted]
        place = self.guards[self.target] if gem == HELD else gem
        if place != self.me:
            return ACTIONS[_EAST if place > self.me else _WEST]
        return ACTIONS[(_GIVE if gem == HELD else _TAKE) + self.wanted]

    def optimal_value(self) -> float:
        """Greatest sum of rewards still to be had from here: V*(state, turn)."""
        if not self._errand_pays():
            return JOKE * (self.max_turns - self.turn)
        return pay(self.turn + self.turns_needed() - 1, self.max_turns)

    def rate_reply(self, text: str) -> float:
        """The immediate reward of saying `text` now, without saying it: the judgement of someone who sees one reply.

        Such a judge likes a joke better than a step in the right direction.
        """
        index = _INDEX.get(plain(text))
        if index is None or not self.possible(index):
            return IMPOSSIBLE
        if index == _JOKE:
            return JOKE
        return pay(self.turn, self.max_turns) if index >= _GIVE else 0.0

    def scatter(self, rng: random.Random) -> str:
        """Put the agent into a random room and every held gem back into one; return the new observation."""
        self.me = rng.randrange(ROOMS)
        self.gems = [rng.randrange(ROOMS) if room == HELD else room for room in self.gems]
        return self._observe()

    def save(self) -> Any:
        """Everything that the rest of the episode depends on."""
        return (
            self.seed,
            self.turn,
            self._over,
            tuple(self._history),
            self.me,
            tuple(self.gems),
            tuple(self.guards),
            self.wanted,
            self.target,
            (self._delivered, self._mistakes, self._jokes),
        )

    def restore(self, state: Any) -> None:
        """Go back to a snapshot of `save`, also one of another errand world of the same deadline and guards."""
        self.seed, self.turn, self._over, history, self.me, gems, guards, self.wanted, self.target, counts = state
        self._history, self.gems, self.guards = list(history), list(gems), list(guards)
        self._delivered, self._mistakes, self._jokes = counts
        self._prefix = f"{self.goal()} ;"

    def state_index(self) -> int:
        """Index of the present state in `tabular`. The guard who was not named does not matter."""
        return _state(self.me, self.gems[0], self.gems[1], self.guards[self.target], self.wanted)


def _state(me: Any, red: Any, blue: Any, guard: Any, wanted: Any) -> Any:
    return (((me * (ROOMS + 1) + red) * (ROOMS + 1) + blue) * ROOMS + guard) * 2 + wanted


def tabular(max_turns: int = DEADLINE, guards: int = 1) -> Tabular:
    """The errand world as tables: 10,368 states, 7 actions, rewards that depend on the turn."""
    import numpy as np

    from turnwise.envs.exact import Tabular

    n = ROOMS * (ROOMS + 1) ** 2 * ROOMS * 2
    sizes = (ROOMS, ROOMS + 1, ROOMS + 1, ROOMS, 2)
    me, red, blue, guard, wanted = (axis.reshape(-1) for axis in np.indices(sizes))
    here = np.arange(n)
    successor = np.repeat(here[:, None], len(ACTIONS), axis=1)
    possible = np.zeros((n, len(ACTIONS)), dtype=bool)
    ended = np.zeros((n, len(ACTIONS)), dtype=bool)

    def lead(action: int, when: Any, to: Any) -> None:
        possible[:, action] = when
        successor[:, action] = np.where(when, to, here)

    lead(_EAST, me < ROOMS - 1, _state(np.minimum(me + 1, ROOMS - 1), red, blue, guard, wanted))
    lead(_WEST, me > 0, _state(np.maximum(me - 1, 0), red, blue, guard, wanted))
    lead(_TAKE, red == me, _state(me, HELD, blue, guard, wanted))
    lead(_TAKE + 1, blue == me, _state(me, red, HELD, guard, wanted))
    for gem, place in enumerate((red, blue)):
        lead(_GIVE + gem, (wanted == gem) & (place == HELD) & (guard == me), here)
        ended[:, _GIVE + gem] = possible[:, _GIVE + gem]
    lead(_JOKE, np.ones(n, dtype=bool), here)

    once = np.where(possible, 0.0, IMPOSSIBLE)
    once[:, _JOKE] = JOKE
    pays = np.array([pay(t, max_turns) for t in range(max_turns)])
    reward = np.where(ended[None], pays[:, None, None], once[None])

    rooms = np.stack([me, red, blue, guard])
    different = (red != HELD) & (blue != HELD) & (np.diff(np.sort(rooms, axis=0), axis=0) > 0).all(axis=0)
    return Tabular(
        probability=np.ones((n, len(ACTIONS), 1)),
        successor=successor[..., None],
        reward=reward[..., None],
        ended=ended[..., None],
        initial=different / different.sum(),
        horizon=max_turns,
        actions=ACTIONS,
    )
