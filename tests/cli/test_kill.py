"""A run that is killed, whatever it was doing, and resumed, ends like one that was left alone: byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAM = "import sys; from turnwise.cli.main import main; sys.exit(main())"
SETTINGS = [
    *("--env", "errand", "--memory", "0", "--max-tokens", "5", "--demonstrations", "32", "--episodes", "8"),
    *("--minibatch", "32", "--steps", "6", "--save-every", "2", "--threads", "1"),
]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, "train", *arguments, "--quiet"]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def lines(run: Path) -> list[dict[str, Any]]:
    """Metrics without those of time."""
    if not run.exists():
        return []
    read = [json.loads(line) for line in run.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in read]


def weights(run: Path) -> dict[Path, bytes]:
    return {path.relative_to(run): path.read_bytes() for path in run.rglob("*.safetensors")}


def test_a_killed_run_ends_like_one_left_alone(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert start("ppo", *SETTINGS, "--out", str(whole)).wait(120) == 0

    # In the warm start, and past a checkpoint that a later iteration has already left behind.
    moments = [(killed / "warm-start" / "metrics.jsonl", 1), (killed / "metrics.jsonl", 3)]
    for number, (metrics, reached) in enumerate(moments):
        process = start("--resume", str(killed)) if number else start("ppo", *SETTINGS, "--out", str(killed))
        until = time.monotonic() + 120
        while len(lines(metrics)) < reached and process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        process.kill()
        assert process.wait(10) == -9, "the run was to be killed before its end"
    assert start("--resume", str(killed)).wait(120) == 0

    assert lines(killed / "metrics.jsonl") == lines(whole / "metrics.jsonl")
    assert len(lines(whole / "metrics.jsonl")) == 6
    assert lines(killed / "warm-start" / "metrics.jsonl") == lines(whole / "warm-start" / "metrics.jsonl")
    expected = weights(whole)
    assert {"final/model.safetensors", "final/value_head.safetensors", "checkpoints/000006/learner.safetensors"} <= {
        path.as_posix() for path in expected
    }
    assert weights(killed) == expected
