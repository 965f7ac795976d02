"""``turnwise play``: an episode in the terminal, played by a person, a model or an expert."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from turnwise.cli.console import output, say
from turnwise.cli.parsing import REQUIRED, Flag, parse
from turnwise.envs.registry import make, spec
from turnwise.errors import TurnwiseError

_OWN = (
    Flag("env", str, REQUIRED, "Environment to play (turnwise envs).", metavar="ENV", positional=True),
    Flag("seed", int, 0, "Seed of the environment: which task."),
    Flag("model", str, "", "Let a model play: a model folder or id, or a run folder.", metavar="FOLDER"),
    Flag("greedy", bool, False, "The model takes the most likely token instead of sampling."),
    Flag("expert", bool, False, "Let the environment's own expert play."),
)

_DESCRIPTION = "Play an environment yourself, or watch a model or the environment's expert. `:quit` ends a game."

_QUIT = (":quit", ":q")


def main(arguments: Sequence[str]) -> int:
    """Play one episode.

    Raises:
        TurnwiseError: no such environment, no such model, or an environment without an expert.
    """
    from turnwise.cli.acting import FLAGS

    values = parse("play", _DESCRIPTION, {"": _OWN, "acting": FLAGS}, arguments)
    if values["model"] and values["expert"]:
        raise TurnwiseError("--model and --expert both want to play; choose one")
    if values["greedy"] and not values["model"]:
        raise TurnwiseError("--greedy is about a model; add --model FOLDER")
    if values["seed"] < 0:
        raise TurnwiseError(f"--seed {values['seed']}: a seed is a whole number of at least 0")
    if values["model"]:
        return _watch_model(values)
    world = Shown(make(values["env"]), output(), spec(values["env"]).max_turns)
    try:
        if values["expert"]:
            return _watch_expert(world, values["env"], values["seed"])
        return _play(world, values["seed"])
    finally:
        world.close()


class Shown:
    """An environment of one or several agents that shows everything that passes through it.

    Args:
        world: The environment.
        console: Where to.
        max_turns: Its turn limit, if known.
        echo: Show actions too; a person has typed them and sees them already.
    """

    def __init__(self, world: Any, console: Console, max_turns: int | None, *, echo: bool = True) -> None:
        self._world = world
        self._console = console
        self._limit = max_turns
        self._several = hasattr(world, "agents")
        self.echo = echo
        self.turn = 0
        self.total: dict[str, float] = {}
        self.over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def reset(self, seed: int) -> Any:
        """Begin, and show the goal and the first observation."""
        result = self._world.reset(seed) if self._several else self._world.reset(seed=seed)
        self.turn, self.total, self.over = 0, {}, False
        if self._several:
            agent, observation = result
            goals = [f"{who}: {goal}" for who, goal in self._world.goals.items() if goal]
        else:
            observation, info = result
            agent, goals = "", [info["goal"]] if info.get("goal") else []
        for goal in goals:
            say(self._console, Text("goal  ", style="cyan"), goal)
        self._observe(agent, observation)
        return result

    def step(self, action: str) -> Any:
        """Carry the action out, and show what it led to."""
        if self.echo:
            say(self._console, Text("> ", style="bold green"), action or Text("(nothing)", style="dim"))
        result = self._world.step(action)
        if self._several:
            rewards = {agent: reward for agent, reward in result.rewards.items() if reward}
            terminated, truncated, figures = result.terminated, result.truncated, result.info
            agent, observation = result.agent or "", result.observation
        else:
            observation, reward, terminated, truncated, figures = result
            rewards, agent = {"": float(reward)}, ""
        for who, reward in rewards.items():
            self.total[who] = self.total.get(who, 0.0) + reward
            style = "green" if reward > 0 else "red" if reward < 0 else "dim"
            label = f"reward{f' of {who}' if who else ''} "
            self._console.print(
                Text.assemble(label, (f"{reward:+.3g}", style), (f"   total {self.total[who]:.3g}", "dim"))
            )
        if terminated or truncated:
            self._end(observation, terminated, figures)
        else:
            self._observe(agent, observation)
        return result

    def _observe(self, agent: str, observation: str) -> None:
        self.turn += 1
        if self._limit is not None and self.turn > self._limit:
            # Whoever collects the episode stops it here; the environment itself would go on.
            say(self._console, "\n", observation)
            return
        limit, who = f" of {self._limit}" if self._limit else "", f" ({agent})" if agent else ""
        say(self._console, Text(f"\nturn {self.turn}{limit}{who}", style="bold"))
        say(self._console, observation)

    def _end(self, observation: str, terminated: bool, figures: Any) -> None:
        self.over = True
        if observation:
            say(self._console, "\n", observation)
        why = "the episode has ended" if terminated else "stopped at the turn limit"
        listed = "  ".join(f"{name} {value:g}" for name, value in figures.items() if isinstance(value, int | float))
        self._console.print()
        say(self._console, Text(why, style="bold"), f" after {self.turn} turns   {listed}")
        for who, total in self.total.items():
            say(self._console, f"return{f' of {who}' if who else ''} {total:.4g}")


def _play(world: Shown, seed: int) -> int:
    # What is typed is on the screen already; what comes from a pipe is not.
    world.echo = not sys.stdin.isatty()
    say(output(), Text("say something at the prompt; :quit or Ctrl-D ends the game", style="dim"))
    world.reset(seed)
    while not world.over:
        try:
            action = input("" if world.echo else "> ")
        except (EOFError, KeyboardInterrupt):
            print()
            break
        if action.strip() in _QUIT:
            break
        world.step(action)
    if not world.over:
        total = sum(world.total.values())
        say(output(), f"stopped in turn {world.turn}; return so far {total:.4g}")
    return 0


def _watch_expert(world: Shown, name: str, seed: int) -> int:
    if hasattr(world, "agents") or not world.has_wrapper_attr("optimal_action"):
        raise TurnwiseError(
            f"environment {name!r} has no expert; play it yourself, or let a model play: --model FOLDER"
        )
    advise: Callable[[], str] = world.get_wrapper_attr("optimal_action")
    world.reset(seed)
    while not world.over:
        world.step(advise())
    return 0


def _watch_model(values: dict[str, Any]) -> int:
    from turnwise.cli.acting import resolve
    from turnwise.recipes.training import make_collector, resolve_env
    from turnwise.rollout import Task

    actor = resolve("", values["model"], values["env"], values)
    world = resolve_env(actor.training, None)
    policy = actor.policy()
    limits = [limit for limit in (world.max_turns, actor.training.world.max_turns) if limit]
    # Shown as it happens, so the environment runs in this process, though where it can miss its deadline.
    training = dataclasses.replace(
        actor.training, world=dataclasses.replace(actor.training.world, where="thread", slots=1)
    )
    console = output()
    collector = make_collector(
        training, world, policy, make_env=lambda: Shown(world.make(), console, min(limits, default=None))
    )
    sampling = dataclasses.replace(policy.sampling, temperature=0.0) if values["greedy"] else None
    try:
        (episode, *_) = collector.collect([Task(values["seed"], "play", values["seed"])], sampling=sampling)
    finally:
        collector.close()
    if episode.failed:
        raise TurnwiseError(episode.detail)
    if episode.truncated and episode.detail:
        say(console, Text(f"stopped: {episode.detail}", style="dim"))
    return 0
