"""Environments of a user's own file that misbehave: the run goes on, says which seed and turn, and counts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from turnwise.cli.main import main
from turnwise.envs.registry import ByName, spec
from turnwise.errors import TurnwiseError
from turnwise.rollout import rehearse
from turnwise.runs import read_metrics

FILE = '''
import os
import time
import turnwise


@turnwise.env(max_turns=3)
async def leaver(agent, rng):
    """Ends its process at every third task, in the second turn."""
    fatal = rng.randrange(3) == 0
    await agent.act("one two")
    if fatal:
        os._exit(3)
    await agent.act("three")


@turnwise.env(max_turns=3)
async def sleepy(agent, rng):
    fatal = rng.randrange(3) == 0
    await agent.act("one two")
    if fatal:
        time.sleep(3600)
    await agent.act("three")


@turnwise.env(max_turns=3)
async def always(agent, rng):
    raise RuntimeError("the server is [down]")


def make_hidden():
    @turnwise.env(max_turns=3)
    async def hidden(agent, rng):
        await agent.act("one two")
    return hidden


hidden = make_hidden()
'''
SMALL = [
    *("train", "reinforce", "--groups", "6", "--group-size", "2", "--slots", "4", "--steps", "2", "--max-tokens", "2"),
    *("--threads", "1", "--quiet"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bad.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize(
    ("name", "where", "reason"),
    [
        ("leaver", "process", "ended its process (exit code 3) in step"),
        ("sleepy", "thread", "missed its deadline of 0.5 s in step"),
    ],
)
def test_a_run_outlives_its_environments(name: str, where: str, reason: str, file: Path, capsys: Any) -> None:
    out = file.parent / "run"
    # A deadline that a slow machine keeps: nothing but the sleeper takes longer.
    limit = ["--deadline", "0.5"] if where == "thread" else []
    assert main([*SMALL, "--env", f"{file}:{name}", "--where", where, *limit, "--out", str(out)]) == 0
    failed = [line["episodes/failed"] for line in read_metrics(out / "metrics.jsonl")]
    assert len(failed) == 2
    assert 0 < sum(failed) < 24
    said = " ".join(capsys.readouterr().err.split())
    assert f"turn 1: the environment {reason}" in said
    assert f"{name}, seed " in said
    assert main(["eval", str(out), "--episodes", "12", "--quiet"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "broken by the environment and not counted, first: " + name in said
    if where == "thread":
        fatal = next(seed for seed in range(99) if random.Random(seed).randrange(3) == 0)
        assert main(["play", f"{file}:{name}", "--seed", str(fatal), "--model", str(out)]) == 2
        assert f"{name}, seed {fatal}, turn 1: the environment {reason}" in " ".join(capsys.readouterr().err.split())


def test_one_that_always_breaks_is_refused(file: Path, capsys: Any) -> None:
    out = file.parent / "run"
    assert main([*SMALL, "--env", f"{file}:always", "--out", str(out)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "always, seed 0: the environment raised RuntimeError: the server is [down]. Mend the environment" in said
    assert not out.exists()


def test_a_reward_that_breaks_says_where_and_how_to_go_on(tmp_path: Path, capsys: Any) -> None:
    prompts, rewards, out = tmp_path / "prompts.jsonl", tmp_path / "rewards.py", tmp_path / "run"
    prompts.write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    rewards.write_text(
        "calls = []\n\ndef polite(completions, **columns):\n    calls.append(1)\n"
        "    return [1 / (len(calls) < 2) for _ in completions]\n"
    )
    assert main([*SMALL, "--data", str(prompts), "--reward", f"{rewards}:polite", "--out", str(out)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"reward function 'polite' raised ZeroDivisionError: division by zero ({rewards}:5)" in said
    assert said.endswith(f"What was learnt before is saved; once this is mended: turnwise train --resume {out}")
    rewards.write_text("def polite(completions, **columns):\n    return [0.5] * len(completions)\n")
    assert main(["train", "--resume", str(out), "--quiet"]) == 0
    assert [line["reward"] for line in read_metrics(out / "metrics.jsonl")] == [1.0, 0.5]


def test_one_that_cannot_be_found_again_is_refused_in_processes(file: Path) -> None:
    """By its name in a file anything travels; as an object it has to be at the top level of a module."""
    with pytest.raises(TurnwiseError, match=r"hidden cannot be sent to a process: .* top level of a module") as refusal:
        rehearse(spec(f"{file}:hidden").make, range(1), where="process")
    assert "where='thread'" in str(refusal.value)
    assert rehearse(ByName(f"{file}:hidden"), range(1), where="process")
