"""Text that somebody else wrote, as episodes; and a source that hands out stored episodes instead of rolling out new ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnwise.engines import Completion
from turnwise.engines.noise import mix
from turnwise.episode import Cut, Episode, Stop, Transcript
from turnwise.errors import TurnwiseError
from turnwise.models import Policy
from turnwise.rollout.collector import Versioned
from turnwise.rollout.view import Memory, Overflow, View
from turnwise.rollout.workers import Payment


def episodes_of(transcripts: Sequence[Transcript], policy: Policy, memory: Memory | None = None) -> list[Episode]:
    """Tokenise transcripts exactly as the collector would have built the same dialogue.

    The recorded log-probabilities are zero: nobody knows them. A transcript that outgrows the context is cut there.

    Args:
        transcripts: What was said and paid.
        policy: Whose renderer and context limit apply.
        memory: What of the past stays in the context.
    """
    memory = memory or Memory()
    memory = Memory(memory.turns, min(memory.limit, policy.context_limit), memory.compact)
    episodes = []
    for index, transcript in enumerate(transcripts):
        view = View("agent", index, policy.renderer, memory, budget=1)
        cut = Cut.TURN_LIMIT if transcript.truncated or not transcript.terminated else None
        detail, last = "", transcript.last_obs
        turns = zip(transcript.observations, transcript.actions, transcript.rewards, strict=True)
        for obs, action, reward in turns:
            ids = policy.renderer.action_ids(action)
            view.budget = len(ids)
            try:
                view.observe(obs)
            except Overflow as overflow:
                cut, detail, last = Cut.CONTEXT, str(overflow), ""
                break
            view.act(Completion(ids, np.zeros(len(ids), np.float32), Stop.STOP, 0))
            view.pay(Payment(float(reward), terminated=False, truncated=False))
        template = Episode(
            f"{transcript.env}/{transcript.seed}", (), True, False, view.context[:0], env=transcript.env,
            world=f"transcript/{index}", source=transcript.source, seed=transcript.seed, goal=transcript.goal,
        )  # fmt: skip
        view.metrics.update(transcript.metrics)
        episodes.append(view.episode(template, cut, detail, last if cut else None))
    return episodes


class Logged:
    """A source of stored episodes: each iteration hands out the next part of a reshuffled pass over them.

    Args:
        episodes: What to hand out.
        seed: Seed of the shuffles.
        grouped: Hand out whole groups, such as the two sides of a preference, and never a part of one.
    """

    def __init__(self, episodes: Sequence[Episode], *, seed: int = 0, grouped: bool = False) -> None:
        self.episodes = [episode for episode in episodes if episode.turns]
        self.seed = seed
        self.grouped = grouped
        members: dict[str | int, list[Episode]] = {}
        for index, episode in enumerate(self.episodes):
            members.setdefault(episode.group if grouped else index, []).append(episode)
        self._groups = list(members.values())

    def rollouts(self, iteration: int, groups: int, group_size: int = 1, first: int = 0) -> list[Episode]:
        """The episodes of minibatch number `iteration`; every pass visits each of them, or each group, once.

        Args:
            iteration: Number of the minibatch.
            groups: Groups to hand out; without `grouped`, this times `group_size` episodes.
            group_size: Episodes of a group; stored groups have the size that they have.
            first: Stored episodes cannot be drawn anew, so it must be 0.

        Raises:
            TurnwiseError: no stored episode has a turn, or more was asked for than there is.
        """
        size, n = groups if self.grouped else groups * group_size, len(self._groups)
        if not n:
            raise TurnwiseError(
                "no stored episode has a turn, so there is nothing to learn from; check that they fit into the context"
            )
        if first:
            raise TurnwiseError("stored episodes are what they are: no further start states can be drawn from them")
        wanted = range(iteration * size, (iteration + 1) * size)
        orders = {p: np.random.default_rng(mix(self.seed, p)).permutation(n) for p in {i // n for i in wanted}}
        return [episode for i in wanted for episode in self._groups[orders[i // n][i % n]]]

    def refresh(self, learner: Versioned) -> None:
        """Stored episodes do not change with the weights."""

    def close(self) -> None:
        """There is nothing to give back."""
