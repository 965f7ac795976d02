"""The learner: (1) one AdamW step on the sum of the objective, exact for any split and any kind of episode, (2) evaluation
in packing order with sentinels, (3) schedules, (4) states of other models, greedy policies and NaN refused with words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import zoo
from turnwise.batch import Batch, pack, unpack
from turnwise.learners import LearnerError, LocalLearner
from turnwise.models import Policy, Sampling, build_model
from turnwise.objectives import (
    clipped,
    combine,
    entropy_bonus,
    nll,
    sequence_mean,
    token_mean,
    turn_start_mean,
    value_error,
)


def policy(**options: Any) -> Policy:
    options = {"value_head": True} | options
    return Policy(build_model(zoo.TOKENIZER, seed=2), zoo.TOKENIZER, **options)


def training_batch(n: int = 8, seed: int = 1) -> Batch:
    """Dialogues of one or several sequences with every stream PPO asks for."""
    made, rng = zoo.episodes(n, seed=seed, fresh=True), np.random.default_rng(seed)
    names = ("advantage", "return", "old_logp")
    streams = {name: [rng.normal(size=e.n_action_tokens) - (name == "old_logp") for e in made] for name in names}
    return pack(made, streams)


OBJECTIVE = combine((1.0, clipped()), (0.5, value_error()), (0.01, entropy_bonus()))


@pytest.mark.parametrize("weight", [token_mean, sequence_mean])
@pytest.mark.parametrize("packed", [True, False])
def test_the_gradient_does_not_depend_on_micro_batches(weight: Any, packed: bool) -> None:
    gradients: list[torch.Tensor] = []
    metrics: list[Any] = []
    for size in (10**6, 50, 1):
        made = policy() if packed else zoo.policy(zoo.OWN["mistral, sliding window"], value_head=True)
        assert made.packed == packed
        learner = LocalLearner(made, max_tokens=size)
        batch = training_batch()
        batch = batch.with_stream("weight", weight(batch)).with_stream("value_weight", turn_start_mean(batch))
        metrics.append(learner.gradient(batch, OBJECTIVE))
        gradients.append(
            torch.cat([p.grad.flatten() for p in made.parameters().values() if p.grad is not None]).double()
        )
    for gradient, figures in zip(gradients[1:], metrics[1:], strict=True):
        assert float((gradient - gradients[0]).norm() / gradients[0].norm()) <= 1e-6
        for name, (total, count) in figures.items():
            assert total == pytest.approx(metrics[0][name][0], rel=1e-4, abs=1e-5)
            assert count == pytest.approx(metrics[0][name][1], rel=1e-5)


def test_an_update_is_one_clipped_adamw_step() -> None:
    made = policy()
    learner = LocalLearner(made, lr=1e-2, weight_decay=0.1, max_grad_norm=0.5)
    batch = training_batch().weighted(token_mean)
    expected = [p.detach().clone().requires_grad_() for p in made.parameters().values()]
    optimizer = torch.optim.AdamW(expected, lr=1e-2, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.1, foreach=False)
    for version in (1, 2, 3):
        learner.gradient(batch, nll())
        for leaf, parameter in zip(expected, made.parameters().values(), strict=True):
            leaf.grad = None if parameter.grad is None else parameter.grad.clone()
        norm = torch.sqrt(
            sum((leaf.grad.square().sum() for leaf in expected if leaf.grad is not None), torch.zeros(()))
        )
        for leaf in expected:
            if leaf.grad is not None and norm > 0.5:
                leaf.grad *= 0.5 / norm
        optimizer.step()
        metrics = learner.update(batch, nll())
        assert learner.version == version
        assert metrics["grad_norm"][0] == pytest.approx(float(norm), rel=1e-4)
        assert metrics["loss"][1] == 1.0
        for leaf, parameter in zip(expected, made.parameters().values(), strict=True):
            torch.testing.assert_close(parameter, leaf, atol=1e-6, rtol=1e-4)


def test_maximum_likelihood_learns_what_it_is_shown() -> None:
    made = policy(value_head=False)
    learner = LocalLearner(made, lr=1e-2)
    batch = zoo.batch(4, seed=3).weighted(token_mean)
    losses = [learner.update(batch, nll())["loss"][0] for _ in range(60)]
    assert losses[-1] < 0.1 < 1.0 < losses[0]
    assert float(learner.evaluate(batch).logp.mean()) > -0.1


@settings(max_examples=15)
@given(st.integers(0, 100), st.sampled_from([1, 30, 10**6]))
def test_evaluation_is_in_packing_order(seed: int, max_tokens: int) -> None:
    made = EVALUATED
    episodes = zoo.episodes(5, seed=seed, fresh=True)
    whole = LocalLearner(made, max_tokens=max_tokens).evaluate(pack(episodes, bootstrap=True))
    assert whole.value is not None
    assert whole.final_value is not None
    assert len(whole.final_value) == sum(e.truncated for e in episodes)
    finals = iter(whole.final_value.tolist())
    parts = [unpack(stream, episodes) for stream in (whole.logp, whole.entropy, whole.value)]
    for i, episode in enumerate(episodes):
        with torch.no_grad():
            alone = made.outputs(pack([episode], bootstrap=True))
        for part, own in zip(parts, (alone.logp, alone.entropy, alone.value), strict=True):
            assert own is not None
            np.testing.assert_allclose(part[i], own.detach().numpy(), atol=1e-5)
        if episode.truncated:
            assert alone.final_value is not None
            assert next(finals) == pytest.approx(float(alone.final_value), abs=1e-5)


EVALUATED = policy()
assert EVALUATED.value_head is not None
torch.nn.init.normal_(EVALUATED.value_head.weight, std=0.1, generator=torch.Generator().manual_seed(0))


def test_the_final_value_is_the_value_after_the_last_observation() -> None:
    """A sentinel reads the hidden state of the context that ends with `last_obs`, by transformers' own forward."""
    episodes = [e for e in zoo.episodes(9, seed=2) if e.truncated and not e.last_fresh]
    said = EVALUATED.outputs(pack(episodes, bootstrap=True)).final_value
    plain = build_model(zoo.TOKENIZER, seed=2)
    assert said is not None
    assert EVALUATED.value_head is not None
    for value, episode in zip(said.tolist(), episodes, strict=True):
        ids = np.concatenate([*(part for turn in episode.turns for part in (turn.obs, turn.act)), episode.last_obs])
        hidden = plain.model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state[0, -1]
        assert value == pytest.approx(float(EVALUATED.value_head(hidden).detach()), abs=1e-5)


def test_a_sentinel_changes_nothing_else() -> None:
    episodes = zoo.episodes(6, seed=4)
    a, b = (EVALUATED.outputs(pack(episodes, bootstrap=flag)) for flag in (False, True))
    torch.testing.assert_close(a.logp, b.logp, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.value, b.value, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "constant"}, {0.0: 1.0, 0.5: 1.0, 0.99: 1.0}),
        ({"schedule": "linear"}, {0.0: 1.0, 0.5: 0.5, 1.0: 0.0}),
        ({"schedule": "linear", "warmup": 0.2}, {0.0: 0.0, 0.1: 0.5, 0.2: 1.0, 0.6: 0.5, 1.0: 0.0}),
        ({"schedule": "constant", "warmup": 0.5}, {0.25: 0.5, 0.5: 1.0, 0.9: 1.0}),
    ],
)
def test_the_rate_follows_its_schedule(options: dict[str, Any], expected: dict[float, float]) -> None:
    learner = LocalLearner(policy(), lr=2.0e-3, **options)
    batch = zoo.batch(2).weighted(token_mean)
    for progress, scale in expected.items():
        learner.anneal(progress)
        assert learner.update(batch, nll())["lr"][0] == pytest.approx(2.0e-3 * scale, abs=1e-12)


def test_what_a_method_remembers_belongs_to_the_state() -> None:
    learner = LocalLearner(policy())
    learner.memory["kl_coef"] = 0.25
    tensors, info = learner.state()
    learner.memory["kl_coef"] = 1.0
    learner.restore({name: tensor.clone() for name, tensor in tensors.items()}, info)
    assert learner.memory == {"kl_coef": 0.25}


def test_tokens_that_passed_are_counted_since_they_were_last_asked_for() -> None:
    made, batch = policy(), training_batch()
    learner = LocalLearner(made, reference=made.reference(), max_tokens=50)
    batch = batch.with_stream("weight", token_mean(batch)).with_stream("value_weight", turn_start_mean(batch))
    n = len(batch.tokens)
    learner.evaluate(batch)
    learner.evaluate_reference(batch)
    learner.update(batch, OBJECTIVE)
    assert learner.spent() == {"tokens/forward": 2 * n, "tokens/backward": n}
    assert learner.spent() == {"tokens/forward": 0, "tokens/backward": 0}


def test_a_state_of_another_model_is_refused_before_anything_changes() -> None:
    learner = LocalLearner(policy(value_head=False))
    tensors, info = LocalLearner(policy()).state()
    with pytest.raises(LearnerError, match=r"another model.*value_head.*Resume with the settings"):
        learner.restore(tensors, info)
    tensors, info = learner.state()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    # Shapes that would broadcast without a word.
    name = "weight.model.norm.weight"
    wrong = {**{n: t + 1 for n, t in before.items()}, name: before[name][:1]}
    with pytest.raises(LearnerError, match=r"model\.norm\.weight.*\(1,\) there and \(64,\) here"):
        learner.restore(wrong, info)
    assert all(torch.equal(tensor, before[n]) for n, tensor in learner.state()[0].items())


def test_what_cannot_train_is_refused_with_the_remedy() -> None:
    batch = zoo.batch(2).weighted(token_mean)
    with pytest.raises(LearnerError, match="temperature 1 and evaluate greedily"):
        LocalLearner(policy(sampling=Sampling(temperature=0))).update(batch, nll())
    frozen = policy(value_head=False)
    frozen.model.requires_grad_(False)
    with pytest.raises(LearnerError, match="no trainable parameter"):
        LocalLearner(frozen)
    with pytest.raises(LearnerError, match="warmup"):
        LocalLearner(policy(), warmup=1.0)
    with pytest.raises(LearnerError, match="reference"):
        LocalLearner(policy()).evaluate_reference(batch)


def test_an_infinite_loss_with_a_finite_gradient_is_refused() -> None:
    learner = LocalLearner(policy())
    batch = zoo.batch(2).weighted(token_mean)
    with pytest.raises(LearnerError, match="loss inf"):
        learner.update(batch, lambda outputs, part: (outputs.logp + torch.inf, {}))
    assert learner.version == 0


def test_demonstrations_outside_the_support_can_be_learned() -> None:
    """Banned words and tokens beyond the nucleus have a finite loss, so that imitation does not break on them."""
    made = policy(value_head=False, sampling=Sampling(top_k=2, top_p=0.5))
    batch = zoo.batch(4).weighted(token_mean)
    batch.tokens[batch.action.nonzero()[0]] = zoo.TOKENIZER.unk_token_id
    learner = LocalLearner(made, lr=1e-2)
    losses = [learner.update(batch, nll())["loss"][0] for _ in range(10)]
    assert losses[-1] < losses[0]


def test_an_empty_batch_moves_nothing() -> None:
    learner = LocalLearner(policy())
    before = {name: tensor.clone() for name, tensor in learner.state()[0].items()}
    learner.update(pack([]), nll())
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state()[0].items() if name in before)
