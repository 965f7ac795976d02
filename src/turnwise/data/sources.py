"""Where rows come from: files of several formats, data sets of the library `datasets`, or a list in memory.

Rows come one by one, each with its number, so that a file need not fit into memory. What is wrong with a single row
is said about that row; what is wrong with the whole file is raised.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from turnwise.data.problems import BadRow, DataError

Record = tuple[int, "Mapping[str, Any] | BadRow"]
"""The number of a row, counted from 1, and its columns or what is wrong with it."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
_BATCH = 1000


@dataclass(frozen=True)
class Opened:
    """Rows to be read, once.

    Attributes:
        name: What to call it in messages.
        unit: What its numbers count: "line" or "row".
        records: The rows.
        cells: Values are the cells of a CSV file, so texts all of them.
    """

    name: str
    unit: str
    records: Iterator[Record]
    cells: bool = False


def open_rows(source: str | Path | Iterable[Mapping[str, Any]], split: str = "") -> Opened:
    """Find out what `source` is and begin to read it.

    Args:
        source: A file (``.jsonl``, ``.json``, ``.csv``, ``.tsv``, ``.parquet``; the first four may be followed by
            ``.gz``), a folder that `datasets` wrote or can read, a hub id ``owner/name`` or ``owner/name:config``, or
            rows in memory.
        split: Split of a data set; "train" if there is one, by default. A file is a split of its own.

    Raises:
        DataError: no such file, a format nobody can read, or no such split.
    """
    if isinstance(source, Mapping):
        raise DataError(
            f"the data is a mapping with the keys {', '.join(map(str, source))[:80]}; pass one of its splits"
        )
    if not isinstance(source, str | Path):
        return Opened("the data", "row", enumerate_rows(source))
    path, name = Path(source).expanduser(), str(source)
    if not name:
        raise DataError("no file is named; name the one that holds the data")
    if path.is_dir():
        return Opened(name, "row", enumerate_rows(_folder(path, split)))
    if not path.exists():
        if isinstance(source, str) and is_hub_id(source):
            return Opened(name, "row", enumerate_rows(_hub(source, split)))
        raise DataError(f"there is no file {name}; the path is taken from the current folder, {Path.cwd()}")
    if split not in ("", "train"):
        raise DataError(
            f"{name} is one file and has no split {split!r}; leave the split out, or name the file of that split"
        )
    read = _format(path)
    if read is None:
        raise DataError(
            f"{name}: data is read from {', '.join(_FORMATS)} files, not from {path.suffix or 'one without an ending'}"
        )
    unit = "row" if read is _parquet else "line"
    return Opened(name, unit, read(path), read in (_csv, _tsv))


def is_hub_id(source: str) -> bool:
    """It has the form of a hub id, and is neither a path that exists nor the name of a file that could be read."""
    path = Path(source).expanduser()
    return bool(_HUB_ID.fullmatch(source)) and not path.exists() and _format(path) is None


def enumerate_rows(rows: Iterable[Any]) -> Iterator[Record]:
    """Rows in memory with their numbers."""
    for number, row in enumerate(rows, start=1):
        yield number, row if isinstance(row, Mapping) else BadRow("not an object", f"it is {type(row).__name__}")


# ---- text


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with cast("BinaryIO", gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            for number, line in enumerate(file, start=1):
                if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise DataError(f"{path} is written in UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _jsonl(path: Path) -> Iterator[Record]:
    for number, line in _lines(path):
        if line.strip():
            yield number, _parsed(line)


def _parsed(line: bytes) -> Mapping[str, Any] | BadRow:
    try:
        value = json.loads(line.decode("utf-8").rstrip())
    except UnicodeDecodeError as error:
        return BadRow("not UTF-8", f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}")
    except json.JSONDecodeError as error:
        return BadRow("not JSON", f"{error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return BadRow("not JSON", str(error).partition(";")[0])
    return value if isinstance(value, Mapping) else BadRow("not an object", f"it is {type(value).__name__}")


def _json(path: Path) -> Iterator[Record]:
    """An array of objects; a file of one object per line is often called so, too."""
    first = next((line.strip()[:1] for _, line in _lines(path) if line.strip()), b"")
    if first != b"[":
        yield from _jsonl(path)
        return
    # Bytes that are no text spoil the item they are in and not the whole array.
    yield from _items("".join(line.decode("utf-8", "surrogateescape") for _, line in _lines(path)))


def _items(text: str) -> Iterator[Record]:
    decoder = json.JSONDecoder()
    at, line, blank = text.index("[") + 1, 1, re.compile(r"[\s,]*")
    counted = 0
    while True:
        start = blank.match(text, at).end()  # type: ignore[union-attr]
        line += text.count("\n", counted, start)
        counted = start
        if text[start : start + 1] == "]":
            return
        try:
            value, at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            where = error.lineno if isinstance(error, json.JSONDecodeError) else line
            yield where, BadRow("not JSON", "the array breaks off or goes wrong here; nothing behind it can be read")
            return
        if not _clean(text[start:at]):
            yield line, BadRow("not UTF-8", "it holds bytes that are no text")
        else:
            yield (
                line,
                value if isinstance(value, Mapping) else BadRow("not an object", f"it is {type(value).__name__}"),
            )


def _clean(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _csv(path: Path, delimiter: str = ",") -> Iterator[Record]:
    lines = (line.decode("utf-8", "surrogateescape") for _, line in _lines(path))
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    # Strict, because a quotation mark that is never closed would otherwise swallow the rest of the file without a word.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = next(reader, None)
    if header is None:
        return
    if not all(_clean(name) for name in header):
        raise DataError(f"{path}: the names of its columns are not UTF-8; save the file as UTF-8")
    while True:
        number = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                error = "a quotation mark is opened and never closed; nothing behind it can be read"
            yield number, BadRow("not CSV", str(error))
            continue
        if not values:
            continue
        if len(values) != len(header):
            yield number, BadRow("not CSV", f"it has {len(values)} cells under {len(header)} column names")
        elif not all(_clean(value) for value in values):
            yield number, BadRow("not UTF-8", "a cell holds bytes that are no text")
        else:
            yield number, dict(zip(header, values, strict=True))


def _tsv(path: Path) -> Iterator[Record]:
    return _csv(path, "\t")


# ---- tables


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH):
            try:
                rows: list[Any] = batch.to_pylist()
            except UnicodeDecodeError:
                rows = [_row(batch.slice(i, 1)) for i in range(batch.num_rows)]
            for row in rows:
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a complete Parquet file ({str(error).splitlines()[0]})") from error


def _row(batch: Any) -> Mapping[str, Any] | BadRow:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return BadRow("not UTF-8", "a text holds bytes that are no text")


def _folder(path: Path, split: str) -> Iterable[Any]:
    datasets = _datasets()
    stored = any((path / name).exists() for name in ("state.json", "dataset_dict.json"))
    return _split(
        lambda: datasets.load_from_disk(str(path)) if stored else datasets.load_dataset(str(path)), path, split
    )


def _hub(source: str, split: str) -> Iterable[Any]:
    name, _, config = source.partition(":")
    return _split(lambda: _datasets().load_dataset(name, config or None), source, split)


def _split(load: Callable[[], Any], name: str | Path, split: str) -> Iterable[Any]:
    try:
        found = load()
    except DataError:
        raise
    except Exception as error:  # the library raises a different kind for each of its many formats
        raise DataError(
            f"cannot load the data set {name}: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(found, Mapping):
        if split not in ("", "train"):
            raise DataError(f"{name} has no splits, so none called {split!r}; leave the split out")
        return found
    wanted = split or ("train" if "train" in found or len(found) != 1 else next(iter(found)))
    if wanted not in found:
        raise DataError(f"{name} has no split {wanted!r}; its splits are {', '.join(map(str, found))}")
    return found[wanted]


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError('folders and hub ids are read by the library datasets: pip install "turnwise[data]"') from error
    return datasets


_FORMATS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}


def _format(path: Path) -> Callable[[Path], Iterator[Record]] | None:
    name = path.name.lower()
    packed = name.endswith(".gz")
    found = _FORMATS.get(Path(name.removesuffix(".gz")).suffix)
    return None if packed and found is _parquet else found
