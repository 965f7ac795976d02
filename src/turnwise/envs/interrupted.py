"""An episode disturbed in the middle: does the agent find its way back?"""

from __future__ import annotations

import random
from typing import Any

import gymnasium

from turnwise.envs.errors import EnvError


class _Disturbed(gymnasium.Wrapper[str, str, str, str]):
    """Counts the agent's actions, and draws from a generator of its own for each episode."""

    def __init__(self, env: Any, seed: int) -> None:
        super().__init__(env)
        self._seed = seed
        self._acted = 0
        self._done = False
        self._rng = random.Random(seed)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self._acted, self._done = 0, False
        observation, info = self.env.reset(seed=seed, options=options)
        self._rng = random.Random(f"{self._seed} {getattr(self.unwrapped, 'seed', seed) if seed is None else seed}")
        return observation, info


class Interrupted(_Disturbed):
    """After the agent's action number `turn`, something else acts: random moves, or a throw into another place.

    The agent reads the observation after the disturbance. The forced moves use up turns of the environment; what they
    are paid is not the agent's and is dropped. A move that would end the episode is taken back and another one tried.
    They are drawn from ``possible_actions()`` where the environment has it, otherwise from ``legal_actions()``.

    The figures of the last step gain ``interrupted``: 1 when the disturbance took place, 0 when the episode was over
    before it.

    Args:
        env: An environment with ``legal_actions()``, ``save()`` and ``restore()``; all built-in ones have them.
        turn: The disturbance follows this action of the agent, counted from 1.
        moves: Number of random moves.
        scatter: Call the environment's ``scatter(rng)``, which puts the agent and what it holds elsewhere, before
            the random moves.
        seed: Seed of the disturbance, combined with the seed of the episode.

    Raises:
        EnvError: the environment lacks a method that is needed; the message names it.
        EnvError: `turn` below 1, or nothing to do.
    """

    def __init__(self, env: Any, *, turn: int, moves: int = 5, scatter: bool = False, seed: int = 0) -> None:
        super().__init__(env, seed)
        if turn < 1 or moves < 0 or (moves == 0 and not scatter):
            raise EnvError(f"Interrupted needs turn >= 1 and something to do, got turn={turn}, moves={moves}")
        needed = ["legal_actions", "save", "restore"] * (moves > 0) + ["scatter"] * scatter
        for method in needed:
            if not env.has_wrapper_attr(method):
                raise EnvError(f"Interrupted needs an environment with a method {method}(); {env} has none")
        self.turn = turn
        self.moves = moves
        self.scatter = scatter

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._acted += 1
        if self._acted == self.turn and not (terminated or truncated):
            self._done = True
            if self.scatter:
                observation = self.env.get_wrapper_attr("scatter")(self._rng)
            for _ in range(self.moves):
                moved = self._move()
                if moved is None:
                    break
                observation = moved
        if terminated or truncated:
            info = {**info, "interrupted": float(self._done)}
        return observation, reward, terminated, truncated, info

    def _move(self) -> str | None:
        """One random move that does not end the episode; None when every one of them would."""
        of = self.env.get_wrapper_attr
        actions = list(of("possible_actions" if self.env.has_wrapper_attr("possible_actions") else "legal_actions")())
        self._rng.shuffle(actions)
        before = of("save")()
        for action in actions:
            observation, _, terminated, truncated, _ = self.env.step(action)
            if not (terminated or truncated):
                return observation
            of("restore")(before)
        return None


class _Window(_Disturbed):
    """After the agent's action number `turn`, `turns` observations in a row are changed; the world is not."""

    def __init__(self, env: Any, *, turn: int, turns: int = 3, seed: int = 0) -> None:
        super().__init__(env, seed)
        if turn < 1 or turns < 1:
            raise EnvError(f"{type(self).__name__} needs turn >= 1 and turns >= 1, got turn={turn}, turns={turns}")
        self.turn = turn
        self.turns = turns

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._acted += 1
        if terminated or truncated:
            return observation, reward, terminated, truncated, {**info, "interrupted": float(self._done)}
        if self._open:
            self._done = True
            observation = self._changed(observation)
        return observation, reward, terminated, truncated, info

    @property
    def _open(self) -> bool:
        return self.turn <= self._acted < self.turn + self.turns

    def _changed(self, observation: str) -> str:
        raise NotImplementedError


class Blackout(_Window):
    """For some turns there is nothing to be seen: the observation is the empty string.

    Someone who looks the state up by ``state_index()`` gets the last one that was seen. The figures of the last step gain
    ``interrupted`` as with `Interrupted`.

    Args:
        env: Any environment.
        turn: The observation after this action of the agent, counted from 1, is the first that is empty.
        turns: Number of empty observations.
        seed: Of nothing: there is no chance in it.

    Raises:
        EnvError: `turn` or `turns` below 1.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        found = super().reset(seed=seed, options=options)
        self._seen: int | None = None
        return found

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        before = self.env.get_wrapper_attr("state_index")() if self.env.has_wrapper_attr("state_index") else None
        if not self._open:
            self._seen = before
        return super().step(action)

    def state_index(self) -> int:
        """The state, or while nothing is seen the last one that was.

        Raises:
            EnvError: the environment does not count its states.
        """
        if not self.env.has_wrapper_attr("state_index"):
            raise EnvError(f"{self.env} does not count its states; give it a method state_index() -> int")
        return self._seen if self._open and self._seen is not None else int(self.env.get_wrapper_attr("state_index")())

    def _changed(self, observation: str) -> str:
        return ""


WORDS = (
    "a bird sings",
    "it smells of rain",
    "somewhere a bell rings twice",
    "seven leaves fall",
    "a cat walks by",
    "the paint on the wall is green",
    "an old song plays",
    "two people talk about cheese",
)
"""What has nothing to do with anything."""


class Distracted(_Window):
    """For some turns the observation is preceded by words that have nothing to do with the task.

    Nothing that was there is taken away. The figures of the last step gain ``interrupted`` as with `Interrupted`.

    Args:
        env: Any environment.
        turn: The observation after this action of the agent, counted from 1, is the first with such words.
        turns: Number of observations with such words.
        seed: Of the choice of words, combined with the seed of the episode.

    Raises:
        EnvError: `turn` or `turns` below 1.
    """

    def _changed(self, observation: str) -> str:
        return " ; ".join([*self._rng.sample(WORDS, 3), observation])
