"""Reinforcement learning of language models, turn by turn.

The names below are loaded on first use; importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnwise.algorithms import (
        CISPO,
        DAPO,
        DPO,
        GRPO,
        GSPO,
        KTO,
        LUSPO,
        PPO,
        RLOO,
        SAPO,
        SFT,
        VESPO,
        Constitutional,
        DrGRPO,
        ProcessRewardModel,
        Reinforce,
        ReinforcePlusPlus,
        RejectionSampling,
        RewardModel,
        SelfJudge,
        TokenPPO,
    )
    from turnwise.envs import env
    from turnwise.episode import Episode, Transcript, Turn
    from turnwise.errors import TurnwiseError
    from turnwise.recipes.api import train
    from turnwise.recipes.training import Trained, load

__version__ = "0.1.0"

_HOME = {
    "CISPO": "algorithms",
    "DAPO": "algorithms",
    "DPO": "algorithms",
    "GRPO": "algorithms",
    "GSPO": "algorithms",
    "KTO": "algorithms",
    "LUSPO": "algorithms",
    "PPO": "algorithms",
    "RLOO": "algorithms",
    "SAPO": "algorithms",
    "SFT": "algorithms",
    "VESPO": "algorithms",
    "Constitutional": "algorithms",
    "DrGRPO": "algorithms",
    "ProcessRewardModel": "algorithms",
    "Reinforce": "algorithms",
    "ReinforcePlusPlus": "algorithms",
    "RejectionSampling": "algorithms",
    "RewardModel": "algorithms",
    "SelfJudge": "algorithms",
    "TokenPPO": "algorithms",
    "env": "envs",
    "Episode": "episode",
    "Transcript": "episode",
    "Turn": "episode",
    "TurnwiseError": "errors",
    "train": "recipes.api",
    "Trained": "recipes.training",
    "load": "recipes.training",
}

__all__ = [
    "CISPO",
    "DAPO",
    "DPO",
    "GRPO",
    "GSPO",
    "KTO",
    "LUSPO",
    "PPO",
    "RLOO",
    "SAPO",
    "SFT",
    "VESPO",
    "Constitutional",
    "DrGRPO",
    "Episode",
    "ProcessRewardModel",
    "Reinforce",
    "ReinforcePlusPlus",
    "RejectionSampling",
    "RewardModel",
    "SelfJudge",
    "TokenPPO",
    "Trained",
    "Transcript",
    "Turn",
    "TurnwiseError",
    "env",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'turnwise' has no attribute {name!r}")
    return getattr(import_module(f"turnwise.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
