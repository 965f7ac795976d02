"""Learners whose policy is a table: a logit for each state and action, π(a | s) = softmax(θ_s)_a.

What such a policy is worth is computed, not sampled (`turnwise.envs.exact`), so a claim about learning has a true value to
be held against. Credit is that of `turnwise.credit`, the same code that language models learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from turnwise.credit import leave_one_out, leave_one_out_alive, returns, uniform
from turnwise.envs.exact import Array, Tabular

Index = NDArray[np.int64]
"""Any array of whole numbers."""


@dataclass(frozen=True)
class Log:
    """Episodes, all their turns in a row.

    Attributes:
        lengths: (n,) turns of each episode.
        turn: (T,) index of each turn in its episode.
        state: (T,) the state before the action.
        action: (T,) the action.
        reward: (T,) what it paid.
        after: (T,) the state that followed.
        ended: (T,) the episode terminated with it.
    """

    lengths: Index
    turn: Index
    state: Index
    action: Index
    reward: Array
    after: Index
    ended: NDArray[np.bool_]

    @property
    def n(self) -> int:
        """Number of episodes."""
        return len(self.lengths)

    def split(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """(T,) values as one array per episode."""
        return np.split(values, np.cumsum(self.lengths)[:-1])

    def total(self, values: NDArray[Any]) -> Array:
        """(n,) sums of (T,) values over each episode."""
        return np.add.reduceat(values, np.cumsum(self.lengths) - self.lengths)

    def of(self, kept: NDArray[np.bool_]) -> Log:
        """The episodes that are kept; `kept` is (n,)."""
        turns = np.repeat(kept, self.lengths)
        return Log(
            self.lengths[kept],
            self.turn[turns],
            self.state[turns],
            self.action[turns],
            self.reward[turns],
            self.after[turns],
            self.ended[turns],
        )


def play(world: Tabular, policy: Array, n: int, rng: Generator) -> Log:
    """Episodes of a policy.

    Args:
        world: The world.
        policy: (S, A) or (H, S, A) probabilities.
        n: Number of episodes.
        rng: What chance is drawn from.
    """
    cumulative = policy.cumsum(-1)
    branches = world.probability.cumsum(-1)
    state = _draw(np.broadcast_to(world.initial.cumsum(), (n, world.n_states)), rng)
    episode = np.arange(n)
    parts: list[tuple[Any, ...]] = []
    for t in range(world.horizon):
        table = cumulative if policy.ndim == 2 else cumulative[t]
        action = _draw(table[state], rng)
        k = _draw(branches[state, action], rng)
        pays = world.reward if world.reward.ndim == 3 else world.reward[t]
        after, ended = world.successor[state, action, k], world.ended[state, action, k]
        parts.append((episode, np.full(len(state), t), state, action, pays[state, action, k], after, ended))
        episode, state = episode[~ended], after[~ended]
        if not len(state):
            break
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    lengths = np.bincount(columns[0], minlength=n)
    return Log(lengths, *(column[order] for column in columns[1:]))


def softmax(logits: Array) -> Array:
    """(..., A) probabilities."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


Credit = Callable[[Log, Array], Array]
"""A log and its (T,) rewards -> the (T,) advantages of its actions."""


def to_go(log: Log, reward: Array) -> Array:
    """Return-to-go, less the mean over the other episodes alive at that turn."""
    found = returns(log.split(reward), 1.0)
    return np.concatenate(leave_one_out_alive(found, [0] * log.n))


def broadcast(log: Log, reward: Array) -> Array:
    """The episode's return less that of the others, given to all its actions alike: outcome credit."""
    per_episode = leave_one_out(log.total(reward), [0] * log.n)
    return np.concatenate(uniform(per_episode, log.lengths.tolist()))


def gradient(log: Log, policy: Array, advantage: Array) -> Array:
    """(S, A): the policy gradient Σ A (∇ log π) / n of logits, with n episodes (Williams 1992)."""
    total = np.zeros_like(policy)
    np.add.at(total, (log.state, log.action), advantage)
    weight = np.bincount(log.state, advantage, minlength=len(policy))
    return (total - weight[:, None] * policy) / log.n


def learn(
    world: Tabular,
    start: Array,
    rng: Generator,
    *,
    rounds: int,
    episodes: int,
    lr: float,
    credit: Credit = to_go,
    reward: Callable[[Log], Array] | None = None,
) -> Iterator[Array]:
    """On-policy policy gradient; yields the policy after each round.

    A round plays `episodes` and takes one step of size `lr` along the gradient, with advantages divided by their standard
    deviation in the round.

    Args:
        world: The world.
        start: (S, A) probabilities to start from, all above zero.
        rng: What chance is drawn from.
        rounds: Number of steps.
        episodes: Of each round.
        lr: Size of a step, in logits.
        credit: From rewards to advantages.
        reward: What the turns of a log are paid; by default what the world pays.
    """
    logits = np.log(start)
    for _ in range(rounds):
        policy = softmax(logits)
        log = play(world, policy, episodes, rng)
        advantage = credit(log, log.reward if reward is None else reward(log))
        spread = float(advantage.std())
        if spread > 0.0:
            logits = logits + lr * gradient(log, policy, advantage / spread)
        yield softmax(logits)


def clone(world: Tabular, log: Log, weight: Array | None = None) -> Array:
    """(S, A): behaviour cloning, the share of each action in each state of a log; uniform where the log has never been.

    Args:
        world: The world.
        log: What to imitate.
        weight: (T,) weight of each turn; 1 by default.
    """
    counts = np.zeros((world.n_states, world.n_actions))
    np.add.at(counts, (log.state, log.action), 1.0 if weight is None else weight)
    seen = counts.sum(-1, keepdims=True)
    return np.where(seen > 0, counts / np.maximum(seen, 1e-300), 1.0 / world.n_actions)


def to_go_mean(world: Tabular, log: Log) -> Array:
    """(S, A): mean return from each action in each state on, as Monte-Carlo labels have it; 0 where the log has none."""
    found = np.concatenate(returns(log.split(log.reward), 1.0))
    total, counts = np.zeros((2, world.n_states, world.n_actions))
    np.add.at(total, (log.state, log.action), found)
    np.add.at(counts, (log.state, log.action), 1.0)
    return total / np.maximum(counts, 1.0)


def occupancy(world: Tabular, policy: Array) -> Array:
    """(H, S): probability of being in each state before each turn, with the episode not over.

    Args:
        world: The world.
        policy: (S, A) or (H, S, A) probabilities.
    """
    found = np.zeros((world.horizon, world.n_states))
    found[0] = world.initial
    flow = np.where(world.ended, 0.0, world.probability)
    for t in range(world.horizon - 1):
        table = policy if policy.ndim == 2 else policy[t]
        np.add.at(found[t + 1], world.successor, found[t][:, None, None] * table[..., None] * flow)
    return found


def with_reward(world: Tabular, reward: Array) -> Tabular:
    """The same world with other rewards, of shape (S, A, K) or (H, S, A, K)."""
    return Tabular(
        world.probability,
        world.successor,
        np.ascontiguousarray(reward, dtype=np.float64),
        world.ended,
        world.initial,
        world.horizon,
        world.actions,
    )


def _draw(cumulative: Array, rng: Generator) -> Index:
    """(n,) draws from (n, K) cumulative probabilities, none of them of probability zero."""
    chance = rng.random(len(cumulative)) * cumulative[:, -1]
    return (chance[:, None] >= cumulative).sum(-1)
