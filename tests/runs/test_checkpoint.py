"""A checkpoint that is loaded is the one that was written: any damage to any file is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runs.toy import ToyLearner
from turnwise.runs import RunError, latest
from turnwise.runs.checkpoint import save


def trained(steps: int) -> ToyLearner:
    learner = ToyLearner()
    for _ in range(steps):
        learner.step((learner.policy.weight.sum() - 1) ** 2)
    return learner


def test_a_learner_comes_back_bit_for_bit(tmp_path: Path) -> None:
    learner = trained(3)
    save(tmp_path, 12, learner, {"tokens": 5})
    found = latest(tmp_path)
    assert found is not None
    assert (found.iteration, found.learner, found.totals) == (12, {"version": 3}, {"tokens": 5})
    tensors, _ = learner.state()
    loaded = found.tensors()
    assert loaded.keys() == tensors.keys()
    assert all(
        torch.equal(loaded[name], tensors[name]) and loaded[name].dtype == tensors[name].dtype for name in tensors
    )


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    assert latest(tmp_path / "missing") is None


def test_the_newest_are_kept_in_the_order_of_numbers(tmp_path: Path) -> None:
    for iteration in (8, 9, 10, 999_999, 1_000_000):
        save(tmp_path, iteration, trained(1), {}, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000010", "1000000", "999999"]
    found = latest(tmp_path)
    assert found is not None
    assert found.iteration == 1_000_000


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    save(folder, 1, trained(1), {})
    save(folder, 2, trained(2), {})
    return folder


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_or_lost_tail_of_any_file_is_noticed(two: Path, data: st.DataObject) -> None:
    files = sorted(p for p in (two / "000002").iterdir() if p.name != "manifest.json")
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytes([whole[at] ^ (1 << data.draw(st.integers(0, 7)))])
    damaged = data.draw(st.sampled_from([whole[:at], whole[:at] + flipped + whole[at + 1 :], whole + b"\0"]))
    path.write_bytes(damaged)
    try:
        found = latest(two)
    finally:
        path.write_bytes(whole)
    assert found is not None
    assert found.iteration == 1


@pytest.mark.parametrize("name", ["manifest.json", "learner.safetensors", "model.safetensors"])
def test_a_missing_file_is_named_and_the_one_before_is_taken(
    two: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = two / "000002" / name
    whole = path.read_bytes()
    path.unlink()
    try:
        found = latest(two)
    finally:
        path.write_bytes(whole)
    assert found is not None
    assert found.iteration == 1
    assert f"{name} is missing" in caplog.text


@pytest.mark.parametrize("manifest", ["", "{", "[1]", "{}", '{"format": 1, "files": {}}'])
def test_a_manifest_that_proves_nothing_is_damage(two: Path, manifest: str) -> None:
    path = two / "000002" / "manifest.json"
    whole = path.read_text()
    path.write_text(manifest)
    try:
        found = latest(two)
    finally:
        path.write_text(whole)
    assert found is not None
    assert found.iteration == 1


def test_a_run_whose_checkpoints_are_all_damaged_is_not_started_over(tmp_path: Path) -> None:
    for iteration in (1, 2):
        save(tmp_path, iteration, trained(1), {})
        (tmp_path / f"00000{iteration}" / "state.json").write_text("")
    with pytest.raises(
        RunError, match=r"every checkpoint in .* is damaged \(000002: state\.json has 0 bytes.*000001: "
    ):
        latest(tmp_path)


def test_another_format_is_refused_with_the_version_that_reads_it(tmp_path: Path) -> None:
    manifest = save(tmp_path, 1, trained(1), {}) / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 2, "turnwise": "7.0"}))
    with pytest.raises(
        RunError, match=r"in format 2; this version reads format 1\. Continue the run with turnwise 7\.0"
    ):
        latest(tmp_path)


def test_no_file_of_a_checkpoint_is_a_pickle(two: Path) -> None:
    assert {p.suffix for p in (two / "000002").iterdir()} == {".safetensors", ".json"}
