"""Teachers and step labels by name: whoever compares or finishes answers in a run from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from turnwise import SFT, TurnwiseError, train
from turnwise.algorithms import DPO, ProcessRewardModel
from turnwise.cli.main import main
from turnwise.models import build_tokenizer
from turnwise.recipes.constitutional import Principles, check_principles
from turnwise.recipes.flat import anchored
from turnwise.recipes.teachers import teacher_of
from turnwise.runs import read_metrics
from turnwise.text import Renderer

TINY: dict[str, Any] = {"max_tokens": 12, "threads": 1, "progress": False}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts with answers in steps, a model that has learnt to answer, principles and a teacher."""
    folder = tmp_path_factory.mktemp("home")
    rows = [
        {
            "prompt": f"add {a} {b}",
            "completion": f"first {a}\nthen {b}\nsum {(a + b) % 10}",
            "answer": str((a + b) % 10),
        }
        for a in range(6)
        for b in range(6)
    ]
    # A model can judge by letter only if it knows the letters.
    rows += [{"prompt": "A or B", "completion": letter, "answer": letter} for letter in "AB"]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "right.py").write_text(
        "from turnwise.teachers import Answer, Preferred\n"
        "def right(prompts, completions, answer, **_):\n"
        "    return [float(c.split()[-1:] == [a]) for c, a in zip(completions, answer)]\n"
        "def first(queries):\n"
        "    return [Answer(q.id, Preferred.FIRST) for q in queries]\n"
    )
    (folder / "principles.txt").write_text("Do not say seven. [forbids: 7]\n")
    train(algorithm=SFT(episodes=36), data=str(folder / "sums.jsonl"), steps=12, lr=3e-3, out=folder / "sft", **TINY)
    return folder


@pytest.mark.parametrize("teacher", ["principles:{}/principles.txt", "judge:{}/sft", "{}/right.py:first"])
def test_a_teacher_compares_the_replies_of_a_run(home: Path, teacher: str, tmp_path: Path) -> None:
    method = DPO(online=True, groups=8, group_size=2)
    settings = {"data": str(home / "sums.jsonl"), "model": str(home / "sft" / "final"), "steps": 2, **TINY}
    trained = train(algorithm=method, teacher=teacher.format(home), out=tmp_path / "run", **settings)
    row = read_metrics(trained.folder / "metrics.jsonl")[0]
    assert "rewards/teacher/mean" in row
    assert row["rewards/teacher/mean"] == pytest.approx(0.5), "of two replies one wins, or both tie"


def test_a_teacher_that_is_none_is_explained(home: Path) -> None:
    with pytest.raises(TurnwiseError, match=r"no teacher 'nobody'.*principles:FILE"):
        train(algorithm=DPO(online=True), teacher="nobody", data=str(home / "sums.jsonl"), steps=1, **TINY)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("judge:http://127.0.0.1:1/v1", r"does not say which model; write judge:http://127.0.0.1:1/v1#MODEL"),
        ("judge:http://127.0.0.1:1/v1#", r"does not say which model"),
        ("judge:nowhere", r"no such folder"),
        ("judge:http://127.0.0.1:1/v1#m@own.txt", r"judge:FOLDER or judge:URL#MODEL"),
    ],
)
def test_a_judge_that_is_no_model_is_explained(name: str, complaint: str) -> None:
    with pytest.raises(TurnwiseError, match=complaint):
        teacher_of(name, Renderer(build_tokenizer(["A B"])))


def test_names_are_kept_in_full(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    for short, full in (
        ("principles:principles.txt", f"principles:{home / 'principles.txt'}"),
        ("judge:sft", f"judge:{home / 'sft'}"),
        ("judge:http://127.0.0.1:1/v1#m", "judge:http://127.0.0.1:1/v1#m"),
        ("right.py:first", f"{home / 'right.py'}:first"),
    ):
        assert anchored({"teacher": short})["teacher"] == full
    assert anchored({"reward": "right.py:right=0.5"})["reward"] == f"{home / 'right.py'}:right=0.5"


def test_steps_are_labelled_by_finishing_the_answers(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"data": str(home / "sums.jsonl"), "model": str(home / "sft" / "final"), "steps": 2, **TINY}
    with pytest.raises(TurnwiseError, match="judges whole answers"):
        train(algorithm=ProcessRewardModel(samples=2), **settings)
    with pytest.raises(TurnwiseError, match="model from scratch"):
        train(algorithm=ProcessRewardModel(samples=2), reward="exact", **{**settings, "model": "tiny"})
    out = tmp_path / "prm"
    train(
        algorithm=ProcessRewardModel(samples=2, episodes=8), reward=f"{home / 'right.py'}:right", out=out, **settings
    )  # fmt: skip
    row = read_metrics(out / "metrics.jsonl")[-1]
    assert 0 <= row["steps/positives"] <= 1
    assert row["turns/mean"] > 1, "answers are split into steps"
    assert main(["eval", str(out), "--episodes", "6"]) == 0
    assert "area under the curve" in capsys.readouterr().out
    # And the model that was trained pays for steps.
    paid = train(algorithm=DPO(online=True, groups=2), reward=str(out), step_end="\\n", **settings)
    assert read_metrics(paid.folder / "metrics.jsonl")[0]["turns/mean"] > 1


def test_the_procedure_is_written_to_be_edited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "procedure"
    assert main(["data", "procedure", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {"principles.txt", "critique.txt", "revision.txt", "compare.txt"}
    (folder / "critique.txt").write_text("mine {principle}")
    assert main(["data", "procedure", str(folder)]) == 0
    assert (folder / "critique.txt").read_text() == "mine {principle}"
    assert "already" in capsys.readouterr().out
    # Its principles are those of a run that names the folder alone.
    (folder / "principles.txt").write_text("Do not say so. [forbids: so]\n")
    assert [p.text for p in check_principles(Principles(procedure=str(folder)))] == ["Do not say so."]


def test_preferences_are_written_by_the_principles_of_a_run(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = [
        "--data",
        str(home / "sums.jsonl"),
        "--model",
        str(home / "sft" / "final"),
        "--max-tokens",
        "12",
        "--quiet",
    ]
    principles = ["--principles", str(home / "principles.txt")]
    assert (
        main(["train", "constitutional", *arguments, *principles, "--steps", "1", "--episodes", "8", "--out", str(run)])
        == 0
    )
    assert main(["data", "preferences", str(run), "--out", str(tmp_path / "pairs.jsonl"), "--prompts", "64"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert rows
    says = re.compile(r"\b7\b").search
    assert all(says(row["rejected"]) and not says(row["chosen"]) for row in rows)
    assert main(["data", "preferences", str(home / "sft"), "--out", str(tmp_path / "none.jsonl")]) == 2
    assert "no run of constitutional" in capsys.readouterr().err
