"""The record of what happened: nonsense is refused at construction, and the views of it add up."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from turnwise.episode import Cut, Episode, Transcript, Turn

NOTHING = np.zeros(0, np.int32)


def turn(act: list[int], reward: float = 0.0) -> Turn:
    return Turn(np.array([1], np.int32), np.array(act, np.int32), -np.arange(len(act), dtype=np.float32), reward)


def test_views_add_up() -> None:
    episode = Episode("g", (turn([4, 5], 1.5), turn([6], -0.5)), terminated=True, truncated=False, last_obs=NOTHING)
    assert episode.rewards.tolist() == [1.5, -0.5]
    assert episode.undiscounted_return == 1.0
    assert episode.act_lengths.tolist() == [2, 1]
    assert episode.n_action_tokens == 3
    assert episode.behaviour_logp.tolist() == [0.0, -1.0, 0.0]
    assert not episode.failed


def test_an_episode_without_turns_is_empty_in_every_view() -> None:
    episode = Episode("g", (), terminated=False, truncated=True, last_obs=NOTHING, cut=Cut.CRASH)
    assert episode.failed
    assert len(episode.rewards) == len(episode.act_lengths) == len(episode.behaviour_logp) == 0
    assert episode.n_action_tokens == 0


@pytest.mark.parametrize("cut", Cut)
def test_the_environment_fails_by_crash_or_timeout_only(cut: Cut) -> None:
    episode = Episode("g", (), terminated=False, truncated=True, last_obs=NOTHING, cut=cut)
    assert episode.failed == (cut in (Cut.CRASH, Cut.TIMEOUT))


def test_an_ended_task_must_not_bootstrap() -> None:
    with pytest.raises(ValueError, match="both terminated and truncated"):
        Episode("g", (), terminated=True, truncated=True, last_obs=NOTHING, cut=Cut.TURN_LIMIT)
    with pytest.raises(ValueError, match="exactly when"):
        Episode("g", (), terminated=False, truncated=True, last_obs=NOTHING)
    with pytest.raises(ValueError, match="exactly when"):
        Episode("g", (), terminated=True, truncated=False, last_obs=NOTHING, cut=Cut.CONTEXT)


def test_a_turn_holds_an_action_and_a_log_probability_for_each_id() -> None:
    with pytest.raises(ValueError, match="at least one action token"):
        turn([])
    with pytest.raises(ValueError, match="2 action tokens and 1 log-prob"):
        Turn(NOTHING, np.array([1, 2], np.int32), np.zeros(1, np.float32), 0.0)
    assert len(Turn(NOTHING, np.array([1], np.int32), np.zeros(1, np.float32), 0.0).obs) == 0


def test_what_happened_stays() -> None:
    with pytest.raises(FrozenInstanceError):
        turn([1]).reward = 2.0  # pyright: ignore[reportAttributeAccessIssue]


def test_a_transcript_has_one_of_each_per_turn() -> None:
    with pytest.raises(ValueError, match="got 2, 1 and 1"):
        Transcript(("a", "b"), ("x",), (0.0,), terminated=True, truncated=False)
