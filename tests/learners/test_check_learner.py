"""The conformance check (1) passes our learner, with and without a critic, padded and with LoRA, and (2) catches each
broken promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models import zoo
from turnwise.batch import Batch
from turnwise.learners import LocalLearner
from turnwise.models import Policy, build_model
from turnwise.models.policy import with_lora
from turnwise.objectives import Objective
from turnwise.testing import CheckFailed, check_learner


def policy(*, value_head: bool = True, rank: int = 0) -> Policy:
    model = build_model(zoo.TOKENIZER, seed=2)
    return Policy(with_lora(model, rank) if rank else model, zoo.TOKENIZER, value_head=value_head)


@pytest.mark.parametrize("options", [{"value_head": True}, {"value_head": False}])
def test_the_local_learner_passes(options: dict[str, Any]) -> None:
    check_learner(lambda **changes: LocalLearner(policy(**options), **changes))


def test_it_passes_padded_and_with_lora() -> None:
    padded = zoo.OWN["mistral, sliding window"]
    check_learner(lambda **changes: LocalLearner(zoo.policy(padded), **changes))
    pytest.importorskip("peft")
    check_learner(lambda **changes: LocalLearner(policy(rank=2), **changes))


class Averages(LocalLearner):
    """Divides each micro-batch by its own size."""

    def gradient(self, batch: Batch, objective: Objective) -> Any:
        def averaged(outputs: Any, part: Batch) -> Any:
            loss, metrics = objective(outputs, part)
            return loss / len(loss), metrics

        return super().gradient(batch, averaged)


class Unordered(LocalLearner):
    """Returns outputs in the order of its micro-batches."""

    def evaluate(self, batch: Batch) -> Any:
        order = [i for part in batch.micro_batches(self.max_tokens) for i in part]
        return super().evaluate(batch.select(order))


class Forgetful(LocalLearner):
    """Forgets the moments of Adam."""

    def state(self) -> Any:
        tensors, info = super().state()
        return {name: t for name, t in tensors.items() if name.startswith("weight.")}, info


class Brave(LocalLearner):
    """Steps whatever the gradient."""

    def update(self, batch: Batch, objective: Objective) -> Any:
        metrics = dict(self.gradient(batch, objective))
        self._optimizer.step()
        self.version += 1
        return {**metrics, "grad_norm": (0.0, 1.0)}


class Late(LocalLearner):
    """Notices NaN after the step."""

    def update(self, batch: Batch, objective: Objective) -> Any:
        metrics = dict(self.gradient(batch, objective))
        self._optimizer.step()
        if metrics["loss"][0] != metrics["loss"][0]:
            raise ValueError("NaN")
        self.version += 1
        return {**metrics, "grad_norm": (0.0, 1.0)}


class Idle(LocalLearner):
    """Never steps."""

    def update(self, batch: Batch, objective: Objective) -> Any:
        self.version += 1
        return {**self.gradient(batch, objective), "grad_norm": (0.0, 1.0)}


class Uncounted(LocalLearner):
    """Does not count its updates."""

    def update(self, batch: Batch, objective: Objective) -> Any:
        metrics = super().update(batch, objective)
        self.version = 1
        return metrics


class Accumulating(LocalLearner):
    """Keeps the gradient of a refused update."""

    def gradient(self, batch: Batch, objective: Objective) -> Any:
        zero, self._optimizer.zero_grad = self._optimizer.zero_grad, lambda set_to_none=True: None
        try:
            return super().gradient(batch, objective)
        finally:
            self._optimizer.zero_grad = zero


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Averages, "never average"),
        (Unordered, "packing order"),
        (Forgetful, "moments"),
        (Brave, "not finite"),
        (Late, "before the step|check before"),
        (Idle, "every weight as it was"),
        (Uncounted, "version is 1 after 2"),
        (Accumulating, "moments|differs"),
    ],
)
def test_a_broken_promise_is_caught(kind: type[LocalLearner], message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        check_learner(lambda **changes: kind(policy(), **changes))


def test_dropout_left_on_is_caught() -> None:
    class Noisy(LocalLearner):
        def gradient(self, batch: Batch, objective: Objective) -> Any:
            def shaken(outputs: Any, part: Batch) -> Any:
                moved = type(outputs)(outputs.logp + 0.01 * torch.ones_like(outputs.logp), outputs.entropy)
                return objective(moved, part)

            return super().gradient(batch, shaken)

    with pytest.raises(CheckFailed, match="disagree about logp"):
        check_learner(lambda **changes: Noisy(policy(value_head=False), **changes))
