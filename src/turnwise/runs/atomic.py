"""Writing so that a reader, or a process that died at any moment, sees the old content or the new, never a mixture.

Content goes to a temporary name in the same folder, is flushed to the disk, and is then renamed. The rename itself
is made durable by flushing the parent folder.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from turnwise.runs.errors import RunError

TEMPORARY = ".tmp-"
"""Prefix of names that are not finished yet. What carries it after a crash may be deleted."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def disk(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn what the operating system says about `path` into one `RunError` with a remedy.

    The safetensors library reports a full disk with an exception of its own that carries the error number in its
    text only; it is recognised here too.
    """
    try:
        yield
    except OSError as error:
        raise RunError(_explain(path, doing, error.errno, error.strerror or str(error))) from error
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        code = int(number.group(1))
        raise RunError(_explain(path, doing, code, os.strerror(code))) from error


def _explain(path: Path, doing: str, code: int | None, reason: str) -> str:
    if code in _FULL:
        remedy = "Free some space and resume the run; what was saved before is intact."
    elif code in _FORBIDDEN:
        remedy = "Choose a folder you may write to, or change its permissions; what was saved before is intact."
    elif code == errno.ENOTDIR:
        remedy = "A part of this path is a file. Choose another path."
    elif code == errno.EFBIG:
        remedy = (
            "The file would be larger than the limit set for it (see `ulimit -f`); what was saved before is intact."
        )
    else:
        remedy = "Check the disk, then resume the run; what was saved before is intact."
    return f"cannot {doing} {path}: {reason}. {remedy}"


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of `path`, whole or not at all.

    Raises:
        RunError: the disk is full, read-only or broken; `path` is as it was.
    """
    temporary = path.with_name(TEMPORARY + path.name)
    with disk(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name `path`, replacing what is there, when the block ends without an exception.

    Raises:
        RunError: the disk is full, read-only or broken; `path` is as it was.
    """
    temporary = path.with_name(TEMPORARY + path.name)
    aside = path.with_name(f"{TEMPORARY}old-{path.name}")
    with disk(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            yield temporary
            for folder, _, files in os.walk(temporary):
                for name in files:
                    _sync_file(Path(folder, name))
                sync_folder(Path(folder))
            # A folder that is not empty cannot be replaced by a rename.
            if path.exists():
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
            temporary.rename(path)
            sync_folder(path.parent)
        except BaseException:
            if aside.exists() and not path.exists():
                aside.rename(path)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Delete a folder; a crash on the way never leaves half of it under its own name."""
    aside = path.with_name(f"{TEMPORARY}old-{path.name}")
    with disk(path, "delete"):
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what a process that died left unfinished directly in `folder`."""
    for path in folder.glob(TEMPORARY + "*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
