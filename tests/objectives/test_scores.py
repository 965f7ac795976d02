"""Objectives of models that score: (1) the formulas, written out per pair and per step, (2) the score of a side is read at
its last action token, of its last sequence, whatever the order of packing, (3) gradients do not depend on the micro-batches,
(4) what cannot be learnt from is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import zoo
from turnwise.batch import Batch, Outputs, pack, with_units
from turnwise.credit import broadcast
from turnwise.learners import LocalLearner
from turnwise.models import Scorer
from turnwise.objectives import bradley_terry, pair_mean, side_scores, step_labels, step_mean, turn_ends


def pairs(n: int = 4, seed: int = 0) -> Batch:
    """2n random dialogues, some in several sequences; pair i is dialogues 2i (chosen) and 2i + 1."""
    batch = pack(zoo.episodes(2 * n, seed=seed, fresh=True))
    return with_units(batch, [i // 2 for i in range(2 * n)], [1, -1] * n).weighted(pair_mean)


def said(batch: Batch, width: int = 0) -> Outputs:
    n = int(batch.action.sum())
    score = torch.randn((n, width) if width else n, generator=torch.Generator().manual_seed(1))
    return Outputs(torch.zeros(n), torch.zeros(n), score=score.requires_grad_())


def last_scores(batch: Batch, score: Any) -> dict[int, float]:
    """Score at the last action token of each episode, found by a loop."""
    owner = batch.seq["episode"][batch.sequence[batch.action]]
    return {int(e): float(s) for e, s in zip(owner, score.detach(), strict=True)}


@pytest.mark.parametrize(("margin", "centre"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.3), (2.0, 0.01)])
def test_bradley_terry_is_its_formula(margin: float, centre: float) -> None:
    batch = pairs()
    told = torch.tensor([0.3, 1.0, 2.0, 0.0])
    batch = replace(batch, seq={**batch.seq, "margin": told[batch.seq["unit"]]})
    outputs = said(batch)
    loss, _ = bradley_terry(margin, centre)(outputs, batch)
    assert loss.shape == (int(batch.action.sum()),)
    last = last_scores(batch, outputs.score)
    expected = 0.0
    for pair in range(4):
        better, worse = last[2 * pair], last[2 * pair + 1]
        z = better - worse - margin * float(told[pair])
        expected += (math.log1p(math.exp(-z)) + centre * (better + worse) ** 2) / 4
    assert float(loss.detach().sum()) == pytest.approx(expected, abs=1e-6)
    assert int((loss != 0).sum()) == 4


def test_a_side_is_read_at_the_end_of_its_last_sequence() -> None:
    batch = pairs(6)
    assert len(batch) > 12
    outputs = said(batch)
    chosen, rejected = side_scores(outputs, batch)
    last = last_scores(batch, outputs.score)
    assert chosen.tolist() == [last[i] for i in range(0, 12, 2)]
    assert rejected.tolist() == [last[i] for i in range(1, 12, 2)]


def test_a_step_is_labelled_at_its_end() -> None:
    episodes = zoo.episodes(5, fresh=True)
    labels = [np.arange(len(e.turns)) % 2 * 1.0 for e in episodes]
    labels[1][:] = np.nan
    labels[2][0] = 0.25
    batch = pack(episodes, {"label": broadcast(labels, [e.act_lengths for e in episodes])})
    batch = batch.weighted(step_mean)
    outputs = said(batch, 2)
    loss, _ = step_labels()(outputs, batch)
    assert outputs.score is not None
    p, at, terms = outputs.score.detach().softmax(-1).numpy(), 0, []
    for episode, label in zip(episodes, labels, strict=True):
        for turn, y in zip(episode.turns, label, strict=True):
            at += len(turn.act)
            if not math.isnan(y):
                terms.append(-y * math.log(p[at - 1, 1]) - (1 - y) * math.log(p[at - 1, 0]))
    assert float(loss.detach().sum()) == pytest.approx(np.mean(terms), abs=1e-6)
    assert torch.isfinite(loss).all()
    assert int(turn_ends(batch).sum()) == sum(len(e.turns) for e in episodes)
    loss.sum().backward()
    assert outputs.score.grad is not None
    assert torch.isfinite(outputs.score.grad).all()


@pytest.mark.parametrize("kind", ["reward", "process"])
def test_the_gradient_does_not_depend_on_the_micro_batches(kind: Any) -> None:
    if kind == "reward":
        batch, objective = pairs(5), bradley_terry(0.0, 0.1)
    else:
        episodes = zoo.episodes(8)
        labels = [np.arange(len(e.turns)) % 2 * 1.0 for e in episodes]
        batch = pack(episodes, {"label": broadcast(labels, [e.act_lengths for e in episodes])}).weighted(step_mean)
        objective = step_labels()

    def gradient(max_tokens: int) -> tuple[float, list[Any]]:
        scorer = Scorer.of(zoo.policy(), kind=kind)
        metrics = LocalLearner(scorer, max_tokens=max_tokens).gradient(batch, objective)
        return metrics["loss"][0], [p.grad for p in scorer.parameters().values()]

    loss, whole = gradient(10_000)
    for budget in (1, 40):
        other, split = gradient(budget)
        assert other == pytest.approx(loss, abs=1e-6)
        scale = max(float(g.abs().max()) for g in whole)
        assert max(float((a - b).abs().max()) for a, b in zip(whole, split, strict=True)) < 5e-6 * max(1.0, scale)


def test_what_cannot_be_learnt_from_is_refused() -> None:
    batch = pairs()
    with pytest.raises(ValueError, match="kind 'reward'"):
        bradley_terry()(said(batch, 2), batch)
    with pytest.raises(ValueError, match="kind 'process'"):
        step_labels()(said(batch), batch)
    alone = batch.select([0])
    with pytest.raises(ValueError, match="one side only"):
        bradley_terry()(said(alone), alone)
    with pytest.raises(ValueError, match="not be negative"):
        bradley_terry(centre=-1)
