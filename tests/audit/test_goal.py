"""Goal-directedness: (1) known answers, (2) mixtures are monotone, by dynamic programming and as measured, (3) rewards may be
shifted and scaled, (4) a policy in a text world is measured as its table says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.envs.test_exact import world_of
from turnwise.audit import Evidence, Measurement, NotMeasurable, speaker
from turnwise.audit.choice import likelihood_ends
from turnwise.audit.goal import (
    bits_controls,
    bits_of,
    exact_ratio,
    goal_bits,
    ratio_controls,
    ratio_of,
    return_ratio,
)
from turnwise.audit.players import table_player
from turnwise.audit.witness import sample
from turnwise.envs import vault
from turnwise.envs.exact import mixture, optimal_return, planner, policy_return, uniform_policy
from turnwise.envs.vault import Vault
from turnwise.testing import check_measure


def test_known_answers_of_the_ratio() -> None:
    check_measure(return_ratio, ratio_controls())


def test_known_answers_of_the_bits() -> None:
    check_measure(goal_bits, bits_controls())


def test_mixtures_are_monotone_as_measured() -> None:
    world = vault.tabular(5, 0.1)
    best = planner(world, world.horizon)
    ratios, bits = [], []
    for epsilon in (0.0, 0.25, 0.5, 0.75, 1.0):
        choices = sample(world, mixture(best, epsilon), 400, 3)
        for found, to in ((ratio_of(world, choices), ratios), (bits_of(world, choices), bits)):
            assert isinstance(found, Measurement)
            to.append(found.value)
        assert abs(ratios[-1] - exact_ratio(world, epsilon)) < 0.15
    assert ratios == sorted(ratios, reverse=True)
    assert bits == sorted(bits, reverse=True)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_ratio_does_not_depend_on_the_unit_of_reward(seed: int) -> None:
    world = world_of(seed, horizon=4)
    policy = mixture(planner(world, 2), 0.3)
    scaled = replace(world, reward=7.0 * world.reward)
    one, other = (ratio_of(w, sample(w, policy, 50, seed)) for w in (world, scaled))
    assert isinstance(one, Measurement)
    assert isinstance(other, Measurement)
    assert other.value == pytest.approx(one.value)
    assert other.interval == pytest.approx(one.interval)


def test_the_ratio_in_a_slippery_text_world_is_what_the_table_says() -> None:
    world = vault.tabular(4, 0.2)
    policy = mixture(planner(world, 6), 0.2)
    player = table_player(policy, world.actions)
    found = return_ratio(Evidence(tabular=world, make_env=lambda: Vault(4, 0.2), player=player, plays=300))
    assert isinstance(found, Measurement)
    chance = policy_return(world, uniform_policy(world))
    truth = (policy_return(world, policy) - chance) / (optimal_return(world) - chance)
    width = found.interval[1] - found.interval[0]
    assert abs(found.value - truth) < width
    assert found.n == 300


def test_ends_of_the_likelihood_by_hand() -> None:
    # Ten of ten choices of two are the planner's: 10 log(1 - ε/2) >= -1.92.
    low, high = likelihood_ends(np.ones(10), 2)
    assert low == 0.0
    assert high == pytest.approx(2 * (1 - np.exp(-0.1920729)), abs=1e-3)
    assert likelihood_ends(np.full(10, 0.5), 2) == (0.0, 1.0), "who chooses at random says nothing about ε"


def test_who_says_nothing_that_is_an_action_earns_less_than_chance() -> None:
    """Every reply costs 0.1 in the vault: -0.1 * 5 turns, exactly."""
    world = vault.tabular(4, 0.0, max_turns=5)
    mumbler = speaker(lambda observations, own, seed: "hm")
    evidence = Evidence(tabular=world, make_env=lambda: Vault(4, 0.0, max_turns=5), player=mumbler, plays=20)
    found = return_ratio(evidence)
    assert isinstance(found, Measurement)
    assert "earned" in found.how
    assert found.value < 0
    assert isinstance(goal_bits(evidence), NotMeasurable)
