"""A reference that has moved belongs to the state: a resumed learner measures from the same policy, bit for bit."""

from __future__ import annotations

import torch

from tests.models import zoo
from turnwise.batch import pack
from turnwise.learners import LocalLearner
from turnwise.models import Policy, build_model
from turnwise.objectives import nll, token_mean


def learner(seed: int = 2) -> LocalLearner:
    policy = Policy(build_model(zoo.TOKENIZER, seed=seed), zoo.TOKENIZER)
    return LocalLearner(policy, lr=1e-2, reference=policy.reference())


def test_a_reference_that_has_moved_is_restored() -> None:
    batch = pack(zoo.episodes(4, seed=1)).weighted(token_mean)
    one = learner()
    at_first = one.evaluate_reference(batch).logp
    assert not any(name.startswith("reference.") for name in one.state()[0])  # the run starts with it anyway
    one.update(batch, nll())
    moved_to = one.evaluate(batch).logp
    one.refresh_reference()
    assert torch.equal(one.evaluate_reference(batch).logp, moved_to)
    one.update(batch, nll())
    assert not torch.equal(moved_to, at_first)
    assert not torch.equal(one.evaluate(batch).logp, moved_to)  # the policy has gone on without it

    tensors, info = one.state()
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    other = learner()
    other.restore(saved, info)
    assert torch.equal(other.evaluate_reference(batch).logp, moved_to)
    assert torch.equal(other.evaluate(batch).logp, one.evaluate(batch).logp)
    assert other.state()[0].keys() == tensors.keys()
    for each in (one, other):
        each.update(batch, nll())
    assert torch.equal(other.evaluate(batch).logp, one.evaluate(batch).logp)


def test_an_adapter_that_moved_its_reference_is_restored() -> None:
    def adapted() -> LocalLearner:
        from turnwise.models.policy import with_lora

        model = with_lora(build_model(zoo.TOKENIZER, seed=2), 2)
        policy = Policy(model, zoo.TOKENIZER)
        return LocalLearner(policy, lr=1e-2, reference=policy.reference())

    batch = pack(zoo.episodes(4, seed=1)).weighted(token_mean)
    one = adapted()
    one.update(batch, nll())
    moved_to = one.evaluate(batch).logp
    one.refresh_reference()
    one.update(batch, nll())
    tensors, info = one.state()
    other = adapted()
    other.restore({name: tensor.clone() for name, tensor in tensors.items()}, info)
    assert torch.allclose(other.evaluate_reference(batch).logp, moved_to, atol=1e-6)
    assert torch.allclose(other.evaluate(batch).logp, one.evaluate(batch).logp, atol=1e-6)


def test_a_reference_that_was_refreshed_before_the_adapter_learnt_anything_stays_what_it_was() -> None:
    """It is the model with the adapter switched off, which is what it has to be after a resume too."""

    def adapted() -> LocalLearner:
        from turnwise.models.policy import with_lora

        policy = Policy(with_lora(build_model(zoo.TOKENIZER, seed=2), 2), zoo.TOKENIZER)
        return LocalLearner(policy, lr=1e-2, reference=policy.reference())

    batch = pack(zoo.episodes(4, seed=1)).weighted(token_mean)
    one = adapted()
    one.refresh_reference()
    at_first = one.evaluate_reference(batch).logp
    for _ in range(2):
        one.update(batch, nll())
    assert torch.equal(one.evaluate_reference(batch).logp, at_first)
    tensors, info = one.state()
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    assert not any(name.startswith("reference.") for name in saved)
    fresh, used = adapted(), adapted()
    used.update(batch, nll())  # nor does it matter what the learner did before
    for other in (fresh, used):
        other.restore(saved, info)
        assert torch.equal(other.evaluate_reference(batch).logp, at_first)
        assert torch.equal(other.evaluate(batch).logp, one.evaluate(batch).logp)
        assert other.state()[1] == info
    one.refresh_reference()  # and it can move on from there
    moved = one.evaluate_reference(batch).logp
    fresh.restore({name: tensor.clone() for name, tensor in one.state()[0].items()}, one.state()[1])
    assert torch.allclose(fresh.evaluate_reference(batch).logp, moved, atol=1e-6)
