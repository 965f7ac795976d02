"""A source whose episodes carry what a reward would have paid, without being paid it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from turnwise.episode import Episode
from turnwise.rewards import Reward
from turnwise.rewards.reward import scored
from turnwise.rollout.judged import Rollouts, Wrapper


class Measured(Wrapper):
    """Notes the total of other rewards among the figures of each episode: what nobody trains on, such as a gold reward.

    Args:
        source: Any source.
        rewards: name -> reward; the name becomes that of the figure. An episode with a turn that cannot be scored gets none.
    """

    def __init__(self, source: Rollouts, rewards: Mapping[str, Reward]) -> None:
        super().__init__(source)
        self.rewards = dict(rewards)

    def rollouts(self, iteration: int, groups: int, group_size: int = 1, first: int = 0) -> list[Episode]:
        """The source's episodes, measured.

        Raises:
            RewardError: a reward raised, or did not answer with one number per turn.
        """
        episodes = list(self.source.rollouts(iteration, groups, group_size, first))
        usable = [i for i, episode in enumerate(episodes) if episode.turns and not episode.failed]
        for name, reward in self.rewards.items():
            with self.booked():
                given = scored(name, reward, [episodes[i] for i in usable]) if usable else []
            for i, values in zip(usable, given, strict=True):
                if not np.isnan(values).any():
                    episodes[i] = replace(episodes[i], metrics={**episodes[i].metrics, name: float(values.sum())})
        return episodes
