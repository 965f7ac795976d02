"""What methods that learn from preferences and labels share: batches of units, and statistics of a whole minibatch.

A statistic that depends on the present weights (a rank, a mean, a baseline) is worked out once on the whole minibatch
before its step, and told to each sequence as a number. The loss of a unit then depends on nothing outside it, so neither
it nor its gradient changes with the size of the micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from turnwise.algorithms.reference import reference_logp
from turnwise.batch import Batch, pack, with_units
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError
from turnwise.objectives import Pairs, read_pairs

Prepare = Callable[[Any, Batch], Batch]
"""(learner, whole minibatch) -> the minibatch to train on."""


def paired(episodes: Sequence[Episode], pairs: Sequence[tuple[int, int]]) -> Batch:
    """Pack (chosen, rejected) pairs of episodes, each pair a unit, in the order given."""
    sides = [index for pair in pairs for index in pair]
    batch = pack([episodes[index] for index in sides])
    return with_units(batch, [i // 2 for i in range(len(sides))], [1, -1] * len(pairs))


def labelled(episodes: Sequence[Episode], desirable: Sequence[bool]) -> Batch:
    """Pack episodes, each a unit of its own, with side +1 where it is desirable and −1 where not."""
    return with_units(pack(episodes), range(len(episodes)), [1 if good else -1 for good in desirable])


def with_reference(learner: Any, batch: Batch) -> Batch:
    """The batch with the stream ``reference_logp``.

    Raises:
        TurnwiseError: the learner has no reference policy, or one that can never say some token of an episode.
    """
    return batch.with_stream("reference_logp", reference_logp(learner, batch))


def turns_of(batch: Batch, units: int) -> int:
    """How many turns `units` units have on average: the size of a minibatch as `climb` counts it."""
    total, n = int(batch.turn_start.sum()), len(batch.seq["unit"].unique())
    return max(1, round(units * total / max(n, 1)))


# ---- statistics of a minibatch under the present weights -------------------------------------------------------------


def rank_references(learner: Any, batch: Batch) -> Batch:
    """AOT: compare the k-th smallest log π(y⁺) − log π(y⁻) with the k-th smallest log ref(y⁺) − log ref(y⁻).

    Melnyk et al. 2024, arXiv 2406.05882: the whole distribution of margins is moved above that of the reference, not each
    margin above its own. Sets ``seq["reference_margin"]``.
    """
    pairs = _now(learner, batch)
    quantiles = (pairs.chosen_reference - pairs.rejected_reference).sort().values
    own = torch.empty_like(quantiles)
    own[(pairs.chosen - pairs.rejected).argsort()] = quantiles
    return _told(batch, "reference_margin", own)


def match_ranks(learner: Any, batch: Batch) -> Batch:
    """Unpaired AOT: the k-th smallest reward of the chosen sides is compared with the k-th smallest of the rejected ones.

    The sides that meet become units in place of the pairs they came in; the loss is the pairs' own.
    """
    pairs = _now(learner, batch)
    # Rejected side number i now meets the chosen side whose rank is the same.
    meets = torch.empty(len(pairs.chosen), dtype=torch.int64)
    meets[pairs.rejected_ratio.argsort()] = pairs.chosen_ratio.argsort()
    numbers, index = batch.seq["unit"].unique(return_inverse=True)
    unit = torch.where(batch.seq["side"] > 0, batch.seq["unit"], numbers[meets[index]])
    return replace(batch, seq={**batch.seq, "unit": unit})


def running_mean(beta: float) -> Prepare:
    """BCO: δ, the mean implicit reward of all sides seen so far in the run, those of this minibatch included.

    The learner's memory keeps the sum and the count, so a resumed run goes on with them. Sets ``seq["shift"]``.
    """

    def prepare(learner: Any, batch: Batch) -> Batch:
        pairs = _now(learner, batch)
        rewards = beta * torch.cat([pairs.chosen_ratio, pairs.rejected_ratio]).double()
        memory = learner.memory
        memory["bco_sum"] = memory.get("bco_sum", 0.0) + float(rewards.sum())
        memory["bco_count"] = memory.get("bco_count", 0.0) + len(rewards)
        return _told(batch, "shift", torch.full((len(pairs.chosen),), memory["bco_sum"] / memory["bco_count"]))

    return prepare


def kl_baseline(learner: Any, batch: Batch) -> Batch:
    """KTO: z = max(0, mean of log π(y') − log ref(y')) over prompts followed by another episode's answer.

    Ethayarajh et al. 2024, arXiv 2402.01306, section 4.1; no gradient flows through it. Sets ``seq["baseline"]``.

    Raises:
        TurnwiseError: the reference can never say some token, or the mean is not a finite number.
    """
    strange = mismatched(batch, learner.policy.context_limit)
    difference = learner.evaluate(strange).logp.double() - reference_logp(learner, strange).double()
    mean = float(difference.sum()) / len(strange.seq["episode"].unique())
    if not math.isfinite(mean):
        raise TurnwiseError(
            f"the divergence of the policy from the reference is {mean:g}, not a number to measure from: the policy's weights are "
            "broken. Go back to a checkpoint, and lower the learning rate"
        )
    return replace(batch, seq={**batch.seq, "baseline": torch.full((len(batch),), max(0.0, mean))})


def mismatched(batch: Batch, limit: int) -> Batch:
    """Each episode as it went on, but after the first observation of the next episode (the last one: of the first).

    Of a single episode there is no other, and it stays as it is.

    Args:
        batch: Sequences that each begin with an observation.
        limit: Tokens a sequence may have; what is longer is cut.
    """
    owners: list[int] = batch.seq["episode"].tolist()
    order = list(dict.fromkeys(owners))
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    bounds: list[int] = batch.cu_seqlens.tolist()
    begins = [bounds[s] + int(batch.action[bounds[s] : bounds[s + 1]].int().argmax()) for s in range(len(owners))]
    parts = []
    for s, owner in enumerate(owners):
        host = owners.index(following[owner])
        ids = torch.cat([torch.arange(bounds[host], begins[host]), torch.arange(begins[s], bounds[s + 1])])
        parts.append(ids[:limit])
    index = torch.cat(parts)
    lengths = torch.tensor([0, *map(len, parts)])
    return Batch(
        tokens=batch.tokens[index],
        cu_seqlens=lengths.cumsum(0),
        action=batch.action[index],
        turn=batch.turn[index],
        final=torch.zeros(len(index), dtype=torch.bool),
        seq={"episode": batch.seq["episode"]},
    )


def _now(learner: Any, batch: Batch) -> Pairs:
    return read_pairs(learner.evaluate(batch).logp, batch)


def _told(batch: Batch, name: str, per_pair: Tensor) -> Batch:
    """Each sequence is told the number of its pair."""
    _, index = batch.seq["unit"].unique(return_inverse=True)
    return replace(batch, seq={**batch.seq, name: per_pair.float()[index]})
