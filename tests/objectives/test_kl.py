"""Where a KL penalty goes decides its gradient: exact expectations over enumerated outcomes.

A batch holds every outcome once, weighted with its probability, so that the summed loss *is* the expectation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from turnwise import objectives as obj
from turnwise.batch import Batch, Outputs, pack
from turnwise.credit import returns
from turnwise.episode import Episode

POLICY = [1.5409961, -0.2934289, -2.1787894, 0.5684313, -1.0845223, -1.3985954]
REFERENCE = [0.4033468, 0.8380263, -0.7192576, -0.4033435, -0.5966354, 0.1820365]


def categorical() -> tuple[Tensor, Tensor]:
    """Logits of the policy and log-probabilities of the reference."""
    return torch.tensor(POLICY, requires_grad=True), torch.tensor(REFERENCE).log_softmax(-1)


def true_gradients() -> tuple[Tensor, Tensor]:
    """Of KL(π‖ref) and of KL(ref‖π), with respect to the logits, by their closed forms."""
    p, q = torch.tensor(POLICY).softmax(-1), torch.tensor(REFERENCE).softmax(-1)
    log_ratio = (p / q).log()
    return p * (log_ratio - (p * log_ratio).sum()), p - q


def expected(make: Callable[[], obj.Objective], make_episode: Callable[..., Episode], **streams: list[float]) -> Tensor:
    """Gradient of the expected loss with respect to the logits."""
    logits, reference = categorical()
    logp = logits.log_softmax(-1)
    weight = logp.detach().exp()
    columns = {"old_logp": logp.detach().tolist(), "reference_logp": reference.tolist(), **streams}
    episodes = [make_episode([[k]]) for k in range(6)]
    batch = pack(episodes, {name: [np.array([x]) for x in column] for name, column in columns.items()})
    loss, _ = make()(Outputs(logp=logp, entropy=torch.zeros(6)), batch.with_stream("weight", weight))
    return torch.autograd.grad(loss.sum(), logits)[0]


def rewarded(estimator: Callable[[Tensor, Tensor], Tensor], make_episode: Callable[..., Episode]) -> Tensor:
    """Gradient of the expected loss when minus the estimate is the reward."""
    logits, reference = categorical()
    penalty = -estimator(logits.detach().log_softmax(-1), reference)
    return expected(obj.policy_gradient, make_episode, advantage=penalty.tolist())


def test_the_size_of_each_gradient(make_episode: Callable[..., Episode]) -> None:
    def size(make: Callable[[], obj.Objective]) -> float:
        return float(expected(make, make_episode).norm())

    reverse, forward = true_gradients()
    assert float(reverse.norm()) == pytest.approx(0.3341, abs=5e-5)
    assert float(forward.norm()) == pytest.approx(0.4911, abs=5e-5)
    assert size(lambda: obj.kl_loss("k2")) == pytest.approx(0.3341, abs=5e-5)
    assert size(lambda: obj.kl_loss("k3")) == pytest.approx(0.4911, abs=5e-5)
    assert size(lambda: obj.kl_loss("k1", weighted=True)) == pytest.approx(0.3341, abs=5e-5)
    assert size(lambda: obj.kl_loss("k3", weighted=True)) == pytest.approx(0.3341, abs=5e-5)
    assert float(rewarded(obj.k1, make_episode).norm()) == pytest.approx(0.3341, abs=5e-5)
    assert float(rewarded(obj.k3, make_episode).norm()) == pytest.approx(0.1667, abs=5e-5)


def test_the_table_of_the_docs(make_episode: Callable[..., Episode]) -> None:
    """Row by row: the norm of each form's gradient, and which divergence it is the gradient of."""
    logits, reference = categorical()
    logp = logits.log_softmax(-1)
    (in_loss,) = torch.autograd.grad((logp.detach().exp() * obj.k1(logp, reference)).sum(), logits)
    found = {
        "k1 in the loss": in_loss,
        "k2 in the loss": expected(lambda: obj.kl_loss("k2"), make_episode),
        "k3 in the loss": expected(lambda: obj.kl_loss("k3"), make_episode),
        "ρ·k1 in the loss": expected(lambda: obj.kl_loss("k1", weighted=True), make_episode),
        "ρ·k3 in the loss": expected(lambda: obj.kl_loss("k3", weighted=True), make_episode),
        "k1 in the reward": rewarded(obj.k1, make_episode),
        "k3 in the reward": rewarded(obj.k3, make_episode),
    }
    reverse, forward = true_gradients()
    descended = {"nothing": torch.zeros(6), "KL(π‖ref)": reverse, "KL(ref‖π)": forward}
    page = (Path(__file__).parents[2] / "docs" / "credit.md").read_text(encoding="utf-8")
    table = page.partition("| form | norm | descends | verdict |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert {form: norm for form, norm, _, _ in rows} == {
        form: f"{float(gradient.norm()):.4f}" for form, gradient in found.items()
    }
    for form, _, divergence, _ in rows:
        same = {name for name, truth in descended.items() if torch.allclose(found[form], truth, atol=1e-6)}
        assert same == ({divergence} if divergence in descended else set())


def test_which_divergence_each_form_descends(make_episode: Callable[..., Episode]) -> None:
    reverse, forward = true_gradients()
    for make in (
        lambda: obj.kl_loss("k2"),
        lambda: obj.kl_loss("k1", weighted=True),
        lambda: obj.kl_loss("k3", weighted=True),
    ):
        torch.testing.assert_close(expected(make, make_episode), reverse, atol=1e-6, rtol=0)
    torch.testing.assert_close(expected(lambda: obj.kl_loss("k3"), make_episode), forward, atol=1e-6, rtol=0)
    torch.testing.assert_close(rewarded(obj.k1, make_episode), reverse, atol=1e-6, rtol=0)
    torch.testing.assert_close(rewarded(obj.k3, make_episode), reverse - forward, atol=1e-6, rtol=0)


def test_k1_in_the_loss_has_no_gradient_and_is_refused() -> None:
    logits, reference = categorical()
    logp = logits.log_softmax(-1)
    loss = (logp.detach().exp() * obj.k1(logp, reference)).sum()
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-7
    with pytest.raises(ValueError, match="kl_in_reward"):
        obj.kl_loss("k1")
    with pytest.raises(ValueError, match="unknown KL estimator"):
        obj.kl_loss("k4")  # type: ignore[arg-type]


def test_estimators_have_the_right_mean() -> None:
    logits, reference = categorical()
    logp = logits.detach().log_softmax(-1)
    p = logp.exp()
    divergence = float((p * (logp - reference)).sum())
    assert float((p * obj.k1(logp, reference)).sum()) == pytest.approx(divergence)
    assert float((p * obj.k3(logp, reference)).sum()) == pytest.approx(divergence)
    assert (obj.k3(logp, reference) >= 0).all()
    assert (obj.k2(logp, reference) >= 0).all()


def test_the_metric_and_the_coefficient(flat_batch: Callable[..., Batch], outputs_of: Callable[..., Outputs]) -> None:
    batch = flat_batch(reference_logp=[[-1.0, -2.0]], weight=[[0.5, 0.5]])
    loss, metrics = obj.kl_loss("k2", 0.3)(outputs_of([-1.5, -1.0]), batch)
    assert loss.tolist() == pytest.approx([0.3 * 0.5 * 0.125, 0.3 * 0.5 * 0.5])
    total = (math.exp(0.5) - 1.5) + (math.exp(-1.0) - 1 + 1.0)
    assert metrics == {"kl": (pytest.approx(total), 2.0)}


def test_only_the_reward_credits_divergence_that_comes_later(make_episode: Callable[..., Episode], table: type) -> None:
    """Two tokens in a row: the first decides the context, and so the divergence, of the second."""
    model, reference = table.random(3, seed=1), table.random(3, seed=2)
    episodes = [make_episode([list(pair)]) for pair in itertools.product(range(3), repeat=2)]
    bare = pack(episodes)
    own, other = model(bare).logp.view(9, 2), reference(bare).logp.detach().view(9, 2)
    probability = own.detach().sum(1).exp()
    penalty = obj.kl_in_reward(list(own.detach().numpy()), list(other.numpy()), beta=1.0)
    streams = {"advantage": returns(penalty, 1.0), "reference_logp": list(other.numpy())}
    batch = pack(episodes, streams).with_stream("weight", probability.repeat_interleave(2))

    truth = model.gradient((own.sum(1).exp() * (own - other).sum(1)).sum())
    in_reward = model.gradient(obj.policy_gradient()(model(batch), batch)[0])
    in_loss = model.gradient(obj.kl_loss("k2")(model(batch), batch)[0])
    torch.testing.assert_close(in_reward, truth, atol=1e-6, rtol=0)
    assert (in_loss - truth).norm() > 0.1 * truth.norm()


def test_kl_in_reward_by_hand_and_refusals() -> None:
    penalty = obj.kl_in_reward([[-1.0, -2.0], [-1.0]], [[-1.5, -1.0], [-1.0]], beta=0.1)
    np.testing.assert_allclose(penalty[0], [-0.05, 0.1])
    np.testing.assert_allclose(penalty[1], [0.0])
    with pytest.raises(ValueError, match="top-k"):
        obj.kl_in_reward([[-1.0]], [[-math.inf]], beta=0.1)
    with pytest.raises(ValueError, match="episode 0"):
        obj.kl_in_reward([[-1.0]], [[-1.0, -1.0]], beta=0.1)


def test_the_controller_holds_its_target() -> None:
    """A plant whose divergence is 1/β: the controller must end at β = 1/target from either side."""
    for start in (0.01, 10.0):
        controller = obj.AdaptiveKL(beta=start, target=2.0)
        for _ in range(1000):
            controller = controller.update(1.0 / controller.beta)
        assert controller.beta == pytest.approx(0.5, rel=1e-2)
    assert obj.AdaptiveKL(1.0, 1.0).update(100.0).beta == pytest.approx(1.02)
    assert obj.AdaptiveKL(1.0, 1.0).update(0.0).beta == pytest.approx(0.98)
    with pytest.raises(ValueError, match="plain number"):
        obj.AdaptiveKL(0.0, 1.0)
