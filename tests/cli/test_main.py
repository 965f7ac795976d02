"""The entry point: (1) pages are quick and load nothing heavy, (2) what the user can mend is one message and exit code 2,
(3) a bug shows its traceback and says whose it is, (4) an interruption is 130, (5) a closed pipe is no error."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import turnwise.cli.recipe
from turnwise.cli.main import COMMANDS, main
from turnwise.errors import TurnwiseError
from turnwise.runs.errors import Interrupted

Captured = pytest.CaptureFixture[str]


def test_help_names_every_command(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    assert all(usage in page for usage, _, _ in COMMANDS.values())
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.endswith("turnwise 0.1.0\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_page(command: str, capsys: Captured) -> None:
    assert main([command, "--help"]) == 0
    page = capsys.readouterr()
    assert f"usage: turnwise {command}" in page.out
    assert not page.err


@pytest.mark.parametrize("page", [["--help"], ["envs", "--help"], ["train", "--help"], ["play", "--help"]])
def test_pages_load_nothing_heavy(page: list[str]) -> None:
    code = (
        "import sys; from turnwise.cli.main import main; "
        f"assert main({page}) == 0; "
        "sys.exit(', '.join({'torch', 'transformers', 'pyarrow', 'peft', 'minigrid'} & set(sys.modules)) or 0)"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    print(f"turnwise {' '.join(page)}: {time.perf_counter() - began:.2f} s")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("evals", "eval"), ("--versoin", "--version")])
def test_an_unknown_command_is_answered_with_the_nearest(typed: str, meant: str, capsys: Captured) -> None:
    assert main([typed]) == 2
    assert f"did you mean '{meant}'?" in capsys.readouterr().err


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def command(arguments: Sequence[str]) -> int:
        raise error

    monkeypatch.setattr(turnwise.cli.recipe, "main", command)


def test_an_error_of_the_user_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    _raising(monkeypatch, TurnwiseError("the cup is empty; fill it"))
    assert main(["recipe"]) == 2
    assert capsys.readouterr().err == "error: the cup is empty; fill it\n"
    assert main(["recipe", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_says_that_it_is_one(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    # The command then fails inside this package, on a recipe that is None.
    monkeypatch.setattr(turnwise.cli.recipe, "find", lambda name: None)
    assert main(["recipe", "demo"]) == 1
    message = capsys.readouterr().err
    assert "Traceback" in message
    assert "this is a bug in turnwise" in message


def test_an_error_in_a_file_of_the_user_is_theirs(capsys: Captured, tmp_path: Path) -> None:
    game = tmp_path / "game.py"
    game.write_text("rooms = 3\nprint(1 / 0)\n")
    assert main(["envs", f"{game}:world"]) == 1
    message = capsys.readouterr().err
    assert f"the code in {game}:2 raised ZeroDivisionError" in message
    assert "bug in turnwise" not in message


@pytest.mark.parametrize(
    ("error", "says"),
    [(KeyboardInterrupt(), "interrupted"), (Interrupted(Path("runs/x"), 7, 5, 30), "turnwise train --resume runs/x")],
)
def test_an_interruption_is_130(
    error: BaseException, says: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    _raising(monkeypatch, error)
    assert main(["recipe"]) == 130
    message = capsys.readouterr().err
    assert says in message
    assert "Traceback" not in message


def test_a_reader_who_leaves_is_no_error() -> None:
    code = "import sys; from turnwise.cli.main import main; sys.exit(main(['envs']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    message = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert message == b""


def test_libraries_are_quiet_and_our_warnings_are_seen(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    import logging

    def command(arguments: Sequence[str]) -> int:
        logging.getLogger("transformers.models").warning("chatter")
        logging.getLogger("turnwise.runs").warning("skipping damaged checkpoint")
        return 0

    monkeypatch.setattr(turnwise.cli.recipe, "main", command)
    assert main(["recipe"]) == 0
    assert capsys.readouterr().err == "warning: skipping damaged checkpoint\n"
