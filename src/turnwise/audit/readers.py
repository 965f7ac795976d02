"""Evidence from records that others wrote: TRL's completion logs, rollouts of verifiers, and one object per turn.

The last is a minimal format for any framework: JSON Lines in UTF-8, one object per turn, the turns of an episode in order and
next to each other or not. An object has these fields and no others:

| field | type | meaning |
|---|---|---|
| `episode` | text or whole number | which episode the turn belongs to |
| `turn` | whole number | its place in the episode, from 0 without gaps |
| `observation` | text | what the world said since the action before |
| `action` | text | what was answered |
| `reward` | number or null | what was paid for the action; null where nobody could say |
| `logp` | list of numbers | optional: log-probability of each sampled token |
| `version` | whole number | optional: optimizer steps behind the weights that sampled the action |
| `learner_version` | whole number | optional: optimizer steps behind the weights that the update began from |
| `iteration` | whole number | optional: which update learnt from the episode, from 1 |
| `terminated` | true or false | optional, on the last turn: the task ended by itself |
| `truncated` | true or false | optional, on the last turn: somebody stopped watching; assumed where neither is true |
| `source` | text | optional: who acted: policy (the default), dataset, human, expert or teacher |
| `seed` | whole number | optional: seed of the task |
| `group` | text or whole number | optional: episodes of one group began in the same state; by default those of one seed |
| `goal` | text | optional: the goal in words |
| `advantage` | number | optional: what the algorithm made of the turn |

A field of the episode (`iteration`, `learner_version`, `source`, `seed`, `group`, `goal`) has the same value in all its turns. What
is left out is not guessed: a measure that needs it says so.

None of these records holds token ids. Where every action has its log-probabilities, an action counts as many tokens as it
has of these; otherwise its words and one for its end are counted, and `Evidence.unit` says "words". The ids in these episodes
only stand for as many (`Evidence.ids` is false), and what a policy would have to read is not measurable.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.errors import AuditError
from turnwise.audit.evidence import Evidence, Iteration, evidence_of
from turnwise.episode import Cut, Episode, Source, Transcript, Turn
from turnwise.runs import read_episodes, read_streams, read_trl_completions, read_verifiers
from turnwise.runs.atomic import disk

UNKNOWN = -1
"""The version of a turn of which nobody recorded it."""

_NEEDED = ("episode", "turn", "observation", "action", "reward")
_WHOLE = ("turn", "version", "learner_version", "iteration", "seed")
_FLAGS = ("terminated", "truncated")
_OF_EPISODE = ("iteration", "learner_version", "source", "seed", "group", "goal")
_FIELDS = (*_NEEDED, "logp", "version", *_FLAGS, *_OF_EPISODE, "advantage")


def read_evidence(path: str | Path) -> Evidence:
    """The evidence in a record, whoever wrote it.

    A folder with a ``config.json`` of ours is a run; with ``completions_*.parquet``, a log of TRL; with ``results.jsonl`` or
    ``traces.jsonl``, rollouts of verifiers. A Parquet file is the record of one iteration of ours, or TRL's; a file of JSON lines
    is verifiers' or one object per turn, which its first line tells.

    Raises:
        AuditError: it is none of these or not there, or a line of one object per turn is bad.
        RunError: a run or a log that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise AuditError(
            f"there is no run and no record at {path}; give a run folder, or a file that `turnwise audit` reads"
        )
    with disk(path, "read"), path.open("rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        return _own_file(path) if _is_ours(path) else read_trl(path)
    first = _first_object(path)
    if first.keys() & {"nodes", "completion"} and not first.keys() & {"turn", "action"}:
        return read_verifiers_evidence(path)
    return read_turns(path)


def read_trl(path: str | Path) -> Evidence:
    """The completions that TRL's trainers log, see `turnwise.runs.read_trl_completions`: one update for each logged step.

    The policy sampled them; with which weights, and with what probability, is not in the log. Advantages are.

    Raises:
        RunError: see there.
    """
    by_step: dict[int, list[Transcript]] = {}
    for transcript in read_trl_completions(path):
        by_step.setdefault(int(transcript.metrics.get("step", 0)), []).append(transcript)
    iterations = []
    for step, transcripts in sorted(by_step.items()):
        episodes = [_worded(transcript, f"trl/{step}") for transcript in transcripts]
        told = [transcript.metrics.get("advantage") for transcript in transcripts]
        known = all(advantage is not None for advantage in told)
        advantages = tuple(np.array([a], dtype=np.float64) for a in told) if known else ()
        iterations.append(Iteration(tuple(episodes), None, step, advantages))
    return Evidence(iterations=tuple(iterations), unit="words", ids=False)


def read_verifiers_evidence(path: str | Path) -> Evidence:
    """Rollouts that the library verifiers saved, see `turnwise.runs.read_verifiers`: as if they were one update.

    The model under evaluation acted; what learnt from it, if anything did, is not in the file.

    Raises:
        RunError: see there.
    """
    episodes = tuple(_worded(transcript, "verifiers") for transcript in read_verifiers(path))
    return Evidence(iterations=(Iteration(episodes),) if episodes else (), unit="words", ids=False)


def read_turns(path: str | Path) -> Evidence:
    """One object per turn, see the module. A last line that was cut off is left out and named in `Evidence.gaps`.

    Raises:
        AuditError: a bad line, with its number and the field.
        RunError: the file cannot be read.
    """
    file = Path(path)
    gaps: list[str] = []
    rows = [_checked(number, row, file) for number, row in _objects(file, gaps)]
    by_episode: dict[str | int, list[_Row]] = {}
    for row in rows:
        by_episode.setdefault(row.values["episode"], []).append(row)
    if gaps and rows:
        # The line that was cut off may have belonged to the episode before it, which is then not whole.
        gaps[0] += f"; episode {rows[-1].values['episode']!r} may lack its end"
    ordered = {name: _in_order(own, file) for name, own in by_episode.items()}
    tokens = all(row.values.get("logp") is not None for row in rows)
    updates: dict[int | None, list[list[_Row]]] = {}
    for own in ordered.values():
        updates.setdefault(own[0].values.get("iteration"), []).append(own)
    if None in updates and len(updates) > 1:
        where = updates[None][0][0]
        raise AuditError(f"{where.place}: no `iteration`, which other episodes have; give it to all of them or to none")
    numbered = sorted(updates.items(), key=lambda item: item[0] or 0)
    iterations = tuple(_iteration(number, episodes, tokens) for number, episodes in numbered)
    unit = "tokens" if tokens and rows else "words"
    return Evidence(iterations=iterations, unit=unit, ids=False, gaps=tuple(gaps))


# ---- what is there -------------------------------------------------------------------------------------------------------


def _read_folder(path: Path) -> Evidence:
    if (path / "config.json").exists():
        return evidence_of(path)
    if any((path / name).exists() for name in ("results.jsonl", "traces.jsonl")):
        return read_verifiers_evidence(path)
    if any(path.glob("completions_*.parquet")) or any(path.glob("completions/completions_*.parquet")):
        return read_trl(path)
    raise AuditError(
        f"{path} is no record that can be read: it has no config.json (a run), no completions_*.parquet (TRL), and neither "
        "results.jsonl nor traces.jsonl (verifiers); give a file of JSON lines, one object per turn"
    )


def _is_ours(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return b"turnwise.schema" in (pq.read_schema(path).metadata or {})
    except pa.ArrowException:
        return False  # whoever reads it next says what is wrong with it


def _own_file(path: Path) -> Evidence:
    number = int(path.stem) if path.stem.isdigit() else None
    advantages = tuple(read_streams(path).get("advantage", ()))
    return Evidence(iterations=(Iteration(tuple(read_episodes(path)), None, number, advantages),))


def _first_object(path: Path) -> Mapping[str, Any]:
    return next((row for _, row in _objects(path, [])), {})


def _objects(file: Path, gaps: list[str]) -> Iterable[tuple[int, dict[str, Any]]]:
    """(number, object) of each line."""
    with disk(file, "read"):
        data = file.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AuditError(f"{file} is not text in UTF-8; a record is JSON lines, one object per turn") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for place, (number, line) in enumerate(lines):
        try:
            row = json.loads(line)
        except ValueError as error:
            if place and place == len(lines) - 1 and not text.endswith("\n"):
                gaps.append(f"{file}, line {number} was cut off while it was written")
                return
            raise AuditError(f"{file}, line {number} is not JSON; write one object per turn") from error
        if not isinstance(row, dict):
            raise AuditError(f"{file}, line {number} is a {type(row).__name__}; write one object per turn")
        yield number, row


# ---- one object per turn -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    place: str
    values: dict[str, Any]


def _checked(number: int, row: dict[str, Any], file: Path) -> _Row:
    place = f"{file}, line {number}"
    for name in _NEEDED:
        if name not in row:
            raise AuditError(f"{place}: no `{name}`; every turn has {', '.join(_NEEDED)}")
    odd = sorted(row.keys() - set(_FIELDS))
    if odd:
        raise AuditError(f"{place}: `{odd[0]}` is no field; the fields are {', '.join(_FIELDS)}")
    values = {name: value for name, value in row.items() if value is not None}
    for name, value in values.items():
        wanted = _wrong(name, value)
        if wanted:
            raise AuditError(f"{place}: `{name}` is {value!r:.60}; it has to be {wanted}")
    for name in ("episode", "turn", "observation", "action"):
        if name not in values:
            raise AuditError(f"{place}: `{name}` is null; only `reward` and optional fields may be")
    if values.get("terminated") and values.get("truncated"):
        raise AuditError(f"{place}: `terminated` and `truncated` are both true; a task that ended was not cut short")
    return _Row(place, values)


def _wrong(name: str, value: Any) -> str:
    """What a field has to be; empty where it is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _WHOLE:
        return "" if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "a whole number from 0"
    if name in _FLAGS:
        return "" if isinstance(value, bool) else "true or false"
    if name in ("reward", "advantage"):
        return "" if number and math.isfinite(value) else "a finite number, or null"
    if name == "logp":
        good = isinstance(value, list) and value and all(_is_logp(x) for x in value)
        return "" if good else "a list of finite log-probabilities, one per sampled token"
    if name in ("episode", "group"):
        return "" if isinstance(value, str | int) and not isinstance(value, bool) else "text or a whole number"
    if name == "source":
        known = [source.value for source in Source]
        return "" if value in known else f"one of {', '.join(known)}"
    return "" if isinstance(value, str) else "text"


def _is_logp(value: Any) -> bool:
    # Rounding may leave a little above 0.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value <= 1e-3


def _in_order(rows: Sequence[_Row], file: Path) -> list[_Row]:
    """The turns of an episode, after a check that they make one."""
    ordered = sorted(rows, key=lambda row: row.values["turn"])
    for turn, row in enumerate(ordered):
        if row.values["turn"] != turn:
            name, found = row.values["episode"], row.values["turn"]
            raise AuditError(
                f"{row.place}: `turn` is {found} of episode {name!r}, where turn {turn} was expected; turns count from 0, each once"
            )
        for name in _OF_EPISODE:
            if row.values.get(name) != ordered[0].values.get(name):
                raise AuditError(
                    f"{row.place}: `{name}` is {row.values.get(name)!r}, and in another turn of the episode "
                    f"{ordered[0].values.get(name)!r}; it is the same in all of them"
                )
        if turn < len(ordered) - 1 and (row.values.get("terminated") or row.values.get("truncated")):
            raise AuditError(f"{row.place}: the episode ends here, and has later turns; only the last one ends it")
    return ordered


def _iteration(number: int | None, episodes: Sequence[Sequence[_Row]], tokens: bool) -> Iteration:
    rows = [row for episode in episodes for row in episode]
    versions = {row.values.get("learner_version") for row in rows}
    if len(versions) > 1 and number is not None:
        first = rows[0].values.get("learner_version")
        other = next(row for row in rows if row.values.get("learner_version") != first)
        found = other.values.get("learner_version")
        raise AuditError(
            f"{other.place}: `learner_version` is {found}, and {first} in another turn of iteration {number}; an update begins "
            "from one version"
        )
    unknown = any("version" not in row.values for row in rows if row.values.get("source", "policy") == "policy")
    version = None if unknown or len(versions) > 1 else next(iter(versions))
    told = all("advantage" in row.values for row in rows)
    advantages = (
        tuple(np.array([row.values["advantage"] for row in episode], dtype=np.float64) for episode in episodes)
        if told
        else ()
    )
    return Iteration(tuple(_episode(episode, tokens) for episode in episodes), version, number, advantages)


def _episode(rows: Sequence[_Row], tokens: bool) -> Episode:
    first, last = rows[0].values, rows[-1].values
    turns: list[Turn] = []
    for place, row in enumerate(rows):
        values = row.values
        reward = float(values.get("reward", math.nan))
        logp = np.array(values["logp"], dtype=np.float32) if tokens else _unknown(values["action"])
        turns.append(_turn(values["observation"], logp, reward, values.get("version", UNKNOWN), place))
    seed, name = int(first.get("seed", 0)), first["episode"]
    group = str(first["group"]) if "group" in first else f"jsonl/{seed}" if "seed" in first else f"jsonl/{name!r}"
    terminated = bool(last.get("terminated"))
    return Episode(
        group, tuple(turns), terminated, not terminated, np.zeros(0, np.int32), env="jsonl", world=str(name),
        source=Source(first.get("source", "policy")), seed=seed, goal=first.get("goal"),
        cut=None if terminated else Cut.TURN_LIMIT,
        detail="" if terminated else f"episode {name!r} was cut short, or nobody said that it ended",
    )  # fmt: skip


# ---- stand-ins for tokens ------------------------------------------------------------------------------------------------


def _worded(transcript: Transcript, where: str) -> Episode:
    """A transcript of what a policy said, with its words for tokens."""
    turns = [
        _turn(observation, _unknown(action), reward, UNKNOWN, place)
        for place, (observation, action, reward) in enumerate(
            zip(transcript.observations, transcript.actions, transcript.rewards, strict=True)
        )
    ]
    ended = transcript.terminated
    return Episode(
        transcript.group or f"{where}/{transcript.env}/{transcript.seed}", tuple(turns), ended, not ended,
        np.zeros(0, np.int32), env=transcript.env, source=Source.POLICY, seed=transcript.seed, goal=transcript.goal,
        metrics=transcript.metrics, cut=None if ended else Cut.TURN_LIMIT,
        detail="" if ended else f"{transcript.env}, seed {transcript.seed}: cut short",
    )  # fmt: skip


def _unknown(action: str) -> NDArray[np.float32]:
    """One log-probability that nobody knows for each word, and one for the end."""
    return np.full(len(action.split()) + 1, np.nan, dtype=np.float32)


def _turn(observation: str, logp: NDArray[np.float32], reward: float, version: int, place: int) -> Turn:
    words = np.zeros(len(observation.split()), dtype=np.int32)
    act = np.zeros(len(logp), dtype=np.int32)
    return Turn(
        words, act, logp, reward, version, place == 0, rewards={} if math.isnan(reward) else {"environment": reward}
    )
