"""One agent's side of an episode: its context, what it remembers, and the turns it has taken."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from turnwise.engines import Completion
from turnwise.episode import Cut, Episode, Ids, Stop, Turn
from turnwise.rollout.workers import Payment
from turnwise.text import Conversation, Renderer

EMPTY: Ids = np.zeros(0, np.int32)
"""No ids."""

# Room for what is likely to follow when a buffer has to grow.
_SPARE = 128

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


class Overflow(Exception):  # noqa: N818 - it ends an episode, it is not an error
    """The observation does not fit into the context."""


@dataclass(slots=True)
class _Taken:
    """A turn in the making: what was read and done, and what has been paid for it so far."""

    text: str
    obs: Ids
    fresh: bool
    completion: Completion
    reward: float | None = None


class View:
    """The context of one agent in one episode.

    Args:
        agent: The agent's name.
        session: Number of the engine session that samples for it.
        renderer: Turns observations into ids.
        memory: What of the past stays in the context.
        budget: Tokens an action may have.
        pays: Under whose name rewards are booked.

    Attributes:
        metrics: Figures for people.
        ended: The payment that ended the episode.
    """

    def __init__(
        self, agent: str, session: int, renderer: Renderer, memory: Memory, budget: int, pays: str = "environment"
    ) -> None:
        self.agent = agent
        self.session = session
        self.renderer = renderer
        self.memory = memory
        self.budget = budget
        self.pays = pays
        self.metrics: dict[str, float] = {}
        self.ended: Payment | None = None
        self._taken: list[_Taken] = []
        self._obs: tuple[str, Ids, bool] | None = None
        # The context is the head of a buffer that only grows, so that a turn copies what is new and not what was there.
        self._buffer = EMPTY
        self._filled = 0
        # The latest action enters the buffer when something follows it.
        self._size = 0

    @property
    def n_turns(self) -> int:
        """Number of actions so far."""
        return len(self._taken)

    @property
    def context(self) -> Ids:
        """(n,) all ids the next action follows. It stays as it is when the context grows."""
        return self._buffer[: self._filled]

    def observe(self, text: str) -> None:
        """Take in an observation, ready to act.

        Raises:
            Overflow: it does not fit, whatever is forgotten.
        """
        delta, fresh = self._render(text, self.budget)
        if fresh:
            self._buffer, self._filled, self._size = delta, len(delta), len(delta)
        else:
            self._append(self._taken[-1].completion.ids)
            self._append(delta)
            self._size = self._filled
        self._obs = (text, delta, fresh)

    def go_on(self) -> None:
        """Get ready for the next step of the same answer: the world says nothing, not even a template's words.

        Raises:
            Overflow: the step does not fit.
        """
        if self._size + self.budget > self.memory.limit:
            raise Overflow(f"{self._size + self.budget} tokens do not fit into a context of {self.memory.limit}")
        self._append(self._taken[-1].completion.ids)
        self._obs = ("", EMPTY, False)

    def _append(self, ids: Ids) -> None:
        end = self._filled + len(ids)
        if end > len(self._buffer):
            grown = np.empty(max(2 * len(self._buffer), end + _SPARE), np.int32)
            grown[: self._filled] = self._buffer[: self._filled]
            self._buffer = grown
        self._buffer[self._filled : end] = ids
        self._filled = end

    def _render(self, text: str, room: int) -> tuple[Ids, bool]:
        limit = self.memory.limit - room
        if len(text) > _CHARACTERS_PER_TOKEN * limit:
            raise Overflow(f"an observation of {len(text):,} characters does not fit into a context of {limit} tokens")
        keep = self.memory.turns
        if not self._taken:
            delta, fresh = self.renderer.first(text), True
        elif keep is not None and len(self._taken) > keep:
            delta, fresh = self._retell(text, keep), True
        else:
            delta, fresh = self.renderer.following(text, self._taken[-1].completion.stop), False
        size = len(delta) + (0 if fresh else self._size)
        if size <= limit:
            return delta, fresh
        if self.memory.compact:
            for kept in range(len(self._taken) - 1, -1, -1):
                delta = self._retell(text, kept)
                if len(delta) <= limit // 2 or (kept == 0 and len(delta) <= limit):
                    return delta, True
        raise Overflow(f"{size} tokens do not fit into a context of {limit}")

    def _retell(self, text: str, kept: int) -> Ids:
        """A whole context: the last `kept` turns and the new observation."""
        if not kept:
            return self._anew(text)
        parts: list[Ids] = []
        before: Stop | None = None
        for past in self._taken[-kept:]:
            parts.append(self._anew(past.text) if before is None else self.renderer.following(past.text, before))
            parts.append(past.completion.ids)
            before = past.completion.stop
        parts.append(self.renderer.following(text, self._taken[-1].completion.stop))
        return np.concatenate(parts)

    def _anew(self, text: str) -> Ids:
        """A context that begins with `text`, under the system message that the conversation began with."""
        begun = self._taken[0].text if self._taken else text
        system = begun.system if isinstance(begun, Conversation) and begun is not text else None
        if system is None:
            return self.renderer.first(text)
        return self.renderer.first(
            Conversation([{"role": "system", "content": system}, {"role": "user", "content": str(text)}])
        )

    def act(self, completion: Completion) -> None:
        """Note the sampled action; its reward is not known yet."""
        assert self._obs is not None, "observe() comes first"
        self._taken.append(_Taken(*self._obs, completion))
        self._size += len(completion.ids)
        self._obs = None

    def pay(self, payment: Payment) -> None:
        """Book a reward to the latest turn and note the end, if it is one."""
        if payment.metrics:
            self.metrics.update(payment.metrics)
        if self._taken:
            latest = self._taken[-1]
            latest.reward = (latest.reward or 0.0) + payment.reward
        if payment.terminated or payment.truncated:
            self.ended = payment

    def turns(self) -> tuple[Turn, ...]:
        """What has happened so far."""
        return tuple(
            Turn(
                taken.obs,
                taken.completion.ids,
                taken.completion.logp,
                taken.reward or 0.0,
                taken.completion.version,
                taken.fresh,
                taken.completion.stop,
                {} if taken.reward is None else {self.pays: taken.reward},
            )
            for taken in self._taken
        )

    def episode(self, template: Episode, cut: Cut | None, detail: str, last: str | None) -> Episode:
        """The finished episode; `last` is the observation after the last action of a truncated one."""
        last_obs, last_fresh = EMPTY, False
        if cut is not None and last is not None and self._taken:
            try:
                # One place is kept for the sentinel whose value is the bootstrap.
                last_obs, last_fresh = self._render(last, 1)
            except Overflow:
                detail = detail or "the last observation does not fit; the value before it is bootstrapped from"
        return replace(
            template,
            agent=self.agent,
            turns=self.turns(),
            terminated=cut is None,
            truncated=cut is not None,
            cut=cut,
            detail=detail,
            last_obs=last_obs,
            last_fresh=last_fresh,
            metrics=dict(self.metrics),
        )
