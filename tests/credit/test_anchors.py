"""GiGPO: groups of equal states inside a task."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise import credit


def test_groups_are_equal_states_of_one_task() -> None:
    anchors = credit.anchor_groups([["s", "x"], ["s", "s", "y"], ["s"]], ["a", "a", "b"])
    assert [a.tolist() for a in anchors] == [[0, 1], [0, 0, 2], [3]]


def test_step_advantages_by_hand() -> None:
    anchors = credit.anchor_groups([["s", "x"], ["s", "y"], ["s"]], ["g"] * 3)
    step = credit.anchor_advantages([[1.0, 5.0], [0.0, 7.0], [2.0]], anchors, normalise=False)
    assert [a.tolist() for a in step] == [[0.0, 0.0], [-1.0, 0.0], [1.0]]
    scaled = credit.anchor_advantages([[1.0, 5.0], [0.0, 7.0], [2.0]], anchors, epsilon=0.0)
    assert [a.tolist() for a in scaled] == [[0.0, 0.0], [-1.0, 0.0], [1.0]]


def test_combined_is_episode_plus_omega_step() -> None:
    combined = credit.episode_and_step(
        [1.0, 0.0, 2.0], [[1.0, 5.0], [0.0], [2.0]], [["s", "x"], ["s"], ["s"]], ["g"] * 3, omega=0.5, normalise=False
    )
    assert [a.tolist() for a in combined] == [[0.0, 0.0], [-1.5], [1.5]]


def test_without_shared_states_only_the_episode_counts() -> None:
    keys = [["a", "b"], ["c"]]
    combined = credit.episode_and_step([1.0, 0.0], [[1.0, 1.0], [0.0]], keys, ["g", "g"], epsilon=1e-4)
    outcome = credit.group_relative([1.0, 0.0], ["g", "g"])
    assert [a.tolist() for a in combined] == [[outcome[0]] * 2, [outcome[1]]]


def test_at_one_turn_the_step_part_is_the_episode_part() -> None:
    scores = np.random.default_rng(0).normal(size=6)
    combined = credit.episode_and_step(scores, scores[:, None].tolist(), [["s"]] * 6, ["g"] * 6, omega=1.0)
    np.testing.assert_array_equal(np.concatenate(combined), 2 * credit.group_relative(scores, ["g"] * 6, epsilon=1e-6))


def test_unscorable_and_empty() -> None:
    step = credit.anchor_advantages([[np.nan], [1.0]], credit.anchor_groups([["s"], ["s"]], ["g", "g"]))
    assert [a.tolist() for a in step] == [[0.0], [0.0]]
    assert credit.anchor_advantages([], []) == []


def test_refusals() -> None:
    with pytest.raises(ValueError, match="keys of 1 episodes for 2 groups"):
        credit.anchor_groups([["s"]], ["a", "b"])
    with pytest.raises(ValueError, match="2 turns and 1 anchors"):
        credit.anchor_advantages([[1.0, 2.0]], [np.array([0])])
    with pytest.raises(ValueError, match="anchors of 0"):
        credit.anchor_advantages([[1.0]], [])
