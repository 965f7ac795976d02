"""Fakes and conformance checks, for your own classes as much as for ours.

Names are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnwise.testing.envs import (
        CheckFailed,
        CountEnv,
        EchoEnv,
        HugeTextEnv,
        NaNRewardEnv,
        RaisingEnv,
        SleepyEnv,
        check_env,
    )

_HOME = {
    "CheckFailed": "envs",
    "CountEnv": "envs",
    "EchoEnv": "envs",
    "HugeTextEnv": "envs",
    "NaNRewardEnv": "envs",
    "RaisingEnv": "envs",
    "SleepyEnv": "envs",
    "check_env": "envs",
}

__all__ = [
    "CheckFailed",
    "CountEnv",
    "EchoEnv",
    "HugeTextEnv",
    "NaNRewardEnv",
    "RaisingEnv",
    "SleepyEnv",
    "check_env",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'turnwise.testing' has no attribute {name!r}")
    return getattr(import_module(f"turnwise.testing.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
