"""Text to token deltas and back: how observations and actions become the context a model reads, and how people read it."""

from turnwise.text.conversation import Conversation
from turnwise.text.reader import Reader
from turnwise.text.renderer import PLAIN, RAW, Renderer, RendererError

__all__ = ["PLAIN", "RAW", "Conversation", "Reader", "Renderer", "RendererError"]
