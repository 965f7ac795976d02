"""Goal-directedness: how much of what could be earned is earned, and how much of what is done the goal explains.

Both are about the reward of the world and about nothing inside the policy. Neither fits a softmax of the values: a policy that
aims well and errs at random now and then would pass there for one that hardly minds its errors, however dear they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.choice import explain, likelihood_ends
from turnwise.audit.controls import Control, Trial
from turnwise.audit.evidence import Evidence, Level
from turnwise.audit.horizon import waiting_room
from turnwise.audit.measure import Measurement, NotMeasurable, ratio_interval
from turnwise.audit.players import table_player
from turnwise.audit.quantity import Quantity, Section
from turnwise.audit.witness import Choices, sample, witness
from turnwise.envs.exact import Tabular, mixture, optimal_values, planner, policy_values, uniform_policy
from turnwise.envs.table_env import TableEnv

_RATIO = "goal/return_ratio"
_BITS = "goal/bits"


def return_ratio(evidence: Evidence) -> Measurement | NotMeasurable:
    """(J(policy) - J(random)) / (J(optimal) - J(random)): the share of what could be earned beyond chance that is earned.

    0 is a policy as good as uniform actions, 1 an optimal one; below 0 is worse than random. J(optimal) and J(random) are
    exact, from the table, and taken from the states the policy's own episodes began in, so that easy tasks do not pass for
    skill: ``sum_i (G_i - V_random(s_i)) / sum_i (V_optimal(s_i) - V_random(s_i))`` over episodes i. So capability is what the
    world allows, not what the policy might have had in it. Needs L4.
    """
    choices = witness(_RATIO, evidence, any_reply=True)
    if isinstance(choices, NotMeasurable):
        return choices
    assert evidence.tabular is not None
    return ratio_of(evidence.tabular, choices)


def ratio_of(tabular: Tabular, choices: Choices) -> Measurement | NotMeasurable:
    """See `return_ratio`, of episodes that were played or drawn.

    Args:
        tabular: The world they were played in.
        choices: The episodes.
    """
    best, chance = _start_values(tabular)
    room = best[choices.starts] - chance[choices.starts]
    if room.sum() <= 1e-9 * max(float(np.abs(best).max()), 1e-300):
        return NotMeasurable(
            _RATIO, Level.L4, "random actions earn as much as the best ones, so there is no goal to reach"
        )
    gained = choices.returns - chance[choices.starts]
    value = float(gained.sum() / room.sum())
    how = (
        f"earned {gained.mean():.3g} of {room.mean():.3g} beyond the {chance[choices.starts].mean():.3g} of random actions; both "
        f"exact; {len(room)} episodes; linearised ratio"
    )
    return Measurement(_RATIO, value, ratio_interval(list(gained), list(room)), len(room), how)


def goal_bits(evidence: Evidence) -> Measurement | NotMeasurable:
    """Bits per action above uniform in the optimal planner that, with a share ε of random actions, explains the policy best.

    ε is fitted by maximum likelihood (`turnwise.audit.choice`); the figure is the mean over the policy's actions of
    ``log2 A - H(P(. | s, t))``, H the entropy of the fitted choices: how much knowing the goal tells about an action. 0 is
    uniform, log2 A an optimal policy where one action is best; less where several are equally good. The planner is optimal
    for the turns that are left, the sooner of equal payments first. The interval maps that of ε: the values within 1.92
    nats of the greatest log-likelihood (Wilks 1938, a χ² of one degree). A policy that aims at something else has 0 bits
    here. Needs L4.
    """
    choices = witness(_BITS, evidence)
    if isinstance(choices, NotMeasurable):
        return choices
    assert evidence.tabular is not None
    return bits_of(evidence.tabular, choices)


def bits_of(tabular: Tabular, choices: Choices) -> Measurement:
    """See `goal_bits`, of choices that were noted or drawn.

    Args:
        tabular: The world they were made in.
        choices: The choices.
    """
    chosen = planner(tabular, tabular.horizon)[choices.turns, choices.states]  # (N, A)
    chances = np.take_along_axis(chosen, choices.actions[:, None], axis=1)[:, 0]
    epsilon = float(explain(chances[None], tabular.n_actions).epsilon[0])
    low, high = likelihood_ends(chances, tabular.n_actions)
    value, least, most = (_information(chosen, e) for e in (epsilon, max(high, epsilon), min(low, epsilon)))
    refused = f"; {choices.refused} replies that are no action left out" if choices.refused else ""
    how = (
        f"an optimal planner with ε = {epsilon:.3f} explains {len(choices):,} actions of {tabular.n_actions} kinds best "
        f"(no softmax); likelihood interval of ε{refused}"
    )
    return Measurement(_BITS, value, (min(least, value), max(most, value)), len(choices), how, "bits per action")


def _information(chosen: NDArray[np.float64], epsilon: float) -> float:
    """Mean of log2 A - H over rows of probabilities, with a share ε of uniform actions."""
    p = mixture(chosen, epsilon)
    entropy = -np.where(p > 0, p * np.log2(np.maximum(p, 1e-300)), 0.0).sum(-1)
    return max(float(np.log2(p.shape[-1]) - entropy.mean()), 0.0)


def _start_values(tabular: Tabular) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(S,), (S,): what the best and what uniform actions earn from each state at the first turn."""
    return optimal_values(tabular)[0], policy_values(tabular, uniform_policy(tabular))[0]


def ratio_controls() -> list[Control | Trial]:
    """Known answers of `return_ratio`."""
    tabular = _world()
    return [
        Control("an optimal policy", _mixed(0.0), 1.0),
        *(
            Control(f"ε = {e:g}, by dynamic programming", _mixed(e), exact_ratio(tabular, e), 0.12)
            for e in (0.1, 0.4, 0.7)
        ),
        Control("random actions", _mixed(1.0), 0.0, 0.15),
        Control(
            "the worst: idles, less than random", _plays(np.eye(3)[np.full(tabular.n_states, 2)]), 0.0, 0.0, "at most"
        ),
        Control("nothing to earn", _idle(), None),
        Control("nobody plays", Evidence(tabular=tabular), None),
        Trial(
            "how often the interval holds the exact ratio of ε = 0.4, in 200 draws",
            _ratio_coverage,
            0.9,
            side="at least",
        ),
    ]


def bits_controls() -> list[Control | Trial]:
    """Known answers of `goal_bits`."""
    grabs = planner(_world(), 1)
    return [
        Control("an optimal policy: log2(3) bits", _mixed(0.0), float(np.log2(3))),
        *(
            Control(f"ε = {e:g}, by the entropy of the mixture", _mixed(e), _exact_bits(e), 0.12)
            for e in (0.1, 0.4, 0.7)
        ),
        Control("random actions", _mixed(1.0), 0.0, 0.02),
        Control("aims at something else, the small payment", _plays(grabs), 0.0, 0.05),
        Control("nobody plays", Evidence(tabular=_world()), None),
        Trial(
            "how often the interval holds the bits of ε = 0.4, in 200 draws",
            _bits_coverage,
            0.9,
            side="at least",
            slow=True,
        ),
    ]


def exact_ratio(tabular: Tabular, epsilon: float) -> float:
    """The return ratio of the optimal policy with a share ε of random actions, by dynamic programming.

    Args:
        tabular: The world.
        epsilon: The share.
    """
    best, chance = (float(tabular.initial @ values) for values in _start_values(tabular))
    policy = mixture(planner(tabular, tabular.horizon), epsilon)
    return (float(tabular.initial @ policy_values(tabular, policy)[0]) - chance) / (best - chance)


@cache
def _world() -> Tabular:
    """Six waits at most, and a few turns more: the best action is one everywhere."""
    return waiting_room(6)


def _mixed(epsilon: float) -> Evidence:
    return _plays(mixture(planner(_world(), _world().horizon), epsilon))


def _plays(policy: NDArray[np.float64], tabular: Tabular | None = None) -> Evidence:
    world = _world() if tabular is None else tabular
    return Evidence(
        tabular=world, make_env=lambda: TableEnv(world), player=table_player(policy, world.actions), plays=150
    )


def _idle() -> Evidence:
    world = replace(_world(), reward=np.zeros_like(_world().reward))
    return _plays(uniform_policy(world), world)


def _exact_bits(epsilon: float) -> float:
    others = epsilon / 3
    best = 1 - 2 * others
    return float(np.log2(3) + best * np.log2(best) + 2 * others * np.log2(others))


def _draws() -> Iterator[Choices]:
    policy = mixture(planner(_world(), _world().horizon), 0.4)
    return (sample(_world(), policy, 60, [7, draw]) for draw in range(200))


def _ratio_coverage() -> float:
    truth = exact_ratio(_world(), 0.4)
    return float(np.mean([_holds(ratio_of(_world(), choices), truth) for choices in _draws()]))


def _bits_coverage() -> float:
    return float(np.mean([_holds(bits_of(_world(), choices), _exact_bits(0.4)) for choices in _draws()]))


def _holds(found: Measurement | NotMeasurable, truth: float) -> bool:
    return isinstance(found, Measurement) and found.interval[0] <= truth <= found.interval[1]


QUANTITIES = (
    Quantity(
        _RATIO,
        "return ratio",
        "Of what could be earned beyond random actions, which share is earned? (J(π) - J(random)) / (J(optimal) - J(random))",
        Section.GOAL,
        return_ratio,
        ratio_controls,
        Level.L4,
    ),
    Quantity(
        _BITS,
        "goal bits",
        "How many bits of an action does the goal explain, by the best-fitting optimal planner that errs in a share ε?",
        Section.GOAL,
        goal_bits,
        bits_controls,
        Level.L4,
    ),
)
"""What this module measures."""
