"""A planner for MiniGrid worlds with a goal square: the shortest sequence of actions, found by breadth-first search.

It sees the whole grid, opens doors, and fetches the keys of locked ones. It leaves out moving things out of the way:
it drops nothing, so a world that needs that has no plan. Used for demonstrations.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from turnwise.envs.errors import NotOffered

_LEFT, _RIGHT, _FORWARD, _PICK_UP, _TOGGLE = 0, 1, 2, 3, 5
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))

# Where the agent is and looks, the colour of the key it holds, and what it has opened and picked up on the way.
_Node = tuple[int, int, int, str | None, frozenset[tuple[int, int]], frozenset[tuple[int, int]]]


def next_action(inner: Any) -> int:
    """The first action of a shortest plan to the goal square.

    Raises:
        NotOffered: there is no goal square, or no plan of this kind reaches it.
    """
    things = {
        (x, y): thing
        for x in range(inner.width)
        for y in range(inner.height)
        if (thing := inner.grid.get(x, y)) is not None
    }
    if not any(thing.type == "goal" for thing in things.values()):
        raise NotOffered(f"{inner} has no goal square and no expert; ask for random demonstrations with skill=0")
    held = inner.carrying
    x, y = (int(part) for part in inner.agent_pos)
    key = held.color if held is not None and held.type == "key" else None
    start: _Node = (x, y, int(inner.agent_dir), key, frozenset(), frozenset())
    hands_full = held is not None
    first: dict[_Node, int] = {start: -1}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for action, after, done in _successors(node, things, hands_full):
            if done:
                return action if first[node] < 0 else first[node]
            if after not in first:
                first[after] = action if first[node] < 0 else first[node]
                queue.append(after)
    raise NotOffered(
        f"no plan without moving things reaches the goal square of {inner}; ask for skill=0 demonstrations"
    )


def _successors(node: _Node, things: dict[tuple[int, int], Any], hands_full: bool) -> list[tuple[int, _Node, bool]]:
    x, y, facing, key, opened, taken = node
    found: list[tuple[int, _Node, bool]] = [
        (_LEFT, (x, y, (facing - 1) % 4, key, opened, taken), False),
        (_RIGHT, (x, y, (facing + 1) % 4, key, opened, taken), False),
    ]
    front = (x + _STEPS[facing][0], y + _STEPS[facing][1])
    thing = None if front in taken else things.get(front)
    if (
        thing is None
        or thing.type in ("goal", "floor")
        or (thing.type == "door" and (thing.is_open or front in opened))
    ):
        goal = thing is not None and thing.type == "goal"
        found.append((_FORWARD, (*front, facing, key, opened, taken), goal))
    elif thing.type == "door" and (not thing.is_locked or key == thing.color):
        found.append((_TOGGLE, (x, y, facing, key, opened | {front}, taken), False))
    elif thing.type == "key" and key is None and not (hands_full and not taken):
        found.append((_PICK_UP, (x, y, facing, thing.color, opened, taken | {front}), False))
    return found
