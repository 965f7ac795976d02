"""DAPO: GRPO with more room above, every token alike, and start states that teach nothing replaced by others.

A group whose rollouts all have the same return has no advantage. It takes part of the batch and gives no gradient, and as
training goes on there are ever more of them. Dynamic sampling draws further start states until enough groups differ.

What this file leaves out: the soft overlong punishment, which is a reward (`turnwise.rewards.overlong`).

Yu et al. 2025, arXiv 2503.14476.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.algorithms.grpo import GRPO
from turnwise.credit import zero_std, zero_std_metrics
from turnwise.episode import Episode
from turnwise.objectives import Weight, token_mean
from turnwise.runs import Improvement


@dataclass(frozen=True)
class DAPO(GRPO):
    """GRPO with asymmetric clipping, a token mean and dynamic sampling.

    Attributes:
        max_draws: How often start states are drawn in an iteration at most, each time as many as groups are missing; 1
            takes the first draw as it is.
    """

    clip_high: float = 0.28
    max_draws: int = 4

    def weight(self, learner: Any) -> Weight:
        """Every token counts the same."""
        return token_mean

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """Groups until enough of them have spread in their returns, or `max_draws`; all that were drawn."""
        episodes = list(source.rollouts(iteration, self.groups, self.group_size))
        drawn = self.groups
        for _ in range(self.max_draws - 1):
            missing = self.groups - len(spread_groups(episodes))
            if missing <= 0:
                break
            episodes += source.rollouts(iteration, missing, self.group_size, first=drawn)
            drawn += missing
        return episodes

    def left_out(self, episodes: list[Episode]) -> Collection[int]:
        """Episodes of groups without spread, and of those drawn beyond what was asked for."""
        kept = spread_groups(episodes)[: self.groups]
        return [i for i, episode in enumerate(episodes) if kept and episode.group not in kept]

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Assign credit and climb, with the groups that have spread; if there are none, say why."""
        improvement = super().improve(learner, episodes)
        groups = [episode.group for episode in episodes]
        drawn = {
            "groups/drawn": (float(len(set(groups))), 1.0),
            "groups/kept": (float(len(spread_groups(episodes)[: self.groups])), 1.0),
            **zero_std_metrics(_scores(episodes), groups),
        }
        return Improvement({**improvement.metrics, **drawn}, improvement.streams)


def spread_groups(episodes: list[Episode]) -> list[str]:
    """Groups whose rollouts differ in their return, in order."""
    flat = zero_std(_scores(episodes), [episode.group for episode in episodes])
    return list(dict.fromkeys(one.group for one, same in zip(episodes, flat, strict=True) if not same))


def _scores(episodes: list[Episode]) -> list[float]:
    return [np.nan if episode.failed else episode.undiscounted_return for episode in episodes]
