"""From token ids back to what was said: an episode as text, for judges, teachers and people.

The inverse of `Renderer` for reading only. Training never reads text: what comes out of here is never tokenised again.
"""

from __future__ import annotations

from collections.abc import Callable

from turnwise.episode import Episode, Ids, Stop, Transcript
from turnwise.text.conversation import Conversation
from turnwise.text.renderer import PLAIN, RAW, Renderer, RendererError

_PROBES = ("3", "8")
"""Two letters that every tokenizer can spell: where the two renderings differ, the observation stands."""


class Reader:
    """Reads the observations and actions of episodes, without the chat template around them.

    What the template puts before and after an observation is found by rendering two probes. A context of several messages
    (it began with a `Conversation`, or was retold from memory) is read as a `Conversation` where rendering that gives
    the same text again; where the template does not mark who speaks, it keeps the template between the messages, because
    that is what the policy saw.

    Args:
        renderer: The renderer that the episodes were made with.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self._first = self._frame(renderer.first)
        self._following = {stop: self._frame(lambda text, stop=stop: renderer.following(text, stop)) for stop in Stop}
        self._system = self._system_frame()
        opened, closed = self._frame(renderer.action_ids)
        # What stands between the user's words and the assistant's, and the other way round.
        self._answers, self._asks = self._first[1] + opened, closed + self._following[Stop.STOP][0]
        marked = renderer.template not in (PLAIN, RAW)
        self._told_apart = marked and bool(self._answers.strip() and closed.strip())

    def _system_frame(self) -> tuple[str, str] | None:
        """What stands before a system message, and between it and the user's."""
        asked = _PROBES[0]
        try:
            start, rest = self._frame(
                lambda text: self.renderer.first(Conversation([_message("system", text), _message("user", asked)]))
            )
        except RendererError:
            return None
        return start, rest.removesuffix(asked + self._first[1])

    def _frame(self, render: Callable[[str], Ids]) -> tuple[str, str]:
        """What stands before and after an observation, as text."""
        one, other = (self.renderer.text(render(probe)) for probe in _PROBES)
        at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        if at is None:
            raise RendererError("the chat template leaves out what is said")
        return one[:at], one[at + 1 :]

    def _inside(self, ids: Ids, fresh: bool, before: Stop | None) -> str:
        text = self.renderer.text(ids)
        if not fresh and before is not None:
            start, end = self._following[before]
            return text.removeprefix(start).removesuffix(end)
        start, end = self._first
        if self._told_apart and (not text.startswith(start) or self._answers in text[len(start) :].removesuffix(end)):
            told = self._conversation(text)
            if told is not None:
                return told
        return text.removeprefix(start).removesuffix(end)

    def _conversation(self, text: str) -> Conversation | None:
        """The messages of a context, if putting them through the template gives it back."""
        messages: list[dict[str, str]] = []
        start, end = self._first
        rest = text.removesuffix(end)
        if rest.startswith(start):
            rest = rest[len(start) :]
        elif self._system is not None and rest.startswith(self._system[0]):
            said, between, rest = rest[len(self._system[0]) :].partition(self._system[1])
            if not between:
                return None
            messages.append(_message("system", said))
        while True:
            asked, marker, rest = rest.partition(self._answers)
            messages.append(_message("user", asked))
            if not marker:
                break
            answered, marker, rest = rest.partition(self._asks)
            if not marker:
                return None
            messages.append(_message("assistant", answered))
        told = Conversation(messages)
        try:
            again = self.renderer.text(self.renderer.first(told))
        except RendererError:
            return None
        return told if again == text else None

    def observation(self, episode: Episode, turn: int) -> str:
        """What the world said before action number `turn`."""
        seen = episode.turns[turn]
        return self._inside(seen.obs, seen.fresh, episode.turns[turn - 1].stop if turn else None)

    def action(self, episode: Episode, turn: int) -> str:
        """What the policy answered, as the environment read it."""
        return self.renderer.action_text(episode.turns[turn].act)

    def transcript(self, episode: Episode) -> Transcript:
        """The whole episode in text."""
        turns = range(len(episode.turns))
        last = ""
        if len(episode.last_obs):
            last = self._inside(episode.last_obs, episode.last_fresh, episode.turns[-1].stop if turns else None)
        return Transcript(
            observations=tuple(self.observation(episode, t) for t in turns),
            actions=tuple(self.action(episode, t) for t in turns),
            rewards=tuple(turn.reward for turn in episode.turns),
            terminated=episode.terminated,
            truncated=episode.truncated,
            last_obs=last,
            env=episode.env,
            seed=episode.seed,
            goal=episode.goal,
            source=episode.source,
            metrics=episode.metrics,
        )


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
