"""Guess the number: the shortest world in which what was said before matters.

The number lies between 1 and n. A wrong guess costs 0.02 and is answered with "higher" or "lower"; the right one pays
1 and ends the episode. Binary search needs at most floor(log2 n) + 1 turns.
"""

from __future__ import annotations

import random

from turnwise.envs.coroutine import Agent, env
from turnwise.envs.errors import EnvError

COST = 0.02
"""Price of a wrong guess."""


def parse_int(text: str) -> int | None:
    """The number that the text consists of, or None."""
    word = text.strip().strip(".!")
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 9 else None


@env(max_turns=8, actions=lambda n: [str(number) for number in range(1, n + 1)])
async def guess(agent: Agent, rng: random.Random, *, n: int = 64) -> None:
    """Guess a number between 1 and n."""
    if n < 1:
        raise EnvError(f"guess needs a range with at least one number, got n={n}")
    secret, low, high = rng.randint(1, n), 1, n
    agent.goal = f"guess the number between 1 and {n}"
    agent.log(success=0.0)
    hint = f"guess my number between 1 and {n}"
    while True:
        number = parse_int(await agent.act(hint, expert=str((low + high) // 2)))
        if number == secret:
            agent.reward(1.0)
            agent.log(success=1.0)
            return
        agent.reward(-COST)
        if number is None:
            hint = "not a number"
        elif number < secret:
            low, hint = max(low, number + 1), "higher"
        else:
            high, hint = min(high, number - 1), "lower"
