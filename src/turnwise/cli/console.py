"""What the command line prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

CHATTY = ("transformers", "peft", "huggingface_hub", "torch", "httpx", "filelock")
"""Libraries whose loggers say nothing below an error, because their warnings are about their own concerns."""


class PipedConsole(Console):
    """A console that leaves a closed pipe to its caller, instead of ending the process with an error."""

    def on_broken_pipe(self) -> None:
        """Let the entry point decide."""
        raise BrokenPipeError


def output() -> Console:
    """Standard output."""
    return _console(stderr=False)


def messages() -> Console:
    """Standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # A pipe has no width: cutting its lines would break paths and commands that people copy or search for.
    width = None if stream.isatty() or "COLUMNS" in os.environ else 100
    return PipedConsole(stderr=stderr, highlight=False, width=width, emoji=False, markup=False)


def say(console: Console, *parts: str | Text) -> None:
    """A line that is not wrapped, unless a terminal does it."""
    console.print(Text.assemble(*parts), soft_wrap=True)


def pairs(rows: Iterable[tuple[str, Any]]) -> Table:
    """Two columns without lines: a name and what is said about it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(f"  {name}", value if isinstance(value, Text | Table) else Text(str(value)))
    return table


def columns(*names: str) -> Table:
    """A table with a head and one line under it."""
    from rich import box

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


class Warnings(logging.Handler):
    """Shows what libraries log on standard error, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        style = "red" if record.levelno >= logging.ERROR else "yellow"
        say(messages(), Text(f"{record.levelname.lower()}: ", style=style), record.getMessage())


class listening:  # noqa: N801 -- used as a context manager, like those of contextlib
    """Within the block, warnings of our own are shown and those of chatty libraries are not.

    Args:
        debug: Show everything that is logged, whoever does it.
    """

    def __init__(self, *, debug: bool) -> None:
        self._debug = debug
        self._handler = Warnings(logging.DEBUG if debug else logging.WARNING)
        self._before: dict[str, int] = {}

    def __enter__(self) -> None:
        root = logging.getLogger()
        root.addHandler(self._handler)
        self._before[""] = root.level
        if self._debug:
            root.setLevel(logging.DEBUG)
            return
        # Read by the library when it is imported, which has not happened yet.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        for name in CHATTY:
            self._before[name] = logging.getLogger(name).level
            logging.getLogger(name).setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self._handler)
        for name, level in self._before.items():
            logging.getLogger(name).setLevel(level)
