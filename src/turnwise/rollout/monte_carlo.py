"""Labels for the steps of an answer, estimated by letting a policy finish it: how often does it still come out right?

From the end of every step the policy writes the rest of the answer several times over, and a judge says which of them
succeed (Math-Shepherd, Wang et al. 2023, arXiv 2312.08935, section 3.3). The share that does estimates the policy's
chance of success after that step, which is its action value there. Nobody has to read a step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from turnwise.engines import Completion, Engine, LocalEngine, Request
from turnwise.engines.noise import mix
from turnwise.episode import Episode, Stop, Turn
from turnwise.errors import TurnwiseError
from turnwise.models import Policy, Sampling
from turnwise.rewards import Reward
from turnwise.rewards.reward import scored
from turnwise.rollout.collector import Versioned
from turnwise.rollout.judged import Rollouts, Wrapper
from turnwise.rollout.loop import run_to_end
from turnwise.rollout.stepwise import join_steps

Label = Literal["hard", "soft", "majority"]
"""A step is right if any continuation succeeds (hard), to the extent that they do (soft), or if more than half do."""

SOURCE = "monte_carlo"
"""What the labels are booked under."""

HELD_OUT = -1
"""The iteration of answers that are no iteration's, such as those to held-out tasks."""


@dataclass(frozen=True)
class _Beginning:
    """An answer up to the end of one of its steps, and how many tokens may still follow; 0 where it is over."""

    episode: int
    step: int
    room: int


class MonteCarlo(Wrapper):
    """Hands out the episodes of another source, every step paid with its estimated label.

    Args:
        source: Gives answers in steps: a `Stepwise`, or stored steps. Each episode is one answer to one prompt.
        policy: Who finishes them; its sampling is that of the continuations, and its token budget that of a whole answer.
        judge: Says what a whole answer is worth, steps put together again; for instance an `EpisodeJudge`.
        samples: Continuations per step.
        label: See `Label`.
        success: An answer succeeds if its return is at least this.
        engine: What samples; a `LocalEngine` over the policy by default.
        seed: Of the continuations.

    Raises:
        TurnwiseError: fewer than one sample, or an unknown kind of label.
    """

    def __init__(
        self,
        source: Rollouts,
        policy: Policy,
        judge: Reward,
        *,
        samples: int = 8,
        label: Label = "hard",
        success: float = 0.5,
        engine: Engine | None = None,
        seed: int = 0,
    ) -> None:
        if samples < 1:
            raise TurnwiseError(f"samples={samples}: a step needs at least one continuation; 8 is usual")
        if label not in ("hard", "soft", "majority"):
            raise TurnwiseError(f"label={label!r}; use 'hard', 'soft' or 'majority'")
        super().__init__(source)
        self.policy = policy
        self.judge = judge
        self.samples = samples
        self.label: Label = label
        self.success = success
        self.engine = engine or LocalEngine(policy)
        self.seed = seed

    def rollouts(self, iteration: int, groups: int, group_size: int = 1, first: int = 0) -> list[Episode]:
        """The source's episodes, labelled.

        Raises:
            TurnwiseError: an episode of more than one answer, or a judge that does not give one number per turn.
        """
        return self.labelled(self.source.rollouts(iteration, groups, group_size, first), iteration)

    def refresh(self, learner: Versioned) -> None:
        """What learns from the labels is not the policy, which stays as it is."""

    def labelled(self, episodes: Sequence[Episode], iteration: int = HELD_OUT) -> list[Episode]:
        """The same episodes, each turn paid its label; those that failed or have no turn stay as they are.

        An answer's continuations depend on its place in the list, the iteration, the seed and the weights alone.

        Args:
            episodes: Of one answer each.
            iteration: Whose they are; those of no iteration get noise of their own.
        """
        paid = list(episodes)
        for index, estimate in self.estimates(episodes, iteration).items():
            label = estimate if self.label == "soft" else estimate > (0.0 if self.label == "hard" else 0.5)
            turns = [
                replace(turn, reward=float(y), rewards={SOURCE: float(y)})
                for turn, y in zip(episodes[index].turns, label, strict=True)
            ]
            paid[index] = replace(episodes[index], turns=tuple(turns))
        return paid

    def estimates(
        self, episodes: Sequence[Episode], iteration: int = HELD_OUT
    ) -> dict[int, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        """Index of each usable episode -> (n_turns,) share of continuations from the end of each step that succeed.

        The last step has no continuation: its share is 1 or 0.
        """
        beginnings = [b for i, episode in enumerate(episodes) for b in self._beginnings(i, episode)]
        drawn = [(b, sample) for b in beginnings for sample in range(self.samples if b.room else 1)]
        with self.booked("time/engine"):
            completions = run_to_end(self._complete(episodes, drawn, iteration))
        whole = [
            join_steps(_continued(episodes[b.episode], b.step, completion))
            for (b, _), completion in zip(drawn, completions, strict=True)
        ]
        with self.booked():
            returns = [float(given.sum()) for given in scored("judge", self.judge, whole)] if whole else []
        wins: dict[tuple[int, int], list[bool]] = {}
        for (b, _), value in zip(drawn, returns, strict=True):
            # Who cannot be judged has not succeeded.
            wins.setdefault((b.episode, b.step), []).append(value >= self.success)
        found: dict[int, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        for index in dict.fromkeys(b.episode for b in beginnings):
            steps = range(len(episodes[index].turns))
            found[index] = np.array([np.mean(wins[index, step]) for step in steps], dtype=np.float64)
        return found

    def _beginnings(self, index: int, episode: Episode) -> list[_Beginning]:
        if episode.failed or not episode.turns:
            return []
        if any(len(turn.obs) or turn.fresh for turn in episode.turns[1:]):
            raise TurnwiseError(
                f"the episode of {episode.env or 'an unnamed environment'}, seed {episode.seed}, has several answers; only "
                "the rest of a single answer can be sampled without its world"
            )
        lengths = np.cumsum(episode.act_lengths)
        budget = self.policy.sampling.max_tokens
        limit = self.policy.context_limit - len(episode.turns[0].obs)
        last = len(lengths) - 1
        return [
            _Beginning(index, step, 0 if step == last else max(0, min(budget, limit) - int(length)))
            for step, length in enumerate(lengths)
        ]

    async def _complete(
        self, episodes: Sequence[Episode], drawn: Sequence[tuple[_Beginning, int]], iteration: int
    ) -> list[Completion | None]:
        async def one(session: int, beginning: _Beginning, sample: int) -> Completion | None:
            if not beginning.room:
                return None
            turns = episodes[beginning.episode].turns[: beginning.step + 1]
            context = np.concatenate([turns[0].obs, *(turn.act for turn in turns)])
            sampling: Sampling = replace(self.policy.sampling, max_tokens=beginning.room)
            key = mix(self.seed, iteration, beginning.episode, beginning.step, sample, 3)
            request = Request(context, session, key, sampling, self.policy.renderer.stop)
            try:
                return await self.engine.generate(request)
            finally:
                self.engine.release(session)

        return await asyncio.gather(*(one(session, b, sample) for session, (b, sample) in enumerate(drawn)))


def _continued(episode: Episode, step: int, completion: Completion | None) -> Episode:
    """The episode up to the end of `step`, and what followed; as it is where nothing did.

    What nobody rolled out was paid nothing; only a judge says what the answer is worth.
    """
    turns = [replace(turn, reward=0.0, rewards={}) for turn in episode.turns[: step + 1]]
    if completion is not None:
        turns.append(
            Turn(turns[0].obs[:0], completion.ids, completion.logp, 0.0, completion.version, stop=completion.stop)
        )
    elif step + 1 < len(episode.turns):
        turns[-1] = replace(turns[-1], stop=Stop.LENGTH)
    return replace(episode, turns=tuple(turns))
