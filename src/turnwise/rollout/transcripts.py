"""Text that somebody else wrote, as episodes; and a source that hands out stored episodes instead of rolling out new ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from turnwise.data.problems import DataError
from turnwise.engines import Completion
from turnwise.engines.noise import mix
from turnwise.episode import Cut, Episode, Source, Stop, Transcript
from turnwise.errors import TurnwiseError
from turnwise.models import Policy
from turnwise.rollout.collector import Versioned
from turnwise.rollout.view import EMPTY, Memory, Overflow, View
from turnwise.rollout.workers import Payment
from turnwise.text import Renderer


def episodes_of(transcripts: Sequence[Transcript], policy: Policy, memory: Memory | None = None) -> list[Episode]:
    """Tokenise transcripts exactly as the collector would have built the same dialogue.

    The recorded log-probabilities are zero: nobody knows them. A transcript that outgrows the context is cut there;
    one from a data set is refused instead where no action would be left of it, or where it carries a label or is written
    in steps, since those speak of the whole.

    The steps of an answer (`Transcript.separator`) are turns without an observation between them: their ids in a row
    are the ids of the answer, and the stop token is the last step's. What is remembered of the past does not apply.

    Args:
        transcripts: What was said and paid.
        policy: Whose renderer and context limit apply; anything that has both will do.
        memory: What of the past stays in the context.

    Raises:
        DataError: a row of a data set does not fit into the context.
    """
    memory = memory or Memory()
    memory = Memory(memory.turns, min(memory.limit, policy.context_limit), memory.compact)
    return [_episode(index, transcript, policy.renderer, memory) for index, transcript in enumerate(transcripts)]


def _episode(index: int, transcript: Transcript, renderer: Renderer, memory: Memory) -> Episode:
    if transcript.separator is None:
        actions = [renderer.action_ids(action) for action in transcript.actions]
    else:
        actions = renderer.step_ids(transcript.actions, transcript.separator) if transcript.actions else []
        memory = Memory(None, memory.limit)
    view = View("agent", index, renderer, memory, budget=1, pays=transcript.pays)
    cut = Cut.TURN_LIMIT if transcript.truncated or not transcript.terminated else None
    detail, last = "", transcript.last_obs
    for obs, ids, reward in zip(transcript.observations, actions, transcript.rewards, strict=True):
        view.budget = len(ids)
        try:
            if transcript.separator is None or not view.n_turns:
                view.observe(obs)
            else:
                view.go_on()
        except Overflow as overflow:
            if _is_needed_whole(transcript, view.n_turns):
                raise _too_long(transcript, len(ids), overflow, memory.limit) from None
            cut, detail, last = Cut.CONTEXT, str(overflow), ""
            break
        view.act(Completion(ids, np.zeros(len(ids), np.float32), Stop.STOP, 0))
        view.pay(Payment(float(reward), terminated=False, truncated=False))
    template = Episode(
        transcript.group or f"{transcript.env}/{transcript.seed}", (), True, False, EMPTY,
        env=transcript.env, world=f"transcript/{index}", source=transcript.source, seed=transcript.seed,
        goal=transcript.goal,
    )  # fmt: skip
    view.metrics.update(transcript.metrics)
    return view.episode(template, cut, detail, last if cut else None)


def _is_needed_whole(transcript: Transcript, turns: int) -> bool:
    """It comes from a data set, and what is left after `turns` turns says nothing, or not what the label says."""
    labelled = transcript.pays != "environment" or transcript.separator is not None
    return transcript.source is Source.DATASET and (labelled or not turns)


def _too_long(transcript: Transcript, answer: int, overflow: Overflow, limit: int) -> DataError:
    which = transcript.group or f"{transcript.env}/{transcript.seed}"
    why = (
        f"the answer alone has {answer:,} tokens" if answer >= limit else f"{overflow}, {answer:,} kept for the answer"
    )
    return DataError(
        f"{which} is longer than the {limit:,} tokens of the context: {why}. Leave such rows out (turnwise data check FILE "
        f"--model MODEL --max-length {limit} lists them), or take a model with a longer context"
    )


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

        A group that two passes hand out in one iteration is two groups, so that its episodes are not taken for one larger
        group: the second is called NAME#2.

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
        drawn = [int(orders[i // n][i % n]) for i in wanted]
        if not self.grouped:
            return [episode for group in drawn for episode in self._groups[group]]
        times: Counter[int] = Counter()
        episodes: list[Episode] = []
        for group in drawn:
            times[group] += 1
            named = f"#{times[group]}" if times[group] > 1 else ""
            episodes += [replace(e, group=e.group + named) if named else e for e in self._groups[group]]
        return episodes

    def refresh(self, learner: Versioned) -> None:
        """Stored episodes do not change with the weights."""

    def close(self) -> None:
        """There is nothing to give back."""
