"""Others' records as evidence: (1) what they hold arrives where it belongs, (2) what they lack is not measurable and never
guessed, (3) a bad row is named with its line and its field. The files are written here as others write them."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.audit.records import value
from turnwise.audit import NotMeasurable, own_share, planted, reward_delay, reward_density, version_lag
from turnwise.audit.catalogue import catalogue
from turnwise.audit.errors import AuditError
from turnwise.audit.judge import horizon_leak
from turnwise.audit.onlineness import gradient_share
from turnwise.audit.overlap import Categorical, overlap
from turnwise.audit.readers import read_evidence
from turnwise.episode import Cut, Source
from turnwise.errors import TurnwiseError
from turnwise.runs import RunError, RunFolder, write_episodes

NAMES = {"bill", "judge", "cost", "onlineness", "overlap", "reward_signal"}


def turn(episode: Any = "a", number: int = 0, **more: Any) -> dict[str, Any]:
    return {"episode": episode, "turn": number, "observation": "go on", "action": "one two", "reward": 0.0, **more}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# ---- one object per turn -------------------------------------------------------------------------------------------------


def test_everything_that_a_turn_may_say(tmp_path: Path) -> None:
    shared = {"iteration": 3, "learner_version": 8, "source": "policy", "seed": 5, "group": "g", "goal": "win"}
    rows = [
        turn("b", 1, reward=1.0, logp=[-0.5], version=8, terminated=True, advantage=2.0, **shared),
        turn("b", 0, reward=None, logp=[-1.0, -2.0], version=4, advantage=-1.0, **shared),
        turn("c", 0, reward=0.5, logp=[-1.0], version=8, truncated=True, advantage=0.5, **shared),
    ]
    evidence = read_evidence(write(tmp_path / "x.jsonl", rows))
    (iteration,) = evidence.iterations
    assert (iteration.number, iteration.version, evidence.unit) == (3, 8, "tokens")
    assert [a.tolist() for a in iteration.advantages] == [[-1.0, 2.0], [0.5]]
    first, second = iteration.episodes
    assert (first.group, first.seed, first.goal, first.source) == ("g", 5, "win", Source.POLICY)
    assert (first.terminated, first.truncated, second.terminated, second.cut) == (True, False, False, Cut.TURN_LIMIT)
    assert first.behaviour_logp.tolist() == [-1.0, -2.0, -0.5]
    assert math.isnan(first.rewards[0])
    assert [t.version for t in first.turns] == [4, 8]
    # Tokens: 2 of version 4 and 2 of version 8.
    assert value(own_share(evidence)) == 0.5
    assert value(version_lag(evidence)) == 2.0
    # |A| per token: 1 + 1 of version 4; 2 + 0.5 of version 8.
    assert value(gradient_share(evidence)) == pytest.approx(2.5 / 4.5)


def test_the_least_that_a_turn_says(tmp_path: Path) -> None:
    rows = [turn(e, t, reward=float(t == 3)) for e in range(5) for t in range(4)]
    evidence = read_evidence(write(tmp_path / "x.jsonl", rows))
    assert evidence.unit == "words"
    assert value(reward_density(evidence)) == 0.25
    assert value(reward_delay(evidence)) == 1.5
    for measure in (own_share, version_lag, gradient_share, overlap):
        assert isinstance(measure(evidence), NotMeasurable)
    assert all(episode.truncated for episode in evidence.episodes), "nobody said that they ended"


def test_iterations_come_in_order_and_human_text_is_nobodys_own(tmp_path: Path) -> None:
    rows = [turn(k, 0, iteration=10 - k, learner_version=10 - k, source="human") for k in range(3)]
    evidence = read_evidence(write(tmp_path / "x.jsonl", rows))
    assert [(i.number, i.version) for i in evidence.iterations] == [(8, 8), (9, 9), (10, 10)]
    found = own_share(evidence)
    assert value(found) == 0.0
    assert not isinstance(found, NotMeasurable)
    assert "words" in found.how


def test_a_turn_without_its_version_leaves_the_update_without_one(tmp_path: Path) -> None:
    rows = [turn("a", 0, version=3, learner_version=3), turn("b", 0, learner_version=3)]
    evidence = read_evidence(write(tmp_path / "x.jsonl", rows))
    assert evidence.iterations[0].version is None
    assert isinstance(own_share(evidence), NotMeasurable)


def test_some_log_probabilities_are_none(tmp_path: Path) -> None:
    evidence = read_evidence(write(tmp_path / "x.jsonl", [turn("a", 0, logp=[-1.0]), turn("b", 0)]))
    assert evidence.unit == "words"
    assert np.isnan(evidence.episodes[0].behaviour_logp).all()


def test_ids_that_only_count_are_not_shown_to_a_policy(tmp_path: Path) -> None:
    """Log-probabilities without ids count tokens, and nothing else: a policy cannot be asked about them."""
    rows = [turn(k, 0, logp=[-1.0], version=0, learner_version=0) for k in range(4)]
    policy: Any = Categorical([0.5, 0.5])
    evidence = replace(read_evidence(write(tmp_path / "x.jsonl", rows)), policy=policy)
    assert isinstance(overlap(evidence), NotMeasurable)


BAD = [
    ([turn(), 3], "line 2 is a int"),
    ([{k: v for k, v in turn().items() if k != "action"}], "line 1: no `action`"),
    ([turn(), turn(number=1, rewards=1.0)], "line 2: `rewards` is no field"),
    ([turn(reward="high")], "line 1: `reward` is 'high'"),
    ([turn(reward=math.inf)], "line 1: `reward` is inf"),
    ([turn(reward=True)], "line 1: `reward` is True"),
    ([turn(observation=None)], "line 1: `observation` is null"),
    ([turn(action=["x"])], "line 1: `action` is"),
    ([turn(number=-1)], "line 1: `turn` is -1"),
    ([turn(), turn()], "line 2: `turn` is 0 of episode 'a', where turn 1 was expected"),
    ([turn(), turn(number=2)], "line 2: `turn` is 2 of episode 'a', where turn 1 was expected"),
    ([turn(logp=[])], "line 1: `logp` is []"),
    ([turn(logp=[-1.0, None])], "line 1: `logp` is"),
    ([turn(logp=[0.7])], "line 1: `logp` is"),
    ([turn(logp=[-math.inf])], "line 1: `logp` is"),
    ([turn(version=1.5)], "line 1: `version` is 1.5"),
    ([turn(source="robot")], "line 1: `source` is 'robot'"),
    ([turn(terminated=1)], "line 1: `terminated` is 1"),
    ([turn(terminated=True, truncated=True)], "line 1: `terminated` and `truncated` are both true"),
    ([turn(terminated=True), turn(number=1)], "line 1: the episode ends here"),
    ([turn(goal="x"), turn(number=1, goal="y")], "line 2: `goal` is 'y'"),
    ([turn("a", iteration=1), turn("b")], "line 2: no `iteration`"),
    ([turn("a", iteration=1, learner_version=1), turn("b", iteration=1, learner_version=2)], "line 2: `learner_version` is 2"),
    ([turn(episode=1.5)], "line 1: `episode` is 1.5"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "words"), BAD, ids=[words for _, words in BAD])
def test_a_bad_row_is_named(tmp_path: Path, rows: list[Any], words: str) -> None:
    path = write(tmp_path / "x.jsonl", rows)
    with pytest.raises(AuditError) as error:
        read_evidence(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_a_line_that_was_cut_off_is_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(turn()) + "\n" + json.dumps(turn(number=1))[:30])
    evidence = read_evidence(path)
    assert [len(episode.turns) for episode in evidence.episodes] == [1]
    assert "line 2 was cut off" in evidence.gaps[0]
    assert "episode 'a' may lack its end" in evidence.gaps[0]
    path.write_text(json.dumps(turn())[:30] + "\n" + json.dumps(turn()) + "\n")
    with pytest.raises(AuditError, match="line 1 is not JSON"):
        read_evidence(path)


def test_what_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    for path in (tmp_path, tmp_path / "a.bin", tmp_path / "torn.parquet", tmp_path / "missing.jsonl"):
        with pytest.raises(TurnwiseError):
            read_evidence(path)


def test_an_empty_file_bears_nothing(tmp_path: Path) -> None:
    evidence = read_evidence(write(tmp_path / "x.jsonl", []))
    assert not evidence.episodes
    for quantity in catalogue():
        if quantity.measure.__module__.rpartition(".")[2] in NAMES:
            assert isinstance(quantity.measure(evidence), NotMeasurable), quantity.name


# ---- TRL, verifiers, ours ------------------------------------------------------------------------------------------------


@pytest.fixture
def trl(tmp_path: Path) -> Path:
    folder = tmp_path / "out" / "completions"
    folder.mkdir(parents=True)
    for step in (10, 20):
        columns = {
            "step": [step] * 2, "prompt": ["2+2?", "2+3?"], "completion": ["four it is", "5"], "correct": [0.0, 1.0],
            "advantage": [-0.7, 0.7],
        }  # fmt: skip
        pq.write_table(pa.table(columns), folder / f"completions_{step:05d}.parquet")
    return tmp_path / "out"


def test_trl(trl: Path) -> None:
    evidence = read_evidence(trl)
    assert [(i.number, i.version, len(i.episodes)) for i in evidence.iterations] == [(10, None, 2), (20, None, 2)]
    assert [a.tolist() for a in evidence.iterations[0].advantages] == [[-0.7], [0.7]]
    assert all(e.source is Source.POLICY for e in evidence.episodes)
    assert value(reward_density(evidence)) == 0.5
    found = horizon_leak(evidence)
    assert value(found) == pytest.approx(1.0)
    assert not isinstance(found, NotMeasurable)
    assert "words of the action" in found.how
    for measure in (own_share, version_lag, overlap):
        assert isinstance(measure(evidence), NotMeasurable)
    one = read_evidence(trl / "completions" / "completions_00010.parquet")
    assert len(one.iterations) == 1
    assert read_evidence(trl / "completions").iterations[1].number == 20


def rollout(n: int, reward: float) -> dict[str, Any]:
    said = [{"role": "assistant", "content": f"try {k}"} for k in range(n)]
    heard = [{"role": "user", "content": "no"} for _ in range(n - 1)]
    mixed = [m for pair in zip(said, [*heard, None], strict=True) for m in pair if m]
    return {"example_id": n, "prompt": [{"role": "user", "content": "go"}], "completion": mixed, "reward": reward}


def test_verifiers(tmp_path: Path) -> None:
    write(tmp_path / "results.jsonl", [rollout(4, 1.0), rollout(4, 1.0), rollout(2, 0.0)])
    for path in (tmp_path, tmp_path / "results.jsonl"):
        evidence = read_evidence(path)
        assert [len(e.turns) for e in evidence.episodes] == [4, 4, 2]
        assert value(reward_density(evidence)) == 0.2
        assert value(horizon_leak(evidence)) == pytest.approx(1.0)
        assert isinstance(own_share(evidence), NotMeasurable)


def test_verifiers_without_a_whole_rollout(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        evidence = read_evidence(write(tmp_path / "results.jsonl", [{**rollout(1, 1.0), "error": "it broke"}]))
    assert not evidence.iterations
    assert "left out" in caplog.text


def test_ours(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", {"x": 1}) as run:
        write_episodes(run.episodes(12), [planted([0.0, 1.0], version=3)], str, {"advantage": [np.array([1.0, 2.0])]})
        whole, file = read_evidence(run.path), read_evidence(run.episodes(12))
    assert whole.config == {"x": 1}
    for evidence in (whole, file):
        (iteration,) = evidence.iterations
        assert iteration.number == 12
        assert iteration.advantages[0].tolist() == [1.0, 2.0]
    assert file.iterations[0].version is None, "one file does not tell which weights its update began from"


def test_a_record_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "new.parquet"
    pq.write_table(pa.table({"x": [1]}, metadata={"turnwise.schema": "99"}), path)
    with pytest.raises(RunError, match="schema version 99"):
        read_evidence(path)


def test_no_measure_of_records_raises_on_any_of_them(tmp_path: Path, trl: Path) -> None:
    lines = [turn(e, t, reward=float(t), logp=[-1.0]) for e in range(3) for t in range(e + 1)]
    for path in (trl, write(tmp_path / "x.jsonl", lines), write(tmp_path / "one.jsonl", [turn()])):
        evidence = read_evidence(path)
        for quantity in catalogue():
            if quantity.measure.__module__.rpartition(".")[2] in NAMES:
                found = quantity.measure(evidence)
                assert isinstance(found, NotMeasurable) or found.n >= 1


def test_a_record_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="there is no run and no record at"):
        read_evidence(tmp_path / "nothing")
