"""Engines: who samples tokens."""

from turnwise.engines.base import Completion, Engine, EngineError, Gated, Request
from turnwise.engines.chat import Chat, LocalChat, Message
from turnwise.engines.endpoint import Endpoint, EndpointError
from turnwise.engines.local import LocalEngine
from turnwise.engines.scripted import ScriptedEngine

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
