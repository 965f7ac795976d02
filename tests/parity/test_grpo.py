"""GRPO and its relatives against TRL's GRPOTrainer: (1) the advantages it forms from the same rewards, unscorable ones
included, (2) loss and gradient of every loss type that we have a point for, with ratios away from 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.parity.groups import BETA, BUDGET, GROUPS, SCORES, Scored, scored
from tests.parity.trl import needs_trl, policy_like, quiet, same_loss_and_gradient, tiny_model
from turnwise.algorithms import CISPO, DAPO, GRPO, GSPO, LUSPO, SAPO, VESPO, DrGRPO
from turnwise.algorithms.grpo import KL_LOSSES
from turnwise.batch import pack
from turnwise.credit import broadcast, group_relative
from turnwise.learners import LocalLearner
from turnwise.objectives import Objective, clipped, combine, kl_loss, sequence_mean, sequence_ratio, token_mean

pytestmark = needs_trl


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    with quiet():
        made = scored("GRPO", tmp_path_factory.mktemp("trl"))
    # Old log-probabilities away from the present ones, so that ratios are clipped on both sides.
    noise = torch.randn(made.logp.shape, generator=torch.Generator().manual_seed(8))
    made.inputs["old_per_token_logps"] = made.logp + 0.5 * noise
    return made


@pytest.mark.parametrize(
    ("scale", "ours"),
    [("group", GRPO()), ("batch", GRPO(spread="batch")), ("none", DrGRPO()), ("group", DAPO())],
    ids=["group", "batch", "none", "dapo"],
)
def test_advantages(theirs: Scored, scale: str, ours: GRPO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theirs.trainer, "scale_rewards", scale)
    with quiet():
        expected = theirs.score()["advantages"].numpy()
    advantages = ours.advantages([np.array([score]) for score in SCORES], GROUPS)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(np.concatenate(advantages), expected, atol=2e-6)


CLIP = {"epsilon_low": 0.2, "epsilon_high": 0.28}
NARROW = {"epsilon_low": 0.03, "epsilon_high": 0.04}
SEQUENCE = {"importance_sampling_level": "sequence", **NARROW}


def point(algorithm: GRPO) -> tuple[Objective, Any]:
    learner: Any = None  # none of those below asks it
    return algorithm.surrogate(), algorithm.weight(learner)


CASES: dict[str, tuple[dict[str, Any], tuple[Objective, Any]]] = {
    "grpo": ({"loss_type": "grpo"}, point(GRPO(clip_high=0.28))),
    "grpo, symmetric": ({"loss_type": "grpo", "epsilon_high": 0.2}, point(GRPO())),
    "grpo, delta": ({"loss_type": "grpo", "delta": 1.5}, (clipped(0.2, 0.28, dual=1.5), sequence_mean)),
    "grpo, sequence": ({"loss_type": "grpo", **SEQUENCE}, point(GSPO(clip=0.03, clip_high=0.04))),
    "bnpo": ({"loss_type": "bnpo"}, point(DAPO())),
    "dapo": ({"loss_type": "dapo"}, point(DAPO())),
    "dapo, sequence": ({"loss_type": "dapo", **SEQUENCE}, (sequence_ratio(0.03, 0.04), token_mean)),
    "dr_grpo": ({"loss_type": "dr_grpo"}, point(DrGRPO(clip_high=0.28, budget=BUDGET))),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 1.2}, point(CISPO(clip_high=0.2))),
    "sapo": ({"loss_type": "sapo"}, point(SAPO())),
    "luspo": ({"loss_type": "luspo", **SEQUENCE}, point(LUSPO(clip=0.03, clip_high=0.04))),
    "vespo": ({"loss_type": "vespo"}, point(VESPO())),
}
"""Options of TRL -> our surrogate and weight."""

DEFAULTS = {"importance_sampling_level": "token", "delta": None, **CLIP}


# Where TRL multiplies the divergence of a token by the ratio of the sequence, we have no such point.
PAIRS = [
    (name, kl)
    for name, (options, _) in CASES.items()
    for kl in ("none", "k3", "weighted-k3")
    if kl != "weighted-k3" or "importance_sampling_level" not in options
]


@pytest.mark.parametrize(("name", "kl"), PAIRS)
def test_loss_and_gradient(theirs: Scored, name: str, kl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, (surrogate, weight) = CASES[name]
    trainer, model = theirs.trainer, theirs.model
    for key, value in (DEFAULTS | options).items():
        monkeypatch.setattr(trainer.args if key == "delta" else trainer, key, value)
    monkeypatch.setattr(trainer, "beta", 0.0 if kl == "none" else BETA)
    monkeypatch.setattr(trainer.args, "use_bias_correction_kl", kl == "weighted-k3")
    model.zero_grad()
    with quiet():
        loss = trainer._compute_loss(model, theirs.inputs)
    loss.backward()

    episodes = theirs.episodes()
    judged = group_relative(SCORES, GROUPS)
    streams = {
        "advantage": broadcast([[advantage] for advantage in judged], [one.act_lengths for one in episodes]),
        "old_logp": theirs.rows(theirs.inputs["old_per_token_logps"]),
        "reference_logp": theirs.rows(theirs.inputs["ref_per_token_logps"]),
    }
    if kl != "none":
        kind, weighted = KL_LOSSES[kl]
        surrogate = combine((1.0, surrogate), (BETA, kl_loss(kind, weighted=weighted)))
    policy = policy_like(tiny_model())
    learner = LocalLearner(policy, max_tokens=30)  # several micro-batches
    metrics = learner.gradient(pack(episodes, streams).weighted(weight), surrogate)
    same_loss_and_gradient(float(loss.detach()), model, metrics, policy)
    for side in ("low", "high"):
        if name not in ("cispo", "sapo", "vespo"):
            assert metrics[f"clip_ratio/{side}"][0] > 0, "a range that clips nothing proves nothing"
