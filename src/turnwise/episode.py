"""The record of what happened: turns and episodes.

An episode alternates between what the world added to the context (an observation, as token ids)
and what the policy chose (an action, as the token ids that were really sampled). Text is for people;
the ids are the truth, and nothing in this package ever tokenises a sampled action again.

What this file leaves out: credit, masks and weights. They are streams computed later and live in a
`Batch`; an episode only says what was observed, done and paid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
"""Token ids, shape (n,)."""

UNSCORABLE = "unscorable/"
"""What the names of an episode's `metrics` begin with that count the turns a reward could not score; its name follows."""


class Stop(StrEnum):
    """Why the sampler ended an action."""

    STOP = "stop"
    """A stop token was sampled; it is the last id of the action."""
    LENGTH = "length"
    """The action used up its token budget without a stop token."""
    STRING = "string"
    """The last id completed a stop string. No stop token was sampled, so the next observation closes the action."""


class Source(StrEnum):
    """Who chose the actions of an episode."""

    POLICY = "policy"
    DATASET = "dataset"
    HUMAN = "human"
    EXPERT = "expert"
    TEACHER = "teacher"


class Cut(StrEnum):
    """Why we stopped watching an episode that had not ended by itself."""

    TURN_LIMIT = "turn_limit"
    """The turn limit of the collector or of the environment (Gymnasium's ``truncated``)."""
    CONTEXT = "context"
    """The next observation no longer fits into the model's context."""
    LENGTH = "length"
    """An action reached its token budget and the collector was told to stop there."""
    TIMEOUT = "timeout"
    """The environment missed its deadline."""
    CRASH = "crash"
    """The environment raised, or returned something that is not an observation or a finite reward."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the world added, then what the policy chose.

    Attributes:
        obs: (n,) int32. The context *delta* since the previous turn, template tokens included.
        act: (m,) int32. Sampled ids, verbatim, stop token included.
        logp: (m,) float32. Log-probability of each id under the distribution really sampled.
        reward: Paid for this action, the sum of `rewards`.
        version: Version of the weights that sampled the action.
        fresh: `obs` is the whole context (first turn, compaction, memory-less policy).
        stop: Why sampling ended.
        rewards: The reward by source, so that a reader can tell the environment from a judge.

    Raises:
        ValueError: an action without tokens (an empty one holds at least its stop token), or not one log-probability for
            each.
    """

    obs: Ids
    act: Ids
    logp: NDArray[np.float32]
    reward: float
    version: int = 0
    fresh: bool = False
    stop: Stop = Stop.STOP
    rewards: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        if not len(self.act):
            raise ValueError("a turn needs at least one action token; an action without text is its stop token alone")
        if len(self.act) != len(self.logp):
            raise ValueError(f"a turn has {len(self.act)} action tokens and {len(self.logp)} log-probabilities")


@dataclass(frozen=True, slots=True)
class Episode:
    """One agent's view of one run of the world.

    At most one of `terminated` and `truncated` is true. Only a truncated episode bootstraps, from the
    value of the context that ends with `last_obs`.

    Attributes:
        group: The task instance. Episodes of one group started in the same state.
        turns: What happened, in order.
        terminated: The task ended by itself.
        truncated: We stopped watching; `cut` says why and `detail` says it in words.
        last_obs: (n,) int32. Context delta after the last action (empty when terminated).
        last_fresh: `last_obs` is the whole context.
        env: Name of the environment.
        agent: Name of the agent; several agents of one world have one episode each, joined by `world`.
        world: Identifier of the run of the world.
        source: Who acted.
        seed: Seed the environment was reset with. The seed *is* the task.
        goal: The goal in words, if the environment names one.
        metrics: Figures for people (success, steps …). No code branches on them.
        cut: Why the episode was truncated.
        detail: The same in words, naming environment, seed and turn.
    """

    group: str
    turns: tuple[Turn, ...]
    terminated: bool
    truncated: bool
    last_obs: Ids
    last_fresh: bool = False
    env: str = ""
    agent: str = "agent"
    world: str = ""
    source: Source = Source.POLICY
    seed: int = 0
    goal: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    cut: Cut | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if self.terminated and self.truncated:
            raise ValueError(
                f"episode {self.group!r} (seed {self.seed}) is both terminated and truncated; "
                "an ended task must not bootstrap, so set at most one of the two"
            )
        if self.truncated != (self.cut is not None):
            raise ValueError(f"episode {self.group!r}: `cut` must be given exactly when `truncated` is true")

    @property
    def failed(self) -> bool:
        """The environment, not the policy, broke this episode; it must not train anything."""
        return self.cut in (Cut.TIMEOUT, Cut.CRASH)

    @property
    def rewards(self) -> NDArray[np.float64]:
        """(n_turns,) float64, the reward of each turn."""
        return np.array([turn.reward for turn in self.turns], dtype=np.float64)

    @property
    def undiscounted_return(self) -> float:
        """Sum of all rewards."""
        return float(sum(turn.reward for turn in self.turns))

    @property
    def act_lengths(self) -> NDArray[np.int64]:
        """(n_turns,) int64, number of action tokens of each turn."""
        return np.array([len(turn.act) for turn in self.turns], dtype=np.int64)

    @property
    def n_action_tokens(self) -> int:
        """Number of sampled tokens."""
        return int(sum(len(turn.act) for turn in self.turns))

    @property
    def answers(self) -> list[list[int]]:
        """Turn indices of each answer: a turn without an observation, a step, goes on with the answer of the turn before."""
        found: list[list[int]] = []
        for index, turn in enumerate(self.turns):
            if found and not len(turn.obs) and not turn.fresh:
                found[-1].append(index)
            else:
                found.append([index])
        return found

    @property
    def behaviour_logp(self) -> NDArray[np.float32]:
        """(n_action_tokens,) float32, the recorded log-probabilities of all turns in a row."""
        return np.concatenate([turn.logp for turn in self.turns]) if self.turns else np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class Transcript:
    """An episode in plain text: what demonstrations and logged dialogues are before they are tokenised.

    `observations[t]` precedes `actions[t]`, which paid `rewards[t]`; `last_obs` follows the last action. An observation
    may be a text that carries chat messages (`turnwise.text.Conversation`).

    Attributes:
        observations: What the world said before each action.
        actions: What was answered.
        rewards: What each action was paid.
        terminated: The task ended by itself.
        truncated: Somebody stopped watching.
        last_obs: What the world said after the last action.
        env: Name of the environment.
        seed: Seed of the task.
        goal: The goal in words.
        source: Who acted.
        metrics: Figures for people.
        group: What it is compared within (the prompt of a preference pair); by default the environment and the seed.
        pays: Who pays the rewards, the name under which they are booked: "environment", or "label" where they say what
            somebody thought of it.
        separator: Not None where the actions are the steps of one answer, each but the last followed by this text. Then
            the world says nothing between them, and the observations after the first are empty.

    Raises:
        ValueError: not one observation, action and reward per turn, or an observation between steps.
    """

    observations: tuple[str, ...]
    actions: tuple[str, ...]
    rewards: tuple[float, ...]
    terminated: bool
    truncated: bool
    last_obs: str = ""
    env: str = ""
    seed: int = 0
    goal: str | None = None
    source: Source = Source.EXPERT
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    group: str = ""
    pays: str = "environment"
    separator: str | None = None

    def __post_init__(self) -> None:
        if not len(self.observations) == len(self.actions) == len(self.rewards):
            raise ValueError(
                f"a transcript needs one observation, one action and one reward per turn, got "
                f"{len(self.observations)}, {len(self.actions)} and {len(self.rewards)}"
            )
        if self.separator is not None and any(self.observations[1:]):
            raise ValueError(
                "the world says nothing between the steps of an answer; the observations after the first are empty"
            )
