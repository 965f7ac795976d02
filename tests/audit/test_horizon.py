"""The choice model and the revealed horizon: (1) known answers, (2) the fit and the averages by hand and by enumeration,
(3) the set holds the truth wherever planners differ, (4) what cannot be told apart stands together."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.envs.test_exact import world_of
from turnwise.audit import Control, Evidence, Measurement, NotMeasurable, Trial, speaker
from turnwise.audit.choice import explain, identified
from turnwise.audit.horizon import controls, coverage, horizon_of, planner_chances, revealed_horizon, waiting_room
from turnwise.audit.players import table_player
from turnwise.audit.witness import Choices, sample, witness
from turnwise.envs import errand, vault
from turnwise.envs.exact import mixture, planner, policy_return, uniform_policy
from turnwise.envs.table_env import TableEnv
from turnwise.testing import check_measure


def test_known_answers() -> None:
    check_measure(revealed_horizon, [c for c in controls() if not (isinstance(c, Trial) and c.slow)])


def test_the_truth_is_in_the_set() -> None:
    for h, epsilon in ((1, 0.4), (9, 0.1), (20, 0.7)):
        assert coverage(h, epsilon, draws=200) >= 0.95
    slow = [c for c in controls() if isinstance(c, Trial)]
    assert len(slow) == 1
    assert not slow[0].is_met(0.94)


def test_the_fit_by_hand() -> None:
    # Three of four actions of two are the planner's: 1 - ε/2 = 3/4.
    found = explain(np.array([[1.0, 1.0, 1.0, 0.0]]), 2)
    assert found.epsilon == pytest.approx([0.5])
    assert found.fit == pytest.approx([3 * np.log(0.75) + np.log(0.25)])
    # All of them, none of them, and a planner that cares for nothing.
    for chance, epsilon, fit in ((1.0, 0.0, 0.0), (0.0, 1.0, -5 * np.log(2)), (0.5, 1.0, -5 * np.log(2))):
        found = explain(np.full((1, 5), chance), 2)
        assert found.epsilon == pytest.approx([epsilon])
        assert found.fit == pytest.approx([fit])
    # One action: every ε averages to (1 - 1/2) + 1/2 * 1/2 for the planner's, since the prior's mean is 1/2.
    assert explain(np.array([[1.0]]), 2).bits == pytest.approx([np.log2(0.75 / 0.5)])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 30))
def test_no_epsilon_explains_better(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    chances = rng.choice([0.0, 0.25, 0.5, 1.0], size=(3, n))
    found = explain(chances, 4)
    for epsilon in np.linspace(0.001, 1, 200):
        assert (np.log((1 - epsilon) * chances + epsilon / 4).sum(-1) <= found.fit + 1e-7).all()


def test_averaged_likelihoods_are_probabilities() -> None:
    """Over all sequences of five actions they sum to one, which is what Markov's inequality needs."""
    policies = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    total = 0.0
    for actions in product(range(3), repeat=5):
        total += np.exp(explain(policies[:, list(actions)], 3).evidence)
    assert total == pytest.approx([1.0, 1.0])


def test_separate_sets_are_explained_as_if_alone() -> None:
    chances = np.random.default_rng(0).choice([0.0, 0.5, 1.0], size=(4, 30))
    groups = np.arange(30) % 3
    together = explain(chances, 2, groups)
    for g in range(3):
        alone = explain(chances[:, groups == g], 2)
        np.testing.assert_allclose(together.fit[g], alone.fit)
        np.testing.assert_allclose(together.evidence[g], alone.evidence)
        np.testing.assert_array_equal(identified(together)[g], identified(alone))


def test_planners_of_the_waiting_room_by_arithmetic() -> None:
    world = waiting_room(6)
    for h in range(1, 8):
        first = planner(world, h)[0]
        expected = np.where(np.arange(1, 7)[:, None] <= h, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
        np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize("h", [1, 2, 3, 5, 8])
def test_the_errand_tells_horizons(h: int) -> None:
    """Pay falls with time, and jokes tempt: who sees the delivery goes for it, who does not tells jokes."""
    world = errand.tabular(8)
    choices = sample(world, mixture(planner(world, h), 0.1), 150, h)
    found = horizon_of(world, choices)
    assert found.interval[0] <= h <= found.interval[1]
    # A walk, a take and a give take more turns than a short-sighted planner has: the set is not everything.
    assert found.interval[1] - found.interval[0] < 7


def test_the_truth_is_in_the_set_where_things_slip() -> None:
    world = vault.tabular(4, 0.2, max_turns=10)
    policies = np.stack([planner(world, h) for h in range(1, 11)])
    sizes = []
    for h, epsilon in ((1, 0.0), (3, 0.2), (6, 0.5), (10, 1.0)):
        choices = sample(world, mixture(policies[h - 1], epsilon), 100 * 20, [h, 9])
        chances = policies[:, choices.turns, choices.states, choices.actions]
        inside = identified(explain(chances, world.n_actions, choices.episodes // 20))
        assert inside[:, h - 1].mean() >= 0.95
        sizes.append(inside.sum(-1).mean())
    assert sizes[0] < 5 < sizes[-1], "a clear policy leaves few horizons, a random one nearly all"
    assert sizes[-1] > 9.5


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), timed=st.booleans())
def test_planners_that_agree_everywhere_stand_together(seed: int, timed: bool) -> None:
    world = world_of(seed, horizon=6, timed=timed)
    choices = sample(world, planner(world, 3), 30, seed)
    chances = planner_chances(world, choices)
    inside = horizon_of(world, choices).series[1].y
    for one, other in product(range(6), repeat=2):
        if (chances[one] == chances[other]).all():
            assert inside[one] == inside[other]
    np.testing.assert_array_equal(
        chances, [planner(world, h)[choices.turns, choices.states, choices.actions] for h in range(1, 7)]
    )


def test_samples_earn_what_the_table_says() -> None:
    world = world_of(1, horizon=5, timed=True)
    policy = mixture(planner(world, 2), 0.4)
    choices = sample(world, policy, 4000, 0)
    paid = (world.probability * world.reward).sum(-1)[choices.turns, choices.states, choices.actions]
    per_episode = np.bincount(choices.episodes, weights=paid, minlength=4000)
    standard_error = per_episode.std() / np.sqrt(4000)
    assert abs(per_episode.mean() - policy_return(world, policy)) < 4 * standard_error


def test_what_is_watched_is_what_was_played() -> None:
    world = waiting_room(5)
    policy = mixture(planner(world, 3), 0.5)
    player = table_player(policy, world.actions)
    evidence = Evidence(tabular=world, make_env=lambda: TableEnv(world), player=player, plays=9)
    found = witness("x", evidence)
    assert isinstance(found, Choices)
    said = [text for episode in found.transcripts for text in episode.actions]
    assert [world.actions[a] for a in found.actions] == said
    seen = [text for episode in found.transcripts for text in episode.observations]
    assert [f"turn {t} state {s}" for t, s in zip(found.turns, found.states, strict=True)] == seen


def test_replies_that_are_no_action_are_counted_and_left_out() -> None:
    world = waiting_room(3)
    mumbler = speaker(lambda observations, own, seed: "wait" if len(own) % 2 else "what?")
    evidence = Evidence(tabular=world, make_env=lambda: TableEnv(world), player=mumbler, plays=6)
    found = revealed_horizon(evidence)
    assert isinstance(found, Measurement)
    assert f"{found.n} replies that are no action left out" in found.how
    declined = revealed_horizon(replace(evidence, player=speaker(lambda observations, own, seed: "")))
    assert isinstance(declined, NotMeasurable)
    assert "none of the policy's" in declined.why


def test_a_table_of_another_world_is_refused() -> None:
    world = waiting_room(9)
    player = table_player(uniform_policy(world), world.actions)
    evidence = Evidence(tabular=waiting_room(3), make_env=lambda: TableEnv(world), player=player)
    declined = revealed_horizon(evidence)
    assert isinstance(declined, NotMeasurable)
    assert "another world" in declined.why


def test_all_controls_are_named_once() -> None:
    names = [c.name for c in controls()]
    assert len(set(names)) == len(names)
    assert any(isinstance(c, Control) and c.expected is None for c in controls())
