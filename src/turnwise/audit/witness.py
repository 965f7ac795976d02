"""What a player did in a world whose states are counted: in which state, at which turn, which action.

The states are noted by the innermost wrapper, next to the world itself, whatever else is wrapped around it for the player.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from turnwise.audit.evidence import Evidence, Level
from turnwise.audit.measure import NotMeasurable
from turnwise.audit.player import TextGame
from turnwise.audit.players import held_out_seeds
from turnwise.envs.text_env import plain
from turnwise.episode import Transcript

Wrap = Callable[[TextGame], TextGame]
"""Puts something around an environment."""


@dataclass(frozen=True)
class Choices:
    """Actions with the states they were chosen in, episode by episode.

    Attributes:
        states: (N,) state before each action.
        turns: (N,) turns of the environment before each action.
        actions: (N,) index of the action in the table.
        episodes: (N,) number of the episode, from 0.
        starts: (n_episodes,) the state that each episode began in.
        returns: (n_episodes,) sum of the rewards of each.
        refused: Replies besides these that are no action of the table.
        transcripts: The episodes as they were played; empty where nobody played them.
    """

    states: NDArray[np.int64]
    turns: NDArray[np.int64]
    actions: NDArray[np.int64]
    episodes: NDArray[np.int64]
    starts: NDArray[np.int64]
    returns: NDArray[np.float64]
    refused: int = 0
    transcripts: tuple[Transcript, ...] = ()

    def __len__(self) -> int:
        return len(self.actions)


def witness(
    name: str, evidence: Evidence, wrap: Wrap | None = None, *, any_reply: bool = False
) -> Choices | NotMeasurable:
    """Let the player of the evidence play the world of its table, and note what it did.

    Args:
        name: Of the measure, for the answer where the evidence lacks something.
        evidence: With a player, an environment and its table.
        wrap: Put around the environment, for the player to meet.
        any_reply: The measure can do without actions of the table, as when it asks for returns.
    """
    missing = lacks(name, evidence)
    if missing is not None:
        return missing
    make, player, tabular = evidence.make_env, evidence.player, evidence.tabular
    assert make is not None
    assert player is not None
    assert tabular is not None
    notes: dict[int, list[tuple[int, int, str]]] = {}
    probe = make()
    counted = probe.has_wrapper_attr("state_index")
    probe.close()
    if not counted:
        return NotMeasurable(name, Level.L4, "the environment does not say which state of the table it is in")

    def noted() -> TextGame:
        env = _Noted(make(), notes)
        return env if wrap is None else wrap(env)

    tasks = held_out_seeds(evidence.plays, evidence.seed)
    transcripts = player(noted, tasks)
    index = {plain(text): number for number, text in enumerate(tabular.actions)}
    rows: list[tuple[int, int, int, int]] = []
    refused = 0
    for number, task in enumerate(tasks):
        for state, turn, text in notes.get(task, []):
            action = index.get(plain(text))
            if state >= tabular.n_states or turn >= tabular.horizon:
                return NotMeasurable(
                    name, Level.L4,
                    f"the environment was in state {state} at turn {turn}; its table has {tabular.n_states} states and "
                    f"{tabular.horizon} turns, so it is a table of another world",
                )  # fmt: skip
            if action is None:
                refused += 1
            else:
                rows.append((state, turn, action, number))
    if not tasks or any(not notes.get(task) for task in tasks):
        return NotMeasurable(name, Level.L4, "the policy did not act in every episode that it was to play")
    if not rows and not any_reply:
        return NotMeasurable(name, Level.L4, f"none of the policy's {refused} replies is an action of the world")
    states, turns, actions, episodes = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    starts = np.array([notes[task][0][0] for task in tasks], dtype=np.int64)
    returns = np.array([sum(played.rewards) for played in transcripts], dtype=np.float64)
    return Choices(states, turns, actions, episodes, starts, returns, refused, tuple(transcripts))


def lacks(name: str, evidence: Evidence) -> NotMeasurable | None:
    """What evidence lacks for a player to be watched in a world with a table; None where it is all there."""
    if evidence.player is None or evidence.make_env is None:
        return NotMeasurable(name, Level.L4, "there is no policy and no environment for it to act in")
    if evidence.tabular is None:
        return NotMeasurable(name, Level.L4, "the environment has no exact table of its states")
    return None


class _Noted(gymnasium.Wrapper[str, str, str, str]):
    def __init__(self, env: Any, notes: dict[int, list[tuple[int, int, str]]]) -> None:
        super().__init__(env)
        self._notes = notes
        self._row: list[tuple[int, int, str]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        found = self.env.reset(seed=seed, options=options)
        self._row = []
        if seed is not None:
            self._notes[seed] = self._row
        return found

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        state = int(self.env.get_wrapper_attr("state_index")())
        self._row.append((state, int(getattr(self.unwrapped, "turn", len(self._row))), action))
        return self.env.step(action)


def sample(tabular: Any, policy: NDArray[np.float64], episodes: int, seed: int | Sequence[int]) -> Choices:
    """Episodes of a tabular policy in its table, drawn without an environment.

    Args:
        tabular: The table.
        policy: (S, A) or (H, S, A) probabilities.
        episodes: Number of them.
        seed: Of all draws.
    """
    rng = np.random.default_rng(seed)
    state = _choose(np.broadcast_to(tabular.initial, (episodes, tabular.n_states)), rng)
    starts, alive, returns = state.copy(), np.arange(episodes), np.zeros(episodes)
    rows: list[NDArray[np.int64]] = []
    for turn in range(tabular.horizon):
        table = policy if policy.ndim == 2 else policy[turn]
        at = state[alive]
        action = _choose(table[at], rng)
        rows.append(np.stack([at, np.full_like(at, turn), action, alive]))
        k = _choose(tabular.probability[at, action], rng)
        reward = tabular.reward if tabular.reward.ndim == 3 else tabular.reward[turn]
        returns[alive] += reward[at, action, k]
        state[alive] = tabular.successor[at, action, k]
        alive = alive[~tabular.ended[at, action, k]]
        if not len(alive):
            break
    states, turns, actions, numbers = np.concatenate(rows, axis=1)
    return Choices(states, turns, actions, numbers, starts, returns)


def _choose(probabilities: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    cumulative = probabilities.cumsum(-1)
    drawn = rng.random((len(probabilities), 1)) * cumulative[:, -1:]
    return np.minimum((cumulative <= drawn).sum(-1), probabilities.shape[1] - 1)
