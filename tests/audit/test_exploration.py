"""Exploration: (1) the known answers, (2) reachability and cover against enumeration, (3) the interval covers, (4) what a
figure says of luck."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.audit import Evidence, Measurement, NotMeasurable, table_player
from turnwise.audit.exploration import (
    QUANTITIES,
    SAMPLES,
    beyond_base,
    beyond_controls,
    cover,
    coverage,
    reachable,
    seen_interval,
    states_controls,
    states_seen,
    visits_of,
)
from turnwise.audit.witness import sample
from turnwise.envs import make, optimal_policy, spec
from turnwise.envs.exact import Tabular, uniform_policy
from turnwise.envs.locks import Locks
from turnwise.testing import EchoEnv, check_measure


def test_known_answers() -> None:
    check_measure(states_seen, states_controls())
    check_measure(beyond_base, beyond_controls())
    assert [q.measure for q in QUANTITIES] == [states_seen, beyond_base]


def random_world(seed: int, horizon: int) -> Tabular:
    rng = np.random.default_rng(seed)
    n, m = 8, 2
    probability = np.where(rng.random((n, m)) < 0.5, 1.0, 0.5)[..., None] * [1.0, 0.0]
    probability[..., 1] = 1.0 - probability[..., 0]
    successor, ended = rng.integers(0, n, (n, m, 2)), rng.random((n, m, 2)) < 0.3
    return Tabular(probability, successor, np.zeros((n, m, 2)), ended, np.eye(n)[0], horizon, ("a", "b"))


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_reachable_is_what_some_history_acts_in(seed: int, horizon: int) -> None:
    world = random_world(seed, horizon)
    found = set[int]()

    def walk(state: int, turn: int) -> None:
        if turn == horizon:
            return
        found.add(state)
        for a in range(2):
            for k in range(2):
                if world.probability[state, a, k] > 0 and not world.ended[state, a, k]:
                    walk(int(world.successor[state, a, k]), turn + 1)

    walk(0, 0)
    assert set(np.flatnonzero(reachable(world)).tolist()) == found


@pytest.mark.parametrize("world", ["vault", "locks?depth=4", "temptation?vary=true", "bypass?cue=all"])
def test_all_states_of_the_worlds_but_their_ends_are_reachable(world: str) -> None:
    exact = spec(world).exact
    assert exact is not None
    table = exact()
    never = table.probability == 0
    over = (table.ended | never).all((1, 2))
    own = ((table.successor == np.arange(table.n_states)[:, None, None]) | never).all((1, 2))
    assert (reachable(table) == ~(over & own)).all()


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_cover_is_the_mean_over_all_choices_of_episodes(seed: int, m: int) -> None:
    visits = np.random.default_rng(seed).random((6, 5)) < 0.3
    expected = np.mean([visits[list(chosen)].any(0).sum() for chosen in combinations(range(6), m)])
    assert cover(visits, m) == pytest.approx(expected)


def test_the_interval_by_hand() -> None:
    assert seen_interval(np.ones((3, 3), bool), 3) == (-np.inf, np.inf)
    # Four episodes, of which one alone saw two states: s² = 3/4 (1.5² + 3 · 0.5²) + 1 = 3.25.
    visits = np.array([[True, True, True, False], *[[True, False, False, False]] * 3])
    half = 1.959963984540054 * 3.25**0.5
    assert seen_interval(visits, 40) == pytest.approx((max(3 - half, 0), 3 + half))
    assert seen_interval(visits, 5) == pytest.approx((max(3 - half, 0), 5))


@pytest.mark.parametrize("episodes", [4, 6, 10, 40])
def test_the_interval_covers(episodes: int) -> None:
    assert coverage(300, episodes) >= 0.95


def test_the_interval_covers_in_a_world_of_many_states() -> None:
    """Starts of a lock, where an episode sees a start that 1 in 64 see, and often nothing more."""
    world = Locks(depth=6).table
    total, episodes, draws = int(reachable(world).sum()), 30, 300
    # By arithmetic: a rest of r turns is due with probability 3^-(6-r) 2^-r for each of its 2^r codes.
    truth = sum(2**r * (1 - (1 - 3.0 ** (r - 6) * 2.0**-r) ** episodes) for r in range(1, 7))
    visits = visits_of(sample(world, uniform_policy(world), draws * episodes, 3), world).reshape(draws, episodes, -1)
    seen = [part.any(0).sum() for part in visits]
    assert np.mean(seen) == pytest.approx(truth, abs=4 * float(np.std(seen)) / draws**0.5)
    held = [low <= truth <= high for low, high in (seen_interval(part, total) for part in visits)]
    assert np.mean(held) >= 0.93


def test_an_expert_sees_less_of_the_world_than_chance() -> None:
    table = make("vault?slip=0").table
    player = table_player(optimal_policy(table), table.actions)
    found = states_seen(Evidence(make_env=lambda: make("vault?slip=0"), tabular=table, player=player))
    assert isinstance(found, Measurement)
    policy, chance = found.series
    assert policy.y[-1] == found.value
    assert found.value < chance.y[-1]
    assert list(policy.y) == sorted(policy.y)


def test_luck_is_told_from_learning() -> None:
    """A copy that draws anew at depth 3 succeeds in 1 of 27: all 32 samples of the base fail with (26/27)^32 = 0.30."""
    policy, base = (table_player(uniform_policy(Locks(3).table), Locks(3).table.actions, seed=s) for s in (1, 0))
    found = beyond_base(Evidence(make_env=lambda: Locks(3), player=policy, base=base, plays=3000))
    assert isinstance(found, Measurement)
    assert found.interval[0] < (26 / 27) ** 32 < found.interval[1]
    most = (1 / 33) * (32 / 33) ** 32
    bound = float(found.how.split("could have ")[1].split(" at most")[0])
    assert bound == pytest.approx(27 * most, rel=0.25)
    assert SAMPLES == 32


def test_a_world_without_successes_is_not_measurable() -> None:
    def say(*_: object) -> str:
        return "yes"

    from turnwise.audit import speaker

    found = beyond_base(Evidence(make_env=EchoEnv, player=speaker(say), base=speaker(say)))
    assert isinstance(found, NotMeasurable)
    assert "success" in found.why
