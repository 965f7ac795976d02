"""``turnwise envs``: the environments there are, or everything about one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from time import perf_counter
from typing import Any

from rich.text import Text

from turnwise.cli.console import columns, output, pairs, say
from turnwise.cli.parsing import Flag, parse
from turnwise.envs.errors import NotOffered
from turnwise.envs.reasoning_gym import PREFIX, ReasoningGymEnv, names
from turnwise.envs.registry import EnvSpec, ids, make, missing_options, spec

_OWN = (
    Flag("name", str, "", "Show one: an id with options, or file.py:name.", metavar="NAME", positional=True),
    Flag("seed", int, 0, "Seed of the example observation."),
)

_DESCRIPTION = "List the environments, or show one: what it says, what can be said to it, and its options."


def main(arguments: Sequence[str]) -> int:
    """List environments, or show one.

    Raises:
        TurnwiseError: no such environment or option.
    """
    values = parse("envs", _DESCRIPTION, {"": _OWN}, arguments)
    if values["name"].rstrip("/") == PREFIX.rstrip("/"):
        _list_reasoning()
    elif values["name"]:
        _show(values["name"], values["seed"])
    else:
        _list()
    return 0


def _list() -> None:
    console = output()
    table = columns("id", "what", "turns", "rewards", "an action")
    for name in ids():
        found = spec(name)
        what = Text(found.summary if installed(found) else f"{found.summary}; needs {install(found)}")
        # A generated text adventure takes seconds to make; its page shows what it says.
        if installed(found) and found.inline and not missing_options(found):
            what.append(f"\n{_beginning(make(name).reset(seed=0)[0])}", style="dim")
        action = found.actions[0] if found.actions else ""
        table.add_row(name, what, str(found.max_turns or ""), found.reward_density, action)
    console.print(table)
    say(console, "every other MiniGrid-* and BabyAI-* id works too; your own is file.py:name")
    say(console, _reasoning())
    say(console, "more about one: turnwise envs NAME      try it: turnwise play NAME")


def _reasoning() -> str:
    """The family of reasoning-gym in a line."""
    family = spec(f"{PREFIX}NAME")
    if not installed(family):
        return f"{PREFIX}NAME asks the tasks of reasoning-gym; needs {install(family)}"
    return f"{PREFIX}NAME asks one of {len(names())} kinds of reasoning tasks; their names: turnwise envs {PREFIX.rstrip('/')}"


def _list_reasoning() -> None:
    console = output()
    family = spec(f"{PREFIX}NAME")
    if not installed(family):
        console.print(pairs([("needs", install(family))]))
        return
    console.print(" ".join(names()))
    say(console, f"more about one: turnwise envs {PREFIX}NAME")


def _beginning(observation: str, length: int = 110) -> str:
    """The first words of an observation, behind the list of commands that some begin with."""
    said = " ".join(observation.split(" ; ", 1)[-1].split())
    return said if len(said) <= length else f"{said[:length]} …"


def _show(name: str, seed: int) -> None:
    console = output()
    found = spec(name)
    rows: list[tuple[str, Any]] = [("what", found.summary or "-")]
    if not installed(found):
        rows.append(("needs", install(found)))
        console.print(pairs(rows))
        return
    if missing_options(found):
        rows += [("needs", ", ".join(f"{option}=…" for option in missing_options(found))), ("options", _options(found))]
        say(console, found.id)
        console.print(pairs(rows))
        return
    world = make(name)
    several = hasattr(world, "agents")
    if several:
        agent, observation = world.reset(seed)
        rows.append(("agents", f"{', '.join(world.agents)}; {agent} begins"))
        goals = [f"{who}: {goal}" for who, goal in world.goals.items() if goal]
    else:
        observation, info = world.reset(seed=seed)
        goals = [info["goal"]] if info.get("goal") else []
    if goals:
        rows.append(("goal", "\n".join(goals)))
    rows += [
        ("turns", f"at most {found.max_turns}" if found.max_turns else "no known limit"),
        ("rewards", f"{found.reward_density}: " + _DENSITY[found.reward_density]),
        ("says", observation),
        ("actions", _actions(found, world, several=several)),
        ("expert", "-" if several else _expert(world)),
        *([("always", _floor(found.id))] if isinstance(world, ReasoningGymEnv) else [("optimum", _optimum(found))]),
        ("options", _options(found)),
    ]
    world.close()
    say(console, found.id)
    console.print(pairs(rows))


_DENSITY = {"dense": "paid on the way", "sparse": "paid at the end only", "unknown": "its author has not said when"}


def installed(found: EnvSpec) -> bool:
    """The optional dependency of the environment is there."""
    return found.extra is None or find_spec(found.package or found.extra) is not None


def install(found: EnvSpec) -> str:
    """How to get the optional dependency."""
    return f'pip install "turnwise[{found.extra}]"'


def _actions(found: EnvSpec, world: Any, *, several: bool) -> str:
    actions = list(found.actions)
    if not actions and not several:
        try:
            actions = list(world.get_wrapper_attr("legal_actions")())
        except (AttributeError, NotOffered):
            return "any text"
    shown = " | ".join(actions[:12])
    return f"{shown} | … ({len(actions)} in all)" if len(actions) > 12 else shown or "any text"


def _expert(world: Any) -> str:
    try:
        action = world.get_wrapper_attr("optimal_action")()
    except (AttributeError, NotOffered):
        return "none; demonstrations need --skill 0"
    return f"yes; here it would say: {action}"


def _optimum(found: EnvSpec) -> str:
    if found.exact is None:
        return "not computed"
    from turnwise.envs.exact import optimal_return, policy_return, uniform_policy

    tabular = found.exact()
    best, random = optimal_return(tabular), policy_return(tabular, uniform_policy(tabular))
    return f"{best:.4g} expected return (random actions: {random:.4g}), by dynamic programming over {tabular.n_states:,} states"


def _floor(name: str, n: int = 64) -> str:
    """What always giving the same answer earns."""
    from turnwise.recipes.reasoning import floor
    from turnwise.rollout.task import TRAIN_SEEDS

    began = perf_counter()
    make(name).reset(seed=TRAIN_SEEDS)
    if perf_counter() - began > 0.1:
        return "not tried here, because its items take long to make"
    found = floor(name, range(TRAIN_SEEDS, TRAIN_SEEDS + n))
    return f"answering {_beginning(found.answer, 60)!r} scores {found.score:.2f} (mean of {n} items, {found.tried} answers tried)"


def _options(found: EnvSpec) -> str:
    """Options with their defaults, as they are written after the name."""
    options = option_defaults(found)
    if not options:
        return "none"
    example = next(iter(options))
    more = ", …" if _takes_more(found) else ""
    listed = ", ".join(
        name if default is inspect.Parameter.empty else f"{name}={_beginning(str(default), 40)}"
        for name, default in options.items()
    )
    return f"{listed}{more}\nwritten as {found.id.partition('?')[0]}?{example}=VALUE, several joined by &"


def _takes_more(found: EnvSpec) -> bool:
    """Options go further, to something whose own cannot be listed."""
    factory = found.make.func if isinstance(found.make, partial) else found.make
    if inner_parameters(found.id.partition("?")[0]):
        return False
    # A factory that was made by @env is an object, and lists its options itself.
    if not inspect.isfunction(factory):
        return False
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(factory).parameters.values())


def option_defaults(found: EnvSpec) -> dict[str, Any]:
    """Option -> default, as far as they can be found out."""
    from turnwise.envs.coroutine import EnvFactory

    factory, bound = found.make, {}
    if isinstance(factory, partial):
        factory, bound = factory.func, factory.keywords
    if isinstance(factory, EnvFactory):
        return {"max_turns": factory.max_turns, **factory.options, **bound}
    name = found.id.partition("?")[0]
    options = {**_parameters(factory), "max_turns": found.max_turns}
    gym = inner_parameters(name)
    return {**{key: value for key, value in options.items() if key != "env_id"}, **gym, **bound}


def _parameters(factory: Any) -> dict[str, Any]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def inner_parameters(name: str) -> dict[str, Any]:
    """Options that go to the Gymnasium environment of this name, if there is one."""
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    if name not in gymnasium.registry:
        return {}
    registered = gymnasium.spec(name)
    creator: Any = registered.entry_point
    if isinstance(creator, str):
        creator = load_env_creator(creator)
    taken = {
        key: value for key, value in _parameters(creator).items() if key not in ("self", "render_mode", "max_steps")
    }
    return {**taken, **{key: value for key, value in registered.kwargs.items() if key in taken}}
