"""`turnwise train`: (1) every setting is a flag and reaches the run, (2) a file lies under the flags, (3) a resumed run
keeps its settings, (4) whatever is wrong is one message with a remedy, and a mistyped command leaves no run behind."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.refusals import Captured, refused
from turnwise.algorithms import PPO
from turnwise.cli.main import main
from turnwise.recipes.flat import settings
from turnwise.recipes.training import Training
from turnwise.runs import read_metrics

from .conftest import TINY

SMALL = ["train", "reinforce", *TINY, "--groups", "1", "--group-size", "2"]


def config(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_text())["config"]["training"]


def test_every_setting_is_a_flag(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["train", "ppo", "--help"]) == 0
    page = capsys.readouterr().out
    for name in settings(PPO):
        assert f"--{name.replace('_', '-')}" in page


def test_a_run_says_what_it_is_and_where_everything_is(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "run"
    arguments = [argument for argument in SMALL if argument != "--quiet"]
    assert main([*arguments, "--gamma", "0.5", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    for part in ("tiny in errand?max_turns=4 with reinforce", "at most 4 turns", "parameters", "gamma 0.5 (0.99)"):
        assert part in shown.err
    for part in (out / "final", out / "metrics.jsonl", out / "report.html", f"turnwise eval {out}", "tensorboard"):
        assert str(part) in shown.out
    assert (out / "final" / "config.json").exists()
    assert (out / "report.html").exists()
    assert len(read_metrics(out / "metrics.jsonl")) == 1
    assert config(out)["algorithm"]["gamma"] == 0.5
    assert config(out)["world"]["memory"] == 0


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    file, out = tmp_path / "run.toml", tmp_path / "run"
    file.write_text('algorithm = "reinforce"\nsteps = 9\ngamma = 0\nwarm-start-lr = 0.5\ngroup_size = 2\ngroups = 1\n')
    assert main(["train", "--config", str(file), *TINY, "--out", str(out)]) == 0
    training = Training.from_config(config(out))
    assert (training.steps, training.algorithm.gamma, training.warm_start.lr) == (1, 0.0, 0.5)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("gama = 0.9", ["unknown setting 'gama'", "did you mean 'gamma'?"]),
        ("warm_start_lrs = 1", ["did you mean 'warm-start-lr'?"]),
        ("steps = 3 4", ["is not TOML", "line 1"]),
        ("steps = true", ["steps is True", "a whole number"]),
        ('gamma = "high"', ["gamma is 'high'", "a number"]),
        ('on-length = "wait"', ["'truncate', 'act'"]),
        ("[world]\nmemory = 0", ["[world] is a table"]),
        ("memory = -9", ["memory=-9", "-1"]),
    ],
)
def test_a_wrong_file_is_explained(text: str, parts: list[str], tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    refused(["train", "reinforce", "--config", str(file), "--out", str(tmp_path / "run")], capsys, *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["ppp"], ["did you mean 'ppo'?"]),
        (["ppo", "--evn", "errand"], ["Unrecognized options", "--env"]),
        (["ppo", "--steps", "many"], ["--steps"]),
        (["ppo", "--env", "erand"], ["did you mean 'errand'?"]),
        (["ppo", "--env", "errand?gards=2"], ["did you mean 'guards'?"]),
        (["ppo", "--env", "nowhere.py:game"], ["there is no file nowhere.py"]),
        (["grpo", "--group-size", "1"], ["group_size=1", "nothing to be compared with"]),
        (["ppo", "--temperature", "0"], ["temperature=0.0", "positive"]),
        (["ppo", "--lr", "-1"], ["lr=-1.0"]),
        (["sft"], ["--demonstrations"]),
        (["--env", "errand"], ["name the algorithm first"]),
        (["ppo", "--config", "nowhere.toml"], ["nowhere.toml", "No such file"]),
        (["--resume", "nowhere"], ["nowhere", "no run"]),
    ],
)
def test_a_wrong_command_is_explained(
    arguments: list[str], parts: list[str], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(["train", *arguments, "--steps", "1"][: None if "--steps" not in arguments else -2], capsys, *parts)
    assert not list(tmp_path.glob("runs/*"))


def test_models_that_are_not_there(
    trained: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The variable was read when an earlier test loaded the library.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused([*SMALL, "--model", str(tmp_path / "nowhere"), "--out", str(out)], capsys, "nowhere", "--model tiny")
    refused([*SMALL, "--model", "tinny", "--out", str(out)], capsys, "no model 'tinny'; did you mean 'tiny'?")
    refused([*SMALL, "--model", "nobody/nothing", "--out", str(out)], capsys, "nobody/nothing", "--model tiny")
    for file in (trained / "final").glob("*token*"):
        file.unlink()
    refused([*SMALL, "--model", str(trained / "final"), "--out", str(out)], capsys, "no usable tokenizer")
    assert not out.exists()


def test_an_unreachable_hub_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from turnwise.cli import hub

    def unknown(host: str, port: int) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(hub.socket, "getaddrinfo", unknown)
    for name in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "")
    with caplog.at_level(logging.WARNING):
        hub.offline_if_unreachable("tiny")
        assert os.environ["HF_HUB_OFFLINE"] == ""
        hub.offline_if_unreachable("nobody/nothing")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert "huggingface.co cannot be reached" in caplog.text


def test_a_folder_in_use_is_refused(trained: Path, tmp_path: Path, capsys: Captured) -> None:
    refused([*SMALL, "--out", str(trained)], capsys, f"turnwise train --resume {trained}")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    refused([*SMALL, "--out", str(tmp_path / "notes")], capsys, "not empty")
    refused([*SMALL, "--out", str(tmp_path / "notes" / "mine.txt" / "run")], capsys, "A part of this path is a file")


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    refused([*SMALL, "--out", str(tmp_path / "run")], capsys, "Read-only file system", "Choose a folder you may write")


def test_a_full_disk(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    from turnwise.runs import checkpoint

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "_fingerprint", full)
    refused([*SMALL, "--out", str(tmp_path / "run")], capsys, "No space left", "Free some space")


# ---- resuming


def test_a_resumed_run_goes_on(trained: Path, capsys: Captured) -> None:
    assert main(["train", "--resume", str(trained), "--steps", "2", "--quiet"]) == 0
    assert [line["iteration"] for line in read_metrics(trained / "metrics.jsonl")] == [1, 2]
    assert config(trained)["steps"] == 2
    refused(["train", "--resume", str(trained)], capsys, "complete after 2 iterations", "raise --steps")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--gamma", "0.5"], ["--gamma 0.5 (the run has 0.99)", "start a new run"]),
        (["--steps", "0"], ["may be raised, not lowered"]),
        (["--out", "elsewhere"], ["--out cannot be combined with --resume"]),
        (["--config", "some.toml"], ["--config cannot be combined with --resume"]),
        (["--gama", "0.5"], ["Unrecognized options", "--gamma"]),
    ],
)
def test_a_resumed_run_keeps_its_settings(
    arguments: list[str], parts: list[str], trained_once: Path, capsys: Captured
) -> None:
    refused(["train", "--resume", str(trained_once), *arguments], capsys, *parts)
    refused(["train", "ppo", "--resume", str(trained_once)], capsys, "trains with reinforce, not ppo")


def test_a_warm_start_is_resumed_with_its_run(trained: Path, capsys: Captured) -> None:
    about = json.loads((trained / "config.json").read_text())
    about["config"]["phase"] = "warm-start"
    (trained / "config.json").write_text(json.dumps(about))
    refused(["train", "--resume", str(trained)], capsys, f"turnwise train --resume {trained.parent}")


def test_a_checkpoint_that_cannot_be_used(trained: Path, capsys: Captured) -> None:
    resume = ["train", "--resume", str(trained), "--steps", "2", "--quiet"]
    checkpoint = trained / "checkpoints" / "000001"
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "format": 99, "turnwise": "9.0"}))
    refused(resume, capsys, "written by turnwise 9.0", "Continue the run with turnwise 9.0")
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    whole = (checkpoint / "learner.safetensors").read_bytes()
    (checkpoint / "learner.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(resume, capsys, "learner.safetensors has", "Restore one from a copy")
