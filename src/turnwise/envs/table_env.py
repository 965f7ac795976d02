"""Any table as a text environment, where there is nothing to say of a state but its number."""

from __future__ import annotations

import random

from turnwise.envs.errors import EnvError
from turnwise.envs.exact import Tabular
from turnwise.envs.tabular_env import TabularEnv, TextTable
from turnwise.envs.text_env import Outcome


class TableEnv(TabularEnv):
    """A `Tabular` in text: "state 3".

    ``success`` in the last figures is 1 where the last action was paid more than 0, else 0.

    Args:
        tabular: The table.
        name: Name in messages and records.
    """

    def __init__(self, tabular: Tabular, name: str = "table") -> None:
        states = tuple(range(tabular.n_states))
        table = TextTable(tabular, states, tuple(f"state {state}" for state in states))
        super().__init__(name, table, figures=("success",))

    def act(self, text: str) -> Outcome:
        outcome = super().act(text)
        self._counts["success"] = float(outcome.terminated and outcome.reward > 0)
        return outcome

    def tabular(self) -> Tabular:
        """The table."""
        return self.table.tabular

    def scatter(self, rng: random.Random) -> str:
        """Go to any other state, all equally likely; return the new observation.

        Raises:
            EnvError: there is only one state.
        """
        n = self.table.tabular.n_states
        if n < 2:
            raise EnvError(f"environment {self.name!r} has one state, so there is nowhere else to go")
        return self.place((self.state_index() + rng.randrange(1, n)) % n)
