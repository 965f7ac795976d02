"""`turnwise data`: (1) a clean file is described and ends with 0, (2) every bad row is listed and it ends with 2, (3) a model
counts tokens and sets the limit, (4) what cannot be read is one message, (5) the help page is light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig

from tests.text import templates
from turnwise.cli.data import KINDS
from turnwise.cli.main import main
from turnwise.data import Kind
from turnwise.text import Renderer

Captured = pytest.CaptureFixture[str]
GOOD = {"prompt": "go on", "chosen": "north it is", "rejected": "no", "source": "me"}


def written(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def table(page: str) -> dict[str, list[str]]:
    """Part of a row -> its percentiles."""
    return {cells[0]: cells[1:] for line in page.splitlines() if len(cells := line.split()) == 5}


def test_a_clean_file_is_described(tmp_path: Path, capsys: Captured) -> None:
    assert main(["data", "check", written(tmp_path / "a.jsonl", GOOD, GOOD)]) == 0
    page = capsys.readouterr().out
    for part in (
        "preference",
        "plain text",
        "2, of them 0 bad",
        "source",
        "in words",
        "p50",
        "p99",
        "every row is good",
    ):
        assert part in page
    lengths = table(page)
    assert [lengths[part] for part in ("prompt", "chosen", "rejected")] == [["2"] * 4, ["3"] * 4, ["1"] * 4]


def test_every_bad_row_is_listed(tmp_path: Path, capsys: Captured) -> None:
    rows = [GOOD, "nonsense", *[{**GOOD, "chosen": "no"}] * 14, {"prompt": "a"}]
    assert main(["data", "check", written(tmp_path / "a.jsonl", *rows)]) == 2
    page = capsys.readouterr().out
    assert "17, of them 16 bad" in page
    assert "14  chosen equals rejected" in page
    assert [line.partition(":")[0] for line in page.splitlines() if line.startswith("line ")] == [
        f"line {number}" for number in range(2, 18)
    ]
    assert "line 2: not JSON" in page
    assert "line 17: missing field: no 'chosen'" in page


def test_nothing_good_is_no_table(tmp_path: Path, capsys: Captured) -> None:
    assert main(["data", "check", written(tmp_path / "a.jsonl", {**GOOD, "chosen": ""})]) == 2
    assert "p50" not in capsys.readouterr().out


def test_a_model_counts_tokens_and_sets_the_limit(tmp_path: Path, capsys: Captured) -> None:
    tokenizer = templates.byte_level(templates.CHATML, eos="<|im_end|>")
    tokenizer.save_pretrained(tmp_path / "model")
    LlamaConfig(max_position_embeddings=40).save_pretrained(tmp_path / "model")
    renderer = Renderer(tokenizer)
    file = written(tmp_path / "a.jsonl", GOOD)
    assert main(["data", "check", file, "--model", str(tmp_path / "model")]) == 0
    page = capsys.readouterr().out
    assert "40 at most" in page
    assert table(page)["prompt"][0] == str(len(renderer.first("go on")))
    assert table(page)["chosen"][0] == str(len(renderer.action_ids("north it is")))
    assert main(["data", "check", file, "--model", str(tmp_path / "model"), "--max-length", "10"]) == 2
    assert "line 1: over length" in capsys.readouterr().out
    assert main(["data", "check", file, "--model", str(tmp_path / "model"), "--template", "raw"]) == 0
    assert table(capsys.readouterr().out)["prompt"][0] == str(len(tokenizer.encode("go on")))


def test_names_and_kinds_can_be_given(tmp_path: Path, capsys: Captured) -> None:
    file = written(tmp_path / "a.jsonl", {"question": "a", "answer": "b"})
    assert main(["data", "check", file, "--columns", "prompt=question", "completion=answer"]) == 0
    assert "prompt-completion" in capsys.readouterr().out
    assert main(["data", "check", file, "--columns", "prompt=question", "--kind", "prompt-only"]) == 0
    assert "answer (reward functions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["check", "no.jsonl"], "there is no file no.jsonl"),
        (["chek", "a"], "there is no command `data chek`"),
        (["check", "FILE", "--columns", "prompt"], "write it as OURS=THEIRS"),
        (["check", "FILE", "--columns", "prompt=a", "prompt=b"], "names prompt twice"),
        (["check", "FILE", "--kind", "preferences"], "did you mean 'preference'"),
        (["check", "FILE", "--max-length", "-1"], "a length is 1 or more"),
        (["check", "FILE", "--template", "chat"], "choose auto, plain or raw"),
        (["check", "FILE", "--model", "tiny"], "has no tokenizer yet"),
        (["check", "FILE", "--model", "./nowhere"], "cannot load a tokenizer from './nowhere'"),
        (["check", "FILE", "--split", "dev"], "has no split 'dev'"),
    ],
)
def test_what_cannot_be_is_one_message(options: list[str], said: str, tmp_path: Path, capsys: Captured) -> None:
    file = written(tmp_path / "a.jsonl", GOOD)
    assert main(["data", *(file if option == "FILE" else option for option in options)]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message


def test_the_kinds_of_the_help_page_are_all_there_are() -> None:
    assert tuple(kind.value for kind in Kind) == KINDS


def test_the_help_page_is_light(capsys: Captured) -> None:
    code = (
        "import sys\nfrom turnwise.cli.main import main\nmain(['data', '--help'])\nmain(['data', 'check', '--help'])\n"
        "assert not {'torch', 'transformers', 'datasets', 'pyarrow', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for kind in KINDS:
        assert kind in done.stdout
    assert main(["data"]) == 2


@pytest.mark.parametrize("columns", [("prompt=question", "completion=reply"), ("prompt=question,completion=reply",)])
def test_columns_are_separated_by_blanks_or_commas(columns: tuple[str, ...], tmp_path: Path, capsys: Captured) -> None:
    path = written(tmp_path / "a.jsonl", {"question": "go on", "reply": "north"})
    assert main(["data", "check", path, "--columns", *columns]) == 0
    assert "prompt-completion" in capsys.readouterr().out
