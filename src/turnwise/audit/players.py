"""Players: a language model, and a table of a world whose states are counted.

A language model plays as it is evaluated: the same collector, engine, renderer and memory. A table sees the number of the
state instead of the text; a wrapper that hides something from players hides it from tables too by having a method
`state_index` of its own.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.player import Player, TextGame, play_once
from turnwise.episode import Episode, Transcript
from turnwise.errors import TurnwiseError

if TYPE_CHECKING:
    from turnwise.models import Policy, Sampling
    from turnwise.rollout import Memory
    from turnwise.rollout.workers import Where

StateOf = Callable[[TextGame], int]
"""An environment -> the number of the state it is in."""


@dataclass(frozen=True)
class LanguagePlayer:
    """The player that asks a language model; see `policy_player`, which makes it.

    Attributes:
        policy: The model.
        sampling: The distribution its actions are drawn from.
        memory: What of the past stays in the context.
        slots: Episodes in flight.
        on_length: See `turnwise.rollout.Collector`.
        max_turns: Stop watching after so many turns; None leaves it to the environment.
        where: Where environments run.
        deadline: Seconds an environment may take for one reset or step.
        seed: Of the sampling noise.
    """

    policy: Policy
    sampling: Sampling
    memory: Memory | None = None
    slots: int = 64
    on_length: Literal["truncate", "act"] = "act"
    max_turns: int | None = None
    where: Where = "inline"
    deadline: float = 60.0
    seed: int = 0

    def __call__(self, make: Callable[[], TextGame], seeds: Sequence[int]) -> list[Transcript]:
        """One episode for each seed, in text.

        Raises:
            TurnwiseError: see `episodes`.
        """
        from turnwise.text import Reader

        reader = Reader(self.policy.renderer)
        return [reader.transcript(episode) for episode in self.episodes(make, seeds)]

    def episodes(self, make: Callable[[], TextGame], seeds: Sequence[int]) -> list[Episode]:
        """The same episodes in tokens, with the log-probabilities they were sampled with.

        Args:
            make: Makes the environment.
            seeds: What it is reset with.

        Raises:
            TurnwiseError: an environment that broke, naming it with seed and turn, or one of several agents.
        """
        from turnwise.engines import LocalEngine
        from turnwise.engines.noise import mix
        from turnwise.rollout import Collector, Task

        if not seeds:
            return []
        tasks = [Task(s, f"audit/{s}", mix(self.seed, s, nth)) for s, nth in zip(seeds, _times(seeds), strict=True)]
        slots = min(self.slots, len(tasks))
        collector = Collector(
            make, self.policy, engine=LocalEngine(self.policy, slots=slots), slots=slots, memory=self.memory,
            on_length=self.on_length, max_turns=self.max_turns, where=self.where, deadline=self.deadline, seed=self.seed,
        )  # fmt: skip
        try:
            episodes = collector.collect(tasks, sampling=self.sampling)
        finally:
            collector.close()
        if len(episodes) != len(tasks):
            raise TurnwiseError(
                f"{len(tasks)} tasks of {episodes[0].env} gave {len(episodes)} episodes; a player plays one agent, so make the "
                "environment one in which the others are part of the world"
            )
        for episode in episodes:
            if episode.failed:
                raise TurnwiseError(f"{episode.detail}; figures that leave such episodes out would mislead")
        return episodes

    def goes_on(self, prompts: Sequence[str], begun: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """How the model ends replies that somebody else has begun, one for each prompt.

        Args:
            prompts: The first observations.
            begun: What the replies begin with; the template's end of a message does not follow it.
            seeds: Of the sampling noise, with `seed`.

        Raises:
            EngineError: a context that the model cannot read.
        """
        from turnwise.engines import LocalEngine, Request
        from turnwise.engines.noise import mix
        from turnwise.rollout.loop import run_to_end

        if not prompts:
            return []
        renderer = self.policy.renderer
        engine = LocalEngine(self.policy, slots=min(self.slots, len(prompts)))

        async def ask() -> list[str]:
            asked = [
                # An action that somebody wrote ends with its stop token, which has not been written yet.
                engine.generate(Request(np.concatenate([renderer.first(prompt), renderer.action_ids(reply)[:-1]]), number,
                                        mix(self.seed, seed, 3), self.sampling, renderer.stop))
                for number, (prompt, reply, seed) in enumerate(zip(prompts, begun, seeds, strict=True))
            ]  # fmt: skip
            return [renderer.action_text(completion.ids) for completion in await asyncio.gather(*asked)]

        return run_to_end(ask())


def policy_player(
    policy: Policy,
    *,
    slots: int = 64,
    sampling: Sampling | None = None,
    memory: Memory | None = None,
    on_length: Literal["truncate", "act"] = "act",
    max_turns: int | None = None,
    where: Where = "inline",
    deadline: float = 60.0,
    seed: int = 0,
) -> LanguagePlayer:
    """The player that asks a language model.

    An episode's sampling noise depends on `seed`, on the seed of its task and on how often that task was asked before in the
    same call, and on nothing else: asked for a task twice it plays two samples of it, and asked for the same tasks in two
    environments it draws the same noise in both. Each call samples with an engine of its own, so what was played before
    cannot move a result.

    Observations are read back from the tokens the model saw: what its tokenizer does not know stands there as it knows it.

    Args:
        policy: The model.
        slots: Episodes in flight.
        sampling: The distribution actions are drawn from; the policy's own by default.
        memory: What of the past stays in the context; everything that fits by default.
        on_length: See `turnwise.rollout.Collector`; here an action that uses up its budget is taken as it is.
        max_turns: Stop watching after so many turns, besides the environment's own limit.
        where: Where environments run.
        deadline: Seconds an environment may take for one reset or step; unknown to ``inline``.
        seed: Of the sampling noise.
    """
    return LanguagePlayer(
        policy, sampling or policy.sampling, memory, slots, on_length, max_turns, where, deadline, seed
    )


def state_index(env: TextGame) -> int:
    """The number of the state, as the environment or the outermost wrapper with a method ``state_index`` counts it.

    Raises:
        TurnwiseError: nothing counts states there.
    """
    try:
        return int(env.get_wrapper_attr("state_index")())
    except AttributeError as error:
        raise TurnwiseError(
            f"a table cannot play {env}: it does not say its state; give it a method state_index() -> int"
        ) from error


def table_player(
    table: NDArray[Any], actions: Sequence[str], *, state_of: StateOf = state_index, seed: int = 0
) -> Player:
    """The player that looks its action up by the state, as `turnwise.envs.exact.policy_values` would have it.

    The turn of a table with turns is the environment's own count where it has one (moves that were forced on the player
    took time too), else the number of the player's actions. Its noise is drawn as `policy_player` draws its own.

    Args:
        table: Action indices (S,) or (H, S), or probabilities (S, A) or (H, S, A). An integer array is read as indices, a
            float array as probabilities.
        actions: (A,) the text of each action.
        state_of: Says which state it is.
        seed: Of the noise.

    Raises:
        TurnwiseError: a table of another shape, or (when it plays) a state or turn that it does not cover.
    """
    chosen = np.eye(len(actions))[table] if np.issubdtype(table.dtype, np.integer) else np.asarray(table, np.float64)
    if chosen.ndim not in (2, 3) or chosen.shape[-1] != len(actions):
        raise TurnwiseError(
            f"a table of shape {table.shape} does not fit {len(actions)} actions; it needs (states,) or (turns, states) action "
            "numbers, or probabilities with one more axis"
        )
    cumulative = np.cumsum(chosen, axis=-1)
    if not np.allclose(cumulative[..., -1], 1.0):
        raise TurnwiseError("the probabilities of a table must sum to one over the actions of every state")

    def play(make: Callable[[], TextGame], seeds: Sequence[int]) -> list[Transcript]:
        env = make()
        try:
            return [once(env, s, nth) for s, nth in zip(seeds, _times(seeds), strict=True)]
        finally:
            env.close()

    def once(env: TextGame, task: int, nth: int) -> Transcript:
        noise = random.Random(f"table {seed} {task} {nth}")

        def say(observations: Sequence[str], own: Sequence[str], _: int) -> str:
            state = state_of(env)
            turn = int(getattr(env.unwrapped, "turn", len(own)))
            place = (state,) if cumulative.ndim == 2 else (turn, state)
            if not all(0 <= at < size for at, size in zip(place, cumulative.shape, strict=False)):
                raise TurnwiseError(
                    f"turn {turn}, state {state} of {env} lies outside a table of shape {table.shape}; it is not this world's"
                )
            row = cumulative[place]
            # Rounding may leave the last sum below the number drawn.
            return actions[min(int(np.searchsorted(row, noise.random() * row[-1], side="right")), len(actions) - 1)]

        return play_once(env, task, say)

    play.__dict__["memoryless"] = True  # read by `turnwise.audit.persistence`
    return play


def held_out_seeds(n: int, seed: int = 0) -> list[int]:
    """`n` different seeds of tasks that no run of ours trains on, the same for the same `seed`.

    Args:
        n: How many.
        seed: Of the choice, as in `turnwise.audit.Evidence.seed`.
    """
    from turnwise.rollout import TRAIN_SEEDS

    # The list of held-out tasks has 2²⁰ of them, and is begun anywhere in its first half.
    first = TRAIN_SEEDS + int(np.random.SeedSequence(seed % 2**64).generate_state(1)[0]) % 2**19
    return [first + i for i in range(n)]


def _times(seeds: Sequence[int]) -> list[int]:
    """How often each seed came before its place in the list."""
    before: Counter[int] = Counter()
    found: list[int] = []
    for seed in seeds:
        found.append(before[seed])
        before[seed] += 1
    return found
