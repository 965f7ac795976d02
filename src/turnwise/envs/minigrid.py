"""MiniGrid and BabyAI in words: the agent's view as a list of things and where they are.

    go to the red ball ; carrying nothing ; wall 2 ahead ; wall 1 left ; red ball 3 ahead 1 right ; open blue door 4 ahead

Everything is relative to the agent, who looks ahead; what it cannot see is not mentioned. The mission comes with
every observation, so that a policy without a memory has it too. Walls are named in three directions: straight ahead,
to the left and to the right.

The turn limit replaces the environment's own step limit, which its reward ``1 - 0.9 * steps / limit`` depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turnwise.envs.codec import Codec, CodecEnv, Inner, check_options
from turnwise.envs.errors import EnvError, NotOffered

MAX_TURNS = 40
"""Default turn limit."""

ACTIONS = ("turn left", "turn right", "move forward", "pick up", "drop", "toggle", "done")
"""All actions, in Gymnasium's order."""
_LEFT, _RIGHT, _FORWARD, _PICK_UP, _DROP, _TOGGLE, _DONE = range(7)
ALIASES = {
    "left": _LEFT,
    "right": _RIGHT,
    "forward": _FORWARD,
    "go forward": _FORWARD,
    "pickup": _PICK_UP,
    "open": _TOGGLE,
    "close": _TOGGLE,
    **{f"{verb} {thing}": _TOGGLE for verb in ("open", "close", "unlock", "toggle") for thing in ("door", "box")},
    **{
        f"{verb} {thing}": a for verb, a in (("pick up", _PICK_UP), ("drop", _DROP)) for thing in ("key", "ball", "box")
    },
}
"""Other words for the same actions."""

_KINDS = {4: "door", 5: "key", 6: "ball", 7: "box", 8: "goal", 9: "lava"}
_COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
_DOORS = ("open", "closed", "locked")
_WALL = 2
_DOOR = 4


def _table(size: int) -> list[tuple[int, int, str]]:
    """Cells of a size × size view as (column, row, "2 ahead 1 left"), nearest first; the agent's own is left out."""
    middle, bottom = size // 2, size - 1
    cells = []
    for i in range(size):
        for j in range(size):
            ahead, side = bottom - j, i - middle
            parts = [f"{ahead} ahead"] if ahead else []
            if side:
                parts.append(f"{abs(side)} {'left' if side < 0 else 'right'}")
            if parts:
                cells.append((ahead + abs(side), ahead, i, j, " ".join(parts)))
    return [(i, j, where) for _, _, i, j, where in sorted(cells)]


class MiniGridCodec(Codec):
    """The codec of every MiniGrid and BabyAI environment."""

    actions = ACTIONS
    aliases = ALIASES

    def __init__(self, env_id: str, inner: Any) -> None:
        size = inner.agent_view_size
        self._cells = _table(size)
        middle, bottom = size // 2, size - 1
        self._rays = (
            ("ahead", [(middle, bottom - k) for k in range(1, size)]),
            ("left", [(middle - k, bottom) for k in range(1, middle + 1)]),
            ("right", [(middle + k, bottom) for k in range(1, middle + 1)]),
        )
        # These two kinds are the only ones that look at the action "done".
        self._uses_done = env_id.startswith(("MiniGrid-GoToDoor", "MiniGrid-GoToObject"))
        self._is_babyai = hasattr(inner, "instrs") or env_id.startswith("BabyAI-")
        self._bot: Any = None
        self._advice: int | None = None

    def goal(self, inner: Any) -> str:
        return str(inner.mission)

    def begin(self, inner: Inner) -> None:
        self._bot, self._advice = None, None

    def observe(self, inner: Any, observation: Any) -> str:
        view = observation["image"].tolist()
        held = inner.carrying
        parts = [str(inner.mission), f"carrying {held.color} {held.type}" if held is not None else "carrying nothing"]
        for word, ray in self._rays:
            for distance, (i, j) in enumerate(ray, start=1):
                if view[i][j][0] == _WALL:
                    parts.append(f"wall {distance} {word}")
                    break
        for i, j, where in self._cells:
            kind, colour, state = view[i][j]
            if kind < _DOOR or kind not in _KINDS:
                continue
            if kind == _DOOR:
                parts.append(f"{_DOORS[state]} {_COLOURS[colour]} door {where}")
            elif kind >= 8:
                parts.append(f"{_KINDS[kind]} {where}")
            else:
                parts.append(f"{_COLOURS[colour]} {_KINDS[kind]} {where}")
        return " ; ".join(parts)

    def legal(self, inner: Any) -> Sequence[int]:
        """Turning always; the rest when it would change something."""
        front = inner.grid.get(*inner.front_pos)
        legal = [_LEFT, _RIGHT]
        if front is None or front.can_overlap():
            legal.append(_FORWARD)
        if front is not None and front.can_pickup() and inner.carrying is None:
            legal.append(_PICK_UP)
        if front is None and inner.carrying is not None:
            legal.append(_DROP)
        if front is not None and front.type in ("door", "box"):
            legal.append(_TOGGLE)
        if self._uses_done:
            legal.append(_DONE)
        return legal

    def acted(self, inner: Inner, action: int) -> None:
        if self._bot is not None:
            self._advice = self._ask(inner, action)

    def expert(self, inner: Any, turns_left: int) -> int:
        """BabyAI's own bot, and a planner that sees the whole grid for worlds with a goal square."""
        if not self._is_babyai:
            from turnwise.envs.gridplan import next_action

            return next_action(inner)
        if self._advice is None:
            self._advice = self._ask(inner, None)
        return self._advice

    def _ask(self, inner: Any, action: int | None) -> int:
        from minigrid.utils.baby_ai_bot import BabyAIBot

        # The bot gives up on some states that its own advice would not have led to. A new one starts from the state
        # as it is, which is all that a demonstration asks of it.
        if self._bot is not None:
            try:
                return int(self._bot.replan(action))
            except Exception:
                self._bot = None
        try:
            self._bot = BabyAIBot(inner)
            return int(self._bot.replan(None))
        except Exception as error:
            raise NotOffered(
                f"BabyAI's bot has no advice for {inner} ({error}); ask for skill=0 demonstrations"
            ) from error


def make_minigrid(env_id: str, *, max_turns: int = MAX_TURNS, **options: Any) -> CodecEnv:
    """A MiniGrid or BabyAI environment in text; `options` go to Gymnasium.

    Raises:
        EnvError: the package minigrid is not installed, no such id, or an option that it does not have.
    """
    import gymnasium

    try:
        import minigrid  # noqa: F401 -- importing it registers its environments
        from minigrid.envs.babyai.core import roomgrid_level
    except ImportError as error:
        raise EnvError(f'{env_id} needs the package minigrid: pip install "turnwise[minigrid]"') from error
    # It reports every rejected layout on the standard output. Redirecting that stream would be seen by all threads;
    # shadowing the name in the one module that uses it is not.
    roomgrid_level.print = _say_nothing  # type: ignore[attr-defined]
    check_options(env_id, options, ("max_turns",))
    try:
        inner: Any = gymnasium.make(env_id, disable_env_checker=True, **options).unwrapped
    except TypeError as error:
        if not options:
            raise
        raise EnvError(f"{env_id} cannot be made with the options {options}: {error}") from error
    inner.max_steps = max_turns
    if hasattr(inner, "fixed_max_steps"):
        inner.fixed_max_steps = True
    return CodecEnv(inner, MiniGridCodec(env_id, inner), name=env_id, max_turns=max_turns)


def _say_nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for ``print``."""
