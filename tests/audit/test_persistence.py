"""Persistence: (1) known answers, (2) the ratio's interval by textbook and by repetition, (3) success stands beside it, and a
policy without a memory is called that, (4) worlds that cannot say are declined."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.audit import Evidence, Measurement, NotMeasurable, speaker
from turnwise.audit.measure import share_interval, share_ratio_interval
from turnwise.audit.persistence import (
    DISTURBANCES,
    GOAL,
    SCRIPT,
    expert,
    persistence,
    persistence_controls,
    success,
    success_controls,
    torus,
)
from turnwise.audit.players import held_out_seeds, table_player
from turnwise.envs.errand import Errand
from turnwise.envs.exact import optimal_return, planner
from turnwise.envs.interrupted import Interrupted
from turnwise.envs.table_env import TableEnv
from turnwise.envs.text_env import Outcome, TextEnv
from turnwise.envs.vault import Vault
from turnwise.testing import check_measure


def test_known_answers_of_success() -> None:
    check_measure(success, success_controls())


@pytest.mark.parametrize("kind", DISTURBANCES)
def test_known_answers(kind: str) -> None:
    check_measure(persistence(kind), persistence_controls(kind))


def test_the_script_fits_its_world() -> None:
    world = torus()
    state = 0
    for text in SCRIPT[:-1]:
        state = int(world.successor[state, world.actions.index(text), 0])
    assert state == GOAL
    assert optimal_return(world, len(SCRIPT)) == 1.0
    assert optimal_return(world, len(SCRIPT) - 1) == 0.0


def test_an_odd_number_of_moves_never_leads_back() -> None:
    world = torus()
    moved = np.zeros((world.n_states, world.n_states))
    for s in range(world.n_states):
        for a in range(4):
            moved[s, world.successor[s, a, 0]] += 0.25
    assert (np.diag(np.linalg.matrix_power(moved, 5)) == 0).all()


@pytest.mark.parametrize("kind", DISTURBANCES)
@pytest.mark.parametrize("world", [lambda: Errand(), lambda: Vault(6, 0.1)])
def test_experts_of_other_worlds_persist(kind: str, world: type[Errand]) -> None:
    found = persistence(kind)(Evidence(player=expert, make_env=world, plays=12))
    assert isinstance(found, Measurement)
    assert found.value == 1.0
    assert found.interval[0] < 1.0 < found.interval[1]


def test_success_stands_beside_it_and_the_memoryless_are_named() -> None:
    world = torus()
    table = table_player(planner(world, world.horizon), world.actions)
    evidence = Evidence(player=table, make_env=lambda: TableEnv(world), tabular=world, plays=8)
    for kind in DISTURBANCES:
        found = persistence(kind)(evidence)
        assert isinstance(found, Measurement)
        assert "undisturbed 1.00" in found.how
        assert "memory-less" in found.how
        assert found.series[0].y[0] == 1.0
    found = persistence("moves")(Evidence(player=expert, make_env=lambda: TableEnv(world), plays=8))
    assert isinstance(found, Measurement)
    assert "memory-less" not in found.how


class Bare(TextEnv):
    """Three turns, without an expert, a table or a success."""

    def __init__(self, says: bool) -> None:
        super().__init__("bare", 3, ("a", "b"))
        self.says = says

    def begin(self, seed: int) -> str:
        return "go"

    def act(self, text: str) -> Outcome:
        return Outcome("go", 1.0)

    def legal_actions(self) -> tuple[str, ...]:
        return ("a", "b")

    def metrics(self) -> dict[str, float]:
        return {"success": 1.0} if self.says else {}


def test_worlds_that_cannot_say_are_declined() -> None:
    player = speaker(lambda observations, own, seed: "a")
    declined = persistence("moves")(Evidence(player=player, make_env=lambda: Bare(False)))
    assert isinstance(declined, NotMeasurable)
    assert "succe" in declined.why
    declined = persistence("moves")(Evidence(player=player, make_env=lambda: Bare(True)))
    assert isinstance(declined, NotMeasurable)
    assert "no expert" in declined.why


def test_without_success_there_is_nothing_to_recover() -> None:
    player = speaker(lambda observations, own, seed: "north")
    declined = persistence("moves")(Evidence(player=player, make_env=lambda: TableEnv(torus()), plays=4))
    assert isinstance(declined, NotMeasurable)
    assert "none of 4 undisturbed" in declined.why


def test_a_world_of_one_turn_has_no_middle() -> None:
    class Once(Bare):
        def optimal_action(self) -> str:
            return "a"

        def act(self, text: str) -> Outcome:
            return Outcome("done", 1.0, True)

    player = speaker(lambda observations, own, seed: "a")
    declined = persistence("blank")(Evidence(player=player, make_env=lambda: Once(True)))
    assert isinstance(declined, NotMeasurable)
    assert "no middle" in declined.why


def test_a_world_that_cannot_scatter_is_declined() -> None:
    class Walk(Bare):
        def optimal_action(self) -> str:
            return "a"

    player = speaker(lambda observations, own, seed: "a")
    declined = persistence("teleport")(Evidence(player=player, make_env=lambda: Walk(True)))
    assert isinstance(declined, NotMeasurable)
    assert "scatter" in declined.why


def test_policies_meet_the_disturbance_of_the_planner() -> None:
    """The same seeds are disturbed in the same way, so that the shares can be compared."""
    seeds = held_out_seeds(6)
    make = lambda: Interrupted(TableEnv(torus()), turn=3, moves=5)  # noqa: E731
    first = expert(make, seeds)
    again = expert(make, seeds)
    assert [e.observations for e in first] == [e.observations for e in again]
    assert all(e.metrics["interrupted"] == 1.0 for e in first)


def test_ratio_of_shares_in_special_cases() -> None:
    # A planner that always succeeds in a great many episodes: the policy's own interval.
    low, high = share_interval(0.6, np.ones(50))
    assert share_ratio_interval(0.6, 50, 1.0, 10**7) == pytest.approx((low, high), abs=1e-3)
    # All agree: not a point.
    low, high = share_ratio_interval(1.0, 30, 1.0, 30)
    assert low < 0.95
    assert high > 1.05
    assert share_ratio_interval(0.0, 30, 0.9, 30)[0] == 0.0
    assert share_ratio_interval(0.5, 4, 0.25, 4)[0] == 0.0


def test_ratio_of_shares_covers() -> None:
    rng = np.random.default_rng(0)
    for p, q in ((0.5, 0.9), (0.9, 1.0), (0.1, 0.8)):
        hits = 0
        for _ in range(1000):
            a, b = rng.binomial(40, p) / 40, rng.binomial(40, q) / 40
            low, high = share_ratio_interval(a, 40, b, 40)
            hits += low <= p / q <= high
        assert hits / 1000 > 0.93
