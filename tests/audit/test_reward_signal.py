"""The reward signal: known answers, and foresight against planners of the task."""

from __future__ import annotations

import numpy as np
import pytest

from tests.audit.records import value
from turnwise.audit import Evidence, NotMeasurable
from turnwise.audit.horizon import waiting_room
from turnwise.audit.quantity import Quantity
from turnwise.audit.reward_signal import QUANTITIES, foresight
from turnwise.envs.exact import lookahead_values
from turnwise.testing import check_measure


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.name)
def test_known_answers(quantity: Quantity) -> None:
    check_measure(quantity.measure, quantity.controls())


def test_foresight_is_that_of_the_judge_whatever_its_scale() -> None:
    room = waiting_room()
    for h, q in enumerate(lookahead_values(room, 21), start=1):
        if h in (3, 12):
            assert value(foresight(Evidence(tabular=room, signal=q))) == h
            assert value(foresight(Evidence(tabular=room, signal=5.0 * q - 3.0))) == h


def test_a_judge_that_knows_nothing_of_the_task_is_told_apart_by_its_interval() -> None:
    """Random preferences, the same in all turns: no planner explains them well, and the set of horizons is wide."""
    room = waiting_room()
    noise = np.random.default_rng(0).normal(size=(room.n_states, room.n_actions))
    found = foresight(Evidence(tabular=room, signal=noise))
    assert not isinstance(found, NotMeasurable)
    assert found.interval[0] < found.interval[1]


def test_a_table_with_gaps_bears_no_figure() -> None:
    room = waiting_room()
    signal = np.zeros((room.n_states, room.n_actions))
    signal[0, 0] = np.nan
    found = foresight(Evidence(tabular=room, signal=signal))
    assert isinstance(found, NotMeasurable)
    assert "gaps" in found.why
