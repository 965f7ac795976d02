"""A table played in text: what dynamic programming says of the table is then true of the environment.

The observation names the turn and the state; an action is one of the table's texts. Anything else changes nothing, pays
nothing and takes a turn.
"""

from __future__ import annotations

import random
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnwise.envs.errors import EnvError
from turnwise.envs.exact import HURRY, Tabular, optimal_policy
from turnwise.envs.text_env import Outcome, TextEnv, plain


class TableEnv(TextEnv):
    """A `Tabular` as a text environment.

    ``success`` in the last figures is 1 where the episode terminated with a payment above 0, else 0.

    Args:
        tabular: The table.
        name: Name in messages and records.

    Attributes:
        table: The table.
        state: The present state.
    """

    def __init__(self, tabular: Tabular, name: str = "table") -> None:
        super().__init__(name, tabular.horizon, tabular.actions)
        self.table = tabular
        self.state = 0
        self._index = {plain(text): number for number, text in enumerate(tabular.actions)}
        self._success = False

    def begin(self, seed: int) -> str:
        self.state = _draw(self.table.initial, random.Random(f"{seed} begin"))
        self._success = False
        return self._observe()

    def _observe(self) -> str:
        return f"turn {self.turn} state {self.state}"

    def act(self, text: str) -> Outcome:
        action = self._index.get(plain(text))
        if action is None:
            return Outcome(f"not understood ; {self._observe()}", 0.0)
        world, turn = self.table, self.turn - 1
        # The noise belongs to the seed and the turn, so that a fork repeats it.
        k = _draw(world.probability[self.state, action], random.Random(f"{self.seed} {turn}"))
        reward = world.reward if world.reward.ndim == 3 else world.reward[turn]
        paid, ended = float(reward[self.state, action, k]), bool(world.ended[self.state, action, k])
        self.state = int(world.successor[self.state, action, k])
        self._success = ended and paid > 0
        return Outcome(self._observe(), paid, ended)

    def metrics(self) -> dict[str, float]:
        return {"success": float(self._success)}

    def legal_actions(self) -> tuple[str, ...]:
        return self.table.actions

    @cached_property
    def _policy(self) -> NDArray[np.int64]:
        return optimal_policy(self.table, discount=HURRY)

    def optimal_action(self) -> str:
        return self.table.actions[int(self._policy[self.turn, self.state])]

    def scatter(self, rng: random.Random) -> str:
        """Go to any other state; return the new observation.

        Raises:
            EnvError: there is only one state.
        """
        if self.table.n_states < 2:
            raise EnvError(f"environment {self.name!r} has one state, so there is nowhere else to go")
        self.state = (self.state + rng.randrange(1, self.table.n_states)) % self.table.n_states
        return self._observe()

    def save(self) -> Any:
        """Everything that the rest of the episode depends on."""
        return self.seed, self.turn, self._over, tuple(self._history), self.state, self._success

    def restore(self, state: Any) -> None:
        """Go back to a snapshot of `save`."""
        self.seed, self.turn, self._over, history, self.state, self._success = state
        self._history = list(history)

    def state_index(self) -> int:
        """Index of the present state in the table."""
        return self.state

    def tabular(self) -> Tabular:
        """The table."""
        return self.table


def _draw(probabilities: NDArray[np.float64], rng: random.Random) -> int:
    cumulative = np.cumsum(probabilities)
    # Rounding may leave the last sum below the number drawn.
    return min(int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")), len(cumulative) - 1)
