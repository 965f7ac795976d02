"""The action space: (1) known answers, (2) entropies and mutual information against brute force and bounds, (3) what the bias
corrections take off, (4) text is read as worlds read it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.envs.test_exact import world_of
from turnwise.audit import Control, Evidence, Measure, Measurement, NotMeasurable, Trial, speaker
from turnwise.audit.actions import (
    action_entropy,
    action_length,
    actuation_of,
    actuation_own,
    actuation_uniform,
    entropy_controls,
    entropy_of,
    grid,
    length_controls,
    own_actuation_of,
    own_controls,
    uniform_controls,
)
from turnwise.audit.witness import Choices, sample
from turnwise.envs import Tabular, errand
from turnwise.envs.errand import Errand
from turnwise.envs.exact import uniform_policy
from turnwise.envs.table_env import TableEnv
from turnwise.testing import check_measure


@pytest.mark.parametrize(
    ("measure", "controls"),
    [
        (action_length, length_controls),
        (action_entropy, entropy_controls),
        (actuation_uniform, uniform_controls),
        (actuation_own, own_controls),
    ],
)
def test_known_answers(measure: Measure, controls: Callable[[], list[Control | Trial]]) -> None:
    check_measure(measure, controls())


def information(world: Tabular, state: int, policy: np.ndarray) -> float:
    """I(A; S'|s) by its definition, over a table of the joint probabilities."""
    joint: dict[tuple[int, int, bool], float] = {}
    for a in range(world.n_actions):
        for k in range(world.probability.shape[2]):
            cell = (a, int(world.successor[state, a, k]), bool(world.ended[state, a, k]))
            joint[cell] = joint.get(cell, 0.0) + policy[a] * world.probability[state, a, k]
    after: dict[tuple[int, bool], float] = {}
    for (_, s, e), p in joint.items():
        after[s, e] = after.get((s, e), 0.0) + p
    return sum(p * np.log2(p / (policy[a] * after[s, e])) for (a, s, e), p in joint.items() if p > 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_actuation_is_mutual_information(seed: int) -> None:
    world = world_of(seed, horizon=4)
    choices = sample(world, uniform_policy(world), 20, seed)
    expected = np.mean([information(world, s, np.full(2, 0.5)) for s in choices.states])
    found = actuation_of(world, choices)
    assert found.value == pytest.approx(expected)
    assert 0 <= found.interval[0] <= found.interval[1] <= 1


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_own_actuation_approaches_mutual_information(seed: int) -> None:
    world = world_of(seed, horizon=4)
    policy = np.random.default_rng(seed).dirichlet(np.ones(2), size=3)
    choices = sample(world, policy, 3000, seed)
    expected = np.mean([information(world, s, policy[s]) for s in choices.states])
    found = own_actuation_of(world, choices)
    assert isinstance(found, Measurement)
    assert found.value == pytest.approx(expected, abs=0.03)


def test_few_visits_are_corrected_for() -> None:
    """Uniform actions on a torus decide 2 bits; eight visits to a state do not show it, on average, without a correction."""
    world = grid(horizon=1)
    values, plugged = [], []
    for seed in range(300):
        choices = sample(world, uniform_policy(world), 8, [1, seed])
        found = own_actuation_of(world, choices)
        assert isinstance(found, Measurement)
        values.append(found.value)
        shares = np.bincount(choices.actions, minlength=4) / 8
        plugged.append(-sum(p * np.log2(p) for p in shares if p > 0))
    assert np.mean(plugged) < 1.75
    assert abs(np.mean(values) - 2.0) < 0.15


def test_entropy_corrections_by_arithmetic() -> None:
    # Two episodes with one action each: H = 1, without either H = 0, so the jackknife is 2 * 1 - 1 * 0 = 2.
    assert entropy_of([["a"], ["b"]], "x").value == pytest.approx(2.0)
    # 1/2, 1/4, 1/4 in 100 equal episodes: nothing is learnt by leaving one of them out.
    found = entropy_of([["a", "a", "b", "c"]] * 100, "x")
    assert found.value == pytest.approx(1.5)
    assert found.interval == pytest.approx((1.5, 1.5))
    # Always the same in 30 episodes: another kind may have a share of 0.1, H(0.1) = 0.469 bits.
    assert entropy_of([["a"]] * 30, "x").interval == pytest.approx((0.0, 0.4690), abs=1e-4)


def test_jackknife_is_nearly_unbiased() -> None:
    rng = np.random.default_rng(0)
    drawn = [entropy_of([[int(a)] for a in rng.integers(4, size=30)], "x").value for _ in range(400)]
    # Plugged in, the bias would be about -3 / (2 * 30 * ln 2) = -0.072 bits.
    assert abs(np.mean(drawn) - 2.0) < 0.02


def test_text_is_read_as_worlds_read_it() -> None:
    says = ["Go east.", "go east", "GO EAST", "fly"]
    player = speaker(lambda observations, own, seed: says[len(own) % 4])
    found = action_entropy(Evidence(player=player, make_env=lambda: Errand(8), tabular=errand.tabular(8), plays=10))
    assert isinstance(found, Measurement)
    # Three in four are one action, and the fourth is none: H(1/4) bits, the same in every episode.
    assert found.value == pytest.approx(2 - 0.75 * np.log2(3))
    assert "25% of them no action" in found.how


def test_termination_is_something_that_happens() -> None:
    """One state; one action ends the episode, the other does not: 1 bit."""
    one = np.ones((1, 2, 1))
    ended = np.array([[[True], [False]]])
    world = Tabular(one, np.zeros((1, 2, 1), int), 0 * one, ended, np.ones(1), 5, ("end", "stay"))
    found = actuation_uniform(
        Evidence(tabular=world, make_env=lambda: TableEnv(world), player=speaker(lambda *_: "stay"), plays=4)
    )
    assert isinstance(found, Measurement)
    assert found.value == 1.0


def test_states_seldom_visited_are_left_out() -> None:
    world = grid(horizon=2)
    choices = sample(world, uniform_policy(world), 3, 0)
    assert isinstance(choices, Choices)
    declined = own_actuation_of(world, choices)
    assert isinstance(declined, NotMeasurable)
    assert "more episodes" in declined.why
