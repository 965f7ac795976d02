"""The gap between the rollout engine and the training engine."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from turnwise import objectives as obj
from turnwise.batch import Batch
from turnwise.metrics import means

LOGS = {"behaviour_logp": [[-1.0, -1.0], [-1.0]], "old_logp": [[-1.0 + math.log(4), -1.0 - math.log(2)], [-1.0]]}
"""Ratios 4, ½ and 1; the first sequence's product is 2."""


def test_truncated(flat_batch: Callable[..., Batch]) -> None:
    batch = flat_batch(**LOGS)
    assert obj.truncated_importance(batch, 3.0).tolist() == pytest.approx([3.0, 0.5, 1.0])
    assert obj.truncated_importance(batch, 3.0, unit="sequence").tolist() == pytest.approx([2.0, 2.0, 1.0])
    assert obj.truncated_importance(batch, 1.5, unit="sequence").tolist() == pytest.approx([1.5, 1.5, 1.0])


def test_masked(flat_batch: Callable[..., Batch]) -> None:
    batch = flat_batch(**LOGS)
    assert obj.masked_importance(batch, 0.4, 3.0).tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert obj.masked_importance(batch, 0.4, 1.5, unit="turn").tolist() == pytest.approx([0.0, 0.0, 1.0])
    assert obj.masked_importance(batch, 0.4, 3.0, unit="turn").tolist() == pytest.approx([2.0, 2.0, 1.0])


def test_drift_by_hand(flat_batch: Callable[..., Batch]) -> None:
    figures = means(obj.drift(flat_batch(**LOGS)))
    log4, log2 = math.log(4), math.log(2)
    assert figures == {
        "drift/mean_abs": pytest.approx((log4 + log2) / 3, rel=1e-6),
        "drift/max_abs": pytest.approx(log4, rel=1e-6),
        "drift/k3": pytest.approx(((4 - 1 - log4) + (0.5 - 1 + log2)) / 3, rel=1e-6),
        "drift/ess": pytest.approx(5.5**2 / (3 * (16 + 0.25 + 1)), rel=1e-6),
    }


def test_engines_that_agree(ragged: Batch) -> None:
    batch = ragged.with_stream("old_logp", ragged.stream("behaviour_logp"))
    for unit in ("token", "turn", "sequence"):
        assert (obj.truncated_importance(batch, unit=unit) == 1.0).all()
        assert (obj.masked_importance(batch, unit=unit) == 1.0).all()
    figures = means(obj.drift(batch))
    assert figures == {"drift/mean_abs": 0.0, "drift/max_abs": 0.0, "drift/k3": 0.0, "drift/ess": 1.0}


def test_units_are_those_of_the_batch(ragged: Batch) -> None:
    weight = obj.truncated_importance(ragged, cap=1e9, unit="turn")
    difference = ragged.stream("old_logp") - ragged.stream("behaviour_logp")
    owner, turn = ragged.seq["episode"][ragged.sequence[ragged.action]], ragged.turn[ragged.action]
    for i in range(len(weight)):
        same = (owner == owner[i]) & (turn == turn[i])
        torch.testing.assert_close(weight[i], difference[same].sum().exp(), rtol=1e-5, atol=1e-6)


def test_refusals(flat_batch: Callable[..., Batch]) -> None:
    batch = flat_batch(**LOGS)
    with pytest.raises(ValueError, match="at least 1"):
        obj.truncated_importance(batch, 0.5)
    with pytest.raises(ValueError, match="enclose 1"):
        obj.masked_importance(batch, 1.5, 2.0)
    with pytest.raises(ValueError, match="unknown unit"):
        obj.masked_importance(batch, unit="paragraph")  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="behaviour_logp"):
        obj.drift(flat_batch(old_logp=[[0.0]]))
