"""The tutorials run as printed, and the program in the README is the first of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = sorted((ROOT / "tutorials").glob("[0-9]*.py"))


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(tutorial: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TUTORIAL_STEPS": "1", "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(tutorial)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "return" in done.stdout


def test_the_program_in_the_readme_is_the_first_tutorial() -> None:
    program = TUTORIALS[0].read_text().split("# [README\n")[1].split("# README]")[0].strip()
    printed = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0].strip()
    assert printed == program.replace("steps=STEPS", "steps=60")
    assert len([line for line in printed.splitlines() if line.strip()]) <= 20
