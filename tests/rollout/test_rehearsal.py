"""Random play: (1) it hears what demonstrations of random legal play hear, (2) the same words wherever environments run,
(3) an environment that breaks at some seeds costs those episodes, one that always breaks is named."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

import pytest

from tests.rollout import envs
from turnwise.envs import demonstrate, spec
from turnwise.errors import TurnwiseError
from turnwise.rollout import rehearse
from turnwise.testing import NaNRewardEnv, RaisingEnv


@pytest.mark.parametrize("name", ["guess", "FrozenLake-v1"])
def test_it_hears_what_random_demonstrations_hear(name: str) -> None:
    make = spec(name).make
    said = {""}
    for shown in demonstrate(make, range(12), skill=0.0, max_turns=9):
        said |= {*shown.observations, *shown.actions, shown.last_obs, shown.goal or ""}
    assert set(rehearse(make, range(12), max_turns=9, where="inline")) | {""} == said


def test_where_an_environment_runs_changes_nothing() -> None:
    make = partial(RaisingEnv, at=2, seeds=(1, 4))
    runs = [rehearse(make, range(6), actions=("yes", "no"), where=where) for where in ("inline", "thread", "process")]
    assert runs[0] == runs[1] == runs[2]
    assert {"yes", "no"} <= set(runs[0])


def test_some_broken_episodes_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert rehearse(partial(RaisingEnv, at=1, seeds=(3,)), range(5), where="inline")
    assert "1 of 5 episodes of random play broke" in caplog.text
    assert "seed 3: the environment raised ZeroDivisionError" in caplog.text


def test_one_that_always_breaks_is_named() -> None:
    with pytest.raises(
        TurnwiseError, match=r"all 3 first episodes .* seed 0: the environment raised ZeroDivisionError"
    ):
        rehearse(partial(RaisingEnv, at=0), range(3), where="inline")


def test_rewards_do_not_matter_to_words() -> None:
    assert rehearse(partial(NaNRewardEnv, 1), range(3), where="inline")


@pytest.mark.parametrize("where", ["thread", "process"])
def test_one_that_hangs_is_left_behind(where: Any, caplog: pytest.LogCaptureFixture) -> None:
    make = partial(envs.SleepsOnEnv, 2, 3, 4.0)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        heard = rehearse(make, range(5), where=where, deadline=0.6)
    assert heard
    assert "seed 3: the environment missed its deadline of 0.6 s in step" in caplog.text
    assert time.monotonic() - began < (4.0 if where == "thread" else 60.0)


def test_one_that_ends_its_process_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert rehearse(partial(envs.ExitEnv, 2, 1), range(3), where="process")
    assert "seed 1: the environment ended its process (exit code 7) in step" in caplog.text
