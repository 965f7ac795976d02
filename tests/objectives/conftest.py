"""A policy small enough to reason about: a table of logits and values indexed by the previous token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs, pack
from turnwise.episode import Episode, Turn


@dataclass
class Table:
    logits: Tensor
    values: Tensor

    @classmethod
    def random(cls, vocabulary: int, seed: int = 0) -> Table:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(vocabulary, vocabulary, generator=generator)
        return cls(logits.requires_grad_(), torch.randn(vocabulary, generator=generator).requires_grad_())

    def __call__(self, batch: Batch) -> Outputs:
        at = batch.action.nonzero()[:, 0]
        every = self.logits[batch.tokens[at - 1]].log_softmax(-1)
        return Outputs(
            logp=every.gather(1, batch.tokens[at, None])[:, 0],
            entropy=-(every.exp() * every).sum(-1),
            value=self.values[batch.tokens[at - 1]],
        )

    def gradient(self, loss: Tensor) -> Tensor:
        """Gradient of the summed loss over all parameters, flat."""
        parts = torch.autograd.grad(loss.sum(), [self.logits, self.values], allow_unused=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])


def episode(acts: Sequence[Sequence[int]], group: str = "g", *, fresh: bool = False) -> Episode:
    """One episode whose turns each observe the single token 0."""
    turns = tuple(
        Turn(
            obs=np.zeros(1, np.int32),
            act=np.array(act, np.int32),
            logp=np.zeros(len(act), np.float32),
            reward=0.0,
            fresh=fresh or t == 0,
        )
        for t, act in enumerate(acts)
    )
    return Episode(group, turns, terminated=True, truncated=False, last_obs=np.zeros(0, np.int32))


def ragged_batch(seed: int = 0, vocabulary: int = 5) -> Batch:
    """Nine episodes of 1–4 turns of 1–3 tokens, every stream an objective can ask for; some start afresh each turn."""
    rng = np.random.default_rng(seed)
    episodes = [
        episode(
            [rng.integers(vocabulary, size=rng.integers(1, 4)).tolist() for _ in range(rng.integers(1, 5))],
            fresh=i % 3 == 0,
        )
        for i in range(9)
    ]
    scale = {"advantage": 1.0, "return": 1.0, "old_value": 1.0}
    names = [*scale, "old_logp", "reference_logp", "behaviour_logp"]
    streams = {
        name: [scale.get(name, 0.7) * rng.normal(size=e.n_action_tokens) - (name not in scale) * 1.5 for e in episodes]
        for name in names
    }
    return pack(episodes, streams)


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    return episode


@pytest.fixture
def ragged() -> Batch:
    return ragged_batch()


@pytest.fixture
def table() -> type[Table]:
    return Table


@pytest.fixture
def outputs_of() -> Callable[..., Outputs]:
    """Outputs with the given log-probabilities (a leaf that takes gradients)."""

    def build(logp: Sequence[float], value: Sequence[float] | None = None) -> Outputs:
        leaf = torch.tensor(logp, requires_grad=True)
        values = None if value is None else torch.tensor(value, requires_grad=True)
        return Outputs(logp=leaf, entropy=torch.full((len(logp),), 0.5, requires_grad=True), value=values)

    return build


@pytest.fixture
def flat_batch() -> Callable[..., Batch]:
    """One episode per inner list: `streams[name]` is a list of lists of numbers, one turn per episode."""

    def build(**streams: Sequence[Sequence[float]]) -> Batch:
        lengths = [len(part) for part in next(iter(streams.values()))]
        arrays = {name: [np.array(part) for part in parts] for name, parts in streams.items()}
        return pack([episode([[1] * n]) for n in lengths], arrays)

    return build
