"""Somebody who answers messages: a model in this process, or one behind an address.

Judges, critics and revisers ask for text and nothing else; token ids and log-probabilities stay with engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

import numpy as np

from turnwise.engines.base import Completion, EngineError, Request
from turnwise.engines.local import LocalEngine
from turnwise.engines.noise import mix
from turnwise.models import Policy, Sampling
from turnwise.text import Conversation

Message = Mapping[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``."""


class Chat(Protocol):
    """Answers messages."""

    def complete_all(self, conversations: Sequence[Sequence[Message]]) -> list[str | EngineError]:
        """The answer to each conversation, in order; in place of one that failed, why."""
        ...


class LocalChat:
    """A policy in this process as somebody to talk to.

    Args:
        policy: A causal language model. It is read as it is now, at every call.
        max_tokens: Longest answer; a conversation that leaves less room in the context gets a shorter one.
        temperature: 0 always takes the most likely token.
        seed: Seed of the noise where the temperature is above 0; the n-th conversation of a call has noise of its own.
        slots: Conversations whose cache is kept at once.

    Raises:
        ValueError: no room for an answer, or a negative temperature.
    """

    def __init__(
        self, policy: Policy, *, max_tokens: int = 256, temperature: float = 0.0, seed: int = 0, slots: int = 16
    ) -> None:
        self.policy = policy
        self.sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
        self.seed = seed
        self.slots = slots

    def complete_all(self, conversations: Sequence[Sequence[Message]]) -> list[str | EngineError]:
        """The answer to each conversation, in order; in place of one that does not fit into the context, why."""
        if not conversations:
            return []
        renderer = self.policy.renderer
        contexts = [renderer.first(Conversation([dict(m) for m in messages])) for messages in conversations]
        limit = self.policy.context_limit
        requests = [
            Request(
                np.asarray(context, np.int32),
                i,
                mix(self.seed, i),
                # Without any room the engine says so.
                replace(self.sampling, max_tokens=max(1, min(self.sampling.max_tokens, limit - len(context)))),
                renderer.stop,
            )
            for i, context in enumerate(contexts)
        ]

        async def everything() -> list[Completion | EngineError]:
            # A new engine has no cache of older weights.
            engine = LocalEngine(self.policy, slots=self.slots)

            async def one(request: Request) -> Completion | EngineError:
                try:
                    completion = await engine.generate(request)
                except EngineError as error:
                    return error
                engine.release(request.session)
                return completion

            return list(await asyncio.gather(*(one(request) for request in requests)))

        # In a thread of its own: a notebook's event loop may be running in this one.
        with ThreadPoolExecutor(1) as thread:
            given = thread.submit(asyncio.run, everything()).result()
        return [one if isinstance(one, EngineError) else renderer.action_text(one.ids) for one in given]
