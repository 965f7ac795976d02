"""The learner in this process: one optimizer step per update, whatever the micro-batches.

An objective returns a *weighted* loss per action token; the learner sums. Weights were computed on the whole batch, so
splitting it changes nothing but memory.

What this file leaves out: every algorithm. It does not know what an advantage is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.errors import TurnwiseError
from turnwise.metrics import Metrics, merge
from turnwise.objectives import Objective


class LearnerError(TurnwiseError):
    """An update was refused before it touched the weights."""


class Trainable(Protocol):
    """A model that a learner can move: a `Policy`, or one that scores."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def greedy(self) -> bool:
        """Its log-probabilities are those of the most likely token alone, which no gradient can change."""
        ...

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trainable parameters by name."""
        ...

    def outputs(self, batch: Batch) -> Outputs:
        """What it says about a batch, with gradients if they are enabled."""
        ...


class LocalLearner:
    """AdamW over a policy's trainable parameters.

    Args:
        policy: Whose weights move: a `Policy`, or a model that scores.
        lr: Peak learning rate.
        schedule: ``linear`` to zero over the run, or ``constant``.
        warmup: Share of the run during which the rate rises linearly from zero to its peak.
        betas, eps, weight_decay: AdamW's. The small default β₂ and large ε suit returns whose scale drifts.
        max_grad_norm: Clip the global gradient norm to this; 0 leaves it.
        max_tokens: Tokens per micro-batch.
        reference: Frozen policy that a KL penalty is measured against.
        judge: Frozen model that scores, for a method that differentiates through it.
        seed: Of the order of minibatches.

    Attributes:
        version: Number of updates so far.
        iteration: Iterations of the run that are over; the driver counts.
        memory: Numbers that a method keeps from one iteration to the next (an adaptive coefficient, a running mean). They
            belong to the state, so a resumed run goes on with them.

    Raises:
        LearnerError: nothing to train, or a warm-up that leaves nothing of the run.
    """

    def __init__(
        self,
        policy: Trainable,
        *,
        lr: float = 5e-4,
        schedule: Literal["linear", "constant"] = "linear",
        warmup: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
        max_tokens: int = 8192,
        reference: Trainable | None = None,
        judge: Any = None,
        seed: int = 0,
    ) -> None:
        self.policy: Any = policy
        self.reference: Any = reference
        self._reference_moved = False
        self.judge: Any = judge
        self.seed = seed
        self.version = 0
        self.iteration = 0
        self.memory: dict[str, float] = {}
        self.lr = lr
        self.schedule = schedule
        self.warmup = warmup
        self.max_grad_norm = max_grad_norm
        self.max_tokens = max_tokens
        if not 0 <= warmup < 1:
            raise LearnerError(f"warmup={warmup} is a share of the run; it lies in [0, 1)")
        self._parameters = policy.parameters()
        if not self._parameters:
            raise LearnerError(f"{type(self.policy.model).__name__} has no trainable parameter; all of them are frozen")
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=True
        )

    def anneal(self, progress: float) -> None:
        """Set the learning rate for `progress` in [0, 1] of the run."""
        if progress < self.warmup:
            scale = progress / self.warmup
        elif self.schedule == "constant":
            scale = 1.0
        else:
            scale = (1.0 - progress) / (1.0 - self.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr * scale

    def gradient(self, batch: Batch, objective: Objective) -> Metrics:
        """Leave the gradient of the summed objective in the parameters, without a step.

        Raises:
            LearnerError: the policy samples greedily, which no gradient can change.
        """
        if self.policy.greedy:
            raise LearnerError(
                "a greedy policy has no gradient: at temperature 0 every log-probability is 0 or -inf. Train at "
                "temperature 1 and evaluate greedily"
            )
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
            LearnerError: the loss or its gradient is not finite, or the policy is greedy; the weights are as they were.
        """
        metrics = dict(self.gradient(batch, objective))
        limit = self.max_grad_norm or torch.inf
        norm = torch.nn.utils.clip_grad_norm_(list(self._parameters.values()), limit, foreach=True)
        loss = metrics["loss"][0] if metrics else 0.0
        if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
            self._optimizer.zero_grad(set_to_none=True)
            raise LearnerError(
                f"update {self.version + 1} has loss {loss:.4g} and a gradient of norm {float(norm):.4g}; the weights were "
                "left as they were. Lower the learning rate or the reward scale, or look for NaN rewards"
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

    def refresh_reference(self) -> None:
        """Measure from the policy as it is now on. The new reference belongs to the state.

        It is for a method of several phases, whose later ones start from what an earlier one has learnt.
        """
        self.reference = self.policy.reference()
        self._reference_moved = True

    def _reference_tensors(self) -> dict[str, Tensor]:
        """What of the reference may differ from the model that the run was started with; empty unless it has moved.

        The model of a reference that is the policy with its adapter switched off holds the adapter of the policy.
        """
        if not self._reference_moved or self._adapter_off:
            return {}
        held = dict(self.reference.model.named_parameters())
        return {name: held[name].detach() for name in self._parameters if name in held}

    @property
    def _adapter_off(self) -> bool:
        """The reference has moved to the policy without its adapter, which had learnt nothing then."""
        return self._reference_moved and self.reference.model is self.policy.model

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that a resumed run needs: weights and optimizer moments by name, counters as plain data.

        The tensors are those in use, not copies: write or clone them before the next update.
        """
        tensors = {f"weight.{name}": p.detach() for name, p in self._parameters.items()}
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        tensors |= {f"reference.{name}": tensor for name, tensor in self._reference_tensors().items()}
        info = {"version": self.version, "memory": dict(self.memory)}
        return tensors, info | ({"reference": "adapter off"} if self._adapter_off else {})

    def restore(self, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Take up a state again.

        Raises:
            LearnerError: the state belongs to a model with other parameters.
        """
        weights = {name.removeprefix("weight."): t for name, t in tensors.items() if name.startswith("weight.")}
        names = self._parameters.keys() | weights.keys()
        odd = sorted(name for name in names if _shape(self._parameters, name) != _shape(weights, name))
        if odd:
            raise LearnerError(
                f"the checkpoint belongs to another model: {len(odd)} of {len(names)} parameters differ, first {odd[0]!r} "
                f"with shape {_shape(weights, odd[0])} there and {_shape(self._parameters, odd[0])} here. "
                "Resume with the settings the run was started with"
            )
        moments: dict[str, dict[str, Tensor]] = {name: {} for name in self._parameters}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, key, parameter = name.split(".", 2)
                # Adam counts its steps on the CPU, wherever the weights are.
                device = "cpu" if key == "step" else self._parameters[parameter].device
                moments[parameter][key] = tensor.to(device, copy=True)
        with torch.no_grad():
            if info.get("reference") == "adapter off":
                for parameter in self._parameters.values():
                    parameter.zero_()  # an adapter that has learnt nothing, as it was when the reference was taken
                self.refresh_reference()
            for name, parameter in self._parameters.items():
                parameter.copy_(weights[name])
                self._optimizer.state[parameter] = moments[name]
            if any(name.startswith("reference.") for name in tensors):
                self.refresh_reference()
                for name, tensor in self._reference_tensors().items():
                    tensor.copy_(tensors[f"reference.{name}"])
        self.version = int(info["version"])
        self.memory = {name: float(value) for name, value in info.get("memory", {}).items()}


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


@torch.no_grad()
def evaluate(policy: Trainable, batch: Batch, max_tokens: int = 8192) -> Outputs:
    """A model's outputs on a whole batch, micro-batch by micro-batch, in packing order, on the CPU."""
    parts: dict[str, list[Tensor]] = {}
    places: dict[str, list[Tensor]] = {}
    for indices in batch.micro_batches(max_tokens):
        where = batch.token_index(indices)
        micro = batch.select(indices)
        outputs = policy.outputs(micro)
        for field in fields(outputs):
            values = getattr(outputs, field.name)
            if values is not None:
                mask = micro.final if field.name == "final_value" else micro.action
                parts.setdefault(field.name, []).append(values.cpu())
                places.setdefault(field.name, []).append(where[mask])
    empty = torch.zeros(0)
    found = {name: torch.cat(values)[torch.cat(places[name]).argsort()] for name, values in parts.items()}
    return Outputs(**{"logp": empty, "entropy": empty, **found})
