"""What every on-policy method does with episodes before and after it assigns credit.

`recall` asks the learner what its present weights say about the episodes; `climb` takes the optimizer steps. In between,
a method only fills in streams.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from turnwise.batch import Batch, pack, per_turn, unpack
from turnwise.credit import broadcast, sum_by_turn, why_zero, zero_std_metrics
from turnwise.episode import Episode, Source
from turnwise.metrics import Metrics, merge
from turnwise.objectives import (
    Objective,
    Weight,
    combine,
    drift,
    entropy_bonus,
    truncated_importance,
)
from turnwise.runs import Improvement

Floats = NDArray[np.float64]
"""float64 array, one entry per turn, token or episode, as the function says."""

AGREE = 1e-4
"""Largest difference in a log-probability, in nats, at which rollout engine and learner count as one.

In float32 they differ by about 1e-6; an engine that samples in 16 bits, or that forgot to take new weights, by far more."""

SAMPLED = 8
"""One episode in so many is evaluated to see whether they do."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experience:
    """Episodes that can train, and what the learner's present weights say about them.

    Attributes:
        episodes: Those with at least one turn whose environment did not fail.
        batch: They, packed, with the streams ``behaviour_logp``, ``old_logp`` and ``importance`` (the truncated weight
            that corrects for a rollout engine whose probabilities differ from the learner's; 1 where they agree).
        logp: Per episode (n_action_tokens,), the stream ``old_logp``.
        values: Per episode (n_action_tokens,), the critic before each token; empty without one.
        bootstrap: (n_episodes,), value of the last observation of truncated episodes (of the last state acted in where
            there is none), 0 for terminated ones.
        positions: Index of each in the list given to `recall`.
        given_turns: Number of turns of each episode in that list.
        metrics: Drift between rollout and learner.
    """

    episodes: list[Episode]
    batch: Batch
    logp: list[Floats]
    values: list[Floats]
    bootstrap: Floats
    positions: list[int]
    given_turns: list[int]
    metrics: Metrics

    @property
    def groups(self) -> list[str]:
        """Group of each episode."""
        return [episode.group for episode in self.episodes]

    @property
    def act_lengths(self) -> list[NDArray[np.int64]]:
        """Per episode (n_turns,), action tokens of each turn."""
        return [episode.act_lengths for episode in self.episodes]

    def for_record(self, **streams: Sequence[Floats]) -> dict[str, list[Floats]]:
        """Per-turn streams, (n_turns,), of the episodes given to `recall`; NaN where one did not take part."""
        return {name: self._aligned(list(values)) for name, values in streams.items()}

    def _aligned(self, values: list[Floats]) -> list[Floats]:
        full = [np.full(n, np.nan) for n in self.given_turns]
        for position, array in zip(self.positions, values, strict=True):
            full[position] = np.asarray(array, dtype=np.float64)
        return full


def recall(learner: Any, episodes: Sequence[Episode], skip: Collection[int] = ()) -> Experience | None:
    """What the learner's present weights say about the episodes; None when none of them can train.

    A learner with a value head is asked about all of them, and also gives values, and the bootstrap value of every truncated
    episode. Without one, what the rollout recorded under the same weights is what the learner would say: an eighth of the
    episodes, the longest among them, is evaluated, and if none of their log-probabilities differs by more than `AGREE`, the
    recorded ones stand for all. The drift is then that of the eighth.

    Args:
        learner: Whose weights are asked.
        episodes: What was collected.
        skip: Indices of those that are not to take part.
    """
    positions = [i for i, one in enumerate(episodes) if one.turns and not one.failed and i not in skip]
    if not positions:
        log.warning(
            "none of the %d episodes can train: all failed or had no turn; look at their `cut` and `detail`",
            len(episodes),
        )
        return None
    usable = [episodes[i] for i in positions]
    has_value = learner.policy.value_head is not None
    batch = pack(usable, {"behaviour_logp": [episode.behaviour_logp for episode in usable]})
    agreed = None if has_value else _agreement(learner, usable)
    outputs = None if agreed else learner.evaluate(pack(usable, bootstrap=has_value))
    batch = batch.with_stream("old_logp", outputs.logp if outputs else batch.stream("behaviour_logp"))
    batch = batch.with_stream("importance", truncated_importance(batch))
    bootstrap = np.zeros(len(usable))
    values: list[Floats] = []
    if has_value:
        assert outputs is not None
        values = unpack(outputs.value.double(), usable)
        seen = [episode.truncated and len(episode.last_obs) > 0 for episode in usable]
        bootstrap[seen] = outputs.final_value.double().numpy()
        # Where nothing followed the last action (the context was full, the action was cut), the critic has never been
        # trained at the place it would be read; the state before that action is the nearest it knows.
        for i, episode in enumerate(usable):
            if episode.truncated and not seen[i]:
                bootstrap[i] = values[i][-len(episode.turns[-1].act)]
    logp = unpack(batch.stream("old_logp").double(), usable)
    turns = [len(episode.turns) for episode in episodes]
    return Experience(usable, batch, logp, values, bootstrap, positions, turns, agreed or drift(batch))


def _agreement(learner: Any, episodes: Sequence[Episode]) -> Metrics | None:
    """The drift over some of the episodes if they were sampled by the learner's present weights and it is negligible."""
    if len(episodes) < SAMPLED or any(
        episode.source is not Source.POLICY or any(turn.version != learner.version for turn in episode.turns)
        for episode in episodes
    ):
        return None
    longest = max(range(len(episodes)), key=lambda i: sum(len(turn.obs) + len(turn.act) for turn in episodes[i].turns))
    some = [episodes[i] for i in sorted({longest, *range(0, len(episodes), SAMPLED)})]
    batch = pack(some, {"behaviour_logp": [episode.behaviour_logp for episode in some]})
    batch = batch.with_stream("old_logp", learner.evaluate(batch).logp)
    found = drift(batch)
    return found if found and found["drift/max_abs"][0] <= AGREE else None


def turn_rewards(experience: Experience, penalty: Sequence[Floats]) -> list[Floats]:
    """Per episode (n_turns,): the turn's reward plus its tokens' KL penalty."""
    summed = sum_by_turn(penalty, experience.act_lengths)
    return [episode.rewards + p for episode, p in zip(experience.episodes, summed, strict=True)]


def with_streams(batch: Batch, episodes: Sequence[Episode], streams: Mapping[str, Sequence[Floats]]) -> Batch:
    """The batch with per-token streams added, one (n_action_tokens,) array per episode."""
    extra = pack(episodes, streams)
    return replace(batch, token={**batch.token, **extra.token})


def climb(
    learner: Any,
    batch: Batch,
    objective: Objective,
    *,
    epochs: int,
    turns: int,
    weights: Mapping[str, Weight],
    prepare: Callable[[Any, Batch], Batch] | None = None,
) -> Metrics:
    """`epochs` passes of minibatches of about `turns` turns, one optimizer step each.

    Args:
        learner: Whose weights move. The order of the minibatches derives from its seed and version, so a resumed run repeats it.
        batch: All experience of the iteration.
        objective: What to minimise.
        epochs: Passes.
        turns: Turns per optimizer step.
        weights: Stream name -> weight function, evaluated on each whole minibatch.
        prepare: Called with the learner and each whole minibatch before its step; what it returns is trained on. For
            statistics of a minibatch that depend on the present weights.
    """
    rng = np.random.default_rng([learner.seed, learner.version])
    parts: list[Metrics] = []
    for _ in range(epochs):
        for part in batch.minibatches(turns, rng):
            part = part if prepare is None else prepare(learner, part)
            weighted = part
            for name, weight in weights.items():
                weighted = weighted.with_stream(name, weight(part))
            parts.append(learner.update(weighted, objective))
    return merge(parts)


@contextmanager
def value_head_alone(policy: Any) -> Iterator[None]:
    """Inside, nothing but the value head can be trained.

    The head reads the trunk that the policy speaks with. A weight of 0 on the policy's loss would leave the critic's own
    gradient in that trunk, weight decay and the optimizer's momentum; a parameter without a gradient has none of them.
    """
    others = [parameter for name, parameter in policy.parameters().items() if not name.startswith("value_head.")]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def why_flat(experience: Experience) -> str:
    """Why no action is better than a critic expected."""
    if all(np.isnan(episode.rewards).all() for episode in experience.episodes):
        return f"none of the {len(experience.episodes)} episodes has a score; look at the judge"
    return (
        "every action did exactly as well as the critic expected, up to one constant; there is nothing to tell them apart. "
        "Change the difficulty of the tasks, or pay for progress"
    )


class Steps(Protocol):
    """The settings every surrogate method shares."""

    @property
    def epochs(self) -> int:
        """Passes over each iteration's experience."""
        ...

    @property
    def minibatch(self) -> int:
        """Turns per optimizer step."""
        ...

    @property
    def entropy_coef(self) -> float:
        """Weight of the entropy bonus."""
        ...


def improve_without_critic(
    learner: Any,
    experience: Experience,
    advantages: Sequence[Floats],
    settings: Steps,
    surrogate: Objective,
    weight: Weight,
    extra: Metrics,
    *,
    reference: Sequence[Floats] | None = None,
    groups: Sequence[str] | None = None,
) -> Improvement:
    """Climb a surrogate on advantages that need no critic; say why when there is nothing to climb.

    Args:
        learner: Whose weights move.
        experience: What happened.
        advantages: Per episode (n_turns,), or (n_action_tokens,) where tokens of a turn differ.
        settings: How many steps.
        surrogate: What the advantages weigh, and further terms if there are any.
        weight: Of each token.
        extra: Metrics to report besides.
        reference: Stream ``reference_logp`` for a surrogate that has a term of the divergence: it has a gradient even where
            all advantages are zero.
        groups: Which episodes were compared with each other; those of a start state unless given.
    """
    scores = [episode.undiscounted_return for episode in experience.episodes]
    groups = experience.groups if groups is None else groups
    metrics = merge([experience.metrics, extra, zero_std_metrics(scores, groups)])
    tokens = [
        np.asarray(given) if len(given) == len(logp) else broadcast([given], [lengths])[0]
        for given, logp, lengths in zip(advantages, experience.logp, experience.act_lengths, strict=True)
    ]
    streams = experience.for_record(advantage=per_turn(tokens, experience.episodes))
    reason = why_zero(tokens, groups, scores)
    # An entropy bonus and a divergence have a gradient of their own.
    if reason and settings.entropy_coef == 0 and reference is None:
        log.warning("no update: %s", reason)
        return Improvement(metrics, streams)
    added = {"advantage": tokens} if reference is None else {"advantage": tokens, "reference_logp": reference}
    batch = with_streams(experience.batch, experience.episodes, added)
    objective = combine((1.0, surrogate), (settings.entropy_coef, entropy_bonus()))
    steps = climb(
        learner, batch, objective, epochs=settings.epochs, turns=settings.minibatch, weights={"weight": weight}
    )
    return Improvement(merge([metrics, steps]), streams)
