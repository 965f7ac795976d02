"""Where an object of yours can be found again: the way from a Python object to a text that a stored run can keep."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from typing import Any

UNREACHABLE = "<python> "
"""Begins the text for an object that no file holds under a name; no id of an environment begins like this."""


def address(thing: Any) -> str:
    """``file.py:name`` or ``package.module:name`` under which importing finds `thing` again, else ``<python> NAME``.

    A file is preferred, because it is found from any program; one with relative imports is named as a module. An object
    counts as found only if its module holds this very object at its top level. A file that is busy running the code that
    asks, outside ``if __name__ == "__main__":``, is not named: importing it would run that code once more.
    """
    module = sys.modules.get(str(getattr(thing, "__module__", None) or type(thing).__module__))
    held = {name for name, value in vars(module).items() if value is thing} if module is not None else set()
    own = name_of(thing)
    name = own if own in held else min(held, default="")
    path = Path(getattr(module, "__file__", None) or "")
    if module is None or not name or path.suffix != ".py" or not path.is_file() or "?" in str(path):
        return UNREACHABLE + own
    path = path.resolve()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if _running(path, tree):
        return UNREACHABLE + own
    if any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree)):
        return f"{module.__name__}:{name}" if module.__name__ != "__main__" else UNREACHABLE + own
    return f"{path}:{name}"


def name_of(thing: Any) -> str:
    """What to call an object: its own name, or that of its class."""
    return str(getattr(thing, "__name__", None) or getattr(thing, "id", None) or type(thing).__name__)


def _running(path: Path, tree: ast.Module) -> bool:
    """The file's top level is being executed right now, at a statement that importing it would execute too."""
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and Path(code.co_filename).resolve() == path:
            line = frame.f_lineno
            here = [node for node in tree.body if node.lineno <= line <= (node.end_lineno or node.lineno)]
            if not here or not all(_guarded(node, line) for node in here):
                return True
        frame = frame.f_back
    return False


def _guarded(node: ast.stmt, line: int) -> bool:
    if (
        not isinstance(node, ast.If)
        or "__main__" not in ast.unparse(node.test)
        or "__name__" not in ast.unparse(node.test)
    ):
        return False
    return not node.orelse or line < node.orelse[0].lineno
