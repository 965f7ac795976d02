"""The rule that turns figures into verdicts: planted figures give each verdict, and no other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.recipes.claims.claim import Claim, Comparison
from turnwise.recipes.claims.verdict import Verdict, decide, find, shown, state
from turnwise.recipes.parallel import Job
from turnwise.runs import across_runs


def no_jobs(seed: int, quick: bool, out: Path) -> list[Job]:
    return []


def claim(*claimed: Comparison, found: Sequence[Comparison] = ()) -> Claim:
    return Claim("E0", "t", "s", "e", "exact tabular", claimed, "h", no_jobs, found=tuple(found))


def runs(**columns: Sequence[float]) -> list[dict[str, float]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


HIGH = runs(a=(0.90, 0.92, 0.94), b=(0.10, 0.12, 0.11))
LOW = runs(a=(0.10, 0.12, 0.11), b=(0.90, 0.92, 0.94))
WIDE = runs(a=(0.0, 1.0, 0.4), b=(0.5, 0.5, 0.5))
ABOVE = Comparison("a", "above", "b", 0.1)


@pytest.mark.parametrize(
    ("halves", "word"),
    [
        ([HIGH, HIGH], "holds"),
        ([LOW, LOW], "false as stated"),
        ([WIDE, WIDE], "undecided"),
        ([HIGH, LOW], "undecided"),
        ([HIGH, WIDE], "undecided"),
        ([LOW, WIDE], "undecided"),
        ([HIGH], "holds"),
        ([LOW], "false as stated"),
    ],
)
def test_planted_figures_give_each_verdict(halves: list[list[dict[str, float]]], word: str) -> None:
    verdict = decide(claim(ABOVE), halves)
    assert verdict.word == word
    assert verdict.sentence.startswith(word.capitalize())
    assert f"n = {sum(map(len, halves))} seeds" in verdict.sentence
    assert verdict.sentence.count("[") == 3


def test_one_refuted_comparison_is_enough_and_is_the_one_that_is_told() -> None:
    verdict = decide(claim(ABOVE, Comparison("a", "below", 0.5)), [HIGH, HIGH])
    assert verdict.word == "false as stated"
    assert "a is 0.92 [" in verdict.sentence
    assert "needed below 0.5" in verdict.sentence
    assert "difference" not in verdict.sentence
    assert verdict.sentence.endswith("1 of the claim's 2 comparisons is met.")


def test_what_is_found_besides_has_no_say() -> None:
    verdict = decide(claim(ABOVE, found=[Comparison("a", "below", 0.5)]), [HIGH, HIGH])
    assert verdict.word == "holds"
    assert [finding.state for finding in verdict.found] == ["refuted"]


def test_one_seed_or_a_missing_figure_decides_nothing() -> None:
    assert state(ABOVE, HIGH[:1]) == "open"
    assert state(ABOVE, [*HIGH, {"a": math.nan, "b": 0.0}]) == "open"
    with pytest.raises(ValueError, match="no figure 'a'"):
        state(ABOVE, [{"b": 0.0}] * 3)


def test_pairs_are_compared_within_their_seed() -> None:
    # The seeds differ by far more than the arms do; only the differences are small and steady.
    paired = runs(a=(1.2, 5.21, 9.2), b=(1.0, 5.0, 9.0))
    assert state(ABOVE, paired) == "met"
    assert (
        state(ABOVE, [{"a": x["a"], "b": y["b"]} for x, y in zip(paired, paired[1:] + paired[:1], strict=True)])
        == "open"
    )


@pytest.mark.parametrize(
    ("left", "expected"),
    [((0.01, -0.01, 0.0), "met"), ((0.5, 0.51, 0.49), "refuted"), ((0.09, 0.11, 0.1), "open")],
)
def test_within_is_an_equivalence_test(left: tuple[float, ...], expected: str) -> None:
    assert state(Comparison("a", "within", 0.0, 0.1), runs(a=left)) == expected


@given(
    st.lists(st.floats(-2, 2), min_size=2, max_size=6),
    st.sampled_from(["above", "below", "within"]),
    st.floats(0.01, 1),
    st.floats(-1, 1),
)
def test_the_state_is_where_the_interval_lies(values: list[float], relation: str, margin: float, bound: float) -> None:
    asked = Comparison("a", relation, bound, margin)  # pyright: ignore[reportArgumentType]
    e = across_runs([value - bound for value in values])
    inside = {"above": e.low > margin, "below": e.high < -margin, "within": -margin < e.low and e.high < margin}
    outside = {"above": e.high <= margin, "below": e.low >= -margin, "within": e.high <= -margin or e.low >= margin}
    expected = "met" if inside[relation] else "refuted" if outside[relation] else "open"
    assert state(asked, runs(a=values)) == expected


@given(st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=2, max_size=3))
def test_a_verdict_is_decided_only_where_each_master_seed_gives_it_alone(columns: list[list[float]]) -> None:
    asked = claim(Comparison("a", "above", 0.0), Comparison("a", "below", 0.8))
    halves = [runs(a=column) for column in columns]
    together: Verdict = decide(asked, halves)
    alone = {decide(asked, [half]).word for half in halves}
    if together.word != "undecided":
        assert alone == {together.word}
    if len(alone) > 1:
        assert together.word == "undecided"


def test_false_refutations_are_as_rare_as_the_interval_says() -> None:
    # The truth is exactly the bound: one master seed refutes in 2.5 % of experiments, two in a row in 0.06 %.
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2000, 4))
    refuted = np.array([state(Comparison("a", "above", 0.0), runs(a=row.tolist())) == "refuted" for row in draws])
    assert 0.015 < refuted.mean() < 0.036


def test_figures_are_shown_without_a_signed_zero() -> None:
    assert shown(across_runs([-1e-9, 1e-9])) == "0 [0, 0]"
    assert shown(across_runs([0.25])) == "0.25"
    assert str(find(Comparison("a", "below", 0.5, 0.1), [HIGH])).endswith("(needed below 0.5 by more than 0.1)")


@pytest.mark.parametrize(("relation", "margin"), [("within", 0.0), ("above", -0.1)])
def test_a_margin_that_decides_nothing_is_refused(relation: str, margin: float) -> None:
    with pytest.raises(ValueError, match="decides nothing"):
        Comparison("a", relation, "b", margin)  # pyright: ignore[reportArgumentType]
