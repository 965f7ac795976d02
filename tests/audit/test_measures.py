"""The audit: (1) every measure gets its known answers right and declines what cannot be borne, (2) intervals hold the
truth as often as they claim, (3) a run's own record is evidence."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from turnwise.audit import (
    Control,
    Evidence,
    Iteration,
    Level,
    Measure,
    Measurement,
    NotMeasurable,
    evidence_of,
    own_share,
    planted,
    reward_delay,
    reward_density,
    version_lag,
)
from turnwise.audit.measure import ratio_interval, share_interval
from turnwise.audit.onlineness import own_share_controls, version_lag_controls
from turnwise.audit.reward_signal import delay_controls, density_controls
from turnwise.episode import Cut, Source
from turnwise.runs import RunFolder, write_episodes
from turnwise.testing import build_episode, check_measure

MEASURES = [
    (own_share, own_share_controls()),
    (version_lag, version_lag_controls()),
    (reward_density, density_controls()),
    (reward_delay, delay_controls()),
]


@pytest.mark.parametrize(("measure", "controls"), MEASURES)
def test_known_answers(measure: Measure, controls: list[Control]) -> None:
    check_measure(measure, controls)


@pytest.mark.parametrize(("measure", "controls"), MEASURES)
def test_what_cannot_have_trained_is_not_counted(measure: Measure, controls: list[Control]) -> None:
    broken = build_episode([9.0, 0.0, 9.0], versions=-7, cut=Cut.CRASH)
    empty = build_episode([], cut=Cut.TIMEOUT)
    for control in controls:
        more = tuple(replace(i, episodes=(broken, *i.episodes, empty)) for i in control.evidence.iterations)
        assert measure(replace(control.evidence, iterations=more)) == measure(control.evidence)


def value(result: Measurement | NotMeasurable) -> float:
    assert isinstance(result, Measurement)
    return result.value


def test_an_engine_that_lags_is_less_on_line() -> None:
    """Update u begins from version 4u; the engine loads new weights every k updates only."""
    for k, share, lag in ((1, 1.0, 0.0), (2, 0.5, 2.0), (4, 0.25, 6.0)):
        updates = [
            Iteration((planted([0.0, 1.0], version=4 * (u - u % k)), planted([1.0], version=4 * (u - u % k))), 4 * u)
            for u in range(8)
        ]
        evidence = Evidence(iterations=updates)
        assert value(own_share(evidence)) == pytest.approx(share)
        assert value(version_lag(evidence)) == pytest.approx(lag)


def test_learning_between_turns_counts_turn_by_turn() -> None:
    episode = build_episode([0.0, 0.0, 1.0], actions=[[1], [1, 1, 1], [1, 1, 1, 1]], versions=[5, 6, 6])
    evidence = Evidence(iterations=(Iteration((episode,), 6),))
    assert value(own_share(evidence)) == pytest.approx(7 / 8)
    assert value(version_lag(evidence)) == pytest.approx(1 / 8)


def test_intervals_of_shares_cover() -> None:
    """Units of unequal size that are wholly own or wholly foreign: the nominal 95 %, within sampling error."""
    rng = np.random.default_rng(0)
    for truth in (0.05, 0.4, 0.9):
        hits = 0
        for _ in range(1000):
            sizes = rng.integers(1, 20, size=40).astype(float)
            own = rng.random(40) < truth
            low, high = share_interval(float((sizes * own).sum() / sizes.sum()), sizes)
            hits += low <= truth <= high
        assert hits / 1000 > 0.92


def test_wilson_by_hand() -> None:
    # n = 10, p = 0.2, z = 1.96: textbook values 0.0567 and 0.5098.
    assert share_interval(0.2, np.ones(10)) == pytest.approx((0.0567, 0.5098), abs=1e-4)
    assert share_interval(1.0, np.ones(10)) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_intervals_of_ratios_cover() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        counts = rng.integers(1, 10, size=60).astype(float)
        sums = rng.poisson(0.7 * counts).astype(float)
        low, high = ratio_interval(sums, counts)
        hits += low <= 0.7 <= high
    assert hits / 1000 > 0.92
    assert ratio_interval([1.0], [2.0]) == (-math.inf, math.inf)


def test_a_run_is_evidence(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", {"algorithm": "x"}) as run:
        for number, version in ((1, 0), (2, 4), (3, 8)):
            old = planted([0.0, 1.0], version=max(version - 4, 0))
            write_episodes(run.episodes(number), [planted([0.0, 1.0], version=version), old], decode=str)
    evidence = evidence_of(tmp_path / "run")
    assert evidence.config == {"algorithm": "x"}
    assert [iteration.version for iteration in evidence.iterations] == [0, 4, 8]
    assert value(own_share(evidence)) == pytest.approx(8 / 12)
    assert value(version_lag(evidence)) == pytest.approx(8 * 4 / 24)
    assert value(reward_density(evidence)) == 0.5


@pytest.mark.parametrize("source", [Source.EXPERT, Source.POLICY])
def test_a_run_on_somebody_elses_episodes_is_never_called_its_own(tmp_path: Path, source: Source) -> None:
    with RunFolder.create(tmp_path / "run", {}) as run:
        for number in (1, 2):
            write_episodes(run.episodes(number), [planted([1.0], source=source)], decode=str)
    result = own_share(evidence_of(tmp_path / "run"))
    if source is Source.EXPERT:
        assert value(result) == 0.0
    else:
        assert isinstance(result, NotMeasurable), "the weights moved and the sampler did not: the version is unknown"


def test_figures_that_are_none_cannot_be_made() -> None:
    for wrong in ((math.nan, (0.0, 1.0), 3), (0.5, (0.6, 1.0), 3), (0.5, (0.0, 1.0), 0)):
        with pytest.raises(ValueError, match="no measurement"):
            Measurement("x", *wrong, "how")
    assert str(NotMeasurable("x/y", Level.L3, "no policy")) == "x/y: not measurable (needs L3): no policy"
