"""One agent's side of an episode: its context, what it remembers, and the turns it has taken."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from turnwise.engines import Completion
from turnwise.episode import Cut, Episode, Ids, Stop, Turn
from turnwise.rollout.workers import Payment
from turnwise.text import Conversation, Renderer

_EMPTY: Ids = np.zeros(0, np.int32)

# No tokenizer in use spends fewer tokens than one for this many characters; longer text need not be tokenised
# to know that it does not fit.
_CHARACTERS_PER_TOKEN = 128


@dataclass(frozen=True, slots=True)
class Memory:
    """What of the past stays in the context.

    Attributes:
        turns: Number of past turns kept; None keeps all. With 0 every observation is a context of its own, which is all
            a policy needs where observations are Markov, and much cheaper.
        limit: Longest context in tokens, the action's budget included.
        compact: On overflow, begin a fresh context with the latest turns that fill at most half of it, instead of
            ending the episode.
    """

    turns: int | None = None
    limit: int = 4096
    compact: bool = False


@dataclass(frozen=True, slots=True)
class _Past:
    obs: str
    act: Ids
    stop: Stop


class Overflow(Exception):  # noqa: N818 - it ends an episode, it is not an error
    """The observation does not fit into the context."""


@dataclass
class View:
    """The context of one agent in one episode.

    Attributes:
        agent: The agent's name.
        session: Number of the engine session that samples for it.
        renderer: Turns observations into ids.
        memory: What of the past stays in the context.
        budget: Tokens an action may have.
        pays: Under whose name rewards are booked.
        context: (n,) all ids the next action follows.
        turns: What has happened so far.
        metrics: Figures for people.
        ended: The payment that ended the episode.
    """

    agent: str
    session: int
    renderer: Renderer
    memory: Memory
    budget: int
    pays: str = "environment"
    context: Ids = field(default_factory=lambda: _EMPTY)
    turns: list[Turn] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    ended: Payment | None = None
    _past: list[_Past] = field(default_factory=list)
    _obs: tuple[str, Ids, bool] | None = None

    def observe(self, text: str) -> None:
        """Take in an observation, ready to act.

        Raises:
            Overflow: it does not fit, whatever is forgotten.
        """
        delta, fresh = self._render(text, self.budget)
        self.context = delta if fresh else np.concatenate([self.context, delta])
        self._obs = (text, delta, fresh)

    def go_on(self) -> None:
        """Get ready for the next step of the same answer: the world says nothing, not even a template's words.

        Raises:
            Overflow: the step does not fit.
        """
        if len(self.context) + self.budget > self.memory.limit:
            raise Overflow(f"{len(self.context) + self.budget} tokens do not fit into a context of {self.memory.limit}")
        self._obs = ("", _EMPTY, False)

    def _render(self, text: str, room: int) -> tuple[Ids, bool]:
        limit = self.memory.limit - room
        if len(text) > _CHARACTERS_PER_TOKEN * limit:
            raise Overflow(f"an observation of {len(text):,} characters does not fit into a context of {limit} tokens")
        keep = self.memory.turns
        if not self._past:
            delta, fresh = self.renderer.first(text), True
        elif keep is not None and len(self._past) > keep:
            delta, fresh = self._retell(text, keep), True
        else:
            delta, fresh = self.renderer.following(text, self._past[-1].stop), False
        size = len(delta) + (0 if fresh else len(self.context))
        if size <= limit:
            return delta, fresh
        if self.memory.compact:
            for kept in range(len(self._past) - 1, -1, -1):
                delta = self._retell(text, kept)
                if len(delta) <= limit // 2 or (kept == 0 and len(delta) <= limit):
                    return delta, True
        raise Overflow(f"{size} tokens do not fit into a context of {limit}")

    def _retell(self, text: str, kept: int) -> Ids:
        """A whole context: the last `kept` turns and the new observation."""
        parts: list[Ids] = []
        before: _Past | None = None
        for past in self._past[len(self._past) - kept :]:
            parts.append(self.renderer.following(past.obs, before.stop) if before else self._anew(past.obs))
            parts.append(past.act)
            before = past
        parts.append(self.renderer.following(text, before.stop) if before else self._anew(text))
        return np.concatenate(parts)

    def _anew(self, text: str) -> Ids:
        """A context that begins with `text`, under the system message that the conversation began with."""
        begun = self._past[0].obs if self._past else text
        system = begun.system if isinstance(begun, Conversation) and begun is not text else None
        if system is None:
            return self.renderer.first(text)
        return self.renderer.first(
            Conversation([{"role": "system", "content": system}, {"role": "user", "content": str(text)}])
        )

    def act(self, completion: Completion) -> None:
        """Append the sampled action; its reward is not known yet."""
        assert self._obs is not None, "observe() comes first"
        text, delta, fresh = self._obs
        self._obs = None
        self.turns.append(
            Turn(delta, completion.ids, completion.logp, 0.0, completion.version, fresh, completion.stop, {})
        )
        self._past.append(_Past(text, completion.ids, completion.stop))
        self.context = np.concatenate([self.context, completion.ids])

    def pay(self, payment: Payment) -> None:
        """Book a reward to the latest turn and note the end, if it is one."""
        self.metrics.update(payment.metrics)
        if self.turns:
            total = self.turns[-1].reward + payment.reward
            self.turns[-1] = replace(self.turns[-1], reward=total, rewards={self.pays: total})
        if payment.terminated or payment.truncated:
            self.ended = payment

    def episode(self, template: Episode, cut: Cut | None, detail: str, last: str | None) -> Episode:
        """The finished episode; `last` is the observation after the last action of a truncated one."""
        last_obs, last_fresh = _EMPTY, False
        if cut is not None and last is not None and self.turns:
            try:
                # One place is kept for the sentinel whose value is the bootstrap.
                last_obs, last_fresh = self._render(last, 1)
            except Overflow:
                detail = detail or "the last observation does not fit; the value before it is bootstrapped from"
        return replace(
            template,
            agent=self.agent,
            turns=tuple(self.turns),
            terminated=cut is None,
            truncated=cut is not None,
            cut=cut,
            detail=detail,
            last_obs=last_obs,
            last_fresh=last_fresh,
            metrics=dict(self.metrics),
        )
