"""One small run, trained once by the command line itself, for all tests that need a trained model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from turnwise.cli.main import main

TINY = [
    "--env",
    "errand?max_turns=4",
    "--memory",
    "0",
    "--max-tokens",
    "3",
    "--steps",
    "1",
    "--threads",
    "1",
    "--quiet",
]


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it was trained; do not write into it."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "reinforce", *TINY, "--groups", "1", "--group-size", "2", "--out", str(out)]) == 0
    return out


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(trained_once, tmp_path / "run"))
