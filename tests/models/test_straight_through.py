"""Through a frozen judge: (1) the score is that of the tokens, (2) the gradient is that of the relaxed score by finite differences,
(3) it is the gradient of the expected score where the judge is linear, and is not where it is not, (4) it does not depend on micro-batches
or packing, (5) what cannot work is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import zoo
from turnwise.batch import Batch, Outputs, pack
from turnwise.errors import TurnwiseError
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Scorer, build_model
from turnwise.models.straight_through import score_through, through_judge, token_probabilities
from turnwise.objectives import constant


def last_of_each(batch: Batch) -> Tensor:
    """(A,) 1 at the last action token of each sequence."""
    owner = batch.sequence[batch.action]
    return torch.cat([owner[1:] != owner[:-1], torch.ones(1, dtype=torch.bool)]).float()


def answers(n: int = 3, seed: int = 0) -> Batch:
    batch = pack(zoo.episodes(n, seed=seed))
    batch = batch.with_stream("judged", last_of_each(batch))
    return batch.with_stream("weight", constant(1.0)(batch))


def frozen(policy: Policy, seed: int = 5) -> Scorer:
    judge = Scorer.of(policy, seed=seed)
    judge.model.requires_grad_(False)
    return judge


def llama(seed: int = 2) -> Policy:
    return Policy(build_model(zoo.TOKENIZER, seed=seed), zoo.TOKENIZER)


@pytest.mark.parametrize("make", [llama, lambda: zoo.policy(zoo.OWN["mistral, sliding window"])])
def test_the_score_is_that_of_the_tokens(make: Any) -> None:
    policy, batch = make(), answers()
    judge = frozen(policy)
    with torch.no_grad():
        soft = score_through(judge, batch, token_probabilities(policy, batch))
        assert torch.allclose(soft, judge.outputs(batch).score, atol=1e-6)  # type: ignore[arg-type]
        probabilities = token_probabilities(policy, batch)
        said = probabilities.gather(-1, batch.tokens[batch.action][:, None]).squeeze(-1)
        assert torch.allclose(said.log(), policy.outputs(batch).logp, atol=1e-5)
        assert torch.allclose(probabilities.sum(-1), torch.ones(len(said)), atol=1e-5)


def test_the_gradient_is_that_of_the_relaxed_score() -> None:
    """Finite differences in float64 of s(θ) = judge(E[a] + (p_θ − p_θ₀) E), whose soft part is written out here."""
    torch.manual_seed(0)
    policy = Policy(zoo.PACKED["gpt2"]().double(), zoo.TOKENIZER)
    judge = frozen(policy)
    judge.model.double()
    batch = answers(2)
    loss = through_judge(policy, judge)(policy.outputs(batch), batch)[0].sum()
    loss.backward()
    where = batch.action.nonzero().squeeze(1)
    ids = torch.arange(judge.vocabulary)
    with torch.no_grad():
        at_start = token_probabilities(policy, batch)
        assert at_start.dtype == torch.float64

        def relaxed() -> float:
            embeddings = judge.embed(batch.tokens).clone()
            embeddings[where] += (token_probabilities(policy, batch) - at_start) @ judge.embed(ids)
            score = judge.outputs(batch, embeddings).score
            assert score is not None
            return -float((score * last_of_each(batch)).sum()) / len(batch)

        generator = torch.Generator().manual_seed(1)
        for _ in range(4):
            direction = {
                name: torch.randn(p.shape, generator=generator, dtype=torch.float64)
                for name, p in policy.parameters().items()
            }
            step, ends = 1e-5, []
            for sign in (1, -1):
                for name, parameter in policy.parameters().items():
                    parameter += sign * step * direction[name]
                ends.append(relaxed())
                for name, parameter in policy.parameters().items():
                    parameter -= sign * step * direction[name]
            slope = (ends[0] - ends[1]) / (2 * step)
            along = sum(
                float((p.grad * direction[name]).sum()) for name, p in policy.parameters().items() if p.grad is not None
            )
            assert along == pytest.approx(slope, rel=1e-5, abs=1e-8)


class Formula:
    """A judge that is a formula of the embedding of one token, x = the token's own direction."""

    def __init__(self, values: Tensor, power: int) -> None:
        self.values, self.power = values, power
        self.vocabulary = len(values)

    def embed(self, ids: Tensor) -> Tensor:
        return self.values[ids][:, None]

    def outputs(self, batch: Batch, embeddings: Tensor) -> Outputs:
        nothing = torch.zeros(int(batch.action.sum()))
        return Outputs(nothing, nothing, score=embeddings[batch.action].squeeze(-1) ** self.power)


@pytest.mark.parametrize("power", [1, 2])
def test_one_token_through_a_linear_judge_is_exact_and_through_a_bent_one_is_not(power: int) -> None:
    """Mean over all samples, weighted by their probability, against the gradient of the expected score."""
    logits = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    values = torch.tensor([1.0, -2.0, 0.5])
    judge: Any = Formula(values, power)

    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, logits)[0]

    exact = gradient((logits.softmax(0) * values**power).sum())
    mean = torch.zeros(3)
    for token in range(3):
        batch = Batch(
            tokens=torch.tensor([0, token]), cu_seqlens=torch.tensor([0, 2]), action=torch.tensor([False, True]),
            turn=torch.zeros(2, dtype=torch.int64), final=torch.zeros(2, dtype=torch.bool),
        )  # fmt: skip
        probabilities = logits.softmax(0)
        score = score_through(judge, batch, probabilities[None])
        assert float(score.detach()) == pytest.approx(float(values[token] ** power))
        through = gradient(score.sum())
        if power == 1:
            assert torch.allclose(through, exact, atol=1e-6)  # no variance either
        mean += logits.softmax(0)[token].detach() * through
    assert torch.allclose(mean, exact, atol=1e-6) == (power == 1)


def test_the_gradient_does_not_depend_on_micro_batches() -> None:
    found = []
    for size in (10**6, 1):
        policy = llama()
        learner = LocalLearner(policy, max_tokens=size)
        learner.gradient(answers(6), through_judge(policy, frozen(policy)))
        found.append(torch.cat([p.grad.flatten() for p in policy.parameters().values() if p.grad is not None]).double())
    assert float(found[0].norm()) > 0
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 5e-6


def test_what_cannot_work_is_refused() -> None:
    policy = llama()
    with pytest.raises(TurnwiseError, match="not frozen"):
        through_judge(policy, Scorer.of(policy))
    judge = frozen(policy)
    with pytest.raises(TurnwiseError, match="same vocabulary"):
        score_through(judge, answers(), torch.zeros(int(answers().action.sum()), 3))
