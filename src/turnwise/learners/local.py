"""The learner in this process: one optimizer step per update, whatever the micro-batches.

An objective returns a *weighted* loss per action token; the learner sums. Weights were computed on the whole batch, so
splitting it changes nothing but memory.

What this file leaves out: every algorithm. It does not know what an advantage is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.errors import TurnwiseError
from turnwise.metrics import Metrics, merge
from turnwise.models.checkpointing import checkpointed
from turnwise.objectives import Objective

Precision = Literal["full", "bf16"]
"""What the model computes in: its weights' own type, or mixed precision: products in bfloat16, and weights, residual stream,
norms, output head, losses, gradients and moments as they are."""


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
        gradient_checkpointing: Keep the inputs of layers alone and compute the rest again on the way back: less memory, about
            a third more time, the same gradient.
        precision: ``full``, or ``bf16`` for mixed precision, in updates and in `evaluate` alike.
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
        max_tokens: int = 2048,
        gradient_checkpointing: bool = False,
        precision: Precision = "full",
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
        self._passed = {"tokens/forward": 0.0, "tokens/backward": 0.0}
        self.lr = lr
        self.schedule = schedule
        self.warmup = warmup
        self.max_grad_norm = max_grad_norm
        self.max_tokens = max_tokens
        self.gradient_checkpointing = gradient_checkpointing
        self.precision: Precision = precision
        if not 0 <= warmup < 1:
            raise LearnerError(f"warmup={warmup} is a share of the run; it lies in [0, 1)")
        self._parameters = policy.parameters()
        if not self._parameters:
            raise LearnerError(f"{type(self.policy.model).__name__} has no trainable parameter; all of them are frozen")
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True
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
        self._passed["tokens/backward"] += len(batch.tokens)
        parts: list[Metrics] = []
        totals: list[Tensor] = []
        for indices in batch.micro_batches(self.max_tokens):
            micro = batch.select(indices)
            with self._remedy(micro), self._checkpointing():
                micro = micro.to(self.policy.device)
                with _computing(self.policy, self.precision):
                    outputs = self.policy.outputs(micro)
                loss, metrics = objective(outputs, micro)
                total = loss.sum()
                if total.requires_grad:
                    total.backward()
            # One transfer from the device for all of them, at the end.
            totals.append(total.detach())
            parts.append(metrics)
        return {**merge(parts), "loss": (float(torch.stack(totals).sum()), 1.0)} if parts else {}

    def update(self, batch: Batch, objective: Objective) -> Metrics:
        """One optimizer step on the sum of the objective over the batch.

        Raises:
            LearnerError: the loss or its gradient is not finite, the policy is greedy, or memory ran out; the weights are as
                they were.
        """
        metrics = dict(self.gradient(batch, objective))
        gradients = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        total = torch.nn.utils.get_total_norm(gradients.values())
        norm, loss = float(total), metrics["loss"][0] if metrics else 0.0
        if not (math.isfinite(loss) and math.isfinite(norm)):
            where = self._blame(batch, objective) or _first_spoilt(gradients)
            self._optimizer.zero_grad(set_to_none=True)
            raise LearnerError(
                f"update {self.version + 1} of {type(self.policy.model).__name__} has loss {loss:.4g} and a gradient of norm "
                f"{norm:.4g}: {where}. The weights were left as they were. Lower the learning rate or the reward scale, or "
                "look for NaN rewards"
            )
        if 0 < self.max_grad_norm < norm:
            torch.nn.utils.clip_grads_with_norm_(list(self._parameters.values()), self.max_grad_norm, total)
        try:
            self._optimizer.step()
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            self._optimizer.zero_grad(set_to_none=True)
            size = sum(p.numel() * p.element_size() for p in self._parameters.values()) / 2**30
            raise LearnerError(
                f"memory ran out for AdamW's moments, which are twice the trained weights of {size:.3g} GiB; the weights were left "
                "as they were. Train fewer weights (a LoRA adapter), or a smaller model"
            ) from error
        self.version += 1
        metrics["grad_norm"] = (norm, 1.0)
        metrics["lr"] = (float(self._optimizer.param_groups[0]["lr"]), 1.0)
        return metrics

    def _checkpointing(self) -> AbstractContextManager[None]:
        return checkpointed(self.policy.model) if self.gradient_checkpointing else nullcontext()

    @contextmanager
    def _remedy(self, micro: Batch) -> Iterator[None]:
        """What to do when memory runs out in a micro-batch."""
        try:
            yield
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            self._optimizer.zero_grad(set_to_none=True)
            other = "" if self.gradient_checkpointing else ", or switch gradient checkpointing on"
            raise LearnerError(
                f"memory ran out in a micro-batch of {len(micro.tokens)} tokens (the longest of its {len(micro)} sequences has "
                f"{int(micro.lengths.max())}); the weights were left as they were. Lower the tokens per micro-batch from "
                f"{self.max_tokens}, which changes no result{other}"
            ) from error

    @torch.no_grad()
    def _blame(self, batch: Batch, objective: Objective) -> str:
        """The first token about which the model, or else the objective, says what is not finite; empty if there is none."""
        for indices in batch.micro_batches(self.max_tokens):
            micro = batch.select(indices).to(self.policy.device)
            with _computing(self.policy, self.precision):
                outputs = self.policy.outputs(micro)
            said = {name: getattr(outputs, name) for name in ("logp", "entropy", "value", "score")}
            for name, values in {**said, "loss": objective(outputs, micro)[0]}.items():
                if values is None or len(values) != int(micro.action.sum()):
                    continue
                bad = (~values.isfinite().reshape(len(values), -1).all(1)).nonzero().flatten()
                if len(bad):
                    token = int(micro.action.nonzero()[bad[0]])
                    sequence = int(micro.sequence[token])
                    return (
                        f"{name} is {values[bad[0]].tolist()} at token {int(micro.positions[token])} of sequence "
                        f"{indices[sequence]} (episode {int(micro.seq['episode'][sequence])} of the batch)"
                    )
        return ""

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Outputs:
        """The policy's outputs on the whole batch, in packing order, on the CPU, without gradients."""
        self._passed["tokens/forward"] += len(batch.tokens)
        return evaluate(self.policy, batch, self.max_tokens, self.precision)

    def evaluate_reference(self, batch: Batch) -> Outputs:
        """The reference policy's outputs on the whole batch.

        Raises:
            LearnerError: there is no reference.
        """
        if self.reference is None:
            raise LearnerError("this learner has no reference policy; build it with reference=policy.reference()")
        self._passed["tokens/forward"] += len(batch.tokens)
        return evaluate(self.reference, batch, self.max_tokens, self.precision)

    def spent(self) -> dict[str, float]:
        """Tokens of the batches that were passed on since this was last asked, by the names of ``docs/metrics.md``.

        A common beginning counts once for each sequence that has it, though it may be read once for all of them.
        """
        spent, self._passed = self._passed, dict.fromkeys(self._passed, 0.0)
        return spent

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
                moments[parameter][key] = tensor.to(self._parameters[parameter].device, copy=True)
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


def _computing(policy: Trainable, precision: Precision) -> AbstractContextManager[Any]:
    """What the model computes in."""
    return torch.autocast(policy.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _first_spoilt(gradients: Mapping[str, Tensor]) -> str:
    spoilt = [name for name, gradient in gradients.items() if not bool(gradient.isfinite().all())]
    if not spoilt:
        return "each entry is finite, and their squares are too large for the number format"
    return f"every loss is finite, and the gradients of {len(spoilt)} of {len(gradients)} parameters are not, first {spoilt[0]!r}"


@torch.no_grad()
def evaluate(policy: Trainable, batch: Batch, max_tokens: int = 2048, precision: Precision = "full") -> Outputs:
    """A model's outputs on a whole batch, micro-batch by micro-batch, in packing order, on the CPU."""
    parts: dict[str, list[Tensor]] = {}
    places: dict[str, list[Tensor]] = {}
    for indices in batch.micro_batches(max_tokens):
        where = batch.token_index(indices)
        micro = batch.select(indices)
        with _computing(policy, precision):
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
