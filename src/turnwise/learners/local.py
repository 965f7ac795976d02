"""The learner in this process: one optimizer step per update, whatever the micro-batches.

An objective returns a *weighted* loss per action token; the learner sums. Weights were computed on the whole batch, so
splitting it changes nothing but memory.

What this file leaves out: every algorithm. It does not know what an advantage is.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.errors import TurnwiseError
from turnwise.metrics import Metrics, merge
from turnwise.models import Policy
from turnwise.objectives import Objective


class LearnerError(TurnwiseError):
    """An update was refused before it touched the weights."""


class LocalLearner:
    """AdamW over a policy's trainable parameters.

    Args:
        policy: Whose weights move.
        lr: Peak learning rate.
        schedule: ``linear`` to zero over the run, or ``constant``.
        warmup: Share of the run during which the rate rises linearly from zero.
        betas, eps, weight_decay: AdamW's. The small default β₂ and large ε suit returns whose scale drifts.
        max_grad_norm: Clip the global gradient norm to this; 0 leaves it.
        max_tokens: Tokens per micro-batch.
        reference: Frozen policy that a KL penalty is measured against.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        lr: float = 5e-4,
        schedule: Literal["linear", "constant"] = "linear",
        warmup: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
        max_tokens: int = 8192,
        reference: Policy | None = None,
    ) -> None:
        self.policy = policy
        self.reference = reference
        self.version = 0
        self.lr = lr
        self.schedule = schedule
        self.warmup = warmup
        self.max_grad_norm = max_grad_norm
        self.max_tokens = max_tokens
        self._parameters = policy.parameters()
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=True
        )

    def anneal(self, progress: float) -> None:
        """Set the learning rate for `progress` in [0, 1] of the run."""
        scale = 1.0 if self.schedule == "constant" else 1.0 - progress
        if progress < self.warmup:
            scale = progress / self.warmup
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr * scale

    def gradient(self, batch: Batch, objective: Objective) -> Metrics:
        """Leave the gradient of the summed objective in the parameters, without a step."""
        self._optimizer.zero_grad(set_to_none=True)
        parts: list[Metrics] = []
        for indices in batch.micro_batches(self.max_tokens):
            micro = batch.select(indices).to(self.policy.device)
            loss, metrics = objective(self.policy.outputs(micro), micro)
            total = loss.sum()
            if total.requires_grad:
                total.backward()
            parts.append({"loss": (float(total.detach()), 0.0), **metrics})
        merged = merge(parts)
        return {**merged, "loss": (merged["loss"][0], 1.0)} if parts else {}

    def update(self, batch: Batch, objective: Objective) -> Metrics:
        """One optimizer step on the sum of the objective over the batch.

        Raises:
            LearnerError: the gradient is not finite; the weights are as they were.
        """
        metrics = dict(self.gradient(batch, objective))
        limit = self.max_grad_norm or torch.inf
        norm = torch.nn.utils.clip_grad_norm_(list(self._parameters.values()), limit, foreach=True)
        if not bool(torch.isfinite(norm)):
            self._optimizer.zero_grad(set_to_none=True)
            raise LearnerError(
                f"update {self.version + 1} has a gradient that is not finite (loss {metrics['loss'][0]:.4g}); the weights "
                "were left as they were. Lower the learning rate or the reward scale, or look for NaN rewards"
            )
        self._optimizer.step()
        self.version += 1
        metrics["grad_norm"] = (float(norm), 1.0)
        metrics["lr"] = (float(self._optimizer.param_groups[0]["lr"]), 1.0)
        return metrics

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Outputs:
        """The policy's outputs on the whole batch, in packing order, on the CPU, without gradients."""
        return evaluate(self.policy, batch, self.max_tokens)

    def evaluate_reference(self, batch: Batch) -> Outputs:
        """The reference policy's outputs on the whole batch.

        Raises:
            LearnerError: there is no reference.
        """
        if self.reference is None:
            raise LearnerError("this learner has no reference policy; build it with reference=policy.reference()")
        return evaluate(self.reference, batch, self.max_tokens)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that a resumed run needs: weights and optimizer moments by name, counters as plain data."""
        tensors = {f"weight.{name}": p.detach() for name, p in self._parameters.items()}
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return tensors, {"version": self.version}

    def restore(self, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Take up a state again.

        Raises:
            LearnerError: the state belongs to a model with other parameters.
        """
        mine = {f"weight.{name}" for name in self._parameters}
        theirs = {name for name in tensors if name.startswith("weight.")}
        if mine != theirs:
            odd = sorted(mine ^ theirs)[0].removeprefix("weight.")
            raise LearnerError(
                f"the checkpoint belongs to another model: {len(mine ^ theirs)} parameters differ, first {odd!r}. "
                "Resume with the settings the run was started with"
            )
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(tensors[f"weight.{name}"])
                self._optimizer.state[parameter] = {
                    key.split(".", 2)[1]: value.clone()
                    for key, value in tensors.items()
                    if key.startswith("optimizer.") and key.split(".", 2)[2] == name
                }
        self.version = int(info["version"])


@torch.no_grad()
def evaluate(policy: Policy, batch: Batch, max_tokens: int = 8192) -> Outputs:
    """A policy's outputs on a whole batch, micro-batch by micro-batch, in packing order, on the CPU."""
    n = len(batch.tokens)
    full = {name: torch.zeros(n) for name in ("logp", "entropy", "value", "final_value")}
    has_value = policy.value_head is not None
    for indices in batch.micro_batches(max_tokens):
        where = batch.token_index(indices)
        micro = batch.select(indices)
        outputs = policy.outputs(micro)
        for field in fields(outputs):
            values = getattr(outputs, field.name)
            if values is not None:
                mask = micro.final if field.name == "final_value" else micro.action
                full[field.name][where[mask]] = values.cpu()
    return Outputs(
        logp=full["logp"][batch.action],
        entropy=full["entropy"][batch.action],
        value=full["value"][batch.action] if has_value else None,
        final_value=full["final_value"][batch.final] if has_value else None,
    )
