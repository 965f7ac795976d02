"""The two worlds of constitutional AI as one source: revisions to imitate, and pairs of replies judged by the principles.

Who writes critiques and revisions is a choice. The policy itself: then a dialogue is an episode of `ConstitutionEnv`. Or
somebody else, a rule or another model: then the policy replies, and `reviewed` puts the dialogue together.
Either way a dialogue is an episode whose last action is the revision, and `distil` makes of it what is imitated.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from turnwise.engines.base import EngineError
from turnwise.engines.chat import Chat
from turnwise.episode import Episode, Source, Stop, Turn
from turnwise.errors import TurnwiseError
from turnwise.rewards import Reward
from turnwise.rewards.reward import where
from turnwise.rollout.collector import Versioned
from turnwise.rollout.judged import Judged, Rollouts
from turnwise.rollout.spent import spent_by
from turnwise.text import Reader, Renderer
from turnwise.text.principles import Principle, drawn
from turnwise.text.procedure import Procedure, Request, Writer

log = logging.getLogger(__name__)

Review = Callable[[list[Episode]], list[Episode]]
"""Episodes of one reply each -> the same with critique and revision behind it; one that nobody revised comes back as it was."""


def distil(episodes: Sequence[Episode]) -> list[Episode]:
    """One-turn episodes of the first observation and the last action of each dialogue, token ids verbatim.

    Training on them puts into the weights what the critique had to say in words (context distillation, Askell et al. 2021,
    arXiv 2112.00861). The revision was not sampled in this context, so its log-probabilities are unknown (zero) and the
    source is a teacher. Dialogues that are not `complete` are left out.
    """
    return [
        replace(episode, turns=(_imitated(episode),), source=Source.TEACHER)
        for episode in episodes
        if complete(episode)
    ]


def complete(dialogue: Episode) -> bool:
    """It got to a revision that was not cut short by the token budget: what is imitated has to end."""
    return len(dialogue.turns) > 1 and dialogue.terminated and dialogue.turns[-1].stop is Stop.STOP


def _imitated(episode: Episode) -> Turn:
    first, last = episode.turns[0], episode.turns[-1]
    return Turn(first.obs, last.act, np.zeros(len(last.act), np.float32), 0.0, last.version, fresh=True, stop=last.stop)


def by_chat(chat: Chat) -> Writer:
    """A model as a writer: each request in the dialogue it belongs to.

    One that fails writes nothing, and is warned about; the reply then gets no revision.

    Raises (the writer):
        EngineError: every request failed.
    """

    def write(requests: list[Request]) -> list[str]:
        answers = chat.complete_all([request.messages for request in requests])
        failures = [answer for answer in answers if isinstance(answer, EngineError)]
        if failures and len(failures) == len(answers):
            raise failures[0]
        if failures:
            log.warning("%d of %d requests to the critic failed, first: %s", len(failures), len(answers), failures[0])
        return ["" if isinstance(answer, EngineError) else answer for answer in answers]

    return write


def reviewer(
    principles: Sequence[Principle],
    writer: Writer,
    renderer: Renderer,
    *,
    procedure: Procedure | None = None,
    rounds: int = 1,
) -> Review:
    """Somebody other than the policy criticises and revises its replies.

    A reply that needs no change keeps its sampled ids; any other revision is tokenised as the policy would have written it.
    The whole dialogue is then said to be a teacher's, because its last action is.

    Args:
        principles: By what; each round draws one by the episode's seed, and none comes again before all have come.
        writer: Who writes.
        renderer: The policy's.
        procedure: The prompts; those that come with turnwise by default.
        rounds: Critiques and revisions of one reply.

    Raises:
        TurnwiseError: no principle, or no round; when it is asked, an episode of several turns, which is no reply.
    """
    if not principles or rounds < 1:
        raise TurnwiseError(f"{len(principles)} principles and {rounds} rounds: a revision needs at least one of each")
    prompts, reader = procedure or Procedure.read(), Reader(renderer)

    def review(episodes: list[Episode]) -> list[Episode]:
        result = list(episodes)
        long = [episode for episode in episodes if len(episode.turns) > 1]
        if long:
            raise TurnwiseError(
                f"{where(long[0])} has {len(long[0].turns)} turns; what is criticised and revised is one reply to a prompt"
            )
        # An action that was cut short is no reply yet.
        open_ = [i for i, e in enumerate(episodes) if e.turns and e.terminated and e.turns[-1].stop is Stop.STOP]
        for step in range(rounds):
            if not open_:
                break
            chosen = {i: drawn(principles, episodes[i].seed, rounds)[step] for i in open_}
            said = {i: (reader.observation(result[i], 0), reader.action(result[i], -1)) for i in open_}
            asked = [prompts.critique_request(*said[i], chosen[i]) for i in open_]
            # Who has no critique to go by, because none came, is not asked to revise.
            rows = [
                (i, first, critique, prompts.revision_request(*said[i], critique, chosen[i]))
                for i, first, critique in zip(open_, asked, writer(asked), strict=True)
                if critique.strip()
            ]
            revisions = writer([again for *_, again in rows]) if rows else []
            before, open_ = open_, []
            for (i, first, critique, again), revision in zip(rows, revisions, strict=True):
                if revision.strip():
                    result[i] = _append(result[i], first.text, critique, again.text, revision, renderer, reader)
                    open_.append(i)
            for i in set(before) - set(open_):
                # Half of a procedure is not what was asked for.
                result[i] = episodes[i]
        return result

    return review


def _append(
    episode: Episode, asked: str, critique: str, again: str, revision: str, renderer: Renderer, reader: Reader
) -> Episode:
    last = episode.turns[-1]
    same = revision.strip() == reader.action(episode, -1)
    said = renderer.action_ids(critique), last.act if same else renderer.action_ids(revision.strip())
    asks = renderer.following(asked, last.stop), renderer.following(again)
    turns = [
        Turn(obs, act, np.zeros(len(act), np.float32), 0.0, last.version) for obs, act in zip(asks, said, strict=True)
    ]
    return replace(episode, turns=(*episode.turns, *turns), source=Source.TEACHER)


class Constitution:
    """Hands out dialogues to learn revisions from, and groups of replies judged by the principles.

    Args:
        replies: Where replies to prompts come from: a collector over a one-turn world of prompts.
        revise: A collector over `ConstitutionEnv`, where the policy revises itself; or a `Review` of the replies.
        judge: Who judges the groups of replies: rewards by name, see `turnwise.rewards.judged`, or the replies as somebody
            hands them out judged (`turnwise.rollout.Asked`).

    Raises:
        RewardError: no reward, or a weight that is not finite.
    """

    def __init__(
        self, replies: Rollouts, revise: Rollouts | Review, judge: Mapping[str, tuple[float, Reward]] | Rollouts
    ) -> None:
        self.replies = replies
        self.revise = revise
        self.judged = Judged(replies, judge) if isinstance(judge, Mapping) else judge

    def revisions(self, iteration: int, n: int) -> list[Episode]:
        """`n` dialogues of reply, critique and revision; some may have broken off before the revision."""
        if callable(self.revise):
            return self.revise(self.replies.rollouts(iteration, n))
        return self.revise.rollouts(iteration, n)

    def rollouts(self, iteration: int, groups: int, group_size: int = 1, first: int = 0) -> list[Episode]:
        """Groups of replies to one prompt each, paid by the judge."""
        return self.judged.rollouts(iteration, groups, group_size, first)

    def refresh(self, learner: Versioned) -> None:
        """Sample with the learner's current weights from now on."""
        self.replies.refresh(learner)
        if not callable(self.revise):
            self.revise.refresh(learner)

    def spent(self) -> Mapping[str, float]:
        """Seconds and tokens since this was last asked, by the names of ``docs/metrics.md``."""
        return spent_by(self.judged, self.revise)

    def close(self) -> None:
        """Close the sources, if they hold anything."""
        for source in (self.replies, self.revise):
            close = getattr(source, "close", None)
            if close is not None:
                close()
