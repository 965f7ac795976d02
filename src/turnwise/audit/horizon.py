"""Revealed horizon: how far ahead somebody must look to choose as the policy does."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.choice import explain, identified
from turnwise.audit.controls import Control, Trial
from turnwise.audit.evidence import Evidence, Level
from turnwise.audit.measure import Measurement, NotMeasurable, Series
from turnwise.audit.players import table_player
from turnwise.audit.quantity import Quantity, Section
from turnwise.audit.witness import Choices, sample, witness
from turnwise.envs.exact import Tabular, greedy, lookahead_values, mixture, planner, uniform_policy
from turnwise.envs.table_env import TableEnv

_NAME = "horizon/policy"

DEEPEST = 32
"""Longest horizon that is asked about."""


def revealed_horizon(evidence: Evidence) -> Measurement | NotMeasurable:
    """The horizons h whose planner may have made the policy's choices, in turns.

    Planner h chooses what is best over the next h turns (`turnwise.envs.exact.planner`) and acts at random in a share ε of
    its choices, ε fitted to each h by maximum likelihood. The figure is the h of greatest likelihood, the least of them
    where planners agree on every choice that was seen. The interval runs from the least to the greatest h in the confidence
    set of `turnwise.audit.choice.identified`: it holds the truth in at least 95 of 100 cases for any number of choices. Its
    bound is 4.3 bits in all, log2(20), below the average likelihood of all h: a bound of one bit in all would hold less
    often. Planners of different h that never chose differently where the policy went are one class, and stand or fall
    together: a horizon longer than the world can show is not told from a longer one. Needs L4.
    """
    choices = witness(_NAME, evidence)
    if isinstance(choices, NotMeasurable):
        return choices
    assert evidence.tabular is not None
    return horizon_of(evidence.tabular, choices)


def horizon_of(tabular: Tabular, choices: Choices) -> Measurement:
    """The revealed horizon of choices that were noted or drawn; see `revealed_horizon`.

    Args:
        tabular: The world they were made in.
        choices: The choices.
    """
    chances = planner_chances(tabular, choices)
    explained = explain(chances, tabular.n_actions)
    inside = identified(explained)
    horizons = np.arange(1, len(chances) + 1)
    best = int(explained.fit.argmax())
    n_classes, n_inside = len(np.unique(chances, axis=0)), int(inside.sum())
    refused = f"; {choices.refused} replies that are no action left out" if choices.refused else ""
    how = (
        f"{n_inside} of h = 1..{len(chances)} explain {len(choices):,} actions ({n_classes} kinds of planner where it went), "
        f"h = {best + 1} by {max(explained.bits[best], 0.0):.2f} bits per action above uniform with ε = {explained.epsilon[best]:.2f}; "
        f"95 % likelihood set{refused}"
    )
    x = tuple(map(float, horizons))
    series = (
        Series(
            "bits explained",
            x,
            tuple(map(float, np.maximum(explained.bits, 0.0))),
            x_label="h, turns",
            y_label="bits per action",
        ),
        Series("in the set", x, tuple(map(float, inside)), x_label="h, turns", y_label="in the set"),
    )
    ends = float(horizons[inside].min()), float(horizons[inside].max())
    return Measurement(_NAME, float(horizons[best]), ends, len(choices), how, "turns", series)


def planner_chances(tabular: Tabular, choices: Choices) -> NDArray[np.float64]:
    """(M, N): the probability that planner h = 1 .. M gives to each choice, M = min(horizon, `DEEPEST`).

    Args:
        tabular: The world.
        choices: The choices.
    """
    deepest = min(tabular.horizon, DEEPEST)
    where, which = np.unique(np.stack([choices.turns, choices.states]), axis=1, return_inverse=True)
    which = which.reshape(-1)
    return np.stack(
        [
            greedy(q[where[0], where[1]], tabular.scale)[which, choices.actions]
            for q in lookahead_values(tabular, deepest)
        ]
    )


def waiting_room(longest: int = 21) -> Tabular:
    """A world in which planners of every horizon from 1 to `longest` differ.

    State r stands before a large payment of 2 that comes with the r-th wait from now, r = 1 .. `longest`; any turn, a small
    payment of 1 may be grabbed, which ends the episode, or the turn idled away. Who looks h turns ahead waits exactly where
    r <= h and grabs elsewhere. All r begin equally often. Without a preference for the sooner of equal payments, idling
    would be as good wherever r < h.

    Args:
        longest: Largest r.
    """
    n = longest
    here = np.arange(n)
    successor = np.stack([here, np.maximum(here - 1, 0), here], axis=1)[..., None]
    reward, ended = np.zeros((n, 3, 1)), np.zeros((n, 3, 1), dtype=bool)
    reward[:, 0], ended[:, 0] = 1.0, True
    reward[0, 1], ended[0, 1] = 2.0, True
    start = np.full(n, 1.0 / n)
    return Tabular(np.ones((n, 3, 1)), successor, reward, ended, start, longest + 4, ("grab", "wait", "idle"))


def coverage(h: int, epsilon: float, draws: int = 200, episodes: int = 20) -> float:
    """Share of draws of a planner's choices in `waiting_room` whose set of horizons holds the planner's own.

    Args:
        h: The planner's horizon.
        epsilon: Share of its choices that are random.
        draws: How often its episodes are drawn anew.
        episodes: Episodes in each draw.
    """
    tabular, policies = _room()
    choices = sample(tabular, mixture(policies[h - 1], epsilon), draws * episodes, [h, int(1000 * epsilon)])
    chances = policies[:, choices.turns, choices.states, choices.actions]
    found = identified(explain(chances, tabular.n_actions, choices.episodes // episodes))
    return float(found[:, h - 1].mean())


def controls() -> list[Control | Trial]:
    """Known answers of `revealed_horizon`."""
    tabular, policies = _room()
    uniform = uniform_policy(tabular)
    of_random = _plays(uniform)
    return [
        Control("always grabs", _plays(policies[0]), 1.0),
        *(Control(f"looks {h} turns ahead", _plays(policies[h - 1]), float(h)) for h in (2, 7, 20)),
        Control("looks 7 turns ahead: only 7 explains it", _plays(policies[6]), 1.0, figure=_size),
        Control("looks 7 turns ahead: log2(3) bits", _plays(policies[6]), float(np.log2(3)), 0.02, figure=_bits),
        Control("longer than the world can show is one class, 21 and up", _plays(policies[23]), 21.0),
        Control("looks 7 turns ahead and acts at random in 0.3 of its choices", _plays(mixture(policies[6], 0.3)), 7.0),
        Control("random actions: every horizon", of_random, float(tabular.horizon), figure=_size),
        Control("random actions: no bits", of_random, 0.0, 0.02, figure=_bits),
        Control("nobody plays", Evidence(tabular=tabular), None),
        Trial(
            "h = 1..20 with ε = 0, 0.1 and 0.4: how often the truth is in the set, at worst, in 200 draws",
            lambda: min(coverage(h, epsilon) for h in range(1, 21) for epsilon in (0.0, 0.1, 0.4)),
            0.95, side="at least", slow=True,
        ),
    ]  # fmt: skip


@cache
def _room() -> tuple[Tabular, NDArray[np.float64]]:
    """The waiting room, and the policy of planner h at [h - 1]."""
    tabular = waiting_room()
    return tabular, np.stack([planner(tabular, h) for h in range(1, tabular.horizon + 1)])


def _plays(policy: NDArray[np.float64]) -> Evidence:
    tabular, _ = _room()
    player = table_player(policy, tabular.actions)
    return Evidence(tabular=tabular, make_env=lambda: TableEnv(tabular), player=player, plays=120)


def _size(found: Measurement) -> float:
    return sum(found.series[1].y)


def _bits(found: Measurement) -> float:
    return max(found.series[0].y)


QUANTITIES = (
    Quantity(
        _NAME,
        "revealed horizon",
        "How many turns ahead must a planner look, that errs in a share ε of its choices, to choose as the policy does?",
        Section.HORIZONS,
        revealed_horizon,
        controls,
        Level.L4,
    ),
)
"""What this module measures."""
