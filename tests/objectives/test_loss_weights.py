"""What each token counts: closed forms, and each trajectory once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from turnwise import objectives as obj
from turnwise.batch import Batch, pack
from turnwise.episode import Episode


@pytest.fixture
def batch(make_episode: Callable[..., Episode]) -> Batch:
    """Two turns of 2 and 1 tokens; one turn of 1 token; three turns of 1 token that each start afresh."""
    return pack([make_episode([[1, 2], [3]]), make_episode([[1]]), make_episode([[1], [2], [3]], fresh=True)])


def test_closed_forms(batch: Batch) -> None:
    assert len(batch) == 5
    assert obj.token_mean(batch).tolist() == pytest.approx([1 / 7] * 7)
    assert obj.sequence_mean(batch).tolist() == pytest.approx([1 / 9] * 3 + [1 / 3] + [1 / 9] * 3)
    assert obj.constant(4.0)(batch).tolist() == pytest.approx([1 / 12] * 7)
    assert obj.turn_start_mean(batch).tolist() == pytest.approx([1 / 6, 0, 1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 6])


def test_means_sum_to_one(ragged: Batch) -> None:
    for weight in (obj.token_mean, obj.sequence_mean, obj.turn_start_mean):
        assert float(weight(ragged).sum()) == pytest.approx(1.0)


def test_each_trajectory_counts_once_however_it_is_packed(make_episode: Callable[..., Episode]) -> None:
    acts = [[1, 2], [3], [4, 4, 4]]
    whole, afresh = (
        pack([make_episode(acts), make_episode([[1]])]),
        pack([make_episode(acts, fresh=True), make_episode([[1]])]),
    )
    assert len(afresh) == len(whole) + 2
    for weight in (obj.token_mean, obj.sequence_mean, obj.constant(3.0), obj.turn_start_mean):
        assert weight(whole).tolist() == weight(afresh).tolist()
    assert float(obj.sequence_mean(whole)[:6].sum()) == pytest.approx(0.5)


def test_a_part_of_a_batch_is_its_own_step(ragged: Batch) -> None:
    """Episode indices of a selection have gaps; they must not count as trajectories."""
    part = next(ragged.minibatches(4, np.random.default_rng(0)))
    assert float(obj.sequence_mean(part).sum()) == pytest.approx(1.0)
    n = len(part.seq["episode"].unique())
    assert obj.constant(2.0)(part)[0].item() == pytest.approx(1 / (2 * n))


def test_constant_one_is_the_policy_gradient(table: type, make_episode: Callable[..., Episode]) -> None:
    """Sum over a trajectory's tokens, mean over trajectories."""
    model = table.random(5)
    episodes = [make_episode([[1, 2], [3]]), make_episode([[4]])]
    advantage = [np.array([2.0, 2.0, -1.0]), np.array([0.5])]
    batch = pack(episodes, {"advantage": advantage}).weighted(obj.constant(1.0))
    got = model.gradient(obj.policy_gradient()(model(batch), batch)[0])
    logp = model(batch).logp
    by_hand = -(2.0 * logp[0] + 2.0 * logp[1] - logp[2] + 0.5 * logp[3]) / 2
    torch.testing.assert_close(got, model.gradient(by_hand))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="positive"):
        obj.constant(0.0)
