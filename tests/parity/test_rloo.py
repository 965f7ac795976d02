"""RLOO against TRL's RLOOTrainer, which treats a whole completion as one action: (1) its advantages, with the divergence in the
reward, (2) its loss and gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.parity.groups import BETA, GROUPS, SCORES, Scored, scored
from tests.parity.trl import needs_trl, policy_like, quiet, same_loss_and_gradient, tiny_model
from turnwise.algorithms import RLOO
from turnwise.batch import pack
from turnwise.credit import broadcast
from turnwise.learners import LocalLearner
from turnwise.objectives import kl_in_reward

pytestmark = needs_trl


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    with quiet():
        return scored("RLOO", tmp_path_factory.mktemp("trl"))


def advantages(theirs: Scored, beta: float) -> list[np.ndarray]:
    reference = tiny_model(seed=1)
    logps = [
        policy.outputs(pack(theirs.episodes())).logp.detach() for policy in map(policy_like, (tiny_model(), reference))
    ]
    sizes = [len(ids) for ids in theirs.completions]
    own, other = ([part.numpy() for part in logp.split(sizes)] for logp in logps)
    penalty = kl_in_reward(own, other, beta)
    rewards = [np.array([score + taken.sum()]) for score, taken in zip(SCORES, penalty, strict=True)]
    return RLOO().advantages(rewards, GROUPS)


@pytest.mark.parametrize("beta", [0.0, BETA, 1.0])
def test_advantages(theirs: Scored, beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theirs.trainer, "beta", beta)
    with quiet():
        expected = theirs.score()["advantages"].numpy()
    np.testing.assert_allclose(np.concatenate(advantages(theirs, beta)), expected, atol=1e-5)


@pytest.mark.parametrize("room", [(0.2, 0.2), (0.2, 0.28)])
def test_loss_and_gradient(theirs: Scored, room: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The ratio of a completion is the product over its tokens, with completions on both sides of the range."""
    trainer, model = theirs.trainer, theirs.model
    monkeypatch.setattr(trainer, "epsilon_low", room[0])
    monkeypatch.setattr(trainer, "epsilon_high", room[1])
    old = theirs.logp + 0.2 * torch.randn(theirs.logp.shape, generator=torch.Generator().manual_seed(2))
    inputs = {**theirs.inputs, "old_logps": (old * theirs.inputs["completion_mask"]).sum(1)}
    model.zero_grad()
    with quiet():
        loss = trainer._compute_loss(model, inputs)
    loss.backward()

    episodes, rloo = theirs.episodes(), RLOO(clip=room[0], clip_high=room[1], whole=True)
    streams = {
        "advantage": broadcast(advantages(theirs, BETA), [one.act_lengths for one in episodes]),
        "old_logp": theirs.rows(old),
    }
    policy = policy_like(tiny_model())
    learner = LocalLearner(policy, max_tokens=30)
    metrics = learner.gradient(pack(episodes, streams).weighted(rloo.weight(learner)), rloo.surrogate())
    same_loss_and_gradient(float(loss.detach()), model, metrics, policy)
    assert metrics["clip_ratio/low"][0] > 0
    assert metrics["clip_ratio/high"][0] > 0
