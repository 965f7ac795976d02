"""The critic's loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from turnwise import objectives as obj
from turnwise.batch import Batch, Outputs
from turnwise.metrics import means


def test_half_the_squared_error_under_its_own_weight(
    outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]
) -> None:
    streams = {"return": [[1.0, 5.0, 2.0]], "value_weight": [[0.5, 0.0, 0.5]], "weight": [[9.0, 9.0, 9.0]]}
    outputs = outputs_of([-1.0] * 3, value=[3.0, 0.0, 1.0])
    loss, metrics = obj.value_error()(outputs, flat_batch(**streams))
    assert loss.tolist() == [1.0, 0.0, 0.25]
    assert outputs.value is not None
    assert torch.autograd.grad(loss.sum(), outputs.value)[0].tolist() == [1.0, 0.0, -0.5]
    assert means(metrics) == {"value/loss": 1.25, "value/mean": 2.0, "value/target": 1.5}


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "gradient"),
    [
        (0.1, 0.0, 1.0, 0.5 * 0.9**2, -0.9),  # inside the range: as without clipping
        (0.8, 0.0, 1.0, 0.5 * 0.8**2, 0.0),  # moved too far towards the target: held at old + .2, no gradient
        (-0.8, 0.0, 1.0, 0.5 * 1.8**2, -1.8),  # moved too far away: full pull back
    ],
)
def test_value_clipping_by_hand(
    value: float,
    old: float,
    target: float,
    loss: float,
    gradient: float,
    outputs_of: Callable[..., Outputs],
    flat_batch: Callable[..., Batch],
) -> None:
    streams = {"return": [[target]], "old_value": [[old]], "value_weight": [[1.0]]}
    outputs = outputs_of([-1.0], value=[value])
    got, metrics = obj.value_error(clip=0.2)(outputs, flat_batch(**streams))
    assert got.tolist() == pytest.approx([loss])
    assert outputs.value is not None
    assert torch.autograd.grad(got.sum(), outputs.value)[0].tolist() == pytest.approx([gradient])
    assert means(metrics)["clip_ratio/value"] == float(gradient == 0.0)


def test_refusals(outputs_of: Callable[..., Outputs], flat_batch: Callable[..., Batch]) -> None:
    with pytest.raises(ValueError, match="value head"):
        obj.value_error()(outputs_of([-1.0]), flat_batch(value_weight=[[1.0]]))
    with pytest.raises(ValueError, match="positive"):
        obj.value_error(clip=0.0)
