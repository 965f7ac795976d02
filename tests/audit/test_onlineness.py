"""Online-ness and overlap: known answers; what changes nothing; and the run's own word on the versions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.audit.records import value
from turnwise.audit import Evidence, Iteration, NotMeasurable, evidence_of, own_share, planted, version_lag
from turnwise.audit.onlineness import QUANTITIES as ONLINE
from turnwise.audit.onlineness import gradient_share
from turnwise.audit.overlap import QUANTITIES as OVERLAP
from turnwise.audit.overlap import Categorical, effective_share, overlap
from turnwise.audit.quantity import Quantity
from turnwise.episode import Episode, Source
from turnwise.runs import RunFolder, write_episodes
from turnwise.testing import check_measure


@pytest.mark.parametrize("quantity", [*ONLINE, *OVERLAP], ids=lambda quantity: quantity.name)
def test_known_answers(quantity: Quantity) -> None:
    check_measure(quantity.measure, quantity.controls())


def drawn(mu: Categorical, n: int, seed: int = 0, turns: int = 5) -> tuple[Episode, ...]:
    rng = np.random.default_rng(seed)
    return tuple(mu.episode(rng, turns, 1, i) for i in range(n))


def evidence(mu: list[float], pi: list[float], n: int = 40, seed: int = 0) -> Evidence:
    policy: Any = Categorical(pi)
    return Evidence(iterations=(Iteration(drawn(Categorical(mu), n, seed), 0, 1),), policy=policy)


def test_intervals_of_the_overlap_hold_the_truth() -> None:
    mu, pi = [0.5, 0.3, 0.2], [0.3, 0.3, 0.4]
    hits = 0
    for seed in range(60):
        found = overlap(evidence(mu, pi, 20, seed))
        assert not isinstance(found, NotMeasurable)
        hits += found.interval[0] <= 0.8 <= found.interval[1]
    assert hits >= 51


def test_the_curve_tells_every_iteration_and_the_figure_the_last() -> None:
    """The policy that acted moves away from, and in the last iteration is, the policy at hand."""
    pi = [0.2, 0.3, 0.5]
    makers = [Categorical([0.5, 0.3, 0.2]), Categorical([0.4, 0.3, 0.3]), Categorical(pi)]
    iterations = [Iteration(drawn(mu, 200, k, 20), k, 10 + k) for k, mu in enumerate(makers)]
    policy: Any = Categorical(pi)
    found = overlap(Evidence(iterations=iterations, policy=policy, plays=200))
    assert not isinstance(found, NotMeasurable)
    (series,) = found.series
    assert series.x == (10.0, 11.0, 12.0)
    assert series.y == pytest.approx((0.7, 0.8, 1.0), abs=0.03)
    assert found.value == pytest.approx(1.0)
    assert "iteration 12" in found.how


def test_an_action_that_would_never_be_said_again_has_no_weight() -> None:
    one, two = drawn(Categorical([1 - 1e-9, 1e-9]), 5), drawn(Categorical([1e-9, 1 - 1e-9]), 5)
    policy: Any = Categorical([1e-9, 1 - 1e-9])
    policy.logp[0] = -np.inf
    both = Evidence(iterations=(Iteration((*one, *two), 0, 1),), policy=policy)
    assert value(overlap(both)) == pytest.approx(0.5, abs=1e-6)
    assert value(effective_share(both)) == pytest.approx(0.5, abs=1e-6)
    none = replace(both, iterations=(Iteration(one, 0, 1),))
    assert value(overlap(none)) == 0.0
    assert isinstance(effective_share(none), NotMeasurable)


@pytest.mark.parametrize("measure", [overlap, effective_share])
def test_one_episode_has_no_spread(measure: Any) -> None:
    found = measure(evidence([0.5, 0.5], [0.5, 0.5], 1))
    assert found.n == 1
    assert found.interval == (0.0, 1.0)


def test_a_record_without_token_ids_is_not_read_by_a_policy() -> None:
    found = overlap(replace(evidence([0.5, 0.5], [0.5, 0.5]), ids=False))
    assert isinstance(found, NotMeasurable)
    assert "no token ids" in found.why


def test_what_cannot_have_trained_has_no_gradient() -> None:
    now = planted([0.0, 1.0], version=3)
    broken = replace(planted([9.0], version=1), turns=())
    streams = (np.array([1.0, 1.0]), np.zeros(0), np.array([1.0, 1.0]))
    iteration = Iteration((now, broken, planted([0.0, 1.0], source=Source.HUMAN)), 3, advantages=streams)
    assert value(gradient_share(Evidence(iterations=(iteration,)))) == 0.5


def test_one_iteration_without_advantages_lets_tokens_count_everywhere() -> None:
    now, human = planted([0.0, 1.0], version=3), planted([0.0, 1.0], source=Source.HUMAN)
    weighed = Iteration((now, human), 3, advantages=(np.array([9.0, 9.0]), np.array([1.0, 1.0])))
    found = gradient_share(Evidence(iterations=(weighed, Iteration((now, human), 3))))
    assert value(found) == 0.5
    assert not isinstance(found, NotMeasurable)
    assert "no advantages were recorded" in found.how


# ---- a run's own word ----------------------------------------------------------------------------------------------------


def write_run(folder: Path, versions: list[int], told: list[int | None], advantage: bool = False) -> Path:
    """One recorded iteration for each version that sampled; `told` is what the metrics say the update began from."""
    with RunFolder.create(folder, {"algorithm": {"name": "x"}}) as run:
        for number, version in enumerate(versions, start=1):
            streams = {"advantage": [np.array([2.0, -1.0])]} if advantage else None
            write_episodes(run.episodes(number), [planted([0.0, 1.0], version=version)], str, streams)
        lines = [{"iteration": k} | ({} if v is None else {"learner/version": float(v)}) for k, v in enumerate(told, 1)]
        run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_recorded_version_is_believed(tmp_path: Path) -> None:
    found = evidence_of(write_run(tmp_path / "run", [0, 0, 4], [0, 4, 8]))
    assert [i.version for i in found.iterations] == [0, 4, 8]
    assert [i.number for i in found.iterations] == [1, 2, 3]
    assert value(own_share(found)) == pytest.approx(1 / 3)
    assert value(version_lag(found)) == pytest.approx((0 + 4 + 4) / 3)
    assert found.metrics[1] == {"iteration": 2.0, "learner/version": 4.0}


def test_older_lines_of_the_same_run_are_inferred(tmp_path: Path) -> None:
    """A run that an older turnwise began and a newer one went on with."""
    found = evidence_of(write_run(tmp_path / "run", [0, 4, 4], [None, None, 8]))
    assert [i.version for i in found.iterations] == [0, 4, 8]


def test_advantages_of_a_run_are_read(tmp_path: Path) -> None:
    found = evidence_of(write_run(tmp_path / "run", [0, 4], [0, 4], advantage=True))
    assert [one.tolist() for i in found.iterations for one in i.advantages] == [[2.0, -1.0]] * 2
    assert value(gradient_share(found)) == 1.0


def test_supervised_runs_know_their_versions_too(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", {}) as run:
        write_episodes(run.episodes(1), [planted([1.0], source=Source.HUMAN)], str)
        run.metrics.write_text('{"iteration": 1, "learner/version": 7, "loss": null}\n')
    found = evidence_of(tmp_path / "run")
    assert found.iterations[0].version == 7
    assert found.metrics == ({"iteration": 1.0, "learner/version": 7.0},)
    assert value(own_share(found)) == 0.0


def test_what_is_damaged_is_named_and_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [0, 4, 8], [0, 4, 8])
    second = folder / "episodes" / "000002.parquet"
    second.write_bytes(second.read_bytes()[:200])
    (folder / "metrics.jsonl").write_text('{"iteration": 1}\nnot json\n{"iteration": 3}\n')
    (folder / "eval.json").write_text("{")
    found = evidence_of(folder)
    assert [i.number for i in found.iterations] == [1, 3]
    assert len(found.gaps) == 3
    for gap, words in zip(found.gaps, ("metrics.jsonl, line 2 is damaged", "000002.parquet", "eval.json"), strict=True):
        assert words in gap
    assert found.metrics == ()
    assert found.evaluation is None
