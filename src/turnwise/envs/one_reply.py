"""One reply in the middle of an episode, judged by what comes of it at once.

It is the world that one-step preference tuning sees: a situation, a reply, a rating, the end. The situation is reached by
random legal moves, so that it does not depend on the policy that is asked.
"""

from __future__ import annotations

import random
from typing import Any

import gymnasium

from turnwise.envs.errors import EnvError


class OneReply(gymnasium.Wrapper[str, str, str, str]):
    """A one-turn environment: the reply is paid its immediate outcome and the episode ends.

    Args:
        env: An environment with ``rate_reply(text) -> float``, ``legal_actions()``, ``save()`` and ``restore()``.
        moves: The situation is up to this many random legal moves into an episode.

    Raises:
        EnvError: the environment lacks a method that is needed; the message names it.
    """

    def __init__(self, env: Any, *, moves: int = 10) -> None:
        super().__init__(env)
        self.moves = moves
        for method in ("rate_reply", "legal_actions", "save", "restore"):
            if not env.has_wrapper_attr(method):
                raise EnvError(f"OneReply needs an environment with a method {method}(); {env} has none")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        rng = random.Random(f"situation {seed}")
        of = self.env.get_wrapper_attr
        for _ in range(rng.randint(0, self.moves)):
            before = of("save")()
            after, _, terminated, truncated, _ = self.env.step(rng.choice(of("legal_actions")()))
            if terminated or truncated:
                # The situation has to be one in which somebody can still reply.
                of("restore")(before)
                break
            observation = after
        return observation, info

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        rating = float(self.env.get_wrapper_attr("rate_reply")(action))
        return "", rating, True, False, {}
