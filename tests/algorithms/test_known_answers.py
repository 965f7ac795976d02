"""On a bandit whose completions can be counted, a method with the divergence in its reward ends at π ∝ π_ref exp(r/β)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.algorithms.bandit import Bandit, total_variation
from turnwise.algorithms import PPO, RLOO, ReinforcePlusPlus, TokenPPO
from turnwise.learners import LocalLearner

BETA = 0.5
SIX = [0.0, 0.2, 1.0, 0.5, -0.5, 0.7]
NINE = [0.0, 0.3, 1.0, -0.4, 0.6, 0.1, 0.8, -0.2, 0.5]

ALIKE: dict[str, Any] = {"kl_coef": BETA, "epochs": 2, "minibatch": 128}
ALONE = {**ALIKE, "episodes": 256, "gamma": 1.0}
CRITIC = {**ALONE, "reward_scale": 1.0}
GROUPED = {**ALIKE, "groups": 32, "group_size": 8}
METHODS: dict[str, Any] = {
    "ppo": PPO(**CRITIC),
    "ppo-token": TokenPPO(**CRITIC),
    "rloo": RLOO(**GROUPED),
    "reinforce-plus-plus": ReinforcePlusPlus(**ALONE),
}


def distance(algorithm: Any, bandit: Bandit, steps: int, lr: float = 1e-2) -> tuple[float, float]:
    """Total variation from the optimum, before and after training."""
    learner = LocalLearner(bandit.policy, lr=lr, reference=bandit.policy.reference(), seed=bandit.seed)
    start = bandit.probabilities(bandit.policy)
    best = bandit.optimum(start, BETA)
    for iteration in range(steps):
        learner.anneal(iteration / steps)
        bandit.refresh(learner)
        algorithm.improve(learner, algorithm.collect(bandit, iteration))
        learner.iteration += 1
    return total_variation(start, best), total_variation(bandit.probabilities(bandit.policy), best)


@pytest.mark.parametrize("seed", [0, 2, 3])
@pytest.mark.parametrize("name", ["ppo", "rloo"])
def test_one_token(name: str, seed: int) -> None:
    bandit = Bandit(SIX, seed=seed, value_head=name == "ppo")
    before, after = distance(METHODS[name], bandit, 35)
    assert before > 0.1
    assert after < 0.02


@pytest.mark.parametrize(("name", "turns"), [("ppo-token", False), ("ppo", True), ("reinforce-plus-plus", False)])
def test_two_tokens_of_one_turn_or_of_two(name: str, turns: bool) -> None:
    bandit = Bandit(NINE, length=2, turns=turns, seed=0, value_head=name.startswith("ppo"))
    before, after = distance(METHODS[name], bandit, 50)
    assert before > 0.1
    assert after < 0.02


def forward_optimum(bandit: Bandit, reference: np.ndarray) -> np.ndarray:
    """What maximises E[r] − β KL(π_ref‖π): π = β π_ref / (λ − r), with the λ above all rewards that makes it sum to 1."""
    low, high = bandit.rewards.max(), bandit.rewards.max() + BETA
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (BETA * reference / (middle - bandit.rewards)).sum() > 1 else (low, middle)
    return BETA * reference / (high - bandit.rewards)


@pytest.mark.parametrize("kind", ["k3", "weighted-k3"])
def test_in_the_loss(kind: Any) -> None:
    """k3 alone holds the policy by the forward divergence and so ends elsewhere; ρ·k3 ends where k1 in the reward does."""
    bandit = Bandit(SIX, seed=2)
    start = bandit.probabilities(bandit.policy)
    best, elsewhere = bandit.optimum(start, BETA), forward_optimum(bandit, start)
    assert total_variation(best, elsewhere) > 0.2
    distance(RLOO(groups=48, kl_coef=BETA, minibatch=384, kl_loss=kind), bandit, 60)
    ends = bandit.probabilities(bandit.policy)
    assert total_variation(ends, elsewhere if kind == "k3" else best) < 0.03
