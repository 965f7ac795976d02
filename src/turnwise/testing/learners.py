"""A conformance check for learners.

check_learner(lambda **changes: MyLearner(policy(), **changes))     returns quietly, or says what broke and how to mend it
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs, pack
from turnwise.episode import Episode, Turn
from turnwise.metrics import Metrics
from turnwise.testing.errors import CheckFailed


def check_learner(make_learner: Callable[..., Any], *, tolerance: float = 5e-6) -> None:
    """Check that a learner minimises the sum of an objective over a batch, and nothing else.

    1. The update does not depend on the size of micro-batches, up to `tolerance` relative to the largest weight change.
    2. `evaluate` gives what the objective of the next update is shown, in packing order.
    3. `update` moves the weights, counts one version, and reports ``loss`` and ``grad_norm``.
    4. A state taken with `state` and given to `restore` makes the next update exactly the one that followed, also in a
       new learner.
    5. An objective or a batch that yields NaN is refused with an error before any weight or moment has changed.
    6. A loss of zero everywhere is no error.

    Args:
        make_learner: Makes a learner around a *new* policy, the same one every time. It is called with no argument, and
            with ``max_tokens=n``, which asks for micro-batches of at most n tokens.
        tolerance: Of promise 1. In float32 sums in another order differ by about 1e-6, averages within micro-batches by percents.

    Raises:
        CheckFailed: the first promise that is broken.
    """
    _micro_batches(make_learner, tolerance)
    _evaluation(make_learner)
    _counting(make_learner)
    _resumption(make_learner)
    _refusal(make_learner)


def _batch(learner: Any, seed: int = 0) -> Batch:
    """Ragged dialogues over the policy's vocabulary; some episodes are several sequences."""
    rng = np.random.default_rng(seed)
    vocabulary = int(learner.policy.model.config.get_text_config().vocab_size)
    banned = set(learner.policy.banned.tolist())
    allowed = np.array([token for token in range(vocabulary) if token not in banned], np.int32)
    episodes: list[Episode] = []
    for i in range(9):
        turns: list[Turn] = []
        for t in range(int(rng.integers(1, 4))):
            act = rng.choice(allowed, size=rng.integers(1, 5))
            obs = rng.choice(allowed, size=rng.integers(1, 12))
            turns.append(Turn(obs, act, np.zeros(len(act), np.float32), 0.0, fresh=t == 0 or i % 3 == 0))
        episodes.append(Episode(f"{i}", tuple(turns), True, False, np.zeros(0, np.int32)))
    streams = {"advantage": [rng.normal(size=episode.n_action_tokens) for episode in episodes]}
    batch = pack(episodes, streams)
    n = int(batch.action.sum())
    return batch.with_stream("weight", torch.full((n,), 1.0 / n))


def _loss(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
    """A policy gradient with a little entropy and, where there is one, a critic's error."""
    loss = -batch.stream("advantage") * outputs.logp - 0.1 * outputs.entropy
    if outputs.value is not None:
        loss = loss + 0.5 * (outputs.value - batch.stream("advantage")).square()
    return batch.stream("weight") * loss, {}


def _weights(learner: Any) -> dict[str, Tensor]:
    tensors, _ = learner.state()
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    if a.keys() != b.keys():
        raise CheckFailed(f"the state has other tensors now: {sorted(a.keys() ^ b.keys())[:3]}")
    return max((float((a[name].double() - b[name].double()).abs().max()) for name in a if a[name].numel()), default=0.0)


def _micro_batches(make_learner: Callable[..., Any], tolerance: float) -> None:
    results: dict[int, dict[str, Tensor]] = {}
    before: dict[str, Tensor] = {}
    for size in (10**6, 40, 1):
        learner = make_learner(max_tokens=size)
        before = {name: tensor for name, tensor in _weights(learner).items() if name.startswith("weight.")}
        learner.update(_batch(learner), _loss)
        results[size] = _weights(learner)
    names = [name for name in results[1] if name.startswith("weight.")] or list(results[1])
    whole = {name: results[10**6][name] for name in names}
    moved = _difference(before, whole) if before else 1.0
    if moved == 0.0:
        raise CheckFailed("update left every weight as it was; step the optimizer on the summed objective")
    # What Adam makes of a gradient near zero is its sign: the first moment is linear in the gradient, and is compared.
    moments = [name for name in results[1] if "exp_avg." in name] or names
    scale = max(float(results[10**6][name].abs().max()) for name in moments)
    for size in (40, 1):
        part = {name: results[size][name] for name in moments}
        error = _difference(part, {name: results[10**6][name] for name in moments}) / scale
        if error > tolerance:
            raise CheckFailed(
                f"micro-batches of {size} tokens change the update by {error:.2g} of its size; sum the losses and never "
                "average within a micro-batch: weights are computed on the whole batch"
            )


def _evaluation(make_learner: Callable[..., Any]) -> None:
    learner = make_learner(max_tokens=40)
    batch = _batch(learner)
    # Which entry of the whole batch each token is, so that micro-batches in any order can be put back.
    batch = batch.with_stream("number", torch.arange(float(batch.action.sum())))
    said = learner.evaluate(batch)
    seen: dict[str, Tensor] = {}

    def watch(outputs: Outputs, part: Batch) -> tuple[Tensor, Metrics]:
        where = part.stream("number").long().cpu()
        for name in ("logp", "entropy", "value"):
            values = getattr(outputs, name)
            if values is not None:
                seen.setdefault(name, torch.full((int(batch.action.sum()),), torch.nan))[where] = values.detach().cpu()
        return _loss(outputs, part)

    learner.update(batch, watch)
    for name, values in seen.items():
        told = getattr(said, name)
        if told is None or told.shape != values.shape or not float((told - values).abs().max()) <= 1e-5:
            raise CheckFailed(
                f"evaluate and update disagree about {name}; return the whole batch's values in packing order, under the "
                "same sampling distribution, with dropout off in both"
            )
    if said.logp.requires_grad:
        raise CheckFailed("evaluate returns tensors with gradients; wrap it in torch.no_grad")


def _counting(make_learner: Callable[..., Any]) -> None:
    learner = make_learner()
    batch = _batch(learner)
    for expected in (1, 2):
        metrics = learner.update(batch, _loss)
        if learner.version != expected:
            raise CheckFailed(f"version is {learner.version} after {expected} updates; add one per update")
        missing = {"loss", "grad_norm"} - set(metrics)
        if missing:
            raise CheckFailed(f"update did not report {sorted(missing)}")
    nothing = learner.update(batch, lambda outputs, part: (0.0 * outputs.logp, {}))
    if not np.isfinite(nothing["loss"][0]):
        raise CheckFailed("a loss of zero was reported as not finite")


def _resumption(make_learner: Callable[..., Any]) -> None:
    learner = make_learner()
    batches = [_batch(learner, seed) for seed in range(3)]
    learner.update(batches[0], _loss)
    tensors, info = learner.state()
    kept, noted = {name: tensor.detach().clone() for name, tensor in tensors.items()}, dict(info)
    learner.update(batches[1], _loss)
    expected = _weights(learner)
    other = make_learner()
    other.update(batches[2], _loss)
    for resumed, who in ((other, "another learner"), (make_learner(), "a new learner"), (learner, "the same learner")):
        resumed.restore({name: tensor.clone() for name, tensor in kept.items()}, dict(noted))
        if resumed.version != 1:
            raise CheckFailed(f"version is {resumed.version} after restoring the state of version 1 into {who}")
        resumed.update(batches[1], _loss)
        error = _difference(_weights(resumed), expected)
        if error:
            raise CheckFailed(
                f"an update after restore() into {who} differs by {error:.2g} from the one that followed state(); "
                "store the optimizer's moments and step counters with the weights"
            )


def _refusal(make_learner: Callable[..., Any]) -> None:
    learner = make_learner()
    batch = _batch(learner)
    learner.update(batch, _loss)
    before, version = _weights(learner), learner.version
    rotten = batch.with_stream("advantage", torch.full((int(batch.action.sum()),), torch.nan))
    try:
        learner.update(rotten, _loss)
    except Exception:  # any error will do: the promise is that the weights are safe
        pass
    else:
        raise CheckFailed("an update with NaN advantages went through; refuse a gradient that is not finite")
    if learner.version != version or _difference(before, _weights(learner)):
        raise CheckFailed("a refused update changed the weights, the moments or the version; check before the step")
    learner.update(batch, _loss)
    if any(not torch.isfinite(tensor).all() for tensor in _weights(learner).values()):
        raise CheckFailed("NaN of a refused update lives on in the gradients; clear them")


__all__ = ["check_learner"]
