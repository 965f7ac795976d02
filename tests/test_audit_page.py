"""The page about the audit: its example runs, its list is the catalogue, and its tables name the fields that there are."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from turnwise.audit import readers
from turnwise.audit.card import Card
from turnwise.audit.card_file import as_data
from turnwise.audit.catalogue import catalogue

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "audit.md").read_text(encoding="utf-8")


def test_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "audit.md", "exec"), names)
    assert capsys.readouterr().out == "1.0\n"


def test_every_quantity_is_on_the_page() -> None:
    for quantity in catalogue():
        assert f"`{quantity.name}`, needs {quantity.level.name}" in PAGE


def test_the_list_is_up_to_date() -> None:
    found = importlib.util.spec_from_file_location("quantities", DOCS / "quantities.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert module.main(["--check"]) == 0, "run python docs/quantities.py"


def test_fields_of_the_card_are_on_the_page() -> None:
    for name in as_data(Card("x", (), (), ())):
        assert f"`{name}`" in PAGE


def test_the_smallest_record_is_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    file = tmp_path / "turns.jsonl"
    file.write_text(block)
    evidence = readers.read_evidence(file)
    assert [episode.undiscounted_return for episode in evidence.episodes] == [1.0]
    assert evidence.iterations[0].version == 0
    for field in (readers.__doc__ or "").splitlines():
        if field.startswith("| `"):
            assert field in PAGE
    for line in block.splitlines():
        assert set(json.loads(line)) <= set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE))
