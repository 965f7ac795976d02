"""The conformance check passes what is right and names what is wrong."""

from __future__ import annotations

import random

import pytest

from turnwise.envs import demonstrate
from turnwise.envs.text_env import Outcome, TextEnv
from turnwise.testing import (
    CheckFailed,
    CountEnv,
    EchoEnv,
    HugeTextEnv,
    NaNRewardEnv,
    RaisingEnv,
    SleepyEnv,
    check_env,
)


@pytest.mark.parametrize("env", [EchoEnv, CountEnv, HugeTextEnv, lambda: SleepyEnv(0.0001)])
def test_good_environments_pass(env) -> None:
    check_env(env)


def test_count_env_pays_for_counting() -> None:
    shown = demonstrate(CountEnv, [0])[0]
    assert (shown.actions, shown.rewards, shown.metrics) == (("1", "2", "3"), (1.0, 1.0, 1.0), {"success": 1.0})


class Broken(EchoEnv):
    def __init__(self, how: str) -> None:
        super().__init__(max_turns=4)
        self.how = how

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        if self.how == "one value":
            return result[0]
        if self.how == "number":
            return 3, {}
        return result

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return {
            "random": (f"{random.random()}", reward, terminated, truncated, info),
            "both": (observation, reward, True, True, info),
            "four": (observation, reward, terminated, info),
            "text reward": (observation, "1.0", terminated, truncated, info),
            "no reward": (observation, None, terminated, truncated, info),
            "flag": (observation, reward, 0, truncated, info),
            "info": (observation, reward, terminated, truncated, None),
            "bytes": (b"", reward, terminated, truncated, info),
        }.get(self.how, (observation, reward, terminated, truncated, info))

    def legal_actions(self):
        return [1] if self.how == "legal" else super().legal_actions()

    def optimal_action(self):
        return 1 if self.how == "expert" else super().optimal_action()

    def restore(self, state):
        if self.how != "restore":
            super().restore(state)


class Endless(TextEnv):
    def begin(self, seed: int) -> str:
        return "go on"

    def act(self, text: str) -> Outcome:
        return Outcome("go on", 0.0)


class Careless(EchoEnv):
    def act(self, text: str) -> Outcome:
        # Python refuses to read a number of more than 4,300 digits.
        return Outcome("", float(text.isdecimal() and int(text) == 3))


class Fussy(EchoEnv):
    def act(self, text: str) -> Outcome:
        return Outcome(str(int(text)) if text not in ("yes", "no") else text, 0.0)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("one value", "return \\(observation, info\\)"),
        ("number", "first observation is int"),
        ("random", "differs when played again"),
        ("both", "both true"),
        ("four", "step returned"),
        ("text reward", "the reward is '1.0'"),
        ("no reward", "the reward is None"),
        ("flag", "terminated is 0"),
        ("info", "info is NoneType"),
        ("bytes", "the observation is bytes"),
        ("legal", "legal_actions"),
        ("expert", "optimal_action"),
        ("restore", "restore|raised"),
    ],
)
def test_each_broken_promise_is_named(how: str, message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        check_env(lambda: Broken(how))


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: RaisingEnv(at=0), "reset raised"),
        (lambda: RaisingEnv(at=2), "turn 2: step.*ZeroDivisionError"),
        (lambda: RaisingEnv(at=1, seeds=[2]), "seed 2"),
        (NaNRewardEnv, "the reward is nan"),
        (lambda: NaNRewardEnv(reward=float("inf")), "the reward is inf"),
        (lambda: Endless("endless", 10**6), "does not end"),
        (Careless, "answer any text"),
        (Fussy, "answer any text"),
        (dict, "no method reset"),
    ],
)
def test_misbehaviour_is_named(env, message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        check_env(env, max_steps=200)
