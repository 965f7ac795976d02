"""The page about rewards: its examples run, and its table names what can be named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from turnwise.rewards.named import COLUMNS, parse_rewards
from turnwise.rewards.rules import FORMS

PAGE = (Path(__file__).parent.parent / "docs" / "rewards.md").read_text(encoding="utf-8")


def test_examples_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "rewards.md", "exec"), names)


def test_entries_and_rules_are_there() -> None:
    for name in (*COLUMNS, "environment", "missing-eos", "overlong@256:64", '"rule:forbids:a,b"=-1'):
        assert f"`{name.partition('@')[0]}" in PAGE
        assert len(parse_rewards(name)) == 1
    assert all(f"`{form}:" in PAGE for form in FORMS)
