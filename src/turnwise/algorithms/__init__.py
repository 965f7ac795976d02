"""Algorithms: frozen dataclasses that collect episodes and improve a learner with them. Their defaults are vetted."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnwise.algorithms.grpo import GRPO, RLOO
    from turnwise.algorithms.ppo import PPO, TokenPPO
    from turnwise.algorithms.reinforce import Reinforce
    from turnwise.algorithms.sft import SFT

NAMES = {
    "sft": "SFT",
    "reinforce": "Reinforce",
    "ppo": "PPO",
    "ppo-token": "TokenPPO",
    "grpo": "GRPO",
    "rloo": "RLOO",
}
"""Name on the command line -> class."""

_HOME = {"SFT": "sft", "Reinforce": "reinforce", "PPO": "ppo", "TokenPPO": "ppo", "GRPO": "grpo", "RLOO": "grpo"}

__all__ = ["GRPO", "NAMES", "PPO", "RLOO", "SFT", "Reinforce", "TokenPPO"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"turnwise.algorithms.{_HOME[name]}"), name)
