"""What a command that is refused has to look like: one message on standard error, no traceback, exit code 2."""

from __future__ import annotations

import pytest

from turnwise.cli.main import main

Captured = pytest.CaptureFixture[str]


def refused(arguments: list[str], capsys: Captured, *parts: str) -> None:
    """The command line ends with exit code 2 and a message that holds every one of the parts."""
    capsys.readouterr()
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for part in parts:
        assert part in message
