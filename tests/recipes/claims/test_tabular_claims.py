"""The tabular claims: the truths they are held against, and that each runs in its quick form or a smaller one."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from turnwise.envs import locks, vault
from turnwise.envs.exact import optimal_policy, optimal_return, policy_return
from turnwise.recipes.claims import (
    frozen_judge,
    offline,
    own_successes,
    process_reward,
    reward_and_credit,
    static_world,
)
from turnwise.recipes.claims.claim import Claim, Outcome
from turnwise.recipes.claims.tabular import play, with_reward


def nothing() -> None:
    pass


def complete(claim: Claim, *outcomes: Outcome) -> None:
    """Every figure that the claim compares or draws was measured."""
    figures = {name: value for outcome in outcomes for name, value in outcome.figures.items()}
    asked = [side for c in (*claim.claimed, *claim.found) for side in (c.left, c.right) if isinstance(side, str)]
    drawn = [name for chart in claim.charts for name in chart.figures]
    marks = [chart.reference for chart in claim.charts if isinstance(chart.reference, str)]
    assert not {*asked, *drawn, *marks} - figures.keys()
    assert all(math.isfinite(value) for value in figures.values())


# ---- E1


def test_an_experts_progress_counts_turns() -> None:
    world = locks.tabular(3)
    goal = (world.ended & (world.reward > process_reward.DECOY)).astype(float)
    found = process_reward.progress(world, goal)
    start = int(np.flatnonzero(world.initial)[0])  # the code left left left
    # One turn nearer; jammed, and a coin taken: 12 turns from where there were 3 to go.
    assert found[start].tolist() == [1.0, -9.0, -9.0]


def test_an_experts_progress_along_a_vault_without_slips() -> None:
    world = vault.tabular(4, 0.0)
    goal = world.ended.astype(float)
    log = play(world, np.eye(5)[optimal_policy(world)], 20, np.random.default_rng(0))
    assert process_reward.progress(world, goal)[log.state, log.action] == pytest.approx(1.0)


def test_judges_in_their_quick_form() -> None:
    outcome = process_reward.work(1, True, nothing)
    complete(process_reward.CLAIM, outcome)
    assert outcome.figures["Q*, vault"] > 0.9
    # A coin beats an even lottery over codes: success of a judge that prefers the coin is 0.
    assert outcome.figures["immediate reward, lock of 2"] == 0.0


# ---- E2


def test_a_plan_in_a_small_world_by_arithmetic() -> None:
    # Three rooms, the key in the first, the agent in the second: west, take, east, open, east: pays with the fifth action.
    world = vault.tabular(3, 0.0, 0.0, 6)
    assert optimal_return(world) == pytest.approx((10 * (1 - 0.9 * 4 / 6) + 10 * (1 - 0.9 * 3 / 6)) / 2)
    assert static_world.loss(0.0, 0.0, 3, 6) == pytest.approx((optimal_return(world),) * 2)


def test_looking_in_its_quick_form() -> None:
    outcome = static_world.work(1, 4, 8, nothing)
    complete(static_world.CLAIM, outcome)
    lost = [outcome.figures[f"lost by not looking, slip {slip:g}"] for slip in static_world.SLIPS]
    assert abs(lost[0]) < 1e-9
    assert lost == sorted(lost)


# ---- E4


def test_offline_methods_are_better_than_their_base() -> None:
    rng = np.random.default_rng(0)
    world = vault.tabular(4, 0.1)
    base = offline.base_policy(world)
    log = play(world, base, 500, rng)
    for name, made in offline.OFFLINE.items():
        policy = made(world, log, base, rng)
        np.testing.assert_allclose(policy.sum(-1), 1.0)
        assert policy_return(world, policy) > policy_return(world, base), name


def test_offline_and_online_in_a_small_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "SIZES", (25, 50))
    monkeypatch.setattr(offline, "DECIDES", 50)
    complete(offline.CLAIM, offline.work(1, True, nothing))


# ---- E5


def test_shaping_leaves_the_order_of_policies_and_the_wrong_reward_does_not() -> None:
    world = reward_and_credit.sparse_world(vault.tabular(4, 0.0))
    paid = reward_and_credit.rewards(world, 4)
    best = play(world, np.eye(5)[optimal_policy(world)], 50, np.random.default_rng(0))
    # Potentials telescope: the shaped return is the return less the value of the start state; an optimal episode gets 0.
    assert best.total(paid["dense"](best)) == pytest.approx(0.0)
    assert paid["sparse"](best) == pytest.approx(best.reward)
    # To and fro before the door: it pays at every second turn, and more than any treasure.
    states = vault.Vault(4).world.states
    door = reward_and_credit.doorstep(4)
    assert [state.me for state, at in zip(states, door, strict=True) if at] == [2] * int(door.sum())
    to_and_fro = np.eye(5)[[1 if at else 0 for at in door]]
    log = play(world, to_and_fro, 50, np.random.default_rng(0))
    assert log.total(paid["wrong dense"](log)).min() >= 14.0
    assert log.total(paid["sparse"](log)).max() == 0.0


def test_rewards_and_credit_in_a_small_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_and_credit, "QUICK_ROUNDS", 10)
    complete(
        reward_and_credit.CLAIM,
        *(reward_and_credit.arm(name, 1, True, nothing) for name in reward_and_credit.ARMS),
    )


# ---- E6


def test_success_is_paid_once() -> None:
    world = own_successes.successes(vault.tabular(4, 0.0, max_turns=10))
    assert optimal_return(world) == pytest.approx(1.0)


def test_own_successes_in_their_quick_form() -> None:
    outcome = own_successes.work(1, True, nothing)
    complete(own_successes.CLAIM, outcome)
    assert outcome.figures["least change of success in a round, endless samples"] > -1e-9


# ---- E9


def test_a_judge_without_noise_finds_what_it_can_express(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_judge, "NOISE", 0.0)
    world = frozen_judge.draw(np.random.default_rng(0))
    said = np.exp(world.start)
    found = frozen_judge.fit(world, said, 200, np.random.default_rng(1), lengths=True)
    np.testing.assert_allclose(found, world.gold, atol=1e-9)


def test_mirror_ascent_is_the_closed_form() -> None:
    world = frozen_judge.draw(np.random.default_rng(0))
    gold, moved = frozen_judge.optimise(world, lambda policy: world.gold)
    # The sum of all steps is one KL-regularised optimum, π ∝ π_0 exp(ROUNDS · STEP · score) (DPO, eq. 4).
    weight = np.exp(world.start + frozen_judge.ROUNDS * frozen_judge.STEP * world.gold)
    policy = weight / weight.sum()
    assert gold[-1] == pytest.approx(policy @ world.gold)
    assert moved[0] == pytest.approx(0.0)
    assert all(b >= a - 1e-12 for a, b in pairwise(gold))


def test_frozen_judges() -> None:
    complete(frozen_judge.CLAIM, frozen_judge.work(1, nothing))


def test_rewards_of_a_world_are_of_its_shape() -> None:
    world = vault.tabular(4, 0.1)
    assert with_reward(world, np.zeros(world.probability.shape)).reward.ndim == 3
