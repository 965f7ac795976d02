"""Profiling further iterations: (1) the run's folder stays as it is, byte for byte; (2) operators' own times, by hand and
against the wall clock; (3) every operator has a kind; (4) what cannot be gone on with is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from turnwise.algorithms import Reinforce
from turnwise.errors import TurnwiseError
from turnwise.recipes.profile import ELEMENTWISE, PYTHON, group_of, own_times, profile_steps
from turnwise.recipes.training import Training, WarmStart, World, run


def event(
    name: str, begins: float, spent: float, *, tid: int = 1, kind: str = "cpu_op", launch: int = 0
) -> dict[str, Any]:
    return {"cat": kind, "name": name, "ts": begins, "dur": spent, "tid": tid, "args": {"External id": launch}}


def test_own_times_by_hand() -> None:
    events = [
        {"ph": "M", "name": "thread_name"},
        event("linear", 0, 100),
        event("mm", 10, 60),
        event("copy", 20, 30),
        event("add", 100, 50),
        event("mm", 160, 40),
        event("hidden", 0, 1000, kind="user_annotation"),
    ]
    own, busy = own_times(events)
    assert own == pytest.approx({"linear": 40e-6, "mm": 70e-6, "copy": 30e-6, "add": 50e-6})
    assert busy == pytest.approx(190e-6)


def test_operators_of_two_threads_are_not_nested_in_each_other() -> None:
    own, busy = own_times([event("mm", 0, 100), event("mm", 10, 50, tid=2)])
    assert own == pytest.approx({"mm": 150e-6})
    # Two threads at once are busy for as long as the busier one.
    assert busy == pytest.approx(100e-6)


def test_kernels_count_in_place_of_what_launched_them() -> None:
    events = [
        event("aten::mm", 0, 5, launch=7),
        event("sgemm_32x32", 2, 90, tid=99, kind="kernel", launch=7),
        event("aten::copy_", 5, 5, launch=8),
        event("Memcpy DtoH", 92, 10, tid=99, kind="gpu_memcpy", launch=8),
    ]
    own, busy = own_times(events)
    assert own == pytest.approx({"aten::mm": 90e-6, "aten::copy_": 10e-6})
    assert busy == pytest.approx(100e-6)


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::mm", "matrix products"),
        ("mkldnn::_linear_pointwise", "matrix products"),
        ("aten::bmm", "attention"),
        ("aten::_softmax", "attention"),
        ("aten::_softmax_backward_data", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::_log_softmax", "sampling, log-probabilities"),
        ("aten::logsumexp", "sampling, log-probabilities"),
        ("aten::_fused_adamw_", "optimizer"),
        ("aten::copy_", "copies and indexing"),
        ("aten::index_select", "copies and indexing"),
        ("aten::t", "copies and indexing"),
        ("autograd::engine::evaluate_function: MmBackward0", "autograd"),
        ("aten::mul", ELEMENTWISE),
        ("aten::tanh", ELEMENTWISE),
        ("aten::silu", ELEMENTWISE),
    ],
)
def test_every_operator_has_a_kind(operator: str, kind: str) -> None:
    assert group_of(operator) == kind


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("profile") / "run"
    world = World("errand?max_turns=2", memory=0, max_tokens=3)
    algorithm = Reinforce(groups=2, group_size=2, epochs=1)
    warm = WarmStart(demonstrations=4, epochs=1)
    run(Training(algorithm, world, warm_start=warm, steps=2, save_every=1, threads=1), out, progress=False)
    return out


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_run_is_profiled_without_being_touched(finished: Path) -> None:
    before = contents(finished)
    seen = profile_steps(finished, 1)
    assert contents(finished) == before
    # The second iteration was its last; the third gets warm.
    assert (seen.first, seen.iterations) == (4, 1)
    groups = {group.name: group for group in seen.groups}
    assert groups["matrix products"].seconds > 0
    assert groups[PYTHON].seconds > 0
    assert sum(group.seconds for group in seen.groups) == pytest.approx(seen.seconds, rel=1e-3)
    assert [group.seconds for group in seen.groups] == sorted((group.seconds for group in seen.groups), reverse=True)
    names = [function.name for function in seen.functions]
    assert any("turnwise/learners/local.py" in name for name in names)
    assert all(function.own <= function.total + 1e-6 for function in seen.functions)


def test_what_cannot_be_gone_on_with_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(TurnwiseError, match="use at least 1"):
        profile_steps(finished, 0)
    with pytest.raises(TurnwiseError, match="holds no run"):
        profile_steps(tmp_path, 1)
    copied = tmp_path / "run"
    shutil.copytree(finished, copied)
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(TurnwiseError, match="no checkpoint to go on from"):
        profile_steps(copied, 1)
