"""RLOO: what a rollout did better than the mean of the others from its start state, with nothing divided.

Ahmadian et al. 2024, arXiv 2402.14740. There an episode is one action with one probability ratio (`whole`); by default every
token has its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from turnwise.algorithms.experience import Experience, Floats
from turnwise.algorithms.grpo import GRPO
from turnwise.algorithms.settings import SettingsError
from turnwise.batch import with_units
from turnwise.credit import leave_one_out
from turnwise.episode import Episode
from turnwise.objectives import Objective, Weight, sequence_mean, sequence_ratio, token_mean


@dataclass(frozen=True)
class RLOO(GRPO):
    """REINFORCE leave-one-out: GRPO with the other rollouts' mean as baseline, no division, every token alike.

    Attributes:
        whole: One probability ratio for the whole episode, the product of its tokens', instead of one for each token: an
            episode is then one action, as published.
    """

    normalise: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalise:
            raise SettingsError("RLOO: normalise=True: RLOO does not divide by a deviation; use GRPO, which does")

    def surrogate(self) -> Objective:
        """The clipped surrogate, of tokens or of whole episodes."""
        high = self.clip_high or self.clip
        return sequence_ratio(self.clip, high, "episode", product=True) if self.whole else super().surrogate()

    def experience(self, learner: Any, episodes: list[Episode]) -> Experience | None:
        """An episode that is one action goes into one optimizer step, however many sequences it was packed into."""
        found = super().experience(learner, episodes)
        if found is None or not self.whole:
            return found
        return replace(found, batch=with_units(found.batch, range(len(found.episodes))))

    def weight(self, learner: Any) -> Weight:
        """Every token counts the same; under a ratio of the whole its share of it."""
        return sequence_mean if self.whole else token_mean

    def judge(self, scores: list[float], groups: list[str]) -> Floats:
        """(n_episodes,) score minus the mean score of the others."""
        return leave_one_out(scores, groups)
