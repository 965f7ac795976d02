"""Fakes and conformance checks, for your own classes as much as for ours.

Names are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnwise.testing.envs import (
        CountEnv,
        EchoEnv,
        HugeTextEnv,
        NaNRewardEnv,
        RaisingEnv,
        SleepyEnv,
        check_env,
    )
    from turnwise.testing.episodes import build_dialogue, build_episode, ragged_episodes
    from turnwise.testing.errors import CheckFailed

_HOME = {
    "CheckFailed": "errors",
    "CountEnv": "envs",
    "EchoEnv": "envs",
    "HugeTextEnv": "envs",
    "NaNRewardEnv": "envs",
    "RaisingEnv": "envs",
    "SleepyEnv": "envs",
    "build_dialogue": "episodes",
    "build_episode": "episodes",
    "check_env": "envs",
    "ragged_episodes": "episodes",
}

__all__ = [
    "CheckFailed",
    "CountEnv",
    "EchoEnv",
    "HugeTextEnv",
    "NaNRewardEnv",
    "RaisingEnv",
    "SleepyEnv",
    "build_dialogue",
    "build_episode",
    "check_env",
    "ragged_episodes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'turnwise.testing' has no attribute {name!r}")
    return getattr(import_module(f"turnwise.testing.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
