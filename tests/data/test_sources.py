"""Files: (1) the same rows come out of every format, (2) each with the number of its line or row, (3) bytes that are no
text spoil their row alone, (4) a table that breaks off is said, (5) splits are chosen by name, (6) nothing is read that
is not asked for."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from turnwise.data import DataError, check, load
from turnwise.data.sources import is_hub_id, open_rows

ROWS = [
    {"prompt": "2 + 2", "completion": "4", "label": True},
    {"prompt": "two\nlines, and a \"quote\"", "completion": "ü", "label": False},
    {"prompt": "c", "completion": "d", "label": True},
]  # fmt: skip


def write_jsonl(path: Path) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def write_array(path: Path) -> Path:
    path = path.with_suffix(".json")
    path.write_text(json.dumps(ROWS, indent=1, ensure_ascii=False), encoding="utf-8")
    return path


def write_lines_as_json(path: Path) -> Path:
    return write_jsonl(path).rename(path.with_suffix(".json"))


def write_packed(path: Path) -> Path:
    path = path.with_suffix(".jsonl.gz")
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    return path


def write_csv(path: Path, delimiter: str = ",", suffix: str = ".csv") -> Path:
    path = path.with_suffix(suffix)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def write_tsv(path: Path) -> Path:
    return write_csv(path, "\t", ".tsv")


def write_parquet(path: Path) -> Path:
    path = path.with_suffix(".parquet")
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def write_folder(path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(path))
    return path


WRITERS: list[Callable[[Path], Path]] = [
    write_jsonl, write_array, write_lines_as_json, write_packed, write_csv, write_tsv, write_parquet, write_folder,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same_rows(write: Callable[[Path], Path], tmp_path: Path) -> None:
    expected = load(ROWS).rows
    found = load(write(tmp_path / "data"))
    assert [(row.prompt, row.answers) for row in found.rows] == [(row.prompt, row.answers) for row in expected]


def test_rows_have_the_numbers_of_their_lines(tmp_path: Path) -> None:
    good = json.dumps({"prompt": "a"})
    (tmp_path / "a.jsonl").write_text(f"{good}\n\n{{\n{good}\n[1]\n")
    report = check(tmp_path / "a.jsonl")
    assert [str(problem) for problem in report.problems] == [
        "line 3: not JSON: Expecting property name enclosed in double quotes at column 2",
        "line 5: not an object: it is list",
    ]
    assert [row.number for row in load(tmp_path / "a.jsonl", skip_bad=True).rows] == [1, 4]
    (tmp_path / "a.csv").write_text('prompt\n"two\nlines"\nthree\n""\n"a",b\nlast\n')
    report = check(tmp_path / "a.csv")
    assert [str(problem) for problem in report.problems] == [
        "line 5: empty: 'prompt' holds no text",
        "line 6: not CSV: it has 2 cells under 1 column names",
    ]
    assert [row.number for row in load(tmp_path / "a.csv", skip_bad=True).rows] == [2, 4, 7]
    (tmp_path / "a.json").write_text('[\n{"prompt": "a"},\n{"prompt":\n"b"},\n{"prompt": ""}\n]')
    assert str(check(tmp_path / "a.json").problems[0]).startswith("line 5: empty")
    pq.write_table(pa.table({"prompt": ["a", None, "c"]}), tmp_path / "a.parquet")
    assert str(check(tmp_path / "a.parquet").problems[0]) == "row 2: missing field: 'prompt' is null"


BAD = b'{"prompt": "caf\xe9"}'


def test_bytes_that_are_no_text_spoil_their_row_alone(tmp_path: Path) -> None:
    good = b'{"prompt": "a"}'
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good, BAD, good]))
    (tmp_path / "a.json").write_bytes(b"[" + b",\n".join([good, BAD, good]) + b"]")
    (tmp_path / "a.csv").write_bytes(b"prompt\na\ncaf\xe9\nb\n")
    for name, where in [("a.jsonl", "line 2"), ("a.json", "line 2"), ("a.csv", "line 3")]:
        report = check(tmp_path / name)
        assert (report.good, len(report.problems)) == (2, 1)
        assert str(report.problems[0]).startswith(f"{where}: not UTF-8")
    text = pa.array([b"a", b"caf\xe9", b"b"]).cast(pa.binary())
    raw = pa.Array.from_buffers(pa.string(), 3, text.buffers())
    pq.write_table(pa.table({"prompt": raw}), tmp_path / "a.parquet")
    report = check(tmp_path / "a.parquet")
    assert [str(problem) for problem in report.problems] == ["row 2: not UTF-8: a text holds bytes that are no text"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "prompt".encode("utf-16"), "written in UTF-16; save it as UTF-8"),
        ("a.csv", b"caf\xe9\na\n", "names of its columns are not UTF-8"),
        ("a.parquet", b"PAR1", "not a complete Parquet file"),
        ("a.jsonl.gz", b"plain", "cannot read"),
        ("a.txt", b"a", "data is read from .jsonl, .json, .csv, .tsv, .parquet files, not from .txt"),
        ("a", b"a", "not from one without an ending"),
    ],
)
def test_a_file_that_nobody_can_read_is_one_message(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        load(tmp_path / name)


def test_what_breaks_off_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"prompt": "a"},\n{"prompt": "b"},\n{"prom')
    report = check(tmp_path / "a.json")
    assert (report.good, str(report.problems[0])[:17]) == (2, "line 3: not JSON:")
    (tmp_path / "a.csv").write_text('prompt\na\n"open\nb\nc\n')
    report = check(tmp_path / "a.csv")
    assert report.good == 1
    assert str(report.problems[0]) == (
        "line 3: not CSV: a quotation mark is opened and never closed; nothing behind it can be read"
    )
    whole = write_parquet(tmp_path / "b").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a complete Parquet file"):
        load(tmp_path / "b.parquet")


@pytest.mark.parametrize("line", ["[" * 100_000, '{"prompt": ' + "9" * 5000 + "}"])
def test_hostile_lines_are_bad_rows(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n' + line + "\n")
    (problem,) = check(tmp_path / "a.jsonl").problems
    assert problem.what == "not JSON"


def test_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_list([{"prompt": name}]) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "both"))
    datasets.DatasetDict({"test": parts["test"]}).save_to_disk(str(tmp_path / "one"))
    parts["train"].save_to_disk(str(tmp_path / "none"))
    assert load(tmp_path / "both").rows[0].prompt == "train"
    assert load(tmp_path / "both", split="test").rows[0].prompt == "test"
    assert load(tmp_path / "one").rows[0].prompt == "test"
    with pytest.raises(DataError, match="no split 'dev'; its splits are train, test"):
        load(tmp_path / "both", split="dev")
    with pytest.raises(DataError, match="has no splits, so none called 'dev'"):
        load(tmp_path / "none", split="dev")
    with pytest.raises(DataError, match="is one file and has no split 'dev'"):
        load(write_jsonl(tmp_path / "a"), split="dev")
    assert load(tmp_path / "a.jsonl", split="train").rows


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in (str(tmp_path / "no.jsonl"), "owner/data.jsonl", "nothing"):
        with pytest.raises(DataError, match="there is no file"):
            load(name)
    with pytest.raises(DataError, match="no file is named"):
        load("")


def test_rows_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    path.write_text('{"prompt": "a"}\n' * 200_000)
    first = list(itertools.islice(open_rows(path).records, 3))
    assert [number for number, _ in first] == [1, 2, 3]


def test_rows_in_memory_are_rows() -> None:
    given: list[Any] = [{"prompt": "a"}, "b"]
    assert str(check(given).problems[0]) == "row 2: not an object: it is str"
    with pytest.raises(DataError, match="keys train, test; pass one of its splits"):
        load({"train": [], "test": []})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "is_one"),
    [
        ("owner/name", True),
        ("owner/name.v2:main", True),
        ("owner/name.jsonl", False),
        ("name", False),
        ("a/b/c", False),
    ],
)
def test_what_a_hub_id_looks_like(source: str, is_one: bool) -> None:
    assert is_hub_id(source) is is_one
