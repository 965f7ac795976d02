"""Exact policy gradients on worlds small enough to enumerate every group of rollouts.

A world is a line of turns; at each one the policy continues with probability sigmoid(θ_t) or stops, which ends the
episode. The expectation of an estimator is the sum over all groups of G trajectories, so there is no sampling error:
what is unbiased agrees with the true gradient to rounding.

Promises:
 1. In the two-turn world per-turn-index centring has expected gradient 0, a trajectory mean that includes the rollout
    has 1 − 1/G of the truth, and return-to-go with leave-one-out over the rollouts alive has the truth, 0.21.
 2. In a four-turn world with dense rewards per-turn-index centring points away from the gradient.
 3. `leave_one_out`, `leave_one_out_alive` and `batch_baseline` are unbiased there; `group_relative` without std is the
    truth times 1 − 1/G.
 4. Failed rollouts and early ends of the others do not bias `leave_one_out_alive`.
 5. There, crediting only what comes after an action has less variance than crediting the whole episode, and a baseline
    pooled over the batch less still. (Not a law: with a reward at the end only, the order can change.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from turnwise import credit

Advantages = Callable[[list[NDArray[np.float64]]], list[NDArray[np.float64]]]
"""Rewards of the rollouts of one group -> advantages per turn."""


@dataclass(frozen=True)
class Path:
    probability: float
    rewards: NDArray[np.float64]
    score: NDArray[np.float64]
    """(n_turns, n_parameters) gradient of each action's log-probability."""


def stop_or_continue(p: list[float], on: list[float], off: list[float]) -> list[Path]:
    """All trajectories: `on[t]` is paid for continuing at turn t, `off[t]` for stopping there."""
    paths = []
    for stop_at in range(len(p) + 1):
        actions = [1] * stop_at + [0] * (stop_at < len(p))
        probability, rewards = 1.0, []
        score = np.zeros((len(actions), len(p)))
        for t, action in enumerate(actions):
            probability *= p[t] if action else 1 - p[t]
            rewards.append(on[t] if action else off[t])
            score[t, t] = action - p[t]
        paths.append(Path(probability, np.array(rewards, dtype=float), score))
    return paths


def true_gradient(paths: list[Path]) -> NDArray[np.float64]:
    """∇J = Σ_τ P(τ) R(τ) Σ_t ∇ log π(a_t)."""
    return sum((path.probability * path.rewards.sum() * path.score.sum(axis=0) for path in paths), np.zeros(1))


def moments(paths: list[Path], size: int, advantages: Advantages) -> tuple[NDArray[np.float64], float]:
    """Mean and total variance of the gradient estimate over all groups of `size` rollouts."""
    mean, square = 0.0, 0.0
    for group in itertools.product(paths, repeat=size):
        weight = float(np.prod([path.probability for path in group]))
        values = advantages([path.rewards for path in group])
        estimate = sum(a @ path.score for a, path in zip(values, group, strict=True)) / size
        mean = mean + weight * estimate
        square += weight * float(estimate @ estimate)
    return mean, square - float(mean @ mean)


def centred_per_turn_index(rewards: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """The method not in the package: centre each turn's reward over the rollouts alive there, then sum over time."""
    centred = [np.zeros(len(r)) for r in rewards]
    for t in range(max(len(r) for r in rewards)):
        alive = [i for i, r in enumerate(rewards) if len(r) > t]
        mean = np.mean([rewards[i][t] for i in alive])
        for i in alive:
            centred[i][t] = rewards[i][t] - mean
    return [np.cumsum(c[::-1])[::-1] for c in centred]


def alive(rewards: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    return credit.leave_one_out_alive(credit.returns(rewards, 1.0), ["g"] * len(rewards))


def outcome(function: Callable[..., NDArray[np.float64]], **options: object) -> Advantages:
    def advantages(rewards: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        scores = function([r.sum() for r in rewards], ["g"] * len(rewards), **options)
        return credit.uniform(scores, [len(r) for r in rewards])

    return advantages


def batch(rewards: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    return credit.batch_baseline(credit.returns(rewards, 1.0))


def two_turns() -> list[Path]:
    """Stop at once for nothing, or continue and be paid 1 at the second turn, whatever is chosen there."""
    paths = stop_or_continue([0.3, 0.3], on=[0.0, 1.0], off=[0.0, 1.0])
    return [Path(path.probability, path.rewards, path.score.sum(axis=1, keepdims=True)) for path in paths]


DENSE = stop_or_continue([0.7] * 4, on=[1.0] * 4, off=[2.0] * 4)
"""Continuing pays 1 each time, stopping pays 2 and ends it: stopping is always better for this turn alone."""


@pytest.mark.parametrize(
    ("advantages", "expected"),
    [
        (centred_per_turn_index, 0.0),
        (outcome(credit.group_relative, normalise=False), 0.1575),
        (alive, 0.21),
        (outcome(credit.leave_one_out), 0.21),
        (batch, 0.21),
    ],
)
def test_two_turn_oracle(advantages: Advantages, expected: float) -> None:
    paths = two_turns()
    np.testing.assert_allclose(true_gradient(paths), [0.3 * 0.7], atol=1e-12)
    mean, _ = moments(paths, 4, advantages)
    np.testing.assert_allclose(mean, [expected], atol=1e-12)


def test_centring_per_turn_index_points_the_wrong_way() -> None:
    truth = true_gradient(DENSE)
    mean, _ = moments(DENSE, 3, centred_per_turn_index)
    cosine = mean @ truth / np.linalg.norm(mean) / np.linalg.norm(truth)
    # By hand: beside another rollout alive, the centred future averages out and 1 − 2 = −1 is left for continuing.
    assert (mean < 0).all()
    assert truth[0] > 0
    assert cosine < -0.9


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("advantages", [alive, outcome(credit.leave_one_out), batch])
def test_unbiased_with_dense_rewards(advantages: Advantages, size: int) -> None:
    mean, _ = moments(DENSE, size, advantages)
    np.testing.assert_allclose(mean, true_gradient(DENSE), atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_mean_that_includes_the_rollout_shrinks_the_gradient(size: int) -> None:
    mean, _ = moments(DENSE, size, outcome(credit.group_relative, normalise=False))
    np.testing.assert_allclose(mean, (1 - 1 / size) * true_gradient(DENSE), atol=1e-12)


def test_failed_rollouts_do_not_bias_the_others() -> None:
    def one_failed(rewards: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        known = [*credit.returns(rewards[:-1], 1.0), None]
        advantages = credit.leave_one_out_alive(known, ["g"] * len(rewards))
        assert len(advantages[-1]) == 0
        return [*advantages[:-1], np.zeros(len(rewards[-1]))]

    mean, _ = moments(DENSE, 3, one_failed)
    np.testing.assert_allclose(mean, 2 / 3 * true_gradient(DENSE), atol=1e-12)


def test_the_last_one_alive_is_not_faded_out() -> None:
    """Advantage 0 for a rollout that outlives the others would weigh late turns down; the package does not do it."""

    def faded(rewards: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        kept = alive(rewards)
        for t in range(max(len(r) for r in rewards)):
            living = [i for i, r in enumerate(rewards) if len(r) > t]
            if len(living) == 1:
                kept[living[0]][t] = 0.0
        return kept

    truth = true_gradient(DENSE)
    faded_mean, _ = moments(DENSE, 2, faded)
    survival = 0.7 ** np.arange(4)
    np.testing.assert_allclose(faded_mean, truth * survival, atol=1e-12)
    np.testing.assert_allclose(moments(DENSE, 2, alive)[0], truth, atol=1e-12)


def test_variances_with_dense_rewards() -> None:
    """Crediting only what comes later beats the outcome; a baseline from the whole batch has the least variance."""
    _, whole = moments(DENSE, 4, outcome(credit.leave_one_out))
    _, to_go = moments(DENSE, 4, alive)
    _, pooled = moments(DENSE, 4, batch)
    assert pooled < 0.6 * to_go
    assert to_go < 0.7 * whole


def test_variances_with_a_reward_at_the_end_only() -> None:
    """The other order: nothing is paid before the end, so return-to-go drops nothing and pays for its noisier baseline."""
    world = stop_or_continue([0.5] * 4, on=[0.0, 0.0, 0.0, 1.0], off=[0.0] * 4)
    for advantages in (alive, batch, outcome(credit.leave_one_out)):
        np.testing.assert_allclose(moments(world, 4, advantages)[0], true_gradient(world), atol=1e-12)
    assert moments(world, 4, outcome(credit.leave_one_out))[1] < moments(world, 4, alive)[1]


def test_the_last_one_alive_has_less_variance_than_against_zero() -> None:
    def against_zero(rewards: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        kept = alive(rewards)
        for t in range(max(len(r) for r in rewards)):
            living = [i for i, r in enumerate(rewards) if len(r) > t]
            if len(living) == 1:
                kept[living[0]][t] = rewards[living[0]][t:].sum()
        return kept

    mean, zero = moments(DENSE, 3, against_zero)
    np.testing.assert_allclose(mean, true_gradient(DENSE), atol=1e-12)
    assert moments(DENSE, 3, alive)[1] < zero
