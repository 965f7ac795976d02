"""Text worlds that are their own table: one description of the rules gives the game and its exact values.

A world says where it begins, what each action does in each state with which probability, and what is seen. `tabulate`
walks through every state that can be reached; `SmallWorld` plays the result. So the game cannot differ from the table
that its optimum is computed from, and every state of the table can be reached.

Chance is drawn from (seed, noise, turn): the same seed begins in the same state, and another ``noise`` lets other things
happen to the same actions in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from turnwise.envs.errors import EnvError
from turnwise.envs.exact import Tabular, from_transitions
from turnwise.envs.table_env import TableEnv
from turnwise.envs.text_env import Outcome, plain

IMPOSSIBLE = -0.1
"""Pay for an action that is not understood; it changes nothing."""


class Branch(NamedTuple):
    """One thing that an action may lead to."""

    probability: float
    successor: Any
    reward: float
    ended: bool = False


@dataclass(frozen=True)
class TextTable:
    """A table, and its states in words.

    Attributes:
        tabular: The table.
        states: (S,) the states, by index.
        texts: (S,) what is seen in each.
    """

    tabular: Tabular
    states: tuple[Any, ...]
    texts: tuple[str, ...]


def tabulate(
    starts: Mapping[Any, float],
    branches: Callable[[Any, str], Iterable[Branch]],
    describe: Callable[[Any], str],
    actions: Sequence[str],
    horizon: int,
    pay_at_end: Callable[[int], float] | None = None,
) -> TextTable:
    """Every state that can be reached, in order of first reach, and what leads from one to another.

    A state in which the episode has ended leads to itself and pays nothing.

    Args:
        starts: Hashable start states and their probabilities.
        branches: (state, action) -> what may happen; the probabilities sum to one.
        describe: What is seen in a state.
        actions: All actions.
        horizon: Number of turns.
        pay_at_end: If given, an outcome that ends the episode pays its reward times this function of the turns before it.
    """
    index: dict[Hashable, int] = {state: number for number, state in enumerate(starts)}
    order = list(starts)
    final = set[Hashable]()
    transitions: list[list[list[tuple[float, int, float, bool]]]] = []
    for state in order:  # grows on the way
        row: list[list[tuple[float, int, float, bool]]] = []
        for action in actions:
            if state in final:
                row.append([(1.0, index[state], 0.0, True)])
                continue
            row.append([])
            for probability, after, reward, ended in branches(state, action):
                if probability == 0.0:
                    continue
                if after not in index:
                    index[after] = len(order)
                    order.append(after)
                if ended:
                    final.add(after)
                row[-1].append((probability, index[after], reward, ended))
        transitions.append(row)
    initial = [starts.get(state, 0.0) for state in order]
    tabular = from_transitions(transitions, initial, horizon, actions)
    if pay_at_end is not None:
        scale = np.array([pay_at_end(t) for t in range(horizon)])[:, None, None, None]
        tabular = replace(tabular, reward=np.where(tabular.ended, tabular.reward * scale, tabular.reward[None]))
    return TextTable(tabular, tuple(order), tuple(describe(state) for state in order))


class SmallWorld(TableEnv):
    """Plays a `TextTable`. Subclasses say what the figures of an episode count.

    The turn limit belongs to the task: the episode *terminates* there, and nothing could be earned after it. A text that
    is no action costs 0.1 and changes nothing.

    Args:
        name: Name in messages and records.
        world: What is played.
        noise: With the seed and the turn it decides what chance does; ``reset(options={"noise": 3})`` sets it for one
            episode.
        figures: Names of what `events` counts.

    Attributes:
        world: What is played.
        noise: Of the running episode.

    Raises:
        EnvError: a noise that is no whole number.
    """

    def __init__(self, name: str, world: TextTable, noise: int = 0, figures: Sequence[str] = ()) -> None:
        super().__init__(world.tabular, name)
        self.world = world
        self.noise = self._own_noise = _whole(name, noise)
        self._counts = dict.fromkeys(figures, 0.0)

    def events(self, state: Any, action: str | None, after: Any) -> Iterable[str]:
        """Names of the figures that one action adds to; `action` is None where the text was no action."""
        return ()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode; the option ``noise`` changes what chance does in it, not where it begins."""
        self.noise = _whole(self.name, (options or {}).get("noise", self._own_noise))
        return super().reset(seed=seed)

    def begin(self, seed: int) -> str:
        self._counts = dict.fromkeys(self._counts, 0.0)
        return self.place(_pick(self.table.initial, random.Random(f"start {seed}").random()))

    def act(self, text: str) -> Outcome:
        number = self._index.get(plain(text))
        late = self.turn >= self.max_turns
        before, states = self.state, self.world.states
        if number is None:
            reward, ended = IMPOSSIBLE, False
        else:
            chance = random.Random(f"{self.seed} {self.noise} {self.turn}").random()
            branch = _pick(self.table.probability[before, number], chance)
            self.state = int(self.table.successor[before, number, branch])
            pays = self.table.reward if self.table.reward.ndim == 3 else self.table.reward[self.turn - 1]
            reward, ended = float(pays[before, number, branch]), bool(self.table.ended[before, number, branch])
        action = None if number is None else self.table.actions[number]
        for name in self.events(states[before], action, states[self.state]):
            self._counts[name] += 1.0
        return Outcome(self.world.texts[self.state], reward, ended or late)

    def metrics(self) -> dict[str, float]:
        return dict(self._counts)

    def possible_actions(self) -> tuple[str, ...]:
        """The actions that may lead to another state; all of them where none does."""
        table = self.table
        moves = (table.probability[self.state] > 0) & (table.successor[self.state] != self.state)
        return tuple(a for a, does in zip(table.actions, moves.any(-1), strict=True) if does) or table.actions

    def place(self, state: int) -> str:
        """Put the running episode into a state of the table, by its index; return the new observation.

        Raises:
            EnvError: no such state.
        """
        if not 0 <= state < self.table.n_states:
            raise EnvError(f"environment {self.name!r} has the states 0 .. {self.table.n_states - 1}, got {state!r}")
        self.state = int(state)
        return self.world.texts[self.state]

    def scatter(self, rng: random.Random) -> str:
        """Throw the running episode into a random start state; return the new observation."""
        return self.place(_pick(self.table.initial, rng.random()))

    def save(self) -> Any:
        """Everything that the rest of the episode depends on."""
        counts = tuple(self._counts.items())
        return self.seed, self.noise, self.turn, self._over, tuple(self._history), self.state, counts

    def restore(self, state: Any) -> None:
        """Go back to a snapshot of `save`, also one of another world with the same options."""
        self.seed, self.noise, self.turn, self._over, history, self.state, counts = state
        self._history, self._counts = list(history), dict(counts)


def _pick(probabilities: NDArray[np.float64], chance: float) -> int:
    """The branch that a uniform draw falls on; never one of probability zero."""
    possible = np.flatnonzero(probabilities)
    place = int(np.searchsorted(np.cumsum(probabilities[possible]), chance, side="right"))
    return int(possible[min(place, len(possible) - 1)])


def _whole(name: str, noise: Any) -> int:
    if isinstance(noise, bool) or not isinstance(noise, int):
        raise EnvError(f"environment {name!r}: noise must be a whole number, got {noise!r}")
    return noise


def check_number(
    name: str, option: str, value: Any, low: float, high: float, *, whole: bool = False, ends: bool = True
) -> None:
    """Refuse an option outside its range.

    Args:
        name: Of the environment.
        option: Of the option.
        value: As given.
        low: Least.
        high: Greatest.
        whole: It has to be a whole number.
        ends: `low` and `high` themselves are allowed.

    Raises:
        EnvError: not a number, or outside.
    """
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not (low <= value <= high if ends else low < value < high):
        kind = "a whole number" if whole else "a number"
        raise EnvError(
            f"environment {name!r}: {option} must be {kind} {'from' if ends else 'between'} {low:g} "
            f"{'to' if ends else 'and'} {high:g}, got {value!r}"
        )
