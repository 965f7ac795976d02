"""An engine that samples nothing: a function decides. For tests, baselines and people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from turnwise.engines.base import Completion, Request
from turnwise.episode import Stop
from turnwise.text import Renderer


class ScriptedEngine:
    """Answers every request with the text that `script` returns for the request's context in words.

    Args:
        script: context text -> action text.
        renderer: Turns both into ids.
    """

    def __init__(self, script: Callable[[str], str], renderer: Renderer) -> None:
        self._script = script
        self._renderer = renderer
        self._version = 0

    async def generate(self, request: Request) -> Completion:
        """The script's action, up to a stop string or the token budget; it was certain: log-probability and entropy are 0."""
        ids = self._renderer.action_ids(self._script(self._renderer.text(request.context)))
        stop = Stop.STOP
        for n in range(1, len(ids) if request.sampling.stop else 0):
            text = self._renderer.tokenizer.decode(ids[:n].tolist(), skip_special_tokens=True)
            if any(string in text for string in request.sampling.stop):
                ids, stop = ids[:n], Stop.STRING
                break
        if len(ids) > request.sampling.max_tokens:
            ids, stop = ids[: request.sampling.max_tokens], Stop.LENGTH
        certain = np.zeros(len(ids), np.float32)
        return Completion(ids, certain, stop, self._version, certain)

    def load(self, version: int) -> None:
        """Remember the version; a script has no weights."""
        self._version = version

    def release(self, session: int) -> None:
        """Nothing is kept."""
