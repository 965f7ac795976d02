"""Somebody who plays environments in text: a language model, a table, a script. Measures of behaviour ask no more of a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import gymnasium

from turnwise.episode import Source, Transcript

TextGame = gymnasium.Env[str, str]
"""An environment on text."""

Say = Callable[[Sequence[str], Sequence[str], int], str]
"""(observations so far, own actions so far, seed of the episode) -> the next action."""


class Player(Protocol):
    """A policy that plays."""

    def __call__(self, make: Callable[[], TextGame], seeds: Sequence[int]) -> list[Transcript]:
        """One episode for each seed, in order; the same call gives the same episodes.

        Args:
            make: Makes the environment, wrapped in whatever the measure wants to happen.
            seeds: What it is reset with.
        """
        ...


def speaker(say: Say) -> Player:
    """The player that says what a function says.

    Args:
        say: See `Say`.
    """

    def play(make: Callable[[], TextGame], seeds: Sequence[int]) -> list[Transcript]:
        env = make()
        try:
            return [play_once(env, seed, say) for seed in seeds]
        finally:
            env.close()

    return play


def play_once(env: TextGame, seed: int, say: Say) -> Transcript:
    """One episode.

    Args:
        env: It must end its episodes by itself.
        seed: To reset it with.
        say: Who acts.
    """
    observation, info = env.reset(seed=seed)
    observations, actions, rewards = [observation], list[str](), list[float]()
    while True:
        action = say(observations, actions, seed)
        observation, reward, terminated, truncated, info = env.step(action)
        actions.append(action)
        rewards.append(float(reward))
        if terminated or truncated:
            figures = {name: float(value) for name, value in info.items() if isinstance(value, int | float)}
            return Transcript(
                tuple(observations), tuple(actions), tuple(rewards), terminated, truncated and not terminated, observation,
                env=str(getattr(env.unwrapped, "name", "")), seed=seed, source=Source.POLICY,
                metrics=figures,
            )  # fmt: skip
        observations.append(observation)
