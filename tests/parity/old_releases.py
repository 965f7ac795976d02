"""Releases of TRL that still had what the present one dropped, each in a folder of its own below ``.parity/``.

`trl_release("1.13.0")` installs that release without its dependencies, so that it runs on the packages of this
environment, and skips the test with the reason where that cannot be done. A test then runs a script of its own with
`run_with`, in a process whose first import path is that folder: two releases never meet in one interpreter.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).parents[2] / ".parity"
"""Where the releases are put; git does not look there."""

_INSTALL_SECONDS = 180
_failed: dict[str, str] = {}


def trl_release(version: str) -> Path:
    """The folder that holds TRL `version`, installed now if need be; skips the calling test where it cannot be had."""
    folder = HOME / f"trl-{version}"
    if not _complete(folder, version):
        if version not in _failed:
            _failed[version] = _install(folder, version)
        if _failed[version]:
            pytest.skip(f"trl {version} cannot be installed here: {_failed[version]}")
    return folder


def run_with(folder: Path, script: str, given: dict[str, Any] | None = None, *, seconds: float = 240) -> dict[str, Any]:
    """Run Python source with the packages in `folder` before all others.

    Args:
        folder: What `trl_release` gave.
        script: Source. It finds `given` under the name ``given`` and leaves its answer under the name ``answer``; both are
            dictionaries of JSON values (paths of safetensors files for tensors).
        given: See `script`.
        seconds: Deadline.

    Returns:
        What the script left under ``answer``.
    """
    program = (
        f"import json, sys\ngiven = json.loads(sys.stdin.read())\n{script}\nprint('\\nanswer:' + json.dumps(answer))\n"
    )
    quiet = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = os.environ | quiet | {"PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(given or {}), env=environment, capture_output=True, text=True,
        timeout=seconds, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("answer:")]
    assert done.returncode == 0, f"the script failed with {folder.name}:\n{done.stderr[-3000:]}"
    assert lines, f"the script left no answer:\n{done.stdout[-1000:]}"
    return json.loads(lines[-1].removeprefix("answer:"))


def _complete(folder: Path, version: str) -> bool:
    return (folder / f"trl-{version}.dist-info" / "RECORD").exists()


def _install(folder: Path, version: str) -> str:
    """Install into a folder of this process, then move it into place; the reason where that failed, else nothing."""
    own = HOME / f"{folder.name}.{os.getpid()}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
    ]
    try:
        done = subprocess.run(
            [*command, "--target", str(own), f"trl=={version}"], capture_output=True, text=True,
            timeout=_INSTALL_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode or not _complete(own, version):
            return (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        # Another test process may have been faster.
        with suppress(OSError):
            own.rename(folder)
        return "" if _complete(folder, version) else f"{folder} is there but incomplete; remove it"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error).splitlines()[0]
    finally:
        shutil.rmtree(own, ignore_errors=True)
