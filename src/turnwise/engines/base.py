"""What an engine is: something that samples tokens after a context."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Ids, Stop
from turnwise.errors import TurnwiseError
from turnwise.models.distribution import Sampling


class EngineError(TurnwiseError):
    """The engine cannot serve a request, or the model returned something that is not a distribution."""


@dataclass(frozen=True, slots=True)
class Request:
    """Sample one action.

    Attributes:
        context: (n,) all ids the action follows. An engine may keep a cache, but the answer depends on this alone.
        session: Whose context it is. Requests of one session usually extend each other, which is what a cache exploits.
        key: 64-bit key of the sampling noise. Equal context, weights and key give the equal action, whatever
            else the engine is doing.
        sampling: How to draw, and which texts end the action. An engine that cannot tell them refuses.
        stop: Ids that end the action.
    """

    context: Ids
    session: int
    key: int
    sampling: Sampling
    stop: frozenset[int]


_UNKNOWN: NDArray[np.float32] = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled action.

    Attributes:
        ids: (m,) what was sampled, the stop token included.
        logp: (m,) float32, log-probability of each under the distribution sampled.
        stop: Why it ended.
        version: Of the oldest weights that sampled any of it.
        entropy: (m,) float32, entropy in nats of the distribution that each id was sampled from: 0 where it was certain, NaN
            where the engine does not know it, as it does if nothing is given.
    """

    ids: Ids
    logp: NDArray[np.float32]
    stop: Stop
    version: int
    entropy: NDArray[np.float32] = field(default_factory=lambda: _UNKNOWN)

    def __post_init__(self) -> None:
        if self.entropy is _UNKNOWN:
            object.__setattr__(self, "entropy", np.full(len(self.ids), np.nan, np.float32))


class Engine(Protocol):
    """Samples actions; many requests are in flight at once."""

    async def generate(self, request: Request) -> Completion:
        """Sample the action that follows `request.context`."""
        ...

    def load(self, version: int) -> None:
        """Use the policy's current weights, known as `version`, from now on; forget what older weights cached."""
        ...

    def release(self, session: int) -> None:
        """The session has ended; its cache may go."""
        ...


@runtime_checkable
class Gated(Protocol):
    """An engine that lets others decide when its next pass through the network may begin.

    Attributes:
        gate: Awaited before each pass; None for no such wait.
    """

    gate: Callable[[], Awaitable[None]] | None
