"""Random play: what an environment says, and what can be said to it, before there is a model.

Environments run where they would in a rollout, with the same deadline: one that hangs, raises or takes its process with
it costs an episode, not the run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

from turnwise.envs.errors import NotOffered
from turnwise.errors import TurnwiseError
from turnwise.rollout.loop import run_to_end
from turnwise.rollout.workers import EnvironmentFailure, Where, Worker, new_worker, not_text

log = logging.getLogger(__name__)

_AT_ONCE = 8


def rehearse(
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    *,
    actions: Sequence[str] = (),
    max_turns: int = 50,
    where: Where = "thread",
    deadline: float = 60.0,
) -> list[str]:
    """Everything that was said in one episode of random play per seed.

    An action is chosen among those the environment calls legal, else among `actions`, else it is the number of the turn.

    Args:
        make_env: Makes one instance, as for a `Collector`.
        seeds: The tasks.
        actions: Examples of actions.
        max_turns: Stop an episode after this many.
        where: Where environments run.
        deadline: Seconds for one reset or step.

    Returns:
        Observations, actions and goals, in the order of the seeds.

    Raises:
        TurnwiseError: each of the first eight episodes broke; the message names the environment, a seed and what happened.
    """
    return run_to_end(_rehearse(_Itself(make_env, tuple(actions)), list(seeds), max_turns, where, deadline))


async def _rehearse(
    make: Callable[[], Any], seeds: list[int], max_turns: int, where: Where, deadline: float
) -> list[str]:
    heard: dict[int, list[str]] = {seed: [] for seed in seeds}
    failures: dict[int, str] = {}

    async def slot(pending: Iterator[int]) -> None:
        worker: Worker | None = None
        try:
            for seed in pending:
                worker = worker or new_worker(make, where, deadline)
                try:
                    await _episode(worker, seed, max_turns, heard[seed])
                except EnvironmentFailure as failure:
                    failures[seed] = f"{worker.name}, seed {seed}: the environment {failure.reason}"
                    worker.close()
                    worker = None
        finally:
            if worker is not None:
                worker.close()

    async def play(part: list[int]) -> None:
        pending = iter(part)
        await asyncio.gather(*(slot(pending) for _ in part[:_AT_ONCE]))

    # The first few tell whether it is worth waiting for the others.
    await play(seeds[:_AT_ONCE])
    if failures and len(failures) == len(seeds[:_AT_ONCE]):
        raise TurnwiseError(
            f"all {len(failures)} first episodes of random play, which shows the words of the environment, broke, "
            f"first: {failures[seeds[0]]}. Mend the environment"
        )
    await play(seeds[_AT_ONCE:])
    if failures:
        first = failures[min(failures)]
        log.warning("%d of %d episodes of random play broke, first: %s", len(failures), len(heard), first)
    return [text for texts in heard.values() for text in texts]


async def _episode(worker: Worker, seed: int, max_turns: int, heard: list[str]) -> None:
    event = await worker.call("reset", seed)
    for turn in count():
        heard += [*(text for obs in event.obs.values() for text in json.loads(obs)), event.goal or ""]
        if event.agent is None or turn == max_turns:
            return
        event = await worker.call("step", "")


class _Itself:
    """Makes an environment that plays itself; a class, so that it can travel to a worker process."""

    def __init__(self, make_env: Callable[[], Any], actions: tuple[str, ...]) -> None:
        self.make_env = make_env
        self.actions = actions
        self.name = str(getattr(make_env, "name", None) or getattr(make_env, "__qualname__", "the environment"))

    def __call__(self) -> _Rehearsed:
        env = self.make_env()
        return _Rehearsed(env, self.actions)


class _Rehearsed:
    """An environment of one or several agents that chooses its own actions.

    An observation is a JSON list: what was done, and what was then to be read.
    """

    def __init__(self, env: Any, actions: tuple[str, ...]) -> None:
        self._env = env
        self._actions = actions
        self._several = hasattr(env, "agents")
        self._rng = random.Random()
        self._turn = 0
        self.spec = getattr(env, "spec", None)
        self.name = getattr(env if self._several else env.unwrapped, "name", None) or type(env).__name__

    @property
    def unwrapped(self) -> _Rehearsed:
        return self

    def reset(self, *, seed: int) -> tuple[str, dict[str, Any]]:
        self._rng, self._turn = random.Random(f"0 {seed}"), 0
        if self._several:
            obs, goals = self._env.reset(seed)[1], self._env.goals.values()
            return self._said((obs,)), {"goal": "\n".join(goal for goal in goals if goal)}
        obs, info = self._env.reset(seed=seed)
        return self._said((obs,)), info

    def step(self, _: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        action = self._choose()
        self._turn += 1
        if self._several:
            move = self._env.step(action)
            obs, terminated, truncated = move.observation, move.terminated, move.truncated
        else:
            obs, _, terminated, truncated, _ = self._env.step(action)
        # What is said at the very end is never read by anyone.
        return self._said((action,) if terminated else (action, obs)), 0.0, terminated, truncated, {}

    def close(self) -> None:
        self._env.close()

    def _choose(self) -> str:
        legal: Sequence[str] = ()
        if not self._several and self._env.has_wrapper_attr("legal_actions"):
            try:
                legal = tuple(self._env.get_wrapper_attr("legal_actions")())
            except NotOffered:
                legal = ()
        choices = legal or self._actions
        return self._rng.choice(choices) if choices else str(self._turn)

    def _said(self, texts: tuple[Any, ...]) -> str:
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(not_text(text))
        return json.dumps(texts)
