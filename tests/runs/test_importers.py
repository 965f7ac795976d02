"""Logs of other libraries: (1) everything they have arrives where it belongs, (2) what they lack stays empty, (3) a file
that is something else is refused with its name. The files are written here as those libraries write them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from turnwise.episode import Source
from turnwise.runs import RunError, read_trl_completions, read_verifiers

NAN = math.nan


def completions(folder: Path, step: int, **columns: list[Any]) -> Path:
    n = len(next(iter(columns.values())))
    table = pa.table({"step": [step] * n, **columns})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"completions_{step:05d}.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture
def trl(tmp_path: Path) -> Path:
    """The output folder of a trainer with two reward functions, one of which logs a text and a number besides."""
    extras = {"parsed": ["4", "5"], "digits": [1, 1]}
    for step, text in ((20, "five"), (10, "four")):
        completions(
            tmp_path / "completions",
            step,
            prompt=["user\n2+2?", "user\n2+3?"],
            completion=[text, "5"],
            correct=[0.0, 1.0],
            short=[NAN, 0.5],
            **extras,
            advantage=[-0.7, 0.7],
        )
    return tmp_path


def test_trl_rows_arrive_in_the_order_of_the_steps(trl: Path) -> None:
    rows = read_trl_completions(trl, rewards={"correct": 1.0, "short": 2.0})
    assert [row.actions for row in rows] == [("four",), ("5",), ("five",), ("5",)]
    assert [row.rewards for row in rows] == [(0.0,), (2.0,), (0.0,), (2.0,)]
    assert [row.seed for row in rows] == [0, 1, 0, 1], "equal prompts are one task"
    assert rows[1].observations == ("user\n2+3?",)
    assert rows[1].metrics == {"correct": 1.0, "short": 0.5, "digits": 1.0, "step": 10.0, "advantage": 0.7}
    assert "short" not in rows[0].metrics
    assert all(row.terminated and not row.truncated and row.source is Source.DATASET for row in rows)


def test_trl_counts_every_column_of_numbers_unless_told_otherwise(trl: Path) -> None:
    one = trl / "completions" / "completions_00010.parquet"
    assert [row.rewards for row in read_trl_completions(one)] == [(1.0,), (2.5,)]
    assert read_trl_completions(one) == read_trl_completions(trl / "completions")[:2]


def test_trl_without_rewards_leaves_the_reward_open(tmp_path: Path) -> None:
    path = completions(tmp_path, 1, prompt=["a"], completion=["b"])
    (row,) = read_trl_completions(path)
    assert math.isnan(row.rewards[0])
    assert row.metrics == {"step": 1.0}


def test_trl_refuses_what_is_something_else(tmp_path: Path, trl: Path) -> None:
    other = completions(tmp_path / "other", 1, question=["a"])
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(other.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"no column of texts 'prompt'.*question"):
        read_trl_completions(other)
    with pytest.raises(RunError, match=r"torn.parquet is not a complete Parquet file"):
        read_trl_completions(torn)
    with pytest.raises(RunError, match=r"no completions_\*"):
        read_trl_completions(_empty(tmp_path))
    with pytest.raises(RunError, match=r"no column of numbers 'helpful'.*correct"):
        read_trl_completions(trl, rewards={"helpful": 1.0})
    with pytest.raises(RunError, match="missing"):
        read_trl_completions(tmp_path / "missing.parquet")


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def lines(path: Path, *rows: dict[str, Any], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail, encoding="utf-8")
    return path


def says(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


GAME = {
    "example_id": 7,
    "prompt": [says("system", "Be brief."), says("user", "Guess 1 to 9.")],
    "completion": [
        says("assistant", "5"),
        says("user", "higher"),
        says("assistant", "7"),
        says("assistant", "I mean 8"),
        says("user", "right"),
    ],
    "reward": 1.5,
    "metrics": {"turns": 3, "exact": 1.0, "note": "no number", "unknown": None},
    "is_truncated": False,
    "is_completed": True,
    "error": None,
    "timing": {"total": 2.0},
}


def test_verifiers_rollout_becomes_turns(tmp_path: Path) -> None:
    lines(tmp_path / "results.jsonl", GAME)
    (tmp_path / "metadata.json").write_text('{"env_id": "guess", "model": "m"}')
    (row,) = read_verifiers(tmp_path)
    assert row.observations == ("Be brief.\n\nGuess 1 to 9.", "higher", "")
    assert row.actions == ("5", "7", "I mean 8")
    assert row.rewards == (0.0, 0.0, 1.5)
    assert row.last_obs == "right"
    assert (row.env, row.seed, row.terminated, row.truncated) == ("guess", 7, True, False)
    assert row.metrics == {"turns": 3.0, "exact": 1.0}
    assert row.source is Source.DATASET


def test_verifiers_plain_texts_and_older_names(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "x.jsonl",
        {"id": 3, "task": "sums", "prompt": "2+2?", "completion": "4", "reward": None, "is_truncated": True},
        {"prompt": "2+2?", "completion": "5"},
        {"prompt": "2+3?", "completion": "5"},
        {"prompt": "2+2?", "completion": "3"},
    )
    first, *rest = read_verifiers(path)
    assert (first.observations, first.actions, first.env, first.seed) == (("2+2?",), ("4",), "sums", 3)
    assert math.isnan(first.rewards[0])
    assert (first.truncated, first.terminated, first.metrics) == (True, False, {})
    assert [row.seed for row in rest] == [0, 1, 0]
    assert {row.env for row in rest} == {"verifiers"}


def test_verifiers_reasoning_tools_and_parts_are_written_out(tmp_path: Path) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x": 2}'}}
    flat = {"id": "b", "name": "add", "arguments": "not json"}
    row = {
        "prompt": [
            says("user", [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]),
            says("assistant", "Hm"),
        ],
        "completion": [
            says("assistant", None, reasoning_content="use the tool", tool_calls=[call, json.dumps(flat)]),
            says("tool", "4", tool_call_id="a"),
            says("assistant", "4"),
        ],
    }
    (read,) = read_verifiers(lines(tmp_path / "x.jsonl", row))
    assert read.observations == ("2+2?\n\nassistant: Hm", "4")
    assert read.actions[0].split("\n") == [
        "<think>use the tool</think>",
        '<tool_call>{"name": "add", "arguments": {"x": 2}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": "not json"}</tool_call>',
    ]


TRACE = {
    "version": 1,
    "task": {"type": "Wordle", "key": "w1", "data": {"word": "crane"}},
    "nodes": [
        {"message": says("user", "guess"), "sampled": False},
        {"parent": 0, "message": says("assistant", "slate"), "sampled": True, "token_ids": [1], "logprobs": [-0.1]},
        {"parent": 1, "message": says("user", "--a-e"), "sampled": False},
        {"parent": 2, "message": says("assistant", "crane"), "sampled": True},
        {"parent": 2, "message": says("assistant", "brace"), "sampled": True},
    ],
    "rewards": {"solved": {"score": 1.0, "weight": 2.0}, "format": {"score": 0.5}, "late": None},
    "metrics": {"guesses": 2, "nothing": None},
    "stop_condition": "max_turns",
    "ok": True,
}


def test_verifiers_trace_is_read_along_its_last_branch(tmp_path: Path) -> None:
    lines(tmp_path / "traces.jsonl", TRACE, {**TRACE, "task": {"type": "Wordle", "key": "w2"}, "rewards": {}})
    first, second = read_verifiers(tmp_path)
    assert (first.observations, first.actions) == (("guess", "--a-e"), ("slate", "brace"))
    assert first.rewards == (0.0, 2.5)
    assert (first.env, first.seed, first.truncated) == ("Wordle", 0, True)
    assert first.metrics == {"guesses": 2.0, "branches": 2.0}
    assert second.seed == 1
    assert math.isnan(second.rewards[-1])


def test_verifiers_leaves_out_broken_rollouts_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failed = {**GAME, "error": {"error": "Timeout"}, "completion": None}
    silent = {**GAME, "completion": [says("user", "anyone?")]}
    crashed = {**TRACE, "ok": False, "errors": [{"type": "X", "message": "y"}]}
    path = lines(tmp_path / "x.jsonl", GAME, failed, silent, crashed, tail='{"prompt": [{"ro')
    assert len(read_verifiers(path)) == 1
    assert "left out 3 rollouts" in caplog.text
    assert "last line" in caplog.text


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "?", "answer": "!"}, r"line 1 of .*no rollout of verifiers.*question"),
        ({"prompt": ["hello"], "completion": [says("assistant", "hi")]}, r"message 'hello'"),
        (
            {
                "prompt": [says("user", [{"type": "image_url", "image_url": "x"}])],
                "completion": [says("assistant", "")],
            },
            "not text",
        ),
        ({**TRACE, "nodes": [{"parent": 0, "message": says("user", "a")}]}, "form no tree"),
        ({**TRACE, "nodes": [{"parent": 5, "message": says("user", "a")}]}, "form no tree"),
    ],
)
def test_verifiers_refuses_what_is_something_else(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RunError, match=complaint):
        read_verifiers(lines(tmp_path / "x.jsonl", row))


def test_verifiers_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"neither results.jsonl nor traces.jsonl"):
        read_verifiers(tmp_path)
    with pytest.raises(RunError, match=r"line 1 of .* is not JSON"):
        read_verifiers(lines(tmp_path / "x.jsonl", tail="hello\n"))
    with pytest.raises(RunError, match="is list, not a JSON object"):
        read_verifiers(lines(tmp_path / "y.jsonl", tail="[1]\n"))
    (tmp_path / "z.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match="not text in UTF-8"):
        read_verifiers(tmp_path / "z.jsonl")
