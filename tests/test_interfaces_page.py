"""The examples on the page about interfaces run as they stand, one after another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import turnwise.testing as testing

PAGE = Path(__file__).parent.parent / "docs" / "interfaces.md"


def test_examples_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)


def test_every_check_and_fake_of_the_table_exists() -> None:
    (table,) = re.findall(r"^\| interface .*?\n\n", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"`(check_\w+|[A-Z]\w+(?:Env|Reward|Teacher|Measure))`", table))
    assert named - {"EchoEnv"} != set()
    assert all(hasattr(testing, name) for name in named)
    assert {name for name in testing.__all__ if name.startswith("check_")} <= named
