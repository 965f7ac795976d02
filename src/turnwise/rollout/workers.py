"""Where an environment runs: in the event loop, in a thread, or in a process, each with a deadline where one can be had.

Whatever an environment does wrong becomes an `EnvironmentFailure` that names it; the rollout turns that into data on
the episode and goes on with a new instance.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import math
import multiprocessing
import numbers
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pickle import PicklingError
from typing import Any, Literal, Protocol

import numpy as np

from turnwise.episode import Cut
from turnwise.errors import TurnwiseError

log = logging.getLogger(__name__)

Where = Literal["inline", "thread", "process"]
"""Where environments run."""

# A new interpreter and its imports; the environment's own deadline begins after that.
_START_UP = 120.0


class EnvironmentFailure(Exception):  # noqa: N818 - it is data on an episode, not an error of ours
    """The environment missed its deadline, raised, or returned nonsense."""

    def __init__(self, cut: Cut, reason: str) -> None:
        super().__init__(reason)
        self.cut = cut
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Payment:
    """What one agent got since the last step, and whether its episode has ended.

    Attributes:
        reward: What it was paid.
        terminated: The task has ended.
        truncated: The environment stopped watching.
        metrics: Figures for people.
    """

    reward: float
    terminated: bool
    truncated: bool
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """What the world says after a reset or a step.

    Attributes:
        agent: Who acts next; None when the world has ended.
        obs: What each agent newly sees: the one who acts next, or those whose episodes were truncated.
        payments: By agent.
        goal: The goal in words, if the environment names one.
    """

    agent: str | None
    obs: dict[str, str]
    payments: dict[str, Payment]
    goal: str | None = None


class World(Protocol):
    """A single- or multi-agent environment behind one interface; blocking.

    Attributes:
        name: Name of the environment.
    """

    name: str

    def reset(self, seed: int) -> Event:
        """Begin."""
        ...

    def step(self, action: str) -> Event:
        """Act for the agent whose turn it is."""
        ...

    def close(self) -> None:
        """Give resources back."""
        ...


class SingleAgentWorld:
    """A ``gymnasium.Env[str, str]`` as a world with one agent, named ``agent``."""

    def __init__(self, env: Any) -> None:
        self._env = env
        inner = env.unwrapped
        spec = getattr(env, "spec", None)
        self.name = str(getattr(spec, "id", None) or getattr(inner, "name", None) or type(inner).__name__)

    def reset(self, seed: int) -> Event:
        """Reset the environment."""
        obs, info = self._env.reset(seed=seed)
        return Event("agent", {"agent": _text(obs)}, {}, _goal(info))

    def step(self, action: str) -> Event:
        """Step the environment and check what it returns."""
        obs, reward, terminated, truncated, info = self._env.step(action)
        ended = bool(terminated or truncated)
        # An environment that says both has ended its task: nothing is left to bootstrap from.
        payment = Payment(_finite(reward), bool(terminated), bool(truncated and not terminated), _figures(info))
        return Event(None if ended else "agent", {"agent": _text(obs)}, {"agent": payment}, _goal(info))

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


class MultiAgentWorld:
    """A `turnwise.envs.MultiAgentEnv`: agents act one after another, and rewards reach whoever they belong to."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self.name = str(env.name)

    def reset(self, seed: int) -> Event:
        """Begin; the first agent is asked."""
        agent, obs = self._env.reset(seed)
        return Event(agent, {agent: _text(obs)}, {}, self._goal())

    def step(self, action: str) -> Event:
        """Carry out the asked agent's action."""
        move = self._env.step(action)
        payments = {
            agent: Payment(
                _finite(move.rewards.get(agent, 0.0)), move.terminated, move.truncated, _figures(move.info.get(agent))
            )
            for agent in self._env.agents
        }
        obs = {} if move.agent is None else {move.agent: _text(move.observation)}
        return Event(None if move.terminated or move.truncated else move.agent, obs, payments, self._goal())

    def _goal(self) -> str | None:
        return " | ".join(f"{agent}: {goal}" for agent, goal in self._env.goals.items() if goal) or None

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


def not_text(obs: Any) -> str:
    """What to say of an observation that is not text."""
    return (
        f"an observation of type {type(obs).__name__}, not text; say how the environment is spoken to in a subclass of "
        "turnwise.envs.codec.Codec and wrap it in turnwise.envs.codec.CodecEnv"
    )


def _text(obs: Any) -> str:
    if not isinstance(obs, str):
        raise EnvironmentFailure(Cut.CRASH, f"returned {not_text(obs)}")
    return obs


def _finite(reward: Any) -> float:
    try:
        value = float(reward)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise EnvironmentFailure(Cut.CRASH, f"returned the reward {reward!r}, which is not a finite number")
    return value


def _figures(info: Any) -> dict[str, float]:
    if not isinstance(info, dict):
        return {}
    figures = {str(k): float(v) for k, v in info.items() if isinstance(v, numbers.Real | np.bool_)}
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _goal(info: Any) -> str | None:
    goal = info.get("goal") if isinstance(info, dict) else None
    return goal if isinstance(goal, str) else None


class WorldFactory:
    """Makes the world around an environment; a class, so that it can travel to a worker process.

    Attributes:
        name: What to call a world that was never made.
    """

    def __init__(self, make_env: Callable[[], Any]) -> None:
        self.make_env = make_env
        inner: Any = make_env
        while isinstance(inner, functools.partial):
            inner = inner.func
        self.name = str(getattr(inner, "name", None) or getattr(inner, "__qualname__", None) or type(inner).__name__)

    def __call__(self) -> World:
        """Make the environment and wrap it by its kind."""
        env = self.make_env()
        return MultiAgentWorld(env) if hasattr(env, "agents") else SingleAgentWorld(env)


class Worker(Protocol):
    """Runs one world at a time, asynchronously.

    Attributes:
        name: Name of the world, as far as it is known.
    """

    name: str

    async def call(self, method: str, argument: Any) -> Event:
        """``reset`` with a seed or ``step`` with an action.

        Raises:
            EnvironmentFailure: the world broke; this worker must not be used again.
        """
        ...

    def close(self) -> None:
        """Give the world up, whatever it is doing."""
        ...

    @property
    def alive(self) -> bool:
        """Something of it is still running, although it may have been closed."""
        ...


def new_worker(make_env: Callable[[], Any], where: Where, deadline: float) -> Worker:
    """A worker for one instance of an environment.

    Args:
        make_env: Makes the instance.
        where: Where it runs.
        deadline: Seconds for one reset or step; unknown to ``inline``.
    """
    make_world = WorldFactory(make_env)
    if where == "inline":
        return InlineWorker(make_world)
    return (ThreadWorker if where == "thread" else ProcessWorker)(make_world, deadline)


class InlineWorker:
    """In the event loop: no overhead and no deadline. For environments that are known to answer at once."""

    def __init__(self, make_world: WorldFactory) -> None:
        self._make_world = make_world
        self._world: World | None = None
        self.name = make_world.name

    async def call(self, method: str, argument: Any) -> Event:
        """Call the world right here."""
        if self._world is None:
            self._world = _made(self._make_world)
            self.name = self._world.name
        return _guarded(self._world, method, argument)

    def close(self) -> None:
        """Close the world."""
        _closed(self._world)
        self._world = None

    @property
    def alive(self) -> bool:
        """Never after `close`."""
        return self._world is not None


def _made(make_world: WorldFactory) -> World:
    try:
        return make_world()
    except (Exception, SystemExit) as error:
        raise EnvironmentFailure(Cut.CRASH, f"could not be made: {type(error).__name__}: {error}") from error


def _guarded(world: World, method: str, argument: Any) -> Event:
    try:
        return getattr(world, method)(argument)
    except EnvironmentFailure:
        raise
    except (Exception, SystemExit) as error:
        raise EnvironmentFailure(Cut.CRASH, f"raised {type(error).__name__}: {error}") from error


def _closed(world: World | None) -> None:
    """Close a world; one that cannot even do that has nothing left to break."""
    if world is None:
        return
    try:
        world.close()
    except Exception as error:
        log.warning("environment %s raised %s when it was closed: %s", world.name, type(error).__name__, error)


class ThreadWorker:
    """In a daemon thread of its own, with a deadline; a world that hangs is left behind."""

    def __init__(self, make_world: WorldFactory, deadline: float) -> None:
        self.name = make_world.name
        self._deadline = deadline
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=(make_world,), daemon=True, name="turnwise-env")
        self._thread.start()

    def _serve(self, make_world: WorldFactory) -> None:
        world: World | None = None
        while (call := self._calls.get()) is not None:
            method, argument, loop, future = call
            try:
                if world is None:
                    world = _made(make_world)
                    self.name = world.name
                result: Any = _guarded(world, method, argument)
            except BaseException as error:  # whoever waits decides; nobody would see it here
                result = error
            try:
                loop.call_soon_threadsafe(_deliver, future, result)
            except RuntimeError:  # the loop is gone: nobody waits for this answer any more
                break
        _closed(world)

    async def call(self, method: str, argument: Any) -> Event:
        """Hand the call to the thread and wait until the deadline."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._calls.put((method, argument, loop, future))
        try:
            # Not wait_for, which may swallow a cancellation that comes together with the answer.
            async with asyncio.timeout(self._deadline):
                result = await future
        except TimeoutError:
            # While the model computes, the answer and the alarm may both wait to be noticed.
            if future.cancelled() or not future.done():
                raise EnvironmentFailure(
                    Cut.TIMEOUT, f"missed its deadline of {self._deadline:g} s in {method}"
                ) from None
            result = future.result()
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        """Ask the thread to end after its current call."""
        self._calls.put(None)

    @property
    def alive(self) -> bool:
        """The thread still runs: the world hangs, or is about to end."""
        return self._thread.is_alive()


def _deliver(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


class ProcessWorker:
    """In a process of its own, with a deadline; a world that hangs or kills its process is ended and named.

    Messages are JSON. `make_world` must be importable from a fresh interpreter.

    Raises:
        TurnwiseError: it is not.
    """

    def __init__(self, make_world: WorldFactory, deadline: float) -> None:
        self.name = make_world.name
        self._deadline = deadline
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve_process, args=(make_world, theirs), daemon=True)
        try:
            self._process.start()
        except (PicklingError, AttributeError, TypeError) as error:
            raise TurnwiseError(
                f"environment {self.name} cannot be sent to a process: {error}. Define it at the top level of a module or "
                "file, or run it in threads (where='thread')"
            ) from error
        finally:
            theirs.close()
        # A thread of its own to wait in: a shared pool has fewer threads than there are worlds.
        self._waiter = ThreadPoolExecutor(1, thread_name_prefix="turnwise-env")
        self._made = False
        self._idle = True

    async def call(self, method: str, argument: Any) -> Event:
        """Send the call and wait for the answer in a thread, so that other episodes go on."""
        loop = asyncio.get_running_loop()
        self._idle = False
        if not self._made:
            self.name = (await loop.run_in_executor(self._waiter, self._exchange, "make", None, _START_UP))["name"]
            self._made = True
        answer = await loop.run_in_executor(self._waiter, self._exchange, method, argument, self._deadline)
        self._idle = True
        payments = {agent: Payment(**payment) for agent, payment in answer["payments"].items()}
        return Event(answer["agent"], answer["obs"], payments, answer["goal"])

    def _exchange(self, method: str, argument: Any, deadline: float) -> dict[str, Any]:
        try:
            self._pipe.send_bytes(json.dumps([method, argument]).encode())
            if not self._pipe.poll(deadline):
                self._process.kill()
                raise EnvironmentFailure(Cut.TIMEOUT, f"missed its deadline of {deadline:g} s in {method}")
            answer = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            self._process.join(1.0)
            raise EnvironmentFailure(
                Cut.CRASH, f"ended its process (exit code {self._process.exitcode}) in {method}"
            ) from None
        if "failure" in answer:
            raise EnvironmentFailure(Cut(answer["cut"]), answer["failure"])
        return answer

    def close(self) -> None:
        """End the process: an idle one may close its world first, a busy one is killed."""
        if not self._idle:
            self._process.kill()
            self._waiter.shutdown(wait=True)
        self._pipe.close()
        self._process.join(2.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._waiter.shutdown(wait=True)

    @property
    def alive(self) -> bool:
        """The process runs."""
        return self._process.is_alive()


def _serve_process(make_world: WorldFactory, pipe: Any) -> None:
    # Ctrl-C reaches every process of a terminal; the one that collects decides what becomes of the worlds.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    world: World | None = None
    while True:
        try:
            method, argument = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return _closed(world)
        try:
            if world is None:
                world = _made(make_world)
            if method == "make":
                answer: dict[str, Any] = {"name": world.name}
            else:
                event = _guarded(world, method, argument)
                payments = {
                    agent: {
                        "reward": payment.reward,
                        "terminated": payment.terminated,
                        "truncated": payment.truncated,
                        "metrics": payment.metrics,
                    }
                    for agent, payment in event.payments.items()
                }
                answer = {"agent": event.agent, "obs": event.obs, "payments": payments, "goal": event.goal}
        except EnvironmentFailure as failure:
            answer = {"cut": failure.cut, "failure": failure.reason}
        pipe.send_bytes(json.dumps(answer).encode())
