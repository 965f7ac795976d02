"""A conformance check for objectives.

check_objective(clipped())            returns quietly, or says what broke and what to do about it
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs, pack
from turnwise.metrics import Metrics, merge
from turnwise.objectives import Objective
from turnwise.testing.episodes import ragged_episodes
from turnwise.testing.errors import CheckFailed

STREAMS: Mapping[str, tuple[float, float]] = {
    "advantage": (0.0, 1.0),
    "return": (0.0, 1.0),
    "old_value": (0.0, 1.0),
    "old_logp": (-1.5, 0.4),
    "behaviour_logp": (-1.5, 0.4),
    "reference_logp": (-1.5, 0.4),
    "importance": (1.0, 0.05),
}
"""The streams of an example batch: name -> mean and standard deviation."""

_WEIGHTS = ("weight", "value_weight")


def example_batch(seed: int = 0, streams: Sequence[str] = ()) -> Batch:
    """Nine sequences and more of ragged episodes, with `STREAMS`, further standard normal `streams`, and two weights.

    The sequences with an odd number have weight 0, in both of ``weight`` and ``value_weight``.
    """
    rng = np.random.default_rng(seed)
    episodes = ragged_episodes(seed, n=9)
    spread = {**STREAMS, **dict.fromkeys(streams, (0.0, 1.0))}
    drawn = {
        name: [mean + deviation * rng.normal(size=e.n_action_tokens) for e in episodes]
        for name, (mean, deviation) in spread.items()
    }
    batch = pack(episodes, drawn)
    n = int(batch.action.sum())
    counts = (batch.sequence[batch.action] % 2 == 0).float()
    for name in _WEIGHTS:
        batch = batch.with_stream(name, counts * torch.from_numpy(rng.uniform(0.5, 1.5, n)).float() / n)
    return batch


def check_objective(objective: Objective, *, streams: Sequence[str] = (), seed: int = 0) -> None:
    """Check that an objective keeps the contract of `turnwise.objectives.Objective`.

    1. The loss is (A,): one finite number per action token; metrics are pairs of a sum and a count.
    2. Its gradient is finite, and something moves.
    3. No loss where the weight is 0, and no gradient into sequences whose weight is 0 throughout.
    4. Twice the weight is twice the loss: an objective multiplies by its weight and never averages.
    5. Loss, gradient and metrics do not depend on how the sequences are split into micro-batches.

    Args:
        objective: The objective. It may use log-probabilities, entropies and values, and the streams of `STREAMS`,
            ``weight`` and ``value_weight``.
        streams: Further streams it reads, filled with standard normal numbers.
        seed: Seed of the example.

    Raises:
        CheckFailed: the first promise that is broken.
    """
    batch = example_batch(seed, streams)
    n = int(batch.action.sum())
    generator = torch.Generator().manual_seed(seed)
    leaves = _Leaves(
        -1.5 + 0.4 * torch.randn(n, generator=generator),
        1.0 + 0.1 * torch.rand(n, generator=generator),
        torch.randn(n, generator=generator),
    )
    whole = _run(objective, batch, leaves, torch.arange(n))
    if not any(bool(part.any()) for part in whole.gradients):
        raise CheckFailed("the loss has no gradient at all; something is detached, or every weight is ignored")
    idle = (batch.stream("weight") == 0) & (batch.stream("value_weight") == 0)
    if bool(whole.loss[idle].any()):
        raise CheckFailed(
            f"{int((whole.loss[idle] != 0).sum())} tokens of weight 0 have a loss; multiply by the weight"
        )
    if any(bool(part[idle].any()) for part in whole.gradients):
        raise CheckFailed("sequences of weight 0 get a gradient; multiply by the weight before anything is summed")
    doubled = batch
    for name in _WEIGHTS:
        doubled = doubled.with_stream(name, 2.0 * batch.stream(name))
    if not torch.allclose(_run(objective, doubled, leaves, torch.arange(n)).loss, 2.0 * whole.loss, rtol=1e-4):
        raise CheckFailed(
            "twice the weight is not twice the loss; multiply by the weight, and do not divide by its sum"
        )
    _check_split(objective, batch, leaves, whole)


def _check_split(objective: Objective, batch: Batch, leaves: _Leaves, whole: _Result) -> None:
    place = batch.action.cumsum(0) - 1
    loss = torch.full_like(whole.loss, math.nan)
    gradients = [torch.full_like(part, math.nan) for part in whole.gradients]
    metrics: list[Metrics] = []
    for chosen in torch.arange(len(batch)).split(2):
        index = batch.token_index(chosen)
        at = place[index][batch.action[index]]
        part = _run(objective, batch.select(chosen), leaves, at)
        loss[at] = part.loss
        for full, gradient in zip(gradients, part.gradients, strict=True):
            full[at] = gradient
        metrics.append(part.metrics)
    pairs = [(loss, whole.loss), *zip(gradients, whole.gradients, strict=True)]
    if not all(torch.allclose(one, other, rtol=1e-4, atol=1e-7) for one, other in pairs):
        raise CheckFailed(
            "the loss changes when the step is cut into micro-batches; a token's loss may depend on its own sequence only, "
            "and whatever is normalised over the step belongs into a stream"
        )
    for name, (total, count) in merge(metrics).items():
        expected = whole.metrics.get(name, (math.nan, math.nan))
        if not np.allclose((total, count), expected, rtol=1e-4, atol=1e-7):
            raise CheckFailed(
                f"metric {name!r} is {expected} over the whole step and {(total, count)} over its micro-batches; return a "
                "sum and a count"
            )


@dataclass(frozen=True)
class _Leaves:
    logp: Tensor
    entropy: Tensor
    value: Tensor


@dataclass(frozen=True)
class _Result:
    loss: Tensor
    gradients: list[Tensor]
    metrics: Metrics


def _run(objective: Objective, batch: Batch, leaves: _Leaves, at: Tensor) -> _Result:
    """The objective on a batch whose action tokens are number `at` of the example."""
    inputs = [part[at].clone().requires_grad_() for part in (leaves.logp, leaves.entropy, leaves.value)]
    outputs = Outputs(logp=inputs[0], entropy=inputs[1])
    loss, metrics = objective(replace(outputs, value=inputs[2]), batch)
    if not isinstance(loss, Tensor) or loss.shape != at.shape:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else loss
        raise CheckFailed(f"the loss is {shape!s:.80} for {len(at)} action tokens; return one number for each, (A,)")
    if not bool(loss.isfinite().all()):
        raise CheckFailed("the loss is not finite on ordinary numbers; bound what is exponentiated or divided by")
    for name, pair in metrics.items():
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(x, int | float) for x in pair)):
            raise CheckFailed(f"metric {name!r} is {pair!r:.80}; return a pair of numbers, (sum, count)")
    gradients = torch.autograd.grad(loss.sum(), inputs, allow_unused=True, materialize_grads=True)
    if not all(bool(part.isfinite().all()) for part in gradients):
        raise CheckFailed("the gradient is not finite; look for a root, a logarithm or a division at 0")
    return _Result(loss.detach(), list(gradients), metrics)
