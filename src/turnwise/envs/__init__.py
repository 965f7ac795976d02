"""Worlds: Gymnasium environments whose observations and actions are text.

Names are loaded on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnwise.envs.coroutine import Agent, EnvFactory, MultiAgentEnv, env
    from turnwise.envs.demonstrations import demonstrate
    from turnwise.envs.exact import Tabular, optimal_policy, optimal_return, planner, policy_return
    from turnwise.envs.guess import parse_int
    from turnwise.envs.interrupted import Blackout, Distracted, Interrupted
    from turnwise.envs.one_reply import OneReply
    from turnwise.envs.prompts import PromptEnv
    from turnwise.envs.registry import EnvSpec, ids, load, make, register, spec
    from turnwise.envs.text_env import TextEnv

_HOME = {
    "Agent": "coroutine",
    "EnvFactory": "coroutine",
    "EnvSpec": "registry",
    "Blackout": "interrupted",
    "Distracted": "interrupted",
    "Interrupted": "interrupted",
    "OneReply": "one_reply",
    "MultiAgentEnv": "coroutine",
    "PromptEnv": "prompts",
    "Tabular": "exact",
    "TextEnv": "text_env",
    "demonstrate": "demonstrations",
    "env": "coroutine",
    "ids": "registry",
    "load": "registry",
    "make": "registry",
    "parse_int": "guess",
    "planner": "exact",
    "optimal_policy": "exact",
    "optimal_return": "exact",
    "policy_return": "exact",
    "register": "registry",
    "spec": "registry",
}

__all__ = [
    "Agent",
    "Blackout",
    "Distracted",
    "EnvFactory",
    "EnvSpec",
    "Interrupted",
    "MultiAgentEnv",
    "OneReply",
    "PromptEnv",
    "Tabular",
    "TextEnv",
    "demonstrate",
    "env",
    "ids",
    "load",
    "make",
    "optimal_policy",
    "optimal_return",
    "parse_int",
    "planner",
    "policy_return",
    "register",
    "spec",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'turnwise.envs' has no attribute {name!r}")
    return getattr(import_module(f"turnwise.envs.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
