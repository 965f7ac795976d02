"""What length costs: (1) an action without a stop token is fined, and no other, (2) DAPO's punishment is the paper's formula."""

from __future__ import annotations

from dataclasses import replace

import pytest

from turnwise.episode import Stop
from turnwise.rewards import RewardError, environment, judged, missing_eos, overlong
from turnwise.testing import build_episode, check_reward, ragged_episodes


def test_an_action_that_was_cut_is_fined() -> None:
    episode = build_episode([1.0, 2.0, 4.0])
    cut = replace(episode, turns=(*episode.turns[:2], replace(episode.turns[2], stop=Stop.LENGTH)))
    (paid,) = judged([cut], {"environment": (1.0, environment), "cut": (2.0, missing_eos(0.75))})
    assert paid.rewards.tolist() == [1.0, 2.0, 2.5]
    assert paid.turns[2].rewards == {"environment": 4.0, "cut": -1.5}


def formula(n: int, limit: int, buffer: int) -> float:
    """Equation 13 of arXiv 2503.14476."""
    if n <= limit - buffer:
        return 0.0
    if n <= limit:
        return ((limit - buffer) - n) / buffer
    return -1.0


@pytest.mark.parametrize(("limit", "buffer"), [(8, 4), (8, 8), (5, 1)])
def test_the_overlong_punishment(limit: int, buffer: int) -> None:
    lengths = range(1, 12)
    episodes = [build_episode([0.0, 0.0], actions=[[1] * n, [1]]) for n in lengths]
    for n, answer in zip(lengths, overlong(limit, buffer)(episodes), strict=True):
        assert answer.tolist() == pytest.approx([formula(n, limit, buffer), formula(1, limit, buffer)])


def test_they_are_rewards() -> None:
    for reward in (missing_eos(1.0), overlong(3, 2)):
        check_reward(reward, ragged_episodes())


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan"), float("inf")])
def test_a_fine_that_does_not_punish_is_refused(penalty: float) -> None:
    with pytest.raises(RewardError, match="positive number"):
        missing_eos(penalty)


@pytest.mark.parametrize(("limit", "buffer"), [(8, 0), (8, 9), (0, 0)])
def test_a_buffer_outside_the_limit_is_refused(limit: int, buffer: int) -> None:
    with pytest.raises(RewardError, match="buffer"):
        overlong(limit, buffer)
