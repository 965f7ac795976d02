"""From token ids back to what was said: an episode as text, for judges, teachers and people.

The inverse of `Renderer` for reading only. Training never reads text: what comes out of here is never tokenised again.
"""

from __future__ import annotations

from collections.abc import Callable

from turnwise.episode import Episode, Ids, Stop, Transcript
from turnwise.text.renderer import Renderer

_PROBES = ("3", "8")
"""Two letters that every tokenizer can spell: where the two renderings differ, the observation stands."""


class Reader:
    """Reads the observations and actions of episodes, without the chat template around them.

    What the template puts before and after an observation is found by rendering two probes. A turn whose context was
    retold (a memory of a few turns, a compacted context) keeps the template between the retold turns, because
    that is what the policy saw.

    Args:
        renderer: The renderer that the episodes were made with.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self._first = self._frame(renderer.first)
        self._following = {stop: self._frame(lambda text, stop=stop: renderer.following(text, stop)) for stop in Stop}

    def _frame(self, render: Callable[[str], Ids]) -> tuple[str, str]:
        """What stands before and after an observation, as text."""
        one, other = (self.renderer.text(render(probe)) for probe in _PROBES)
        at = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        return one[:at], one[at + 1 :]

    def _inside(self, ids: Ids, fresh: bool, before: Stop | None) -> str:
        start, end = self._first if fresh or before is None else self._following[before]
        return self.renderer.text(ids).removeprefix(start).removesuffix(end)

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
