"""Through a frozen judge into the policy: straight-through soft tokens, and the objective that climbs the judge's score.

One parallel pass of the policy over answers that it sampled gives the distribution p_t it drew each token from. The judge reads, for
every sampled token, the embedding

    e_t = E[a_t] + (p_t − sg(p_t)) E

whose value is that of the sampled token and whose gradient is that of the mean embedding: the straight-through estimator
(Bengio, Léonard and Courville 2013, arXiv 1308.3432). No noise is needed, and the policy is read once however long an answer is.

It is biased. The judge is treated as linear in the embedding between the sampled token and the others, and a token's
influence on what the policy says *after* it is left out, so that credit flows to each position through the judge alone. The
gradient is that of the relaxed score s(θ) = judge(E[a_t] + (p_θ,t − p_t) E) at the present weights, not that of the
expected score; `policy_gradient` has the latter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.errors import TurnwiseError
from turnwise.metrics import Metrics
from turnwise.models.distribution import log_probs
from turnwise.models.policy import Policy
from turnwise.models.scorer import Scorer
from turnwise.objectives import Objective
from turnwise.objectives.objective import tally


def token_probabilities(policy: Policy, batch: Batch) -> Tensor:
    """(A, V) float32, the distribution that each action token was drawn from, with gradients if they are enabled."""
    where = batch.action.nonzero().squeeze(1)
    logits = policy.forward(batch, where - 1)[0]
    return log_probs(logits, policy.sampling, policy.banned, batch.tokens[where]).exp()


def score_through(judge: Scorer, batch: Batch, probabilities: Tensor) -> Tensor:
    """(A,) the judge's score of the context that ends with each action token, differentiable in the probabilities.

    Its value is the judge's score of the tokens themselves.

    Args:
        judge: A scorer of kind "reward" with the policy's vocabulary; frozen, so that nothing of it moves.
        batch: What was sampled.
        probabilities: (A, V) of `token_probabilities`.

    Raises:
        TurnwiseError: the judge reads another number of tokens than the policy says.
    """
    known = judge.vocabulary
    if probabilities.shape[-1] != known:
        raise TurnwiseError(
            f"the judge reads {known} tokens and the policy says {probabilities.shape[-1]}; a soft token needs the same "
            "vocabulary, so make the judge of the policy itself (Scorer.of(policy))"
        )
    embeddings = judge.embed(batch.tokens)
    table = judge.embed(torch.arange(known, device=batch.tokens.device))
    shift = (probabilities - probabilities.detach()).to(table.dtype) @ table
    where = batch.action.nonzero().squeeze(1)
    score = judge.outputs(batch, embeddings.index_add(0, where, shift)).score
    assert score is not None
    return score


def through_judge(policy: Policy, judge: Scorer) -> Objective:
    """Minus the judge's score of each answer, differentiated through the judge: L_t = −w_t j_t s_t.

    The stream ``judged`` is 1 at the last action token of an answer, where the judge was trained to say it, and 0 elsewhere.

    Args:
        policy: The policy that the learner moves; it is read a second time for the whole distributions.
        judge: Whose score is raised. It has to be frozen.

    Streams: ``judged``, ``weight``.

    Raises:
        TurnwiseError: the judge still has trainable parameters.
    """
    if judge.parameters():
        raise TurnwiseError(
            "the judge is not frozen, so that it would learn to praise; call judge.model.requires_grad_(False)"
        )

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        weight, judged = batch.stream("weight"), batch.stream("judged")
        score = score_through(judge, batch, token_probabilities(policy, batch))
        figures = {**tally(judged != 0, {"judge/score": score}), **tally(weight != 0, {"entropy": outputs.entropy})}
        return -weight * judged * score, figures

    return objective
