"""Codecs for Gymnasium's toy-text worlds: FrozenLake, CliffWalking, Taxi, Blackjack.

The observations are words around the agent rather than a state number, so that a small model can learn from them and
a large one can reason about them. Texts are made once per state.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnwise.envs.codec import Codec, CodecEnv, Inner, check_options
from turnwise.envs.errors import EnvError
from turnwise.envs.exact import HURRY, Tabular, from_transitions, optimal_policy

TURNS = {"FrozenLake-v1": 100, "FrozenLake8x8-v1": 200, "CliffWalking-v1": 200, "Taxi-v4": 200, "Blackjack-v1": 20}
"""Turn limits: those that Gymnasium registers, and one for the worlds where it has none."""


def offset(rows: int, columns: int, words: tuple[str, str, str, str]) -> str:
    """A displacement in words, for example "3 down 2 right"; `words` are for -row, +row, -column, +column."""
    parts = []
    if rows:
        parts.append(f"{abs(rows)} {words[0] if rows < 0 else words[1]}")
    if columns:
        parts.append(f"{abs(columns)} {words[2] if columns < 0 else words[3]}")
    return " ".join(parts) or "here"


class TableCodec(Codec):
    """A codec for a world with a table of transitions and numbered states."""

    def __init__(self, inner: Any, horizon: int) -> None:
        self.inner = inner
        self.horizon = horizon
        self._texts: dict[int, str] = {}

    @cached_property
    def tabular(self) -> Tabular:
        """The world as tables."""
        return from_transitions(self.inner.P, self.inner.initial_state_distrib, self.horizon, self.actions)

    @cached_property
    def _policy(self) -> NDArray[np.int64]:
        return optimal_policy(self.tabular, discount=HURRY)

    def expert(self, inner: Any, turns_left: int) -> int:
        return int(self._policy[self.horizon - turns_left, inner.s])

    def observe(self, inner: Inner, observation: Any) -> str:
        state = int(observation)
        text = self._texts.get(state)
        if text is None:
            text = self._texts[state] = self.describe(state)
        return text

    def describe(self, state: int) -> str:
        """A state in words."""
        raise NotImplementedError


_GROUND = {"S": "ice", "F": "ice", "H": "hole", "G": "goal"}


class FrozenLakeCodec(TableCodec):
    """Position, way to the goal and the four cells around; with view="map" also the whole lake, row by row."""

    actions = ("left", "down", "right", "up")

    def __init__(self, inner: Any, horizon: int, view: str = "around") -> None:
        super().__init__(inner, horizon)
        if view not in ("around", "map"):
            raise EnvError(f'FrozenLake: view is "around" or "map", got {view!r}')
        self.view = view
        self.lake = [[cell.decode() for cell in row] for row in inner.desc]
        goals = [(r, c) for r, row in enumerate(self.lake) for c, cell in enumerate(row) if cell == "G"]
        self._goal = goals[0] if goals else None

    def goal(self, inner: Inner) -> str:
        return "reach the goal and keep out of the holes"

    def describe(self, state: int) -> str:
        row, column = divmod(state, len(self.lake[0]))
        parts = [f"row {row} column {column}"]
        if self._goal is not None:
            way = offset(self._goal[0] - row, self._goal[1] - column, ("up", "down", "left", "right"))
            parts.append(f"goal {way}")
        for word, r, c in (
            ("left", row, column - 1),
            ("down", row + 1, column),
            ("right", row, column + 1),
            ("up", row - 1, column),
        ):
            inside = 0 <= r < len(self.lake) and 0 <= c < len(self.lake[0])
            parts.append(f"{word} {_GROUND[self.lake[r][c]] if inside else 'edge'}")
        if self.view == "map":
            rows = [
                " ".join("me" if (r, c) == (row, column) else _GROUND[cell] for c, cell in enumerate(line))
                for r, line in enumerate(self.lake)
            ]
            parts.append("map : " + " / ".join(rows))
        return " ; ".join(parts)


class CliffWalkingCodec(TableCodec):
    """Position, way to the goal, and what lies around."""

    actions = ("up", "right", "down", "left")
    penalty = -2.0
    _ROWS, _COLUMNS = 4, 12

    def goal(self, inner: Inner) -> str:
        return "reach the goal in few steps and keep off the cliff"

    def success(self, reward: float, terminated: bool) -> bool:
        return terminated

    def describe(self, state: int) -> str:
        row, column = divmod(state, self._COLUMNS)
        way = offset(self._ROWS - 1 - row, self._COLUMNS - 1 - column, ("up", "down", "left", "right"))
        around = (
            ("up", row - 1, column),
            ("right", row, column + 1),
            ("down", row + 1, column),
            ("left", row, column - 1),
        )
        cells = " ; ".join(f"{word} {self._cell(r, c)}" for word, r, c in around)
        return f"row {row} column {column} ; goal {way} ; {cells}"

    def _cell(self, row: int, column: int) -> str:
        if not (0 <= row < self._ROWS and 0 <= column < self._COLUMNS):
            return "edge"
        if row == self._ROWS - 1 and column == self._COLUMNS - 1:
            return "goal"
        return "cliff" if row == self._ROWS - 1 and column > 0 else "free"


class TaxiCodec(TableCodec):
    """Where the taxi is, where the passenger waits and wants to go, and which ways are open."""

    actions = ("south", "north", "east", "west", "pick up", "drop off")
    penalty = -2.0
    _PLACES = ("red", "green", "yellow", "blue")

    def goal(self, inner: Inner) -> str:
        return "bring the passenger to the destination"

    def describe(self, state: int) -> str:
        row, column, passenger, destination = self.inner.decode(state)
        words = ("north", "south", "west", "east")

        def way(place: int) -> str:
            r, c = self.inner.locs[place]
            return f"{self._PLACES[place]} {offset(r - row, c - column, words)}"

        rider = "passenger in taxi" if passenger == len(self._PLACES) else f"passenger at {way(passenger)}"
        free = " ".join(self.actions[a] for a in self._allowed(state) if a < 4)
        return f"row {row} column {column} ; {rider} ; destination {way(destination)} ; open {free}"

    def _allowed(self, state: int) -> list[int]:
        return [int(a) for a in np.flatnonzero(self.inner.action_mask(state))]

    def legal(self, inner: Any) -> Sequence[int]:
        return self._allowed(int(inner.s))


class BlackjackCodec(Codec):
    """The own sum, whether an ace counts eleven, and the dealer's open card. The expert plays the known optimum."""

    actions = ("stick", "hit")

    def goal(self, inner: Inner) -> str:
        return "come closer to 21 than the dealer without going over"

    def observe(self, inner: Inner, observation: Any) -> str:
        total, dealer, ace = (int(part) for part in observation)
        return f"your sum {total}{' with a usable ace' if ace else ''} ; dealer shows {dealer if dealer > 1 else 'ace'}"

    def expert(self, inner: Any, turns_left: int) -> int:
        """The optimal policy of Sutton & Barto (2018), figure 5.2."""
        total, dealer, ace = (int(part) for part in inner._get_obs())
        if ace:
            stick = total >= 19 or (total == 18 and 2 <= dealer <= 8)
        elif 2 <= dealer <= 6:
            stick = total >= (12 if dealer >= 4 else 13)
        else:
            stick = total >= 17
        return 0 if stick else 1


CODECS: dict[str, type[Codec]] = {
    "FrozenLake": FrozenLakeCodec,
    "CliffWalking": CliffWalkingCodec,
    "Taxi": TaxiCodec,
    "Blackjack": BlackjackCodec,
}
"""Beginning of an id -> its codec."""


def make_toytext(env_id: str, *, max_turns: int | None = None, **options: Any) -> CodecEnv:
    """One of Gymnasium's toy-text worlds in text; `options` go to Gymnasium, ``view`` to FrozenLake's codec."""
    import gymnasium

    turns = TURNS[env_id] if max_turns is None else max_turns
    check_options(env_id, options, ("max_turns", "view") if env_id.startswith("FrozenLake") else ("max_turns",))
    view = options.pop("view", "around")
    inner = gymnasium.make(env_id, disable_env_checker=True, **options).unwrapped
    kind = next(kind for kind in CODECS if env_id.startswith(kind))
    if kind == "Blackjack":
        codec: Codec = BlackjackCodec()
    elif kind == "FrozenLake":
        codec = FrozenLakeCodec(inner, turns, view)
    else:
        codec = CODECS[kind](inner, turns)  # type: ignore[call-arg]
    return CodecEnv(inner, codec, name=env_id, max_turns=turns)


def exact_toytext(env_id: str, **options: Any) -> Tabular:
    """The tables of a toy-text world, for its turn limit.

    Raises:
        EnvError: Blackjack, which publishes no table of transitions.
    """
    codec = make_toytext(env_id, **options).codec
    if not isinstance(codec, TableCodec):
        raise EnvError(f"{env_id} has no table of transitions, so it has no exact values")
    return codec.tabular
