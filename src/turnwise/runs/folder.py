"""The folder of one run: what is where, and who may write it.

    config.json                resolved configuration, seeds, versions: everything needed to repeat the run
    metrics.jsonl              one line per iteration
    tensorboard/               the same for TensorBoard
    episodes/000012.parquet    the episodes of iteration 12
    checkpoints/000012/        everything needed to go on after iteration 12; also a Hugging Face model folder
    tokenizer/                 of a model from scratch, made of the words that its environment said
    final/                     the trained model, a Hugging Face model folder
    eval.json                  the last evaluation

Iterations count from 1 in every name and file: number 12 is what was true when twelve iterations were complete.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import math
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Self

from turnwise.runs.atomic import disk, remove_leftovers, write_bytes
from turnwise.runs.errors import RunError
from turnwise.runs.lock import RunLock

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the layout above."""

_LOCK = "run.lock"
_PACKAGES = (
    "turnwise", "torch", "transformers", "tokenizers", "safetensors", "peft", "numpy", "gymnasium", "minigrid",
    "textworld", "pyarrow", "tensorboardX",
)  # fmt: skip


class RunFolder:
    """One run on disk. Make one with `create`, `open` or `view`; close it, or use it in a ``with`` block.

    Attributes:
        path: The folder.
        config: The resolved configuration the run was created with, as plain JSON data.
        seeds: The seeds it was created with, by name.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], lock: RunLock | None) -> None:
        self.path = path
        self.config: dict[str, Any] = about["config"]
        self.seeds: dict[str, int] = about["seeds"]
        self._lock = lock

    # ---- three ways to get one ---------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: str | Path, config: Any, *, seeds: Mapping[str, int] | None = None) -> Self:
        """Start a run in a new or empty folder.

        Args:
            path: The folder.
            config: A mapping or dataclass; nested dataclasses, enums, paths and tuples become plain JSON data.
            seeds: Seeds by name.

        Raises:
            RunError: the folder is in use or not empty, cannot be written, or `config` holds something that is not data.
        """
        path = Path(path)
        about = {
            "format": FORMAT,
            "config": plain(config, "config"),
            "seeds": dict(seeds or {}),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **_surroundings(),
        }
        with disk(path, "create"):
            if path.is_dir():
                _refuse_content(path)
            path.mkdir(parents=True, exist_ok=True)
        lock = RunLock(path / _LOCK)
        try:
            write_bytes(path / "config.json", _json(about))
        except BaseException:
            lock.release()
            raise
        return cls(path, about, lock)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Take up an existing run for writing, and clear away what a process that died left unfinished.

        Raises:
            RunError: there is no run, another process writes it, it is of a newer layout, or it cannot be written.
        """
        path = Path(path)
        about = _read_about(path)
        lock = RunLock(path / _LOCK)
        try:
            # Better to learn now that nothing can be written than after the first iteration.
            write_bytes(path / ".tmp-probe", b"\0" * 4096)
            with disk(path, "clean"):
                for folder in (path, path / "episodes", path / "checkpoints"):
                    if folder.is_dir():
                        remove_leftovers(folder)
        except BaseException:
            lock.release()
            raise
        changed = _changed(about, _surroundings())
        if changed:
            log.warning("resuming %s with other versions (%s): figures may differ in the last digits", path, changed)
        return cls(path, about, lock)

    @classmethod
    def view(cls, path: str | Path) -> Self:
        """A run to read from, also while another process writes it.

        Raises:
            RunError: there is no run, or it is of a newer layout.
        """
        path = Path(path)
        return cls(path, _read_about(path), None)

    # ---- what is where -----------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> Path:
        """One JSON object per iteration."""
        return self.path / "metrics.jsonl"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer of a model from scratch."""
        return self.path / "tokenizer"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint."""
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The trained model."""
        return self.path / "final"

    @property
    def evaluation(self) -> Path:
        """The last evaluation."""
        return self.path / "eval.json"

    def episodes(self, iteration: int) -> Path:
        """The record of one iteration, counted from 1."""
        return self.path / "episodes" / f"{iteration:06d}.parquet"

    def recorded(self) -> list[int]:
        """Iterations that have a record, in order."""
        return sorted(int(p.stem) for p in (self.path / "episodes").glob("*.parquet") if p.stem.isdigit())

    # ---- writing -----------------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """This process holds the run's lock."""
        return self._lock is not None

    def write_evaluation(self, evaluation: Any) -> None:
        """Replace ``eval.json`` by an `Evaluation`, or by a mapping or dataclass that holds some.

        Figures that are not finite, such as the bounds of an interval that does not exist, become null.

        Raises:
            RunError: the disk refused, or `evaluation` holds something that is not data.
        """
        write_bytes(self.evaluation, _json(_finite(plain(evaluation, "evaluation"))))

    def reconfigure(self, config: Any) -> None:
        """Replace the configuration, as when a resumed run is given more iterations.

        Raises:
            RunError: the disk refused, or `config` holds something that is not data.
        """
        about = {**_read_about(self.path), "config": plain(config, "config")}
        write_bytes(self.path / "config.json", _json(about))
        self.config = about["config"]

    def discard(self) -> None:
        """Forget a run in which nothing has happened yet, and close it. The folder goes too, if nothing else is in it."""
        with disk(self.path, "clean"):
            (self.path / "config.json").unlink(missing_ok=True)
            shutil.rmtree(self.tokenizer, ignore_errors=True)
            self.close()
            (self.path / _LOCK).unlink(missing_ok=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()

    def close(self) -> None:
        """Let other processes write the run. Doing it twice is harmless."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def plain(value: Any, where: str) -> Any:
    """Plain JSON data for dataclasses, mappings, sequences, enums and paths.

    Raises:
        RunError: something that is not data, with its place.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple | range | set | frozenset):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Enum):
        return plain(value.value, where)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise RunError(
        f"{where} is a {type(value).__name__}, which cannot be written to config.json; "
        "give numbers, text, lists, mappings or dataclasses of these"
    )


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(item) for key, item in data.items()}
    if isinstance(data, list):
        return [_finite(item) for item in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def as_json(data: Any) -> bytes:
    """Strict JSON of a mapping or dataclass, for people too: figures that are not finite become null."""
    return _json(_finite(plain(data, "data")))


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _refuse_content(path: Path) -> None:
    """Nothing may be in the folder but what a start that failed at once can leave: its lock."""
    if not any(p.name != _LOCK and not p.name.startswith(".tmp-") for p in path.iterdir()):
        return
    if (path / "config.json").exists():
        raise RunError(
            f"{path} already holds a run; continue it with `turnwise train --resume {path}`, or choose another folder"
        )
    raise RunError(f"{path} is not empty and holds no run; choose another folder for the new run")


def _read_about(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    with disk(path, "read"):
        if not file.exists():
            raise RunError(
                f"{path} holds no run (no config.json); give the folder that was made when the run was started"
            )
        text = file.read_text(encoding="utf-8")
    try:
        about = json.loads(text)
        found, _, _ = about["format"], about["config"], about["seeds"]
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{file} is not a run's configuration; restore it from a copy, or start a new run") from None
    if found != FORMAT:
        version = about.get("packages", {}).get("turnwise", "another version")
        raise RunError(
            f"{path} was written by turnwise {version} in layout {found}; this version reads layout {FORMAT}. "
            f"Install turnwise {version} to continue the run"
        )
    return about


def _surroundings() -> dict[str, Any]:
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    threads: dict[str, Any] = {"cpus": os.cpu_count()}
    threads |= {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    # Asking torch must not be what loads it.
    torch = sys.modules.get("torch")
    if torch is not None:
        threads["torch"] = torch.get_num_threads()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "threads": threads,
        "command": sys.argv,
    }


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    old, new = before.get("packages", {}), now["packages"]
    parts = [
        f"{k} {old.get(k, 'absent')} → {new.get(k, 'absent')}" for k in sorted(old | new) if old.get(k) != new.get(k)
    ]
    if before.get("python") != now["python"]:
        parts.append(f"python {before.get('python')} → {now['python']}")
    return ", ".join(parts)
