"""Several rewards at once, each booked to its own source."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from turnwise.episode import UNSCORABLE, Episode, Turn
from turnwise.rewards.environment import ENVIRONMENT
from turnwise.rewards.reward import Reward, RewardError, scored


def judged(episodes: Sequence[Episode], rewards: Mapping[str, tuple[float, Reward]]) -> list[Episode]:
    """The same episodes, paid anew: r_t = Σ_s w_s r_t^s over the sources s that could score turn t.

    `rewards` replaces what a turn was paid. What the environment paid stays only if it is named:
    ``{"environment": (1.0, environment), "polite": (0.5, judge)}``. Every turn's `rewards` holds w_s r_t^s by source,
    so they add up to its `reward`. A source that answers NaN is left out of that turn; a turn that no source could score
    gets the reward NaN, which credit keeps out of every statistic and gives advantage 0. How many turns of an episode a
    source could not score stands in its `metrics`, under `UNSCORABLE` and the name of the source.

    Episodes that the environment broke, or without turns, come back as they are; no reward sees them.

    Args:
        episodes: What happened.
        rewards: name -> (weight, reward).

    Returns:
        One episode for each, in order.

    Raises:
        RewardError: no reward, a weight that is not finite, or a reward's answer that is not one number per turn.
    """
    check_rewards(rewards)
    usable = [i for i, episode in enumerate(episodes) if episode.turns and not episode.failed]
    result = list(episodes)
    if not usable:
        return result
    asked = [episodes[i] for i in usable]
    scores = {name: scored(name, reward, asked) for name, (_, reward) in rewards.items()}
    for position, i in enumerate(usable):
        turns = tuple(
            _paid(turn, {name: rewards[name][0] * float(given[position][t]) for name, given in scores.items()})
            for t, turn in enumerate(episodes[i].turns)
        )
        silent = {name: int(np.isnan(given[position]).sum()) for name, given in scores.items()}
        counted = {f"{UNSCORABLE}{name}": float(n) for name, n in silent.items() if n}
        result[i] = replace(episodes[i], turns=turns, metrics={**episodes[i].metrics, **counted})
    return result


def check_rewards(rewards: Mapping[str, tuple[float, Reward]]) -> None:
    """Refuse what cannot be a table of rewards, before anything is rolled out.

    Raises:
        RewardError: no reward, a weight that is not finite, or something that cannot be called.
    """
    if not rewards:
        raise RewardError(f"no rewards given; name at least one, e.g. {{{ENVIRONMENT!r}: (1.0, environment)}}")
    for name, pair in rewards.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise RewardError(f"reward {name!r} is {pair!r:.80}; give a pair (weight, reward)")
        weight, reward = pair
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise RewardError(f"reward {name!r} has the weight {weight!r:.80}; give a finite number")
        if not callable(reward):
            raise RewardError(f"reward {name!r} is {reward!r:.80}, which cannot be called with a list of episodes")


def _paid(turn: Turn, parts: Mapping[str, float]) -> Turn:
    given = {name: part for name, part in parts.items() if not math.isnan(part)}
    return replace(turn, reward=math.fsum(given.values()) if given else math.nan, rewards=given)
