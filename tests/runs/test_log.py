"""Metrics: one line per iteration; a resumed run contradicts nothing; TensorBoard sees the same figures."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from turnwise.runs import RunError, read_metrics
from turnwise.runs.log import MetricsLog


def events(folder: Path) -> list[Event]:
    """The events of all files of a folder in the order of writing, read by the TFRecord layout."""
    found = []
    for path in folder.iterdir():
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event()
            event.ParseFromString(data[12 : 12 + length])
            found.append(event)
            data = data[16 + length :]
    return sorted(found, key=lambda event: event.wall_time)


def test_figures_come_back_exactly_and_what_is_not_finite_is_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl", None, 0)
    log.write(1, {"reward": 0.1 + 0.2, "loss": math.nan, "kl": math.inf})
    log.write(2, {"reward": -1e-17})
    log.close()
    assert read_metrics(tmp_path / "m.jsonl") == [
        {"iteration": 1, "reward": 0.1 + 0.2, "loss": None, "kl": None},
        {"iteration": 2, "reward": -1e-17},
    ]


@pytest.mark.parametrize("tail", ["", '{"iteration": 5, "rew', '{"iteration": 5}', "\n"])
def test_a_resumed_log_keeps_the_lines_up_to_its_checkpoint(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps({"iteration": i, "reward": i / 3}) + "\n" for i in range(1, 5)) + tail)
    log = MetricsLog(path, None, 2)
    log.write(3, {"reward": 9.0})
    log.close()
    assert [(line["iteration"], line["reward"]) for line in read_metrics(path)] == [(1, 1 / 3), (2, 2 / 3), (3, 9.0)]
    assert path.read_text().endswith("\n")


def test_a_line_cut_off_is_left_out_and_damage_elsewhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"iteration": 1}\n{"iteration": 2}\n{"iterat')
    assert [line["iteration"] for line in read_metrics(path)] == [1, 2]
    path.write_text('{"iteration": 1}\n{"iterat\n{"iteration": 3}\n')
    with pytest.raises(RunError, match="line 2 is damaged"):
        read_metrics(path)
    assert read_metrics(tmp_path / "missing") == []


def test_tensorboard_has_the_figures_and_forgets_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    first = MetricsLog(tmp_path / "m.jsonl", tmp_path / "tb", 0)
    for i in (1, 2, 3):
        first.write(i, {"reward": float(i), "loss": 0.5})
    first.close()
    second = MetricsLog(tmp_path / "m.jsonl", tmp_path / "tb", 2)
    second.write(3, {"reward": 30.0})
    second.close()
    seen = [e for e in events(tmp_path / "tb") if e.HasField("summary") or e.HasField("session_log")]
    scalars = [{v.tag: v.simple_value for v in e.summary.value} for e in seen]
    assert [e.step for e in seen] == [1, 2, 3, 3, 3]
    assert scalars[0] == {"reward": 1.0, "loss": 0.5}
    assert seen[3].session_log.status == 1
    assert scalars[4] == {"reward": 30.0}


def test_a_log_on_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("this system has no /dev/full")
    log = MetricsLog(tmp_path / "m.jsonl", None, 0)
    log.close()
    with full.open("ab", buffering=0) as sink:
        log._file = sink
        with pytest.raises(RunError, match=r"No space left on device\. Free some space"):
            log.write(1, {"reward": 1.0})
