"""A conformance check for environments, and environments that misbehave on purpose.

check_env(lambda: MyWorld())          returns quietly, or says what broke and what to do about it
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from turnwise.envs.errors import NotOffered
from turnwise.envs.text_env import Outcome, TextEnv
from turnwise.testing.errors import CheckFailed

NONSENSE = ("", "   ", "\n\n", "xyzzy plugh", "\x00\ud7ff\U0001f600", "-1", "9" * 5_000, "no " * 20_000)
"""Replies that no environment may fall over."""


def check_env(make_env: Callable[[], Any], seeds: Sequence[int] = (0, 1, 2), *, max_steps: int = 10_000) -> None:
    """Check that an environment keeps the contract of ``gymnasium.Env[str, str]`` on text.

    1. `reset` and `step` return 2 and 5 values; observations are text, ``info`` is a dict.
    2. Rewards are finite numbers; ``terminated`` and ``truncated`` are bools and not both true.
    3. The same seed and the same actions give the same episode, in one environment and in two.
    4. A reply of any content is answered, not raised at.
    5. Every episode ends within `max_steps`.
    6. After the end, `reset` begins anew.
    7. Where there are ``legal_actions``, ``optimal_action``, ``save`` and ``restore``: actions are text, the legal
       ones are there at every turn, and an episode goes on from a snapshot as it did before.

    The actions are drawn from ``legal_actions()`` or the examples of the action space, with nonsense in between.

    Args:
        make_env: Makes an environment; called several times.
        seeds: Tasks to try.
        max_steps: An episode that is longer counts as endless.

    Raises:
        CheckFailed: the first promise that is broken.
    """
    first, second = make_env(), make_env()
    for env in (first, second):
        for method in ("reset", "step", "close"):
            if not callable(getattr(env, method, None)):
                raise CheckFailed(f"{_name(env)} has no method {method}(); derive it from gymnasium.Env")
    try:
        for seed in seeds:
            trace = _episode(first, seed, max_steps)
            _same(first, seed, trace, _replay(first, seed, trace), "played again in the same environment")
            _same(first, seed, trace, _replay(second, seed, trace), "played again in a second environment")
            _nonsense(first, seed, max_steps)
            _fork(first, seed, trace)
            _reset(first, seed)
    finally:
        first.close()
        second.close()


_Trace = tuple[list[str], list[tuple[str, float, bool, bool]]]
"""Actions, and what each led to, with the first observation in front."""


def _name(env: Any) -> str:
    return str(getattr(getattr(env, "unwrapped", env), "name", type(env).__name__))


def _fail(env: Any, seed: int, turn: int, what: str, remedy: str) -> CheckFailed:
    return CheckFailed(f"environment {_name(env)!r}, seed {seed}, turn {turn}: {what}; {remedy}")


def _reset(env: Any, seed: int) -> str:
    try:
        result = env.reset(seed=seed)
    except Exception as error:
        raise _fail(
            env, seed, 0, f"reset raised {error!r}", "reset(seed=...) must begin a new episode at any time"
        ) from error
    if not isinstance(result, tuple) or len(result) != 2:
        raise _fail(env, seed, 0, f"reset returned {result!r:.80}", "return (observation, info)")
    observation, info = result
    if not isinstance(observation, str):
        kind = type(observation).__name__
        raise _fail(env, seed, 0, f"the first observation is {kind}", "return text; a Codec puts numbers into words")
    if not isinstance(info, dict):
        raise _fail(env, seed, 0, f"info is {type(info).__name__}", "return a dict, {} if there is nothing to tell")
    return observation


def _step(env: Any, seed: int, turn: int, action: str) -> tuple[str, float, bool, bool]:
    try:
        result = env.step(action)
    except Exception as error:
        raise _fail(
            env,
            seed,
            turn,
            f"step({action!r:.60}) raised {error!r}",
            "answer any text; give a bad one a penalty and a note",
        ) from error
    if not isinstance(result, tuple) or len(result) != 5:
        raise _fail(
            env,
            seed,
            turn,
            f"step returned {result!r:.80}",
            "return (observation, reward, terminated, truncated, info)",
        )
    observation, reward, terminated, truncated, info = result
    if not isinstance(observation, str):
        raise _fail(env, seed, turn, f"the observation is {type(observation).__name__}", "return text")
    try:
        number = float(reward)
    except (TypeError, ValueError) as error:
        raise _fail(env, seed, turn, f"the reward is {reward!r}", "return a number") from error
    if isinstance(reward, str) or not math.isfinite(number):
        raise _fail(
            env, seed, turn, f"the reward is {reward!r}", "return a finite number; look for 0/0 or a missing value"
        )
    for word, flag in (("terminated", terminated), ("truncated", truncated)):
        if type(flag).__name__ not in ("bool", "bool_"):
            raise _fail(env, seed, turn, f"{word} is {flag!r}", "return True or False")
    if terminated and truncated:
        raise _fail(
            env,
            seed,
            turn,
            "terminated and truncated are both true",
            "an ended task has no value to bootstrap: set truncated only if the task could have gone on",
        )
    if not isinstance(info, dict):
        raise _fail(env, seed, turn, f"info is {type(info).__name__}", "return a dict, {} if there is nothing to tell")
    return observation, number, bool(terminated), bool(truncated)


def _ability(env: Any, method: str) -> Callable[..., Any] | None:
    return env.get_wrapper_attr(method) if hasattr(env, "has_wrapper_attr") and env.has_wrapper_attr(method) else None


def _legal(env: Any, seed: int, turn: int) -> tuple[str, ...]:
    listed = _ability(env, "legal_actions")
    if listed is not None:
        try:
            actions = tuple(listed())
        except NotOffered:
            actions = ()
        else:
            if not actions or not all(isinstance(action, str) for action in actions):
                raise _fail(env, seed, turn, f"legal_actions() returned {actions!r:.80}", "return at least one string")
    else:
        actions = ()
    return actions or tuple(getattr(getattr(env, "action_space", None), "examples", ())) or NONSENSE[:4]


def _expert(env: Any, seed: int, turn: int) -> None:
    advice = _ability(env, "optimal_action")
    if advice is None:
        return
    try:
        action = advice()
    except NotOffered:
        return
    if not isinstance(action, str):
        raise _fail(env, seed, turn, f"optimal_action() returned {action!r:.80}", "return the text of an action")


def _episode(env: Any, seed: int, max_steps: int) -> _Trace:
    rng = random.Random(seed)
    outcomes = [(_reset(env, seed), 0.0, False, False)]
    actions: list[str] = []
    while not (outcomes[-1][2] or outcomes[-1][3]):
        if len(actions) >= max_steps:
            raise _fail(env, seed, len(actions), "the episode does not end", "truncate it after a number of turns")
        legal = _legal(env, seed, len(actions))
        _expert(env, seed, len(actions))
        actions.append(rng.choice(legal if rng.random() < 0.9 else NONSENSE[:4]))
        outcomes.append(_step(env, seed, len(actions), actions[-1]))
    return actions, outcomes


def _replay(env: Any, seed: int, trace: _Trace) -> _Trace:
    outcomes = [(_reset(env, seed), 0.0, False, False)]
    for turn, action in enumerate(trace[0], start=1):
        outcomes.append(_step(env, seed, turn, action))
        if outcomes[-1][2] or outcomes[-1][3]:
            break
    return trace[0], outcomes


def _same(env: Any, seed: int, one: _Trace, other: _Trace, how: str) -> None:
    for turn in range(max(len(one[1]), len(other[1]))):
        before = one[1][turn] if turn < len(one[1]) else "nothing, the episode was over"
        after = other[1][turn] if turn < len(other[1]) else "nothing, the episode was over"
        if before != after:
            raise _fail(
                env,
                seed,
                turn,
                f"the episode differs when {how}: {before!r:.120} and then {after!r:.120}",
                "draw every random choice from a generator that reset(seed=...) seeds",
            )


def _nonsense(env: Any, seed: int, max_steps: int) -> None:
    _reset(env, seed)
    for turn in range(1, max_steps + 1):
        _, _, terminated, truncated = _step(env, seed, turn, NONSENSE[(turn - 1) % len(NONSENSE)])
        if terminated or truncated:
            if turn >= len(NONSENSE):
                return
            # An episode that ends at the first reply still has to bear each of them.
            _reset(env, seed)
        if turn >= 2 * len(NONSENSE):
            return


def _fork(env: Any, seed: int, trace: _Trace) -> None:
    save, restore = _ability(env, "save"), _ability(env, "restore")
    if save is None or restore is None or len(trace[0]) < 2:
        return
    half = len(trace[0]) // 2
    _reset(env, seed)
    for turn, action in enumerate(trace[0][:half], start=1):
        _step(env, seed, turn, action)
    state = save()
    for _ in range(2):
        for turn, action in enumerate(trace[0][half:], start=half + 1):
            if _step(env, seed, turn, action) != trace[1][turn]:
                raise _fail(
                    env,
                    seed,
                    turn,
                    "the episode goes on differently after restore()",
                    "save() must hold the whole state",
                )
        restore(state)


class EchoEnv(TextEnv):
    """Says back what it is told and pays 1 for ``target``, else 0; truncated after `max_turns`."""

    def __init__(self, max_turns: int = 3, target: str = "yes") -> None:
        super().__init__("echo", max_turns, (target, "no"))
        self.target = target

    def begin(self, seed: int) -> str:
        return f"say something {seed}"

    def act(self, text: str) -> Outcome:
        return Outcome(text[:200], float(text == self.target))

    def legal_actions(self) -> tuple[str, ...]:
        return (self.target, "no")

    def optimal_action(self) -> str:
        return self.target


class CountEnv(TextEnv):
    """Asks for the next number: "1" pays 1, then "2" … ; ends after `goal` right answers, truncated after `max_turns`."""

    def __init__(self, goal: int = 3, max_turns: int = 5) -> None:
        super().__init__("count", max_turns, tuple(str(n) for n in range(1, goal + 1)))
        self.last = goal
        self.count = 0

    def begin(self, seed: int) -> str:
        self.count = 0
        return "0"

    def act(self, text: str) -> Outcome:
        right = text.strip() == str(self.count + 1)
        self.count += right
        return Outcome(str(self.count), float(right), self.count == self.last)

    def metrics(self) -> dict[str, float]:
        return {"success": float(self.count == self.last)}

    def legal_actions(self) -> tuple[str, ...]:
        return tuple(str(n) for n in range(1, self.last + 1))

    def optimal_action(self) -> str:
        return str(self.count + 1)


class SleepyEnv(EchoEnv):
    """An echo that takes its time: `seconds` at action number `at` (0: at reset; None: every time)."""

    def __init__(self, seconds: float = 0.05, at: int | None = None, max_turns: int = 3) -> None:
        super().__init__(max_turns)
        self.seconds = seconds
        self.at = at

    def _sleep(self, turn: int) -> None:
        if self.at is None or self.at == turn:
            time.sleep(self.seconds)

    def begin(self, seed: int) -> str:
        self._sleep(0)
        return super().begin(seed)

    def act(self, text: str) -> Outcome:
        self._sleep(self.turn)
        return super().act(text)


class RaisingEnv(EchoEnv):
    """An echo that raises at action number `at` (0: at reset), on every seed or only on those in `seeds`."""

    def __init__(self, at: int = 1, seeds: Sequence[int] | None = None, max_turns: int = 3) -> None:
        super().__init__(max_turns)
        self.at = at
        self.seeds = seeds

    def _maybe_raise(self, turn: int) -> None:
        if turn == self.at and (self.seeds is None or self.seed in self.seeds):
            raise ZeroDivisionError(f"RaisingEnv raises at turn {turn} on purpose")

    def begin(self, seed: int) -> str:
        self._maybe_raise(0)
        return super().begin(seed)

    def act(self, text: str) -> Outcome:
        self._maybe_raise(self.turn)
        return super().act(text)


class NaNRewardEnv(EchoEnv):
    """An echo that pays NaN (or what is given) for action number `at`."""

    def __init__(self, at: int = 1, reward: float = math.nan, max_turns: int = 3) -> None:
        super().__init__(max_turns)
        self.at = at
        self.amount = reward

    def act(self, text: str) -> Outcome:
        return Outcome(text[:200], self.amount if self.turn == self.at else 0.0)


class HugeTextEnv(EchoEnv):
    """An echo whose observations are `size` characters long, from action number `at` on (0: from reset on)."""

    def __init__(self, size: int = 1_000_000, at: int = 0, max_turns: int = 3) -> None:
        super().__init__(max_turns)
        self.size = size
        self.at = at

    def _text(self) -> str:
        return ("word " * (self.size // 5 + 1))[: self.size]

    def begin(self, seed: int) -> str:
        return self._text() if self.at <= 0 else super().begin(seed)

    def act(self, text: str) -> Outcome:
        return Outcome(self._text(), 0.0) if self.turn >= self.at else super().act(text)


__all__ = [
    "CheckFailed",
    "CountEnv",
    "EchoEnv",
    "HugeTextEnv",
    "NaNRewardEnv",
    "RaisingEnv",
    "SleepyEnv",
    "check_env",
]
