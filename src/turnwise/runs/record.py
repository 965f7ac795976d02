"""Episodes on disk: one Parquet file, one row per episode, its turns nested in it.

The ids are the truth and come back bit for bit; the texts beside them are for people and are never read for training.
The fields are explained in ``docs/runs.md``. A file names the version of its schema, so that an old reader refuses a
newer file instead of misreading it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Cut, Episode, Source, Stop, Turn
from turnwise.runs.atomic import disk, write_bytes
from turnwise.runs.errors import RunError

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
"""Version of the schema, stored in each file's metadata."""

_KEY = b"turnwise.schema"


@cache
def schema() -> pa.Schema:
    """The Arrow schema, version `SCHEMA_VERSION`."""
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    figures = pa.map_(pa.string(), pa.float64())
    turn = pa.struct(
        [
            ("obs", ids),
            ("act", ids),
            ("obs_text", pa.string()),
            ("act_text", pa.string()),
            ("logp", pa.list_(pa.float32())),
            ("reward", pa.float64()),
            ("rewards", figures),
            ("version", pa.int64()),
            ("fresh", pa.bool_()),
            ("stop", pa.string()),
            ("streams", figures),
        ]
    )
    return pa.schema(
        [
            ("env", pa.string()),
            ("seed", pa.int64()),
            ("group", pa.string()),
            ("goal", pa.string()),
            ("agent", pa.string()),
            ("world", pa.string()),
            ("source", pa.string()),
            ("terminated", pa.bool_()),
            ("truncated", pa.bool_()),
            ("cut", pa.string()),
            ("detail", pa.string()),
            ("metrics", figures),
            ("turns", pa.list_(turn)),
            ("last_obs", ids),
            ("last_obs_text", pa.string()),
            ("last_fresh", pa.bool_()),
        ],
        metadata={_KEY: str(SCHEMA_VERSION).encode()},
    )


def write_episodes(
    path: str | Path,
    episodes: Sequence[Episode],
    decode: Callable[[NDArray[np.int32]], str],
    streams: Mapping[str, Sequence[NDArray[np.floating[Any]]]] | None = None,
) -> None:
    """Write a record, whole or not at all.

    Args:
        path: The Parquet file.
        episodes: One row each.
        decode: Ids to text, for people.
        streams: name -> one (n_turns,) array per episode; an empty one for an episode that has no such figures.

    Raises:
        ValueError: a stream that does not fit the episodes.
        RunError: the disk refused; a file that was there before is as it was.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    streams = streams or {}
    flat = {name: _flatten(name, arrays, episodes) for name, arrays in streams.items()}
    turns = [turn for episode in episodes for turn in episode.turns]
    columns = {
        "obs": _lists([turn.obs for turn in turns], np.int32),
        "act": _lists([turn.act for turn in turns], np.int32),
        "obs_text": [decode(turn.obs) for turn in turns],
        "act_text": [decode(turn.act) for turn in turns],
        "logp": _lists([turn.logp for turn in turns], np.float32),
        "reward": [turn.reward for turn in turns],
        "rewards": [list(turn.rewards.items()) for turn in turns],
        "version": [turn.version for turn in turns],
        "fresh": [turn.fresh for turn in turns],
        "stop": [turn.stop.value for turn in turns],
        "streams": [[(name, float(values[i])) for name, values in flat.items()] for i in range(len(turns))],
    }
    fields = list(schema().field("turns").type.value_type)
    nested = pa.StructArray.from_arrays([_column(columns[f.name], f.type) for f in fields], fields=fields)
    rows = {
        "env": [e.env for e in episodes],
        "seed": [e.seed for e in episodes],
        "group": [e.group for e in episodes],
        "goal": [e.goal for e in episodes],
        "agent": [e.agent for e in episodes],
        "world": [e.world for e in episodes],
        "source": [e.source.value for e in episodes],
        "terminated": [e.terminated for e in episodes],
        "truncated": [e.truncated for e in episodes],
        "cut": [e.cut.value if e.cut else None for e in episodes],
        "detail": [e.detail for e in episodes],
        "metrics": [list(e.metrics.items()) for e in episodes],
        "turns": pa.ListArray.from_arrays(_offsets(len(e.turns) for e in episodes), nested),
        "last_obs": _lists([e.last_obs for e in episodes], np.int32),
        "last_obs_text": [decode(e.last_obs) if len(e.last_obs) else "" for e in episodes],
        "last_fresh": [e.last_fresh for e in episodes],
    }
    table = pa.Table.from_arrays([_column(rows[f.name], f.type) for f in schema()], schema=schema())
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    path = Path(path)
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, sink.getvalue().to_pybytes())


def read_episodes(path: str | Path) -> list[Episode]:
    """The episodes of a record, as they were written.

    Raises:
        RunError: no such file, not a record, truncated, or written with a newer schema.
    """
    table = _read(Path(path))
    nested = table.column("turns").combine_chunks()
    inner = nested.values
    column = {
        name: inner.field(name) for name in ("obs", "act", "logp", "reward", "rewards", "version", "fresh", "stop")
    }
    obs, act, logp = (_split(column[name]) for name in ("obs", "act", "logp"))
    reward, rewards, version, fresh, stop = (
        column[name].to_pylist() for name in ("reward", "rewards", "version", "fresh", "stop")
    )
    turns = [
        Turn(obs[i], act[i], logp[i], reward[i], version[i], fresh[i], Stop(stop[i]), dict(rewards[i]))
        for i in range(len(inner))
    ]
    starts = nested.offsets.to_pylist()
    last_obs = _split(table.column("last_obs").combine_chunks())
    rows = table.drop_columns(["turns", "last_obs"]).to_pylist()
    return [
        Episode(
            group=row["group"],
            turns=tuple(turns[starts[i] : starts[i + 1]]),
            terminated=row["terminated"],
            truncated=row["truncated"],
            last_obs=last_obs[i],
            last_fresh=row["last_fresh"],
            env=row["env"],
            agent=row["agent"],
            world=row["world"],
            source=Source(row["source"]),
            seed=row["seed"],
            goal=row["goal"],
            metrics=dict(row["metrics"]),
            cut=Cut(row["cut"]) if row["cut"] else None,
            detail=row["detail"],
        )
        for i, row in enumerate(rows)
    ]


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a record as plain Python data, texts and streams included, for reports.

    Raises:
        RunError: as `read_episodes`.
    """
    rows = _read(Path(path)).to_pylist()
    for row in rows:
        row["metrics"] = dict(row["metrics"])
        for turn in row["turns"]:
            turn["rewards"] = dict(turn["rewards"])
            turn["streams"] = dict(turn["streams"])
    return rows


def read_streams(path: str | Path) -> dict[str, list[NDArray[np.float64]]]:
    """name -> one (n_turns,) float64 array per episode.

    Raises:
        RunError: as `read_episodes`.
    """
    nested = _read(Path(path)).column("turns").combine_chunks()
    per_turn = [dict(entries) for entries in nested.values.field("streams").to_pylist()]
    ends = nested.offsets.to_numpy()[1:-1]
    names = dict.fromkeys(name for entries in per_turn for name in entries)
    return {
        name: np.split(np.array([entries.get(name, np.nan) for entries in per_turn], dtype=np.float64), ends)
        for name in names
    }


def _flatten(name: str, arrays: Sequence[NDArray[Any]], episodes: Sequence[Episode]) -> NDArray[np.float64]:
    """One figure per turn of all episodes in a row; NaN for the turns of an episode whose array is empty."""
    if len(arrays) != len(episodes):
        raise ValueError(f"stream {name!r} has {len(arrays)} arrays for {len(episodes)} episodes")
    parts = [np.zeros(0)]
    for i, (array, episode) in enumerate(zip(arrays, episodes, strict=True)):
        if len(array) not in (0, len(episode.turns)):
            raise ValueError(f"stream {name!r} of episode {i} has {len(array)} entries for {len(episode.turns)} turns")
        parts.append(np.asarray(array, np.float64) if len(array) else np.full(len(episode.turns), np.nan))
    return np.concatenate(parts)


def _offsets(lengths: Iterable[int]) -> Any:
    import pyarrow as pa

    return pa.array(np.concatenate([[0], np.cumsum(list(lengths))]).astype(np.int32))


def _lists(arrays: Sequence[NDArray[Any]], dtype: type) -> Any:
    import pyarrow as pa

    values = np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.zeros(0, dtype)
    return pa.ListArray.from_arrays(_offsets(len(a) for a in arrays), pa.array(values))


def _column(values: Any, kind: Any) -> Any:
    import pyarrow as pa

    return pa.array(values, type=kind) if isinstance(values, list) else values.cast(kind)


def _split(lists: Any) -> list[NDArray[Any]]:
    # One copy for all: arrays over Arrow's own memory are read-only, which torch does not take.
    values = np.array(lists.values.to_numpy(zero_copy_only=False))
    return np.split(values, lists.offsets.to_numpy()[1:-1]) if len(lists) else []


def _read(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with disk(path, "read"):
        data = path.read_bytes()
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        stored = (file.schema_arrow.metadata or {}).get(_KEY)
        if stored is not None and stored.isdigit() and int(stored) == SCHEMA_VERSION:
            table = file.read()
            if not table.schema.equals(schema()):
                raise RunError(f"{path} claims schema {SCHEMA_VERSION} but has other columns; write the record anew")
            return table
    except pa.ArrowException as error:
        raise RunError(
            f"{path} is not a complete Parquet file ({str(error).splitlines()[0]}). It was cut off or is something else; "
            "restore it from a copy"
        ) from error
    if stored is None:
        raise RunError(f"{path} is a Parquet file but not a record of episodes (it names no {_KEY.decode()!r})")
    raise RunError(
        f"{path} has schema version {stored.decode(errors='replace')}; this turnwise reads version {SCHEMA_VERSION}. "
        "Update turnwise to read it"
    )
