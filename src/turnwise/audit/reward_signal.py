"""The reward signal as the learner meets it: how often it is paid, how long one has to wait, and how far it looks ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.controls import Control, Trial, planted
from turnwise.audit.evidence import Evidence, Iteration, Level
from turnwise.audit.horizon import horizon_of, waiting_room
from turnwise.audit.measure import Measurement, NotMeasurable, ratio_interval, share_interval
from turnwise.audit.quantity import Quantity, Section
from turnwise.audit.witness import sample
from turnwise.envs.exact import Tabular, greedy, lookahead_values
from turnwise.episode import Episode

_DENSITY = "reward/density"
_DELAY = "reward/delay"
_FORESIGHT = "reward/foresight"

_ENVIRONMENT = "environment"
_DRAWS = 256


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
    return Measurement(_DENSITY, share, share_interval(share, counts), len(scored), how, "share")


def reward_delay(evidence: Evidence) -> Measurement | NotMeasurable:
    """Turns from an action to the next payment other than 0, mean over the actions that were followed by one. Needs L1.

    0 where every action is paid at once; (T − 1)/2 for a single payment at the end of T turns.
    """
    waits = [wait for episode in evidence.episodes if (wait := _waits(episode.rewards))]
    if not waits:
        return NotMeasurable(_DELAY, Level.L1, "no turn was paid anything")
    sums, counts = [float(sum(wait)) for wait in waits], [float(len(wait)) for wait in waits]
    how = f"{int(sum(counts)):,} actions that were followed by a payment; linearised ratio"
    return Measurement(_DELAY, sum(sums) / sum(counts), ratio_interval(sums, counts), len(waits), how, "turns")


def foresight(evidence: Evidence) -> Measurement | NotMeasurable:
    """Revealed horizon of acting greedily on the reward: the least h whose planner would do what the reward pays best now.

    In each state and turn, greedy means equal shares for the actions with the largest expected payment, as the reward is given
    at that turn and with nothing after it. What this does in the true task is explained by planners that look h turns
    ahead there (`turnwise.audit.horizon.horizon_of`). A reward that looks ahead itself, such as a judge that knows Q*, makes
    far-sighted behaviour out of one-step choices.

    The task's own reward has foresight 1 by definition, because the planner of h = 1 acts greedily on just that. Needs L4:
    the table of the task, and the reward as a table (`Evidence.signal`) where somebody else than the environment paid.
    """
    tabular, signal = evidence.tabular, evidence.signal
    if tabular is None:
        return NotMeasurable(_FORESIGHT, Level.L4, "the environment has no exact table of its states")
    if signal is None:
        others = sorted({name for e in evidence.episodes for turn in e.turns for name in turn.rewards} - {_ENVIRONMENT})
        if others:
            why = f"{others[0]!r} paid, and what it would pay for the actions that nobody took is in no record"
            return NotMeasurable(_FORESIGHT, Level.L4, why)
        how = "by definition: the environment's own reward, on which the planner of h = 1 acts greedily; n counts the table"
        return Measurement(_FORESIGHT, 1.0, (1.0, 1.0), tabular.n_states, how, "turns")
    shape = (tabular.n_states, tabular.n_actions)
    if signal.shape not in (shape, (tabular.horizon, *shape)) or not np.isfinite(signal).all():
        why = f"the reward as a table has shape {signal.shape} or gaps; the task's is {shape}, or so for each turn"
        return NotMeasurable(_FORESIGHT, Level.L4, why)
    policy = greedy(signal)
    if np.allclose(policy, 1.0 / tabular.n_actions):
        return NotMeasurable(_FORESIGHT, Level.L4, "the reward pays every action alike, so greed has no direction")
    found = horizon_of(tabular, sample(tabular, policy, _DRAWS, evidence.seed))
    how = f"greedy on the reward as given at each turn, {_DRAWS} episodes drawn from the table; {found.how}"
    return replace(found, name=_FORESIGHT, how=how)


def density_controls() -> list[Control | Trial]:
    """Known answers of `reward_density`."""
    return [
        Control("one payment at the end of four turns", _episodes([0, 0, 0, 1.0]), 0.25),
        Control("a payment every turn", _episodes([-1.0, -1.0, 2.0]), 1.0),
        Control("nothing paid", _episodes([0.0, 0.0]), 0.0),
        Control("turns that nobody could score do not count", _episodes([0.0, 1.0, float("nan")]), 0.5),
        Control("no episodes", Evidence(config={}), None),
    ]


def delay_controls() -> list[Control | Trial]:
    """Known answers of `reward_delay`."""
    return [
        Control("one payment at the end of four turns", _episodes([0, 0, 0, 1.0]), 1.5),
        Control("a payment every turn", _episodes([-1.0, -1.0, 2.0]), 0.0),
        Control("turns after the last payment wait for nothing", _episodes([0.0, 1.0, 0.0, 0.0]), 0.5),
        Control("nothing paid", _episodes([0.0, 0.0]), None),
        Control("no episodes", Evidence(config={}), None),
    ]


def foresight_controls() -> list[Control | Trial]:
    """Known answers of `foresight`, in a world whose planners of every h up to 21 differ."""
    room = waiting_room()
    values = list(lookahead_values(room, room.horizon))
    own = (room.probability * room.reward).sum(-1)
    paid_by_judge = Iteration(
        (replace(planted([1.0]), turns=(replace(planted([1.0]).turns[0], rewards={"judge": 1.0}),)),)
    )
    return [
        Control("the task's own, immediate reward", Evidence(tabular=room), 1.0),
        Control("the same, written as a table", _judged(room, own), 1.0),
        *(Control(f"a judge that looks {h} turns ahead", _judged(room, values[h - 1]), float(h)) for h in (2, 7, 20)),
        Control("a judge that knows Q*: the task's longest wait", _judged(room, values[-1]), 21.0),
        Control(
            "a judge that knows the advantage A*", _judged(room, values[-1] - values[-1].max(-1, keepdims=True)), 21.0
        ),
        Control("pays every action alike", _judged(room, np.ones_like(own)), None),
        Control("a table of another world", _judged(room, own[:3]), None),
        Control("a judge paid, of whom there is no table", Evidence(tabular=room, iterations=(paid_by_judge,)), None),
    ]


def _judged(tabular: Tabular, signal: NDArray[np.float64]) -> Evidence:
    return Evidence(tabular=tabular, signal=signal)


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


QUANTITIES = (
    Quantity(
        _DENSITY,
        "density of the reward",
        "What share of the turns that could be scored was paid something other than 0?",
        Section.REWARD,
        reward_density,
        density_controls,
        Level.L1,
    ),
    Quantity(
        _DELAY,
        "delay of the reward",
        "How many turns after an action came the next payment, on average?",
        Section.REWARD,
        reward_delay,
        delay_controls,
        Level.L1,
    ),
    Quantity(
        _FORESIGHT,
        "foresight of the reward",
        "How many turns ahead must a planner of the task look to do what the reward pays best now?",
        Section.REWARD,
        foresight,
        foresight_controls,
        Level.L4,
    ),
)
"""The reward signal, as quantities of a card."""
