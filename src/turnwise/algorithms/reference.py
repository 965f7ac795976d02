"""How far the policy is from its reference: what the reference says of the episodes, and what the divergence costs."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from turnwise.algorithms.experience import Experience, Floats
from turnwise.batch import Batch, unpack
from turnwise.errors import TurnwiseError
from turnwise.metrics import Metrics
from turnwise.objectives import (
    AdaptiveKL,
    kl_in_reward,
)


def reference_logp(learner: Any, batch: Batch) -> Tensor:
    """(A,) log-probability of each action token under the reference.

    Raises:
        TurnwiseError: the learner has no reference policy, or one that can never say some token of an episode.
    """
    logp = learner.evaluate_reference(batch).logp
    never = ~logp.isfinite()
    if never.any():
        ids = batch.tokens[batch.action][never].unique().tolist()
        words = ", ".join(repr(learner.reference.renderer.text([token])) for token in ids[:5])
        episodes = len(batch.seq["episode"][batch.sequence[batch.action][never]].unique())
        raise TurnwiseError(
            f"{episodes} episodes hold tokens that the reference never says ({words}), so nothing can be compared with it. "
            "Begin with a model whose tokenizer knows the words of these episodes, sample without top-k and top-p, or leave the "
            "episodes out"
        )
    return logp


def kl_to_reference(
    learner: Any, experience: Experience, coefficient: float, target: float = 0.0
) -> tuple[list[Floats], float, Metrics]:
    """What the reference says about the experience, and what a nat of divergence from it costs now.

    With a `target` the coefficient follows it (`AdaptiveKL`): it is `coefficient` in the first iteration, and the learner
    remembers what it is in the next one, so that a resumed run goes on with it.

    Args:
        learner: Has the reference, and the memory ``kl_coef``.
        experience: What happened.
        coefficient: Positive; fixed, or where an adaptive one starts.
        target: Nats per episode to hold; 0 for a fixed coefficient.

    Returns:
        Log-probabilities of the reference, (n_action_tokens,) per episode; the coefficient; ``kl``, nats per token (k1),
        and ``kl_coef`` where it is adaptive.

    Raises:
        TurnwiseError: the learner has no reference policy, or one that can never say some token.
    """
    if learner.reference is None:
        raise TurnwiseError(
            f"kl_coef={coefficient} needs a reference policy: build the learner with reference=policy.reference()"
        )
    reference = unpack(reference_logp(learner, experience.batch).double(), experience.episodes)
    total = sum(float((own - other).sum()) for own, other in zip(experience.logp, reference, strict=True))
    metrics: dict[str, tuple[float, float]] = {"kl": (total, float(sum(map(len, reference))))}
    if target > 0:
        controller = AdaptiveKL(learner.memory.get("kl_coef", coefficient), target)
        coefficient = controller.beta
        learner.memory["kl_coef"] = controller.update(total / len(reference)).beta
        metrics["kl_coef"] = (coefficient, 1.0)
    return reference, coefficient, metrics


def kl_penalty(
    learner: Any, experience: Experience, coefficient: float, target: float = 0.0
) -> tuple[list[Floats], Metrics]:
    """−coefficient · k1 per action token, (n_action_tokens,) per episode, and the metrics of `kl_to_reference`.

    Raises:
        TurnwiseError: the learner has no reference policy, or one that can never say some token.
    """
    if coefficient == 0:
        return [np.zeros(len(logp)) for logp in experience.logp], {}
    reference, coefficient, metrics = kl_to_reference(learner, experience, coefficient, target)
    return kl_in_reward(experience.logp, reference, coefficient), metrics
