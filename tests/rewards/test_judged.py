"""Judging: (1) a turn is paid the weighted sum of its sources, each kept by name, (2) a source that cannot say is left
out, (3) nothing else of an episode changes, (4) broken episodes are nobody's business, (5) nonsense is refused by name."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.episode import Cut, Episode
from turnwise.rewards import RewardError, environment, judged
from turnwise.testing import ConstantReward, LengthReward, build_episode, ragged_episodes

NAN = math.nan


def fixed(*arrays: list[float]) -> Any:
    return lambda episodes: [np.array(array) for array in arrays]


def test_turns_are_paid_the_weighted_sum_and_remember_who_paid() -> None:
    episode = build_episode([0.0, 1.0], actions=[[1, 2, 3], [4]])
    (paid,) = judged([episode], {"environment": (2.0, environment), "length": (-0.1, LengthReward())})
    assert [dict(turn.rewards) for turn in paid.turns] == [
        {"environment": 0.0, "length": pytest.approx(-0.3)},
        {"environment": 2.0, "length": pytest.approx(-0.1)},
    ]
    assert paid.rewards == pytest.approx([-0.3, 1.9])


def test_what_is_not_named_is_not_paid() -> None:
    (paid,) = judged([build_episode([5.0, 7.0])], {"judge": (1.0, ConstantReward(0.5))})
    assert paid.rewards.tolist() == [0.5, 0.5]
    assert [set(turn.rewards) for turn in paid.turns] == [{"judge"}, {"judge"}]


def test_a_source_that_cannot_say_is_left_out_and_a_turn_nobody_can_score_is_open() -> None:
    rewards = {"a": (1.0, fixed([1.0, NAN, NAN])), "b": (3.0, fixed([2.0, 2.0, NAN]))}
    (paid,) = judged([build_episode([0.0] * 3)], rewards)
    assert paid.rewards[:2].tolist() == [7.0, 6.0]
    assert math.isnan(paid.rewards[2])
    assert [dict(turn.rewards) for turn in paid.turns] == [{"a": 1.0, "b": 6.0}, {"b": 6.0}, {}]


@given(st.integers(0, 1000), st.floats(-5, 5), st.floats(-5, 5))
@settings(max_examples=30, deadline=None)
def test_only_the_payment_changes_and_the_parts_add_up(seed: int, one: float, other: float) -> None:
    episodes = ragged_episodes(seed)
    paid = judged(episodes, {"environment": (one, environment), "length": (other, LengthReward())})
    for before, after in zip(episodes, paid, strict=True):
        expected = one * before.rewards + other * before.act_lengths
        assert after.rewards == pytest.approx(expected, abs=1e-9)
        for old, new in zip(before.turns, after.turns, strict=True):
            assert math.fsum(new.rewards.values()) == pytest.approx(new.reward)
            assert replace(new, reward=old.reward, rewards=old.rewards) == old
        assert replace(after, turns=before.turns) == before


def test_the_environment_pays_what_it_paid() -> None:
    bare = build_episode([1.0, 2.0])
    bare = replace(bare, turns=tuple(replace(turn, rewards={}) for turn in bare.turns))
    shared = replace(bare, turns=tuple(replace(t, rewards={"environment": 0.5, "judge": 9.0}) for t in bare.turns))
    elsewhere = replace(bare, turns=tuple(replace(t, rewards={"judge": 9.0}) for t in bare.turns))
    assert [array.tolist() for array in environment([bare, shared, elsewhere])] == [[1.0, 2.0], [0.5, 0.5], [0.0, 0.0]]
    episodes = ragged_episodes()
    for before, after in zip(episodes, judged(episodes, {"environment": (1.0, environment)}), strict=True):
        assert after.rewards.tolist() == before.rewards.tolist()


def test_broken_episodes_pass_by_unseen() -> None:
    seen: list[Episode] = []

    def watcher(episodes: list[Episode]) -> list[np.ndarray]:
        seen.extend(episodes)
        return ConstantReward(3.0)(episodes)

    good, crashed, empty = build_episode([1.0]), build_episode([1.0], cut=Cut.CRASH), build_episode([], cut=Cut.TIMEOUT)
    paid = judged([crashed, good, empty], {"watcher": (1.0, watcher)})
    assert (paid[0], paid[2]) == (crashed, empty)
    assert paid[1].rewards.tolist() == [3.0]
    assert seen == [good]
    assert judged([crashed], {"watcher": (1.0, watcher)}) == [crashed]
    assert seen == [good]


def boom(episodes: list[Episode]) -> list[np.ndarray]:
    raise KeyError("answer")


@pytest.mark.parametrize(
    ("reward", "complaint"),
    [
        (boom, r"reward 'judge' raised KeyError: 'answer', asked about 2 episodes"),
        (fixed([1.0]), r"'judge' returned 1 arrays for 2 episodes"),
        (fixed([1.0], [1.0, 2.0]), r"shape \(1,\) for the episode of fake, seed 0, group 'a', which has 2 turns"),
        (fixed([1.0, 2.0], [[1.0, 2.0]]), r"shape \(1, 2\) .*seed 1"),
        (fixed([1.0, 2.0], [1.0, math.inf]), r"infinite number .*seed 1.* turn 1"),
        (lambda episodes: [["good", "bad"]] * 2, r"returned \['good', 'bad'\] .*seed 0"),
        (lambda episodes: 1.0, r"raised TypeError"),
    ],
)
def test_nonsense_is_refused_by_name(reward: Any, complaint: str) -> None:
    episodes = [build_episode([0.0, 0.0], group="a", seed=0), build_episode([0.0, 0.0], group="b", seed=1)]
    with pytest.raises(RewardError, match=complaint):
        judged(episodes, {"judge": (1.0, reward)})


@pytest.mark.parametrize(
    ("rewards", "complaint"),
    [
        ({}, "no rewards given"),
        ({"a": ConstantReward()}, "pair"),
        ({"a": (NAN, ConstantReward())}, "weight nan"),
        ({"a": ("1", ConstantReward())}, "weight '1'"),
        ({"a": (1.0, 0.5)}, "cannot be called"),
    ],
)
def test_a_table_that_cannot_work_is_refused_before_the_rollout(rewards: Any, complaint: str) -> None:
    with pytest.raises(RewardError, match=complaint):
        judged([], rewards)
