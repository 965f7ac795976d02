"""The best plan made in advance: a sequence of actions chosen from the start state alone, and carried out blindly.

What chance does to it is a distribution over states that moves on with each action. The search over sequences is exact: A*
(Hart, Nilsson & Raphael 1968) with the value of acting turn by turn as its bound, since nobody who does not look earns more
than somebody who does.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count

import numpy as np

from turnwise.envs.exact import Array, Tabular, optimal_values
from turnwise.errors import TurnwiseError


def best_plan(world: Tabular, state: int, *, limit: int = 1_000_000) -> tuple[float, tuple[int, ...]]:
    """The greatest expected return of a fixed sequence of actions from `state`, and such a sequence.

    Args:
        world: The world.
        state: Where it starts; the plan may depend on it.
        limit: Greatest number of sequences to look into.

    Raises:
        TurnwiseError: the limit was reached.
    """
    steps = _Steps(world)
    values = optimal_values(world)
    start = np.zeros(world.n_states)
    start[state] = 1.0
    order = count()
    # (−bound, tie-break, what has been earned, belief, plan); heapq takes the smallest.
    heap: list[tuple[float, int, float, Array, tuple[int, ...]]] = [
        (-float(values[0, state]), next(order), 0.0, start, ())
    ]
    best: dict[tuple[int, bytes], float] = {}
    for _ in range(limit):
        _, _, earned, belief, plan = heapq.heappop(heap)
        t = len(plan)
        if t == world.horizon or not belief.any():
            return earned, plan
        for action in range(world.n_actions):
            gain, after = steps.take(t, belief, action)
            total = earned + gain
            key = t + 1, np.round(after, 12).tobytes()
            if best.get(key, -np.inf) >= total - 1e-12:
                continue
            best[key] = total
            bound = total + float(after @ values[t + 1])
            # Among equal bounds the longest plan first: it is the nearest to its end.
            heapq.heappush(heap, (-bound, -next(order), total, after, (*plan, action)))
    raise TurnwiseError(f"no best plan among {limit} sequences; take a smaller world or a shorter deadline")


def plan_return(world: Tabular, state: int, plan: Sequence[int]) -> float:
    """Expected return of carrying out a plan blindly; nothing is earned after its end."""
    steps = _Steps(world)
    belief = np.zeros(world.n_states)
    belief[state] = 1.0
    total = 0.0
    for t, action in enumerate(plan):
        gain, belief = steps.take(t, belief, action)
        total += gain
    return total


class _Steps:
    """What an action earns and where it leads, for distributions over states."""

    def __init__(self, world: Tabular) -> None:
        n = world.n_states
        none = np.zeros(n)
        turns = world.horizon if world.reward.ndim == 4 else 1
        self._reward = np.stack([world.action_values(t, none, 0.0) for t in range(turns)])
        self._flow = np.zeros((world.n_actions, n, n))
        states = np.arange(n)[:, None, None]
        actions = np.arange(world.n_actions)[None, :, None]
        np.add.at(self._flow, (actions, states, world.successor), np.where(world.ended, 0.0, world.probability))

    def take(self, t: int, belief: Array, action: int) -> tuple[float, Array]:
        """Expected reward of the turn, and the distribution after it, less the episodes that have ended."""
        return float(belief @ self._reward[t % len(self._reward), :, action]), belief @ self._flow[action]
