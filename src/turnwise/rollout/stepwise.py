"""Answers split into steps: what was one action becomes several turns with nothing between them.

Nothing else changes: the ids in a row, their log-probabilities and what they pack into are the same. What changes is what
can be credited, since credit is given to turns. A process reward is then a turn reward, and a method that credits turns
credits steps.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

import numpy as np

from turnwise.episode import Episode, Ids, Stop, Turn
from turnwise.errors import TurnwiseError
from turnwise.rollout.judged import Rollouts, Wrapper
from turnwise.text import Renderer

SEPARATOR = "\n"
"""What ends a step unless something else is asked for."""


class Stepwise(Wrapper):
    """Hands out the episodes of another source with every action split into steps; see `split_steps`.

    Args:
        source: A collector, or stored episodes.
        renderer: The renderer that the episodes are made with.
        separator: What ends a step.

    Raises:
        TurnwiseError: an empty separator.
    """

    def __init__(self, source: Rollouts, renderer: Renderer, *, separator: str = SEPARATOR) -> None:
        if not separator:
            raise TurnwiseError("separator='' would end a step nowhere or everywhere; a line break is usual")
        super().__init__(source)
        self.renderer = renderer
        self.separator = separator

    def rollouts(self, iteration: int, groups: int, group_size: int = 1, first: int = 0) -> list[Episode]:
        """The source's episodes, in steps."""
        episodes = self.source.rollouts(iteration, groups, group_size, first)
        return [split_steps(episode, self.renderer, self.separator) for episode in episodes]


def split_steps(episode: Episode, renderer: Renderer, separator: str = SEPARATOR) -> Episode:
    """The episode with every action split where its text contains the separator.

    A step ends with the token that completes a separator, and with the blanks that follow it, so that no step is blank;
    the stop token belongs to the last one. What the action was paid stays with its last step; the others are paid 0.

    Args:
        episode: What happened.
        renderer: The renderer that it was made with.
        separator: What ends a step.
    """
    turns: list[Turn] = []
    for turn in episode.turns:
        ends = _ends(turn.act, renderer, separator)
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            last = end == len(turn.act)
            turns.append(
                replace(
                    turn,
                    obs=turn.obs if not start else turn.obs[:0],
                    act=turn.act[start:end],
                    logp=turn.logp[start:end],
                    fresh=turn.fresh and not start,
                    reward=turn.reward if last else 0.0,
                    rewards=turn.rewards if last else {},
                    stop=turn.stop if last else Stop.STOP,
                )
            )
    return replace(episode, turns=tuple(turns))


def join_steps(episode: Episode) -> Episode:
    """The episode with the steps of each answer put together again, its rewards summed.

    For whoever reads answers whole. After `split_steps` it gives back what was split.
    """
    joined: list[Turn] = []
    for steps in episode.answers:
        parts = [episode.turns[step] for step in steps]
        names = dict.fromkeys(name for part in parts for name in part.rewards)
        joined.append(
            replace(
                parts[0],
                act=np.concatenate([part.act for part in parts]),
                logp=np.concatenate([part.logp for part in parts]),
                reward=float(sum(part.reward for part in parts)),
                rewards={name: sum(part.rewards.get(name, 0.0) for part in parts) for name in names},
                version=min(part.version for part in parts),
                stop=parts[-1].stop,
            )
        )
    return replace(episode, turns=tuple(joined))


def _ends(act: Ids, renderer: Renderer, separator: str) -> list[int]:
    """Where the steps of an action end, its own end last."""
    ends: list[int] = []
    begin = cut = 0
    while cut < len(act):
        # Text only grows, so where it first holds a separator can be found by bisection.
        possible = range(cut + 1, len(act) + 1)
        start = cut
        found = bisect_left(possible, True, key=lambda end: separator in renderer.text(act[start:end]))
        cut = possible[found] if found < len(possible) else len(act)
        blank = not renderer.action_text(act[begin:cut]).replace(separator, "").strip()
        if not blank:
            ends.append(cut)
            begin = cut
        elif ends:
            ends[-1] = begin = cut
    return ends or [len(act)]
