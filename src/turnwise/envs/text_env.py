"""The base of the built-in environments: text in, text out, a turn limit that is always there.

It holds what every text environment would otherwise repeat: seeding, counting turns, refusing a step after the
end, and forks by replay. Subclasses only say how an episode begins and what one action does. An environment
need not derive from it: any ``gymnasium.Env[str, str]`` will do.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from turnwise.envs.errors import EnvError, NotOffered

State = Any
"""An opaque snapshot, the result of `save`."""


class TextSpace(gymnasium.Space[str]):
    """Every string. `sample` draws one of the examples."""

    def __init__(self, examples: Sequence[str] = (), seed: int | None = None) -> None:
        super().__init__(shape=None, dtype=str, seed=seed)
        self.examples = tuple(examples)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """One of the examples, uniformly; the empty string when there are none."""
        if not self.examples:
            return ""
        return self.examples[int(self.np_random.integers(len(self.examples)))]

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def __repr__(self) -> str:
        return f"TextSpace({list(self.examples)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextSpace) and other.examples == self.examples


class Outcome(NamedTuple):
    """What one action led to."""

    observation: str
    reward: float
    terminated: bool = False
    truncated: bool = False


class TextEnv(gymnasium.Env[str, str]):
    """A Gymnasium environment on text with a turn limit.

    Subclasses implement `begin` and `act`, and `metrics` if they have figures to report. The seed of `reset` is
    the task: the same seed and the same actions give the same episode.

    ``info`` holds ``goal`` (the goal in words) after `reset`, if there is one, and the figures of `metrics`, all of
    them floats, after the last step.

    Attributes:
        name: Name in messages and records.
        max_turns: The episode is truncated after this many actions, unless it has terminated.
        turn: Number of actions taken so far.
        seed: Seed of the running episode.
    """

    def __init__(self, name: str, max_turns: int, actions: Sequence[str] = ()) -> None:
        if isinstance(max_turns, bool) or not isinstance(max_turns, int) or max_turns < 1:
            raise EnvError(f"environment {name!r}: max_turns must be an integer of at least 1, got {max_turns!r}")
        self.name = name
        self.max_turns = max_turns
        self.observation_space = TextSpace()
        self.action_space = TextSpace(actions)
        self.turn = 0
        self.seed = 0
        self._over = True
        self._history: list[str] = []

    @abstractmethod
    def begin(self, seed: int) -> str:
        """Start the task `seed` and return the first observation."""

    @abstractmethod
    def act(self, text: str) -> Outcome:
        """Carry out one action; `turn` counts it already."""

    def goal(self) -> str | None:
        """The goal in words, or None."""
        return None

    def metrics(self) -> Mapping[str, float]:
        """Figures for people, asked for once, at the end of the episode."""
        return {}

    def legal_actions(self) -> tuple[str, ...]:
        """Actions a random agent may choose from now.

        Raises:
            NotOffered: the environment cannot list any.
        """
        raise NotOffered(
            f"environment {self.name!r} cannot list its legal actions; give it a method legal_actions() -> tuple[str, ...]"
        )

    def optimal_action(self) -> str:
        """What an expert would do now.

        Raises:
            NotOffered: the environment has no expert.
        """
        raise NotOffered(
            f"environment {self.name!r} has no expert; give it a method optimal_action() -> str, "
            "or ask for random demonstrations with skill=0"
        )

    def save(self) -> State:
        """A snapshot of the running episode, here the seed and the actions so far."""
        return self.seed, tuple(self._history)

    def restore(self, state: State) -> None:
        """Go back to a snapshot of `save`, here by playing it again."""
        seed, actions = state
        self.reset(seed=seed)
        for action in actions:
            self.step(action)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode. Without a seed the next one of the environment's own generator is used."""
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        else:
            self._np_random_seed = seed
            self._np_random = None
        self.seed = seed
        self.turn = 0
        self._over = False
        self._history = []
        observation = self.begin(seed)
        goal = self.goal()
        return observation, {} if goal is None else {"goal": goal}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Carry out one action.

        Raises:
            EnvError: the episode is over or has not begun.
            EnvError: the action is not a string.
        """
        if self._over:
            raise EnvError(f"environment {self.name!r}: the episode is over; call reset() before step()")
        if not isinstance(action, str):
            raise EnvError(f"environment {self.name!r} takes text, got {type(action).__name__}: {action!r}")
        self.turn += 1
        self._history.append(action)
        observation, reward, terminated, truncated = self.act(action)
        if not terminated and self.turn >= self.max_turns:
            truncated = True
        if terminated or truncated:
            self._over = True
            return observation, reward, terminated, truncated, dict(self.metrics())
        return observation, reward, False, False, {}

    @property
    def np_random(self) -> np.random.Generator:
        """Generator of the environment, created when it is first needed."""
        if self._np_random is None:
            seed = self._np_random_seed
            self._np_random = np.random.default_rng(seed if isinstance(seed, int) and seed >= 0 else None)
        return self._np_random

    @np_random.setter
    def np_random(self, value: np.random.Generator) -> None:
        self._np_random = value
        self._np_random_seed = -1


def plain(text: str) -> str:
    """The action in a reply: its last line in lower case, without quotes, punctuation at the ends or extra spaces.

    Only the last 200 characters are read, so that a reply of any length costs the same.
    """
    tail = text[-200:].strip()
    line = tail[tail.rfind("\n") + 1 :]
    return " ".join(line.strip(" \t.!\"'`*").lower().split())
