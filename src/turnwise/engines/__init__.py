"""Engines: who samples tokens.

Names are loaded on first use: whoever needs a number of the noise needs no language model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnwise.engines.base import Completion, Engine, EngineError, Gated, Request
    from turnwise.engines.chat import Chat, LocalChat, Message
    from turnwise.engines.endpoint import Endpoint, EndpointError
    from turnwise.engines.local import LocalEngine
    from turnwise.engines.scripted import ScriptedEngine

_HOME = {
    "Chat": "chat",
    "Completion": "base",
    "Endpoint": "endpoint",
    "EndpointError": "endpoint",
    "Engine": "base",
    "EngineError": "base",
    "Gated": "base",
    "LocalChat": "chat",
    "LocalEngine": "local",
    "Message": "chat",
    "Request": "base",
    "ScriptedEngine": "scripted",
}

__all__ = [
    "Chat",
    "Completion",
    "Endpoint",
    "EndpointError",
    "Engine",
    "EngineError",
    "Gated",
    "LocalChat",
    "LocalEngine",
    "Message",
    "Request",
    "ScriptedEngine",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
