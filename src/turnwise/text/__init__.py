"""Text to token deltas: how observations and actions become the context a model reads."""

from turnwise.text.renderer import Renderer, RendererError

__all__ = ["Renderer", "RendererError"]
