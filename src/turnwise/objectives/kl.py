"""Kullback–Leibler divergence to a reference policy: estimators, the two places to put them, and a controller.

With x sampled from π, k1, k2 and k3 (Schulman 2020, "Approximating KL divergence") estimate KL(π‖ref). That their
*values* are right says nothing about their gradients as a loss, because x is held fixed when the loss is differentiated:

- k1 in the loss has expected gradient 0: it is refused;
- k2 in the loss has the right gradient on-policy;
- k3 in the loss has the gradient of the *forward* divergence KL(ref‖π);
- ρ·k1 and ρ·k3 with ρ = π/π_old have the right gradient, off-policy too;
- k1 in the reward has the right gradient and is the only form that credits the KL of later tokens to earlier ones;
- k3 in the reward is biased: its gradient is the reverse one minus the forward one.

``tests/objectives/test_kl.py`` computes each of them exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.metrics import Metrics
from turnwise.objectives.objective import Objective, log_ratio, tally


def k1(logp: Tensor, reference_logp: Tensor) -> Tensor:
    """log π(x) − log ref(x): unbiased for KL(π‖ref), of either sign."""
    return logp - reference_logp


def k2(logp: Tensor, reference_logp: Tensor) -> Tensor:
    """½ (log π(x) − log ref(x))²: biased at second order, never negative."""
    return 0.5 * (logp - reference_logp).square()


def k3(logp: Tensor, reference_logp: Tensor) -> Tensor:
    """ref(x)/π(x) − 1 − log ref(x)/π(x): unbiased for KL(π‖ref) and never negative."""
    difference = reference_logp - logp
    return difference.exp() - 1.0 - difference


def kl_in_reward(
    logp: Sequence[ArrayLike], reference_logp: Sequence[ArrayLike], beta: float
) -> list[NDArray[np.float64]]:
    """The reward of staying near the reference, per action token: −β (log π(a_t) − log ref(a_t)).

    Add it to token rewards, or sum it over each turn (`credit.sum_by_turn`) and add it to turn rewards, before
    computing returns. With discount 1 the policy gradient then is that of J − β KL(π‖ref) over whole episodes.

    Args:
        logp: Per episode (n_action_tokens,), under the policy that sampled them.
        reference_logp: The same under the reference, at the same temperature.
        beta: Reward taken off per nat of divergence.

    Returns:
        Per episode (n_action_tokens,) float64.

    Raises:
        ValueError: lengths that differ, or a log-probability that is not finite.
    """
    penalties: list[NDArray[np.float64]] = []
    for i, (own, other) in enumerate(zip(logp, reference_logp, strict=True)):
        policy, reference = np.asarray(own, dtype=np.float64), np.asarray(other, dtype=np.float64)
        if policy.shape != reference.shape:
            raise ValueError(
                f"episode {i} has log-probabilities of {policy.shape} and reference ones {reference.shape}"
            )
        if not (np.isfinite(policy).all() and np.isfinite(reference).all()):
            raise ValueError(
                f"episode {i} has a log-probability that is not finite: a sampled token has probability 0 under the "
                "reference, so the divergence is infinite; sample without top-k and top-p when you use a KL penalty"
            )
        penalties.append(-beta * (policy - reference))
    return penalties


def kl_loss(kind: Literal["k1", "k2", "k3"], beta: float = 1.0, *, weighted: bool = False) -> Objective:
    """A KL estimator as a loss: L_t = w_t β k(log π(a_t), log ref(a_t)), times ρ_t = π/π_old if `weighted`.

    The module's docstring says which gradient each form has. No form of it sees that an action leads to contexts in
    which the divergence is large; `kl_in_reward` does.

    Args:
        kind: The estimator.
        beta: Its coefficient.
        weighted: Multiply by the ratio to the policy that sampled, through which the gradient flows.

    Streams: ``reference_logp``, ``weight``; with `weighted` also ``old_logp``.

    Raises:
        ValueError: k1 without `weighted`, whose expected gradient is zero, or an unknown estimator.
    """
    if kind == "k1" and not weighted:
        raise ValueError(
            "k1 in the loss has zero expected gradient and would only add noise; put it in the reward (kl_in_reward), "
            "or use kl_loss('k2'), kl_loss('k1', weighted=True) or kl_loss('k3', weighted=True)"
        )
    estimators = {"k1": k1, "k2": k2, "k3": k3}
    if kind not in estimators:
        raise ValueError(f"unknown KL estimator {kind!r}; use one of {sorted(estimators)}")
    estimate = estimators[kind]

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        weight, reference = batch.stream("weight"), batch.stream("reference_logp")
        divergence = estimate(outputs.logp, reference)
        if weighted:
            divergence = divergence * log_ratio(outputs.logp, batch.stream("old_logp")).exp()
        loss = beta * weight * divergence
        with torch.no_grad():
            figures = {"kl": k3(outputs.logp, reference)}
        return loss, tally(weight != 0, figures)

    return objective


@dataclass(frozen=True, slots=True)
class AdaptiveKL:
    """A coefficient that follows a target divergence (Ziegler et al. 2019, arXiv 1909.08593, section 2.2).

    e = clip(KL/target − 1, −0.2, 0.2) and β ← β (1 + gain·e), once per update.

    Attributes:
        beta: The coefficient, as used now.
        target: The divergence to hold, in the unit of what `update` is told (nats per episode, say).
        gain: Speed; 0.1 changes β by at most 2 % per update.
    """

    beta: float
    target: float
    gain: float = 0.1

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.target <= 0 or self.gain <= 0:
            raise ValueError(
                f"beta={self.beta}, target={self.target} and gain={self.gain} must be positive; "
                "for a fixed coefficient use a plain number"
            )

    def update(self, kl: float) -> AdaptiveKL:
        """The controller after an update in which the divergence was `kl`."""
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        return replace(self, beta=self.beta * (1.0 + self.gain * error))
