"""Engines: who samples tokens."""

from turnwise.engines.base import Completion, Engine, EngineError, Gated, Request
from turnwise.engines.local import LocalEngine
from turnwise.engines.scripted import ScriptedEngine

__all__ = ["Completion", "Engine", "EngineError", "Gated", "LocalEngine", "Request", "ScriptedEngine"]
