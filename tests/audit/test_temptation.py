"""Temptation probes: (1) known answers, (2) planners of the exact table wait exactly as far as they see."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from turnwise.audit import Evidence, Measurement, speaker
from turnwise.audit.player import TextGame
from turnwise.audit.players import table_player
from turnwise.audit.temptation import DELAYS, controls, looks_ahead, patience
from turnwise.envs import temptation
from turnwise.envs.exact import planner
from turnwise.envs.temptation import Temptation
from turnwise.episode import Transcript
from turnwise.testing import check_measure


def test_known_answers() -> None:
    check_measure(patience, controls())


@pytest.mark.parametrize("h", [1, 2, 5, 13, 21])
def test_a_planner_waits_as_far_as_it_sees(h: int) -> None:
    def player(make: Callable[[], TextGame], seeds: Sequence[int]) -> list[Transcript]:
        env = make().unwrapped
        assert isinstance(env, Temptation)
        return table_player(planner(env.table, h), env.table.actions)(make, seeds)

    found = patience(Evidence(player=player, plays=32))
    assert isinstance(found, Measurement)
    assert found.value == h
    assert found.interval == (h, h)


def test_the_table_agrees_with_who_reads_the_text() -> None:
    for delay in (1, 4, 20):
        world = temptation.tabular(delay)
        for h in range(1, 23):
            waits = planner(world, h)[0, 0].argmax() == world.actions.index("wait")
            played = looks_ahead(h)(lambda d=delay: Temptation(delay=d), [3])[0]
            assert waits == (played.metrics["success"] == 1.0) == (delay + 1 <= h)


def test_few_probes_leave_a_wide_interval() -> None:
    def torn(observations: Sequence[str], own: Sequence[str], seed: int) -> str:
        return "wait" if seed % 2 else "grab"

    found = patience(Evidence(player=speaker(torn), plays=64))
    assert isinstance(found, Measurement)
    assert found.value == DELAYS[-1] + 1, "half of the probes are waited through, whatever the delay"
    assert found.interval == (1, DELAYS[-1] + 1)
