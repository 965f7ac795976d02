"""The reward signal as the learner meets it: how often it is paid, and how long one has to wait for it."""

from __future__ import annotations

import numpy as np

from turnwise.audit.controls import Control, planted
from turnwise.audit.evidence import Evidence, Iteration, Level
from turnwise.audit.measure import Measurement, NotMeasurable, ratio_interval, share_interval
from turnwise.episode import Episode

_DENSITY = "reward/density"
_DELAY = "reward/delay"


def reward_density(evidence: Evidence) -> Measurement | NotMeasurable:
    """Share of turns that were paid something other than 0, among those that could be scored. Needs L1.

    A single payment at the end of T turns is 1/T, a payment every turn 1.
    """
    scored = [rewards for episode in evidence.episodes if len(rewards := _scored(episode))]
    if not scored:
        return NotMeasurable(_DENSITY, Level.L1, "there is no turn with a reward")
    counts = np.array([len(rewards) for rewards in scored], dtype=np.float64)
    paid = sum(int((rewards != 0).sum()) for rewards in scored)
    share = paid / float(counts.sum())
    how = f"{paid:,} of {int(counts.sum()):,} scored turns; Wilson interval"
    return Measurement(_DENSITY, share, share_interval(share, counts), len(scored), how)


def reward_delay(evidence: Evidence) -> Measurement | NotMeasurable:
    """Turns from an action to the next payment other than 0, mean over the actions that were followed by one. Needs L1.

    0 where every action is paid at once; (T − 1)/2 for a single payment at the end of T turns.
    """
    waits = [wait for episode in evidence.episodes if (wait := _waits(episode.rewards))]
    if not waits:
        return NotMeasurable(_DELAY, Level.L1, "no turn was paid anything")
    sums, counts = [float(sum(wait)) for wait in waits], [float(len(wait)) for wait in waits]
    how = f"{int(sum(counts)):,} actions that were followed by a payment; linearised ratio"
    return Measurement(_DELAY, sum(sums) / sum(counts), ratio_interval(sums, counts), len(waits), how)


def density_controls() -> list[Control]:
    """Known answers of `reward_density`."""
    return [
        Control("one payment at the end of four turns", _episodes([0, 0, 0, 1.0]), 0.25),
        Control("a payment every turn", _episodes([-1.0, -1.0, 2.0]), 1.0),
        Control("nothing paid", _episodes([0.0, 0.0]), 0.0),
        Control("turns that nobody could score do not count", _episodes([0.0, 1.0, float("nan")]), 0.5),
        Control("no episodes", Evidence(config={}), None),
    ]


def delay_controls() -> list[Control]:
    """Known answers of `reward_delay`."""
    return [
        Control("one payment at the end of four turns", _episodes([0, 0, 0, 1.0]), 1.5),
        Control("a payment every turn", _episodes([-1.0, -1.0, 2.0]), 0.0),
        Control("turns after the last payment wait for nothing", _episodes([0.0, 1.0, 0.0, 0.0]), 0.5),
        Control("nothing paid", _episodes([0.0, 0.0]), None),
        Control("no episodes", Evidence(config={}), None),
    ]


def _episodes(rewards: list[float]) -> Evidence:
    return Evidence(iterations=(Iteration((planted(rewards), planted(rewards, seed=1))),))


def _scored(episode: Episode) -> np.ndarray:
    return episode.rewards[~np.isnan(episode.rewards)]


def _waits(rewards: np.ndarray) -> list[int]:
    """For each action with a payment at its turn or later, the turns until the first such payment."""
    payments = np.flatnonzero(np.nan_to_num(rewards))
    if not len(payments):
        return []
    return [int(payments[payments >= t][0]) - t for t in range(int(payments[-1]) + 1)]
