"""Environments that misbehave or wander, importable without a language model, so that worker processes start fast."""

from __future__ import annotations

import os
import random
import time
from typing import Any

from turnwise.envs import env
from turnwise.envs.text_env import Outcome, TextEnv


class ExitEnv(TextEnv):
    """Ends its process at action number `at` on one seed."""

    def __init__(self, at: int, seed: int) -> None:
        super().__init__("exit", 3)
        self.at, self.fatal = at, seed

    def begin(self, seed: int) -> str:
        if self.at == 0 and seed == self.fatal:
            os._exit(7)
        return f"say {seed}"

    def act(self, text: str) -> Outcome:
        if self.turn == self.at and self.seed == self.fatal:
            os._exit(7)
        return Outcome("it is your turn", 0.5)


class SysExitEnv(ExitEnv):
    """Raises SystemExit, as a script that gives up does."""

    def act(self, text: str) -> Outcome:
        if self.turn == self.at and self.seed == self.fatal:
            raise SystemExit(2)
        return Outcome("it is your turn", 0.5)


class InterruptEnv(ExitEnv):
    """Is where Ctrl-C happens to strike, once."""

    struck = False

    def act(self, text: str) -> Outcome:
        if self.turn == self.at and self.seed == self.fatal and not InterruptEnv.struck:
            InterruptEnv.struck = True
            raise KeyboardInterrupt
        return Outcome("it is your turn", 0.5)


class WalkEnv(TextEnv):
    """Lasts a random number of turns, says something that depends on all that was said, and sometimes raises."""

    def __init__(self, longest: int = 6, fails: float = 0.0) -> None:
        super().__init__("walk", longest)
        self.fails = fails

    def begin(self, seed: int) -> str:
        self.rng = random.Random(seed)
        self.ends = self.rng.randint(1, self.max_turns + 1)
        self.total = seed
        return f"say something {seed}"

    def act(self, text: str) -> Outcome:
        self.total = (31 * self.total + sum(map(ord, text))) % 1000
        if self.rng.random() < self.fails:
            raise RuntimeError("the walk slipped")
        return Outcome(f"you turn left {self.total}", self.total / 1000, self.turn >= self.ends)


class RestlessEnv(WalkEnv):
    """Takes a while that nobody can predict; hangs or raises on some seeds.

    Args:
        longest: Turns at most.
        hangs: A seed that sleeps for 0.9 s at its second action; -1 for none.
        raises: A seed that raises at its first action; -1 for none.
    """

    def __init__(self, longest: int = 6, hangs: int = -1, raises: int = -1) -> None:
        super().__init__(longest)
        self.hangs, self.raises = hangs, raises

    def begin(self, seed: int) -> str:
        nap()
        return super().begin(seed)

    def act(self, text: str) -> Outcome:
        nap()
        if self.seed == self.hangs and self.turn == 2:
            time.sleep(0.9)
        if self.seed == self.raises:
            raise RuntimeError("the walk slipped")
        return super().act(text)


def nap() -> None:
    """Sleep for up to 6 ms, differently every time."""
    time.sleep(random.SystemRandom().choice([0.0, 0.001, 0.003, 0.006]))


@env(max_turns=20)
async def restless_duel(alice: Any, bob: Any, rng: random.Random) -> None:
    """Two take turns at unpredictable moments, so often as the seed says."""
    for _ in range(rng.randint(1, 3)):
        for agent in (alice, bob):
            nap()
            await agent.act("it is your turn")
            agent.reward(rng.random())


@env(max_turns=20)
async def duel(alice: Any, bob: Any, rng: random.Random, *, rounds: int = 2) -> None:
    """Each says a word in turn; the one with more letters is paid by the round, also for the other's answer."""
    alice.goal, bob.goal = "talk", "listen"
    for _ in range(rounds):
        a = await alice.act("alice it is your turn")
        alice.reward(1.0)
        b = await bob.act(f"alice say {len(a)}")
        bob.reward(10.0)
        alice.reward(100.0)
        alice.log(last=float(len(b)))


class SleepsOnEnv(TextEnv):
    """Sleeps at action number `at` on one seed."""

    def __init__(self, at: int, seed: int, seconds: float) -> None:
        super().__init__("sleeps", 3)
        self.at, self.tired, self.seconds = at, seed, seconds

    def begin(self, seed: int) -> str:
        return f"say {seed}"

    def act(self, text: str) -> Outcome:
        if self.turn == self.at and self.seed == self.tired:
            time.sleep(self.seconds)
        return Outcome("it is your turn", 0.5)
