"""The agent-environment loop: many episodes in flight, each replaced the moment it ends.

Every slot plays one episode at a time: reset, then observe, sample, step, until the world ends or we stop watching. The
slots share one engine, which batches whatever they ask for. One turn or a hundred, one agent or
several, a game or a prompt with a judge behind it: the loop is this one.

What this file leaves out: rewards other than the environment's own, and anything about learning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Literal, Protocol

from turnwise.engines import Engine, Gated, LocalEngine, Request
from turnwise.engines.noise import mix
from turnwise.episode import Cut, Episode, Stop
from turnwise.errors import TurnwiseError
from turnwise.models import Policy, Sampling
from turnwise.rollout.loop import run_to_end
from turnwise.rollout.rounds import Rounds
from turnwise.rollout.spent import Clock
from turnwise.rollout.task import Task, training_tasks
from turnwise.rollout.view import EMPTY, Memory, Overflow, View
from turnwise.rollout.workers import (
    EnvironmentFailure,
    Event,
    Where,
    Worker,
    new_worker,
)


class Versioned(Protocol):
    """Whoever counts versions of the weights: a learner.

    Attributes:
        version: Updates so far.
    """

    version: int


class Collector:
    """Rolls out a policy in an environment.

    Args:
        make_env: Makes one instance: a ``gymnasium.Env[str, str]`` or a multi-agent one. Called once per slot, and
            again after a failure. With ``where="process"`` it must be importable from a fresh interpreter.
        policy: Who acts; its `sampling` is the distribution actions are drawn from.
        engine: What samples; a `LocalEngine` over the policy by default.
        slots: Episodes in flight.
        memory: What of the past stays in the context. Its limit is capped by the model's.
        on_length: An action that uses up its budget ends the episode (``truncate``), or is taken as it is (``act``), which
            suits worlds of short commands.
        max_turns: Stop watching after so many turns of one agent, besides the environment's own limit.
        where: Run environments in the event loop, in threads, or in processes.
        deadline: Seconds an environment may take for one reset or step; unknown to ``inline``.
        seed: Run seed, from which all tasks and noise are derived.
        deterministic: Before each pass of the model, wait until every environment has answered, so that log-probabilities
            are the same bit for bit, however long environments take. False lets episodes go on while a slow environment
            answers; results are then equal up to rounding. An engine that is not `turnwise.engines.Gated` never waits.
    """

    def __init__(
        self,
        make_env: Callable[[], Any],
        policy: Policy,
        *,
        engine: Engine | None = None,
        slots: int = 64,
        memory: Memory | None = None,
        on_length: Literal["truncate", "act"] = "truncate",
        max_turns: int | None = None,
        where: Where = "thread",
        deadline: float = 60.0,
        seed: int = 0,
        deterministic: bool = True,
    ) -> None:
        self.make_env = make_env
        self.policy = policy
        self.engine = engine or LocalEngine(policy, slots=slots)
        self.slots = slots
        memory = memory or Memory()
        self.memory = Memory(memory.turns, min(memory.limit, policy.context_limit), memory.compact)
        self.on_length = on_length
        self.max_turns = max_turns
        self.where: Where = where
        self.deadline = deadline
        self.seed = seed
        self._workers: list[Worker] = []
        self._hanging: list[Worker] = []
        self.deterministic = deterministic
        self._rounds = Rounds(0)
        self._next_session = 0
        self._clock = Clock(self.engine, inline=where == "inline")

    # ---- what algorithms call ----------------------------------------------------------------------------------------

    def rollouts(self, iteration: int, groups: int, group_size: int = 1, first: int = 0) -> list[Episode]:
        """`groups` new start states, `group_size` episodes of each, the same for every call with this iteration.

        Start states are numbered within an iteration; `first` is the number of the first, for a method that draws more.
        """
        return self.collect(training_tasks(self.seed, iteration, groups, group_size, first=first))

    def refresh(self, learner: Versioned) -> None:
        """Sample with the learner's current weights from now on."""
        self.engine.load(learner.version)

    def collect(
        self,
        tasks: Sequence[Task],
        *,
        sampling: Sampling | None = None,
        on_episode: Callable[[int], None] | None = None,
    ) -> list[Episode]:
        """Roll out every task; episodes come in the order of the tasks, whatever the order they finish in.

        Args:
            tasks: What to roll out.
            sampling: Another distribution than the policy's own (greedy evaluation, say).
            on_episode: Called with the number of finished tasks, for progress.

        Returns:
            One episode per task and agent. An environment that hangs, raises or returns nonsense yields a truncated
            episode with `failed` set and `detail` naming environment, seed and turn.

        Raises:
            EngineError: the engine cannot sample; nothing is kept of this call.
            TurnwiseError: more environments hang in threads than may be left behind.
        """
        with self._clock.collecting():
            return run_to_end(self._collect(list(tasks), sampling or self.policy.sampling, on_episode))

    def spent(self) -> Mapping[str, float]:
        """Seconds and tokens since this was last asked, by the names of ``docs/metrics.md``."""
        return self._clock.spent()

    def close(self) -> None:
        """Close all environments."""
        while self._workers:
            self._workers.pop().close()

    # ---- the loop ----------------------------------------------------------------------------------------------------

    async def _collect(
        self, tasks: list[Task], sampling: Sampling, on_episode: Callable[[int], None] | None
    ) -> list[Episode]:
        results: list[list[Episode]] = [[] for _ in tasks]
        first = self._next_session
        n_slots = min(self.slots, len(tasks))
        rounds = self._rounds = Rounds(n_slots)
        pending = iter(range(len(tasks)))
        finished = 0
        clock = self._clock

        async def slot() -> None:
            nonlocal finished
            clock.resume()
            worker: Worker | None = None
            try:
                for index in pending:
                    worker = worker or (self._workers.pop() if self._workers else self._new_worker())
                    # Numbered by task and agent, not in the order of asking, which environments decide.
                    sessions = count(first + index, len(tasks))
                    results[index], healthy = await self._play(tasks[index], worker, sampling, sessions)
                    if not healthy:
                        self._retire(worker)
                        worker = None
                    finished += 1
                    if on_episode:
                        on_episode(finished)
            except BaseException:
                # It may be in the middle of a step, whose answer the next caller would take for its own.
                if worker is not None:
                    self._retire(worker)
                raise
            finally:
                clock.suspend()
                rounds.leave()
            if worker is not None:
                self._workers.append(worker)

        gated = self.engine if isinstance(self.engine, Gated) else None
        # Environments in the event loop answer before anyone can ask who is next.
        if gated is not None:
            gated.gate = rounds.wait if self.deterministic and self.where != "inline" else None
        try:
            await asyncio.gather(*(slot() for _ in range(n_slots)))
        finally:
            if gated is not None:
                gated.gate = None
        return [episode for episodes in results for episode in episodes]

    def _new_worker(self) -> Worker:
        self._hanging = [worker for worker in self._hanging if worker.alive]
        if len(self._hanging) > max(16, self.slots):
            raise TurnwiseError(
                f"{len(self._hanging)} instances of environment {self._hanging[0].name} hang, each in a thread that nothing "
                "can end; run them in processes (where='process'), which can be ended, or look for what they wait for"
            )
        return new_worker(self.make_env, self.where, self.deadline)

    def _retire(self, worker: Worker) -> None:
        worker.close()
        self._hanging.append(worker)

    async def _play(
        self, task: Task, worker: Worker, sampling: Sampling, sessions: Iterator[int]
    ) -> tuple[list[Episode], bool]:
        """One run of the world; the episodes of its agents, and whether the worker can be used again."""
        views: dict[str, View] = {}
        cut: Cut | None = None
        detail = ""
        failure: EnvironmentFailure | None = None
        last: dict[str, str] = {}
        goal: str | None = None
        try:
            event = await self._call(worker, "reset", task.seed)
            goal = event.goal
            while True:
                self._book(event, views)
                goal = goal or event.goal
                last = event.obs
                if event.agent is None:
                    break
                view = self._view(views, event.agent, sampling, sessions)
                if self.max_turns is not None and view.n_turns >= self.max_turns:
                    cut, detail = Cut.TURN_LIMIT, f"the collector's limit of {self.max_turns} turns"
                    break
                view.observe(event.obs[event.agent])
                last = {}
                action = await self._act(view, task, list(views).index(event.agent), sampling)
                if action is None:
                    cut, detail = Cut.LENGTH, f"an action used up its budget of {sampling.max_tokens} tokens"
                    break
                event = await self._call(worker, "step", action)
        except EnvironmentFailure as error:
            failure = error
        except Overflow as overflow:
            cut, detail, last = Cut.CONTEXT, str(overflow), {}
        finally:
            for view in views.values():
                self.engine.release(view.session)
        # Even an episode that broke before its first observation leaves a record.
        if not views:
            self._view(views, "agent", sampling, sessions)
        episodes = []
        for view in views.values():
            where = f"{worker.name}, seed {task.seed}, turn {view.n_turns}"
            if failure is not None:
                view_cut, words = failure.cut, f"{where}: the environment {failure.reason}"
            elif view.ended is not None:
                view_cut = Cut.TURN_LIMIT if view.ended.truncated else None
                words = f"{where}: the environment's turn limit" if view_cut else ""
            else:
                view_cut = cut or Cut.TURN_LIMIT
                words = f"{where}: {detail or 'the world ended for another agent'}"
            template = Episode(
                task.group, (), True, False, EMPTY, env=worker.name, world=f"{task.group}/{task.key:016x}",
                seed=task.seed, goal=goal,
            )  # fmt: skip
            episodes.append(view.episode(template, view_cut, words, last.get(view.agent)))
        return episodes, failure is None

    async def _call(self, worker: Worker, method: str, argument: Any) -> Event:
        self._clock.suspend()
        try:
            return await worker.call(method, argument)
        finally:
            self._clock.environment_answered()

    def _view(self, views: dict[str, View], agent: str, sampling: Sampling, sessions: Iterator[int]) -> View:
        if agent not in views:
            session = next(sessions)
            self._next_session = max(self._next_session, session + 1)
            views[agent] = View(agent, session, self.policy.renderer, self.memory, sampling.max_tokens)
        return views[agent]

    def _book(self, event: Event, views: dict[str, View]) -> None:
        for agent, payment in event.payments.items():
            if agent in views:
                views[agent].pay(payment)

    async def _act(self, view: View, task: Task, agent: int, sampling: Sampling) -> str | None:
        """Sample the next action; None when it was cut short and the episode is to stop there."""
        key = mix(task.key, agent, view.n_turns)
        request = Request(view.context, view.session, key, sampling, self.policy.renderer.stop)
        self._clock.suspend()
        with self._rounds.asking():
            completion = await self.engine.generate(request)
        self._clock.resume()
        self._clock.sampled(len(request.context), len(completion.ids))
        view.act(completion)
        if completion.stop is Stop.LENGTH and self.on_length == "truncate":
            return None
        return self.policy.renderer.action_text(completion.ids)
