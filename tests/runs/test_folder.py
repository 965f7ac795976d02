"""A run folder promises: (1) nothing is overwritten; (2) one writer at a time, and a dead one does not count; (3) content
is whole or absent; (4) a disk that refuses gives one message with a remedy and leaves what was there."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from tests.runs.fakes import episode, turn
from tests.runs.toy import ToyAlgorithm, ToyLearner, ToySource
from turnwise.runs import RunError, RunFolder, latest, summarise, train
from turnwise.runs.atomic import new_folder, write_bytes

ROOT = Path(__file__).parents[2]


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    rate: float
    colours: tuple[Colour, ...]


@dataclass(frozen=True)
class Settings:
    inner: Inner
    where: Path
    none: None = None


def test_the_configuration_is_written_as_plain_data_beside_versions_and_seeds(tmp_path: Path) -> None:
    config = Settings(Inner(0.1, (Colour.RED,)), Path("a/b"))
    RunFolder.create(tmp_path / "run", config, seeds={"seed": 7}).close()
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["config"] == {
        "type": "Settings",
        "inner": {"type": "Inner", "rate": 0.1, "colours": ["red"]},
        "where": "a/b",
        "none": None,
    }
    assert about["seeds"] == {"seed": 7}
    assert about["python"].startswith("3.")
    assert {"turnwise", "torch", "numpy"} <= about["packages"].keys()
    assert about["threads"]["cpus"] >= 1
    run = RunFolder.view(tmp_path / "run")
    assert run.config["inner"]["rate"] == 0.1
    assert run.seeds == {"seed": 7}


def test_a_configuration_that_is_not_data_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"config\.reward\[1\] is a function"):
        RunFolder.create(tmp_path / "run", {"reward": [1, lambda: 0]})
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {"a": 1}).close()
    with pytest.raises(
        RunError, match=r"already holds a run; continue it with `turnwise train --resume .*run`, or choose"
    ):
        RunFolder.create(tmp_path / "run", {"a": 2})
    assert RunFolder.view(tmp_path / "run").config == {"a": 1}


def test_a_folder_with_other_content_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="not empty and holds no run"):
        RunFolder.create(tmp_path, {})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_start_that_died_at_once_leaves_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text('{"pid": 1, "host": "elsewhere"}')
    (tmp_path / ".tmp-config.json").write_text("{")
    RunFolder.create(tmp_path, {}).close()


def test_an_empty_or_missing_folder_holds_no_run_to_open(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunError, match=r"holds no run \(no config.json\)"):
            RunFolder.open(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}'])
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match="is not a run's configuration"):
        RunFolder.open(tmp_path)


def test_another_layout_is_refused_with_the_version_that_reads_it(tmp_path: Path) -> None:
    about = {"format": 2, "config": {}, "seeds": {}, "packages": {"turnwise": "9.1"}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(RunError, match=r"Install turnwise 9\.1"):
        RunFolder.open(tmp_path)


def test_other_package_versions_are_told_on_resuming(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    RunFolder.create(tmp_path / "run", {}).close()
    file = tmp_path / "run" / "config.json"
    about = json.loads(file.read_text())
    now = about["packages"]["numpy"]
    about["packages"]["numpy"] = "1.0"
    file.write_text(json.dumps(about))
    RunFolder.open(tmp_path / "run").close()
    assert f"other versions (numpy 1.0 → {now})" in caplog.text


def test_an_evaluation_is_strict_json(tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    with RunFolder.create(tmp_path / "run", {}) as run:
        run.write_evaluation({"final": summarise([episode(turn(1.0))]), "list": "held-out"})
    written = json.loads(run.evaluation.read_text(), parse_constant=refuse)
    assert written["list"] == "held-out"
    assert written["final"]["undiscounted_return"]["mean"] == 1.0
    assert written["final"]["undiscounted_return"]["low"] is None


# ---- one writer ------------------------------------------------------------------------------------------------------


def test_a_run_has_one_writer_in_one_process(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(RunError, match="this process already writes the run"):
        RunFolder.open(tmp_path / "run")
    RunFolder.view(tmp_path / "run")
    run.close()
    RunFolder.open(tmp_path / "run").close()


def holder(path: Path, linger: bool) -> subprocess.Popen[str]:
    """A process that holds the run; with `linger`, also a forked child that outlives it."""
    code = f"""
import os, sys, time
from turnwise.runs import RunFolder
run = RunFolder.open({str(path)!r})
if {linger} and os.fork() == 0:
    os.close(1); os.close(2)
    time.sleep(5); os._exit(0)
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("linger", [False, True])
def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path, linger: bool) -> None:
    RunFolder.create(tmp_path / "run", {}).close()
    process = holder(tmp_path / "run", linger)
    with pytest.raises(RunError, match=rf"being written by process {process.pid} on "):
        RunFolder.open(tmp_path / "run")
    with pytest.raises(RunError, match="already holds a run"):
        RunFolder.create(tmp_path / "run", {})
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    RunFolder.open(tmp_path / "run").close()


def test_opening_clears_what_a_dead_writer_left_unfinished(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    run.close()
    for name in ("checkpoints/.tmp-000004", "episodes"):
        (run.path / name).mkdir(parents=True)
    (run.path / "checkpoints/.tmp-000004/model.safetensors").write_text("half")
    (run.path / "episodes/.tmp-000001.parquet").write_text("half")
    (run.path / ".tmp-eval.json").write_text("half")
    RunFolder.open(run.path).close()
    assert not list(run.path.rglob(".tmp-*"))


def test_a_viewer_cannot_train(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {}).close()
    with pytest.raises(RunError, match="opened for viewing"):
        train(ToyAlgorithm(), ToySource(), ToyLearner(), RunFolder.view(tmp_path / "run"), steps=1)


# ---- writing ---------------------------------------------------------------------------------------------------------


def rewrite(path: Path, sizes: list[int]) -> None:
    while True:
        for size in sizes:
            write_bytes(path, bytes([size % 256]) * size)


def test_a_reader_never_sees_a_mixture_and_neither_does_a_killed_writer_leave_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sizes = [100_000, 200_001, 50_002]
    write_bytes(path, bytes([sizes[0] % 256]) * sizes[0])
    process = multiprocessing.get_context("spawn").Process(target=rewrite, args=(path, sizes), daemon=True)
    process.start()
    seen = set()
    deadline = time.monotonic() + 30
    while len(seen) < 3 and time.monotonic() < deadline:
        content = path.read_bytes()
        assert content == bytes([len(content) % 256]) * len(content)
        seen.add(len(content))
    process.kill()
    process.join()
    assert seen == set(sizes)
    content = path.read_bytes()
    assert len(content) in sizes
    assert content == bytes([len(content) % 256]) * len(content)


def test_a_folder_that_cannot_be_filled_leaves_the_old_one(tmp_path: Path) -> None:
    def fill(text: str, fail: bool) -> None:
        with new_folder(tmp_path / "folder") as folder:
            (folder / "a").write_text(text)
            if fail:
                raise KeyError("no")

    fill("old", fail=False)
    with pytest.raises(KeyError):
        fill("new", fail=True)
    assert (tmp_path / "folder" / "a").read_text() == "old"
    fill("new", fail=False)
    assert (tmp_path / "folder" / "a").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_folder_is_not_lost_when_the_last_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder"
    with new_folder(target) as folder:
        (folder / "a").write_text("old")
    rename = Path.rename

    def refuse(self: Path, to: Path) -> Path:
        if self.name == ".tmp-folder":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunError, match="Input/output error"), new_folder(target) as folder:
        (folder / "a").write_text("new")
    assert (target / "a").read_text() == "old"


def test_a_path_through_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="A part of this path is a file"):
        RunFolder.create(tmp_path / "file" / "run", {})


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EROFS, "Choose a folder you may write to"),
        (errno.ENOSPC, "Free some space"),
        (errno.EACCES, "permissions"),
    ],
)
def test_a_disk_that_refuses_is_noticed_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    RunFolder.create(tmp_path / "run", {}).close()

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    for start in (lambda: RunFolder.open(tmp_path / "run"), lambda: RunFolder.create(tmp_path / "new", {})):
        with pytest.raises(RunError, match=remedy):
            start()
    monkeypatch.undo()
    RunFolder.open(tmp_path / "run").close()
    RunFolder.create(tmp_path / "new", {}).close()


def test_a_file_limit_hit_while_training_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """A real refusal by the kernel in the middle of a checkpoint's file: RLIMIT_FSIZE stands for a full disk."""

    class Grown(ToyLearner):
        def state(self):
            tensors, info = super().state()
            grown = 100_000 if self.version >= 4 else 1
            return {**tensors, "history": tensors["weight"].new_zeros(grown)}, info

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with RunFolder.create(tmp_path / "run", {}) as run, pytest.raises(RunError) as refused:
            train(ToyAlgorithm(), ToySource(), Grown(), run, steps=9, save_every=2, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "checkpoints/000004" in str(refused.value)
    assert "what was saved before is intact" in str(refused.value)
    found = latest(run.checkpoints)
    assert found is not None
    assert found.iteration == 2
    assert [p.name for p in run.checkpoints.iterdir()] == ["000002"]
