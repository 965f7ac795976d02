"""A record promises: (1) episodes come back exactly; (2) texts and streams lie beside them; (3) a file that cannot be
read correctly is refused with a reason; (4) a failed write leaves the old file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runs.fakes import episode, turn
from turnwise.episode import Cut, Episode, Source, Stop, Turn
from turnwise.runs import RunError, read_episodes, read_rows, read_streams, write_episodes
from turnwise.runs import record as record_module

ids = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(lambda x: np.array(x, np.int32))
floats = st.floats(allow_nan=False)
figures = st.dictionaries(st.text(max_size=5), floats, max_size=3)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    act = draw(ids.filter(len))
    logp = draw(st.lists(st.floats(width=32, allow_nan=False), min_size=len(act), max_size=len(act)))
    return Turn(
        obs=draw(ids),
        act=act,
        logp=np.array(logp, np.float32),
        reward=draw(floats),
        version=draw(st.integers(0, 2**40)),
        fresh=draw(st.booleans()),
        stop=draw(st.sampled_from(Stop)),
        rewards=draw(figures),
    )


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    cut = draw(st.none() | st.sampled_from(Cut))
    return Episode(
        group=draw(st.text(max_size=5)),
        turns=tuple(draw(st.lists(turns(), max_size=4))),
        terminated=cut is None and draw(st.booleans()),
        truncated=cut is not None,
        last_obs=draw(ids),
        last_fresh=draw(st.booleans()),
        env=draw(st.text(max_size=5)),
        agent=draw(st.text(max_size=5)),
        world=draw(st.text(max_size=5)),
        source=draw(st.sampled_from(Source)),
        seed=draw(st.integers(0, 2**63 - 1)),
        goal=draw(st.none() | st.text(max_size=5)),
        metrics=draw(figures),
        cut=cut,
        detail=draw(st.text(max_size=5)),
    )


def spell(ids: np.ndarray) -> str:
    return " ".join(map(str, ids.tolist()))


def assert_same(a: Episode, b: Episode) -> None:
    for name in ("group", "terminated", "truncated", "last_fresh", "env", "agent", "world", "source", "seed", "goal"):
        assert getattr(a, name) == getattr(b, name)
    assert (a.metrics, a.cut, a.detail) == (b.metrics, b.cut, b.detail)
    assert_same_array(a.last_obs, b.last_obs)
    assert len(a.turns) == len(b.turns)
    for x, y in zip(a.turns, b.turns, strict=True):
        for name in ("obs", "act", "logp"):
            assert_same_array(getattr(x, name), getattr(y, name))
        assert (x.reward, x.version, x.fresh, x.stop, x.rewards) == (y.reward, y.version, y.fresh, y.stop, y.rewards)
        assert list(x.rewards) == list(y.rewards)


def assert_same_array(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype
    assert a.tobytes() == b.tobytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(episodes(), max_size=4))
def test_episodes_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, written: list[Episode]) -> None:
    path = tmp_path_factory.mktemp("record") / "episodes" / "000001.parquet"
    write_episodes(path, written, spell)
    read = read_episodes(path)
    assert len(read) == len(written)
    for a, b in zip(written, read, strict=True):
        assert_same(a, b)


def test_texts_and_streams_lie_beside_the_ids(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    written = [
        episode(turn(0.0, act=[5, 6], obs=[4]), turn(1.0, act=[9]), cut=Cut.TURN_LIMIT, metrics={"success": 1.0}),
        episode(turn(-0.5)),
    ]
    streams = {
        "advantage": [np.array([0.25, -0.75]), np.array([np.nan])],
        "value": [np.array([1, 2], np.float32), np.array([3], np.float32)],
    }
    write_episodes(path, written, spell, streams)
    first, second = read_rows(path)
    assert [t["act_text"] for t in first["turns"]] == ["5 6", "9"]
    assert first["turns"][0]["obs_text"] == "4"
    assert first["last_obs_text"] == "7 8"
    assert first["metrics"] == {"success": 1.0}
    assert first["turns"][1]["rewards"] == {"env": 1.0}
    assert first["turns"][1]["streams"] == {"advantage": -0.75, "value": 2.0}
    assert second["turns"][0]["act"] == [1, 2]
    read = read_streams(path)
    assert {name: [a.tolist() for a in arrays] for name, arrays in read.items() if name == "value"} == {
        "value": [[1.0, 2.0], [3.0]]
    }
    np.testing.assert_array_equal(read["advantage"][1], [np.nan])


def test_an_episode_that_took_no_part_has_no_figures(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_episodes(path, [episode(turn(), turn()), episode(turn())], spell, {"value": [np.zeros(0), np.array([3.0])]})
    read = read_streams(path)["value"]
    np.testing.assert_array_equal(read[0], [np.nan, np.nan])
    np.testing.assert_array_equal(read[1], [3.0])


def test_arrays_that_come_back_may_be_given_to_torch(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_episodes(path, [episode(turn())], spell)
    torch.from_numpy(read_episodes(path)[0].turns[0].act).add_(1)


@pytest.mark.parametrize(
    ("streams", "reason"),
    [
        ({"value": []}, "0 arrays for 1 episodes"),
        ({"value": [np.zeros(2)]}, "2 entries for 1 turns"),
    ],
)
def test_a_stream_that_does_not_fit_is_refused(tmp_path: Path, streams: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        write_episodes(tmp_path / "r.parquet", [episode(turn())], spell, streams)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_episodes(path, [episode(turn())], spell)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"turnwise.schema": b"2"}), path)
    with pytest.raises(RunError, match=r"schema version 2; this turnwise reads version 1\. Update turnwise"):
        read_episodes(path)


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "r.parquet"
    write_episodes(path, [episode(turn()) for _ in range(20)], spell)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match="not a complete Parquet file"):
        read_episodes(path)


def test_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    path.write_bytes(b"hello")
    with pytest.raises(RunError, match="not a complete Parquet file"):
        read_rows(path)


def test_a_foreign_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"prompt": ["a"]}), path)
    with pytest.raises(RunError, match="not a record of episodes"):
        read_episodes(path)


def test_other_columns_under_the_right_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"prompt": ["a"]}).replace_schema_metadata({b"turnwise.schema": b"1"}), path)
    with pytest.raises(RunError, match="other columns"):
        read_episodes(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nothing\.parquet: No such file"):
        read_episodes(tmp_path / "nothing.parquet")


def test_a_record_that_cannot_be_built_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_episodes(path, [episode(turn(1.0))], spell)

    def broken(ids: np.ndarray) -> str:
        raise KeyError("no such id")

    with pytest.raises(KeyError):
        write_episodes(path, [episode(turn(2.0))], broken)
    assert read_episodes(path)[0].undiscounted_return == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["r.parquet"]


def test_the_schema_is_the_published_one() -> None:
    names = record_module.schema().names
    assert names == [
        "env", "seed", "group", "goal", "agent", "world", "source", "terminated", "truncated", "cut", "detail", "metrics",
        "turns", "last_obs", "last_obs_text", "last_fresh",
    ]  # fmt: skip
    documented = (Path(__file__).parents[2] / "docs" / "runs.md").read_text(encoding="utf-8")
    inner = record_module.schema().field("turns").type.value_type
    missing = [n for n in [*names, *(f.name for f in inner)] if f"`{n}`" not in documented]
    assert not missing
