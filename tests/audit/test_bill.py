"""The feedback bill, the judge and the cost ledger: known answers, poor evidence, and records of real runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from tests.audit.records import value
from turnwise.audit import Evidence, Iteration, NotMeasurable, cost, judge, planted
from turnwise.audit import bill as bills
from turnwise.audit.bill import bits, entropy, queries
from turnwise.audit.judge import gold_gap, gold_slope, horizon_leak, judge_accuracy
from turnwise.audit.quantity import Quantity
from turnwise.testing import build_episode, check_measure

EVERY = [*bills.QUANTITIES, *judge.QUANTITIES, *cost.QUANTITIES]


@pytest.mark.parametrize("quantity", EVERY, ids=lambda quantity: quantity.name)
def test_known_answers(quantity: Quantity) -> None:
    check_measure(quantity.measure, quantity.controls())


def test_entropy_by_hand() -> None:
    """Two coins at the end, the turn before always 0: 2 bits. A third value at the end: 3 × log2(3)."""
    assert entropy([np.array([1.0, 0.0]), np.array([0.0, 0.0])]) == pytest.approx(2.0)
    assert entropy([np.array([float(k)]) for k in range(3)]) == pytest.approx(3 * math.log2(3))
    assert entropy([np.array([1.0]), np.array([1.0]), np.array([np.nan])]) == 0.0
    assert entropy([]) == 0.0


def test_bits_hold_the_truth() -> None:
    """40 labels that are good with p = 0.3: 40 × 0.8813 bits, in the interval about as often as it claims."""
    truth = -(0.3 * math.log2(0.3) + 0.7 * math.log2(0.7)) * 40
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(30):
        made = [planted([float(rng.random() < 0.3)], seed=k) for k in range(40)]
        found = bits(Evidence(iterations=(Iteration(tuple(made)),)))
        assert not isinstance(found, NotMeasurable)
        hits += found.interval[0] <= truth <= found.interval[1]
    assert hits >= 25


def test_a_choice_of_which_one_side_was_recorded_is_a_choice_still() -> None:
    pairs = [replace(one, source=one.source) for one in bills._preferences(20)][::2]
    evidence = Evidence(
        config={"algorithm": {"name": "dpo"}, "data": {"passes": 1}},
        iterations=(Iteration(tuple(pairs)),),
        metrics=[{"iteration": 1.0, "total/episodes": 40.0}],
    )
    assert value(queries(evidence)) == 20.0


def test_pairs_of_a_file_are_counted_in_the_file(tmp_path: Path) -> None:
    """Half of the sides were recorded, of a run that read six pairs five times; a changed file is not believed."""
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"p{k}", "chosen": f"good {k}", "rejected": f"bad {k}"} for k in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "training": {"algorithm": {"name": "dpo"}, "data": {"data": str(path), "kind": "auto", "passes": 0.0}},
        "files": {"data": sha256(path.read_bytes()).hexdigest()},
    }
    kept = Iteration(tuple(bills._preferences(6)[::2]))
    lines = [{"iteration": 1.0, "total/episodes": 60.0}]
    evidence = Evidence(config=config, iterations=(kept,), metrics=lines)
    assert value(queries(evidence)) == 6.0
    assert value(bits(evidence)) == 6.0
    few = replace(evidence, metrics=[{"iteration": 1.0, "total/episodes": 8.0}])
    assert value(queries(few)) == 4.0, "no more than were handed out"
    path.write_text(path.read_text() + json.dumps(rows[0]) + "\n")
    assert isinstance(queries(evidence), NotMeasurable)
    path.unlink()
    assert isinstance(queries(evidence), NotMeasurable)


def test_what_one_in_four_episodes_says_has_an_interval() -> None:
    made = [planted([float(k % 4 == 0)], seed=k) for k in range(40)]
    evidence = Evidence(iterations=(Iteration(tuple(made)),), metrics=[{"iteration": 1.0, "total/episodes": 160.0}])
    found = bills.judgements(evidence)
    assert not isinstance(found, NotMeasurable)
    assert found.value == 40.0
    assert found.interval[0] < 40.0 < found.interval[1]
    assert "scaled up" in found.how


def test_a_record_without_totals_may_be_a_part() -> None:
    made = [planted([float(k % 4 == 0)], seed=k) for k in range(40)]
    found = bills.judgements(Evidence(iterations=(Iteration(tuple(made)),)))
    assert not isinstance(found, NotMeasurable)
    assert found.interval == (10.0, math.inf)
    assert "nobody wrote down" in found.how


def test_intervals_of_the_leak_hold_the_truth() -> None:
    """Length of variance 4 (2 or 6 turns) plus noise of variance 4: half of the variance."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(20):
        turns = rng.choice([2, 6], size=80)
        returns = turns + 2.0 * rng.normal(size=80)
        pairs = list(zip(turns.tolist(), returns.tolist(), strict=True))
        found = horizon_leak(judge._returns(pairs))
        assert not isinstance(found, NotMeasurable)
        hits += found.interval[0] <= 0.5 <= found.interval[1]
    assert hits >= 16


def test_groups_are_one_unit() -> None:
    made = [planted([0.0] * k + [float(k)], seed=k % 3) for k in range(12)]
    found = horizon_leak(Evidence(iterations=(Iteration(tuple(made)),)))
    assert not isinstance(found, NotMeasurable)
    assert found.n == 3


def test_the_gap_ends_where_the_run_ends() -> None:
    found = gold_gap(judge._course(lambda root: -0.3 * root))
    assert not isinstance(found, NotMeasurable)
    assert [series.label for series in found.series] == ["judge (proxy)", "gold", "gold − proxy"]
    assert found.series[1].y[-1] == pytest.approx(0.5 + 1.1 / 4 - 0.33)
    assert found.interval[0] < found.value < found.interval[1]


# ---- poor evidence -------------------------------------------------------------------------------------------------------

NAN = float("nan")
ONE = Evidence(iterations=(Iteration((planted([0.0, 1.0]),)),))
POOR = {
    "empty": Evidence(),
    "no episodes in an iteration": Evidence(iterations=(Iteration(()),)),
    "one episode": ONE,
    "one episode without a score": Evidence(iterations=(Iteration((planted([NAN]),)),)),
    "an episode that cannot have trained": Evidence(iterations=(Iteration((build_episode([]),)),)),
    "metrics that lack everything": replace(ONE, metrics=[{"iteration": 1.0}]),
    "metrics from the middle": replace(ONE, metrics=[{"iteration": 7.0, "total/episodes": 3.0}]),
    "fewer episodes in the metrics than in the record": replace(ONE, metrics=[{"iteration": 1.0, "total/episodes": 0.0}]),
    "an odd configuration": replace(ONE, config={"feedback": "x", "data": None, "algorithm": 3}),
    "an odd evaluation": replace(ONE, evaluation={"evaluation": {"calibration": {"accuracy": None, "pairs": "x"}}}),
    "an evaluation of another kind": replace(ONE, evaluation={"evaluation": [1, 2]}),
}  # fmt: skip


@pytest.mark.parametrize("quantity", EVERY, ids=lambda quantity: quantity.name)
@pytest.mark.parametrize("poor", POOR, ids=str)
def test_poor_evidence_bears_an_honest_figure_or_none(quantity: Quantity, poor: str) -> None:
    found = quantity.measure(POOR[poor])
    if isinstance(found, NotMeasurable):
        assert found.name == quantity.name
        assert found.why
    else:
        assert found.n >= 1
        assert found.how
        assert found.interval[0] != found.interval[1] or "count" in found.how or "stored episodes" in found.how


def test_one_episode_has_no_accuracy_and_no_slope() -> None:
    assert isinstance(judge_accuracy(ONE), NotMeasurable)
    assert isinstance(gold_slope(ONE), NotMeasurable)
    assert isinstance(horizon_leak(ONE), NotMeasurable)
