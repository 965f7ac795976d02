"""GAE: a hand-computed conformance table, the observation-token mistakes it excludes, and identities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from turnwise import credit

LENGTHS = [[2, 2, 2]]
REWARDS = [[0.0, 0.0, 1.0]]
TOKEN_VALUES = [[0.5, 0.5, 0.6, 0.6, 0.8, 0.8]]
TURN_VALUES = [[0.5, 0.6, 0.8]]


@st.composite
def episode(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], float]:
    """Turn rewards, token values, action lengths, bootstrap."""
    n = draw(st.integers(1, 6))
    number = st.floats(-5, 5, allow_nan=False)
    lengths = np.array(draw(st.lists(st.integers(1, 4), min_size=n, max_size=n)))
    rewards = np.array(draw(st.lists(number, min_size=n, max_size=n)))
    total = int(lengths.sum())
    return rewards, np.array(draw(st.lists(number, min_size=total, max_size=total))), lengths, draw(number)


def starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(lengths) - lengths


@pytest.mark.parametrize(
    ("gamma", "lam", "tokens", "turns"),
    [
        (1.0, 1.0, [0.5, 0.5, 0.4, 0.4, 0.2, 0.2], [0.5, 0.5, 0.4, 0.4, 0.2, 0.2]),
        (0.99, 0.95, [0.379, 0.408, 0.334, 0.361, 0.18, 0.20], [0.451, 0.451, 0.38, 0.38, 0.2, 0.2]),
    ],
)
def test_conformance_table(gamma: float, lam: float, tokens: list[float], turns: list[float]) -> None:
    by_token, targets = credit.gae_tokens(
        credit.place_at_end(REWARDS, LENGTHS), TOKEN_VALUES, None, LENGTHS, gamma, lam
    )
    by_turn, _ = credit.gae_turns(REWARDS, TURN_VALUES, None, gamma, lam)
    np.testing.assert_allclose(by_token[0], tokens, atol=6e-4)
    np.testing.assert_allclose(credit.broadcast(by_turn, LENGTHS)[0], turns, atol=6e-4)
    np.testing.assert_allclose(targets[0], by_token[0] + TOKEN_VALUES[0])


def test_exact_numbers_by_hand() -> None:
    """δ₂ = 1 − .8, A₁ = (.99·.8 − .6) + .9405·.2, A₀ = (.99·.6 − .5) + .9405·A₁."""
    advantages, _ = credit.gae_turns(REWARDS, TURN_VALUES, None, 0.99, 0.95)
    np.testing.assert_allclose(advantages[0], [0.094 + 0.9405 * 0.3801, 0.3801, 0.2], rtol=1e-12)


def test_observation_tokens_as_steps_would_give_other_numbers() -> None:
    """The wrong way, written out: two observation tokens with critic output 5.0 between turns count as steps."""
    values = np.array([0.5, 0.5, 5, 5, 0.6, 0.6, 5, 5, 0.8, 0.8])
    rewards = np.zeros(10)
    rewards[-1] = 1.0
    running, wrong = 0.0, np.zeros(10)
    for t in reversed(range(10)):
        after = values[t + 1] if t < 9 else 0.0
        running = rewards[t] + 0.99 * after - values[t] + 0.99 * 0.95 * running
        wrong[t] = running
    wrong = wrong[[0, 1, 4, 5, 8, 9]]
    np.testing.assert_allclose(wrong, [1.004, 1.072, 0.681, 0.731, 0.18, 0.20], atol=6e-4)
    right, _ = credit.gae_tokens(credit.place_at_end(REWARDS, LENGTHS), TOKEN_VALUES, None, LENGTHS, 0.99, 0.95)
    assert np.abs(right[0] - wrong).max() > 0.6


@given(episode())
def test_without_decay_it_is_the_return_minus_the_value(
    data: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], float],
) -> None:
    rewards, values, lengths, bootstrap = data
    to_go = np.array([rewards[t:].sum() + bootstrap for t in range(len(rewards))])
    turn_values = values[starts(lengths)]
    by_turn, targets = credit.gae_turns([rewards], [turn_values], [bootstrap], 1.0, 1.0)
    np.testing.assert_allclose(by_turn[0], to_go - turn_values, atol=1e-9)
    np.testing.assert_allclose(targets[0], to_go, atol=1e-9)
    by_token, _ = credit.gae_tokens(
        credit.place_at_end([rewards], [lengths]), [values], [bootstrap], [lengths], 1.0, 1.0
    )
    np.testing.assert_allclose(by_token[0], np.repeat(to_go, lengths) - values, atol=1e-9)


@given(episode(), st.floats(0, 1), st.floats(0, 1))
def test_discounting_turns_only_agrees_with_turn_gae_at_turn_starts(
    data: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], float], gamma: float, lam: float
) -> None:
    rewards, values, lengths, bootstrap = data
    by_token, _ = credit.gae_tokens(
        credit.place_at_end([rewards], [lengths]), [values], [bootstrap], [lengths], gamma, lam, discount_turns=True
    )
    by_turn, _ = credit.gae_turns([rewards], [values[starts(lengths)]], [bootstrap], gamma, lam)
    np.testing.assert_allclose(by_token[0][starts(lengths)], by_turn[0], atol=1e-8)


@given(episode(), st.floats(0, 1), st.floats(0, 1))
def test_actions_of_one_token_make_tokens_and_turns_equal(
    data: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], float], gamma: float, lam: float
) -> None:
    rewards, values, _, bootstrap = data
    values, ones = values[: len(rewards)], np.ones(len(rewards), dtype=np.int64)
    tokens = credit.gae_tokens([rewards], [values], [bootstrap], [ones], gamma, lam)
    turns = credit.gae_turns([rewards], [values], [bootstrap], gamma, lam)
    np.testing.assert_array_equal(tokens, turns)


def test_one_turn_is_reward_minus_value_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(50, 1)), rng.normal(size=(50, 1))
    advantages, _ = credit.gae_turns(list(rewards), list(values), None, 0.99, 0.9)
    np.testing.assert_array_equal(advantages, rewards - values)


def test_only_a_truncated_episode_bootstraps() -> None:
    """Two equal episodes, one terminated, one cut where the critic says 10."""
    advantages, targets = credit.gae_turns([[1.0], [1.0]], [[0.0], [0.0]], [0.0, 10.0], 0.9, 0.95)
    np.testing.assert_allclose(np.concatenate(advantages), [1.0, 1.0 + 0.9 * 10.0])
    np.testing.assert_allclose(np.concatenate(targets), [1.0, 10.0])


def test_an_unscorable_reward_moves_neither_policy_nor_critic() -> None:
    advantages, targets = credit.gae_turns([[1.0, np.nan, 1.0]], [[0.3, 0.4, 0.5]], None, 1.0, 1.0)
    np.testing.assert_array_equal(advantages[0], [np.nan, np.nan, 0.5])
    moved = credit.whiten([*advantages, np.array([1.5])])
    np.testing.assert_allclose(moved[0][:2], 0.0)
    assert moved[0][2] == pytest.approx(-(0.5**0.5))
    np.testing.assert_array_equal(targets[0], [0.3, 0.4, 1.0])


def test_empty_input() -> None:
    assert credit.gae_turns([], [], None, 0.9, 0.9) == ([], [])
    assert [len(a) for a in credit.gae_turns([[]], [[]], [0.0], 0.9, 0.9)[0]] == [0]


def test_refusals_name_the_remedy() -> None:
    with pytest.raises(ValueError, match="never at observation tokens"):
        credit.gae_turns([[0.0, 1.0]], [[0.0, 1.0, 2.0]], None, 1.0, 1.0)
    with pytest.raises(ValueError, match="place_at_end"):
        credit.gae_tokens([[0.0, 1.0]], [[0.0, 1.0]], None, [[2, 2]], 1.0, 1.0)
    with pytest.raises(ValueError, match="stop token"):
        credit.gae_tokens([[0.0, 1.0]], [[0.0, 1.0]], None, [[2, 0]], 1.0, 1.0)
    with pytest.raises(ValueError, match="outside"):
        credit.gae_turns([[0.0]], [[0.0]], None, 1.1, 1.0)
    with pytest.raises(ValueError, match="0 for a terminated one"):
        credit.gae_turns([[0.0]], [[0.0]], [0.0, 1.0], 1.0, 1.0)
    with pytest.raises(ValueError, match="not finite"):
        credit.gae_turns([[0.0]], [[0.0]], [np.nan], 1.0, 1.0)
