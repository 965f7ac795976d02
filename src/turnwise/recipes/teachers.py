"""Who compares episodes in a run: the teacher that its settings name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from turnwise.errors import TurnwiseError

if TYPE_CHECKING:
    from turnwise.teachers import Teacher
    from turnwise.text import Renderer


def teacher_of(name: str, renderer: Renderer, deadline: float = 600.0, *, device: str = "cpu") -> Teacher:
    """The teacher behind a name.

    Args:
        name: ``principles:FILE`` compares by the checkable principles in a file, ``judge:FOLDER`` and ``judge:URL#MODEL`` ask a
            model twice, in both orders, and ``file.py:name`` is a teacher of your own: questions in, an answer for each out.
        renderer: The renderer that the episodes are made with.
        deadline: Seconds that a judge behind an address may take for the questions of one call.
        device: Where a model that is asked is.

    Raises:
        TurnwiseError: no such teacher, or one that cannot be loaded.
    """
    kind, _, rest = name.partition(":")
    if kind == "principles":
        from turnwise.teachers.principles import PrincipleTeacher
        from turnwise.text.principles import read_principles

        return PrincipleTeacher(read_principles(rest), renderer)
    if kind == "judge":
        from turnwise.engines import Endpoint
        from turnwise.recipes.rewards import judge_model
        from turnwise.rewards.named import parse_judge
        from turnwise.teachers.judge import JudgeTeacher, ModelTeacher

        judge = parse_judge(name)
        if judge.option:
            return JudgeTeacher(Endpoint(judge.target, judge.option, deadline=deadline), renderer)
        return ModelTeacher(judge_model(Path(judge.target), device), renderer)
    if not rest:
        raise TurnwiseError(
            f"there is no teacher {name!r}; write principles:FILE, judge:FOLDER, judge:URL#MODEL, or file.py:name for one of "
            "your own"
        )
    from turnwise.recipes.rewards import find_function

    return find_function(name)


def anchored(name: str) -> str:
    """The same name with its file or folder in full, so that it means the same from any other folder."""
    kind, _, rest = name.rpartition(":") if ".py:" in name else name.partition(":")
    if kind in ("principles", "judge") and not rest.startswith(("http://", "https://")):
        return f"{kind}:{Path(rest).expanduser().absolute()}"
    return f"{Path(kind).expanduser().absolute()}:{rest}" if kind.endswith(".py") else name
