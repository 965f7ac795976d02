"""Credit reach: (1) every known answer, (2) γ^k and (γλ)^k to 1e-6 of the algorithms' own code, over grids and random episodes,
(3) flat, acausal and η = 0 for methods that judge whole episodes, (4) what moves the whole batch is taken off, and only that,
(5) what cannot be asked about is left out or said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.algorithms import (
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    LUSPO,
    PPO,
    RLOO,
    SAPO,
    SFT,
    VESPO,
    DrGRPO,
    Reinforce,
    ReinforcePlusPlus,
    TokenPPO,
)
from turnwise.audit import Evidence, Iteration, Measure, Measurement, NotMeasurable
from turnwise.audit.credit_bump import Response, Responses, raised, responses, scale_and_shift
from turnwise.audit.credit_reach import (
    QUANTITIES,
    acausal_share,
    at_lag,
    reach,
    reach_tokens,
    within_episode,
)
from turnwise.audit.errors import AuditError
from turnwise.audit.evidence import Advantages
from turnwise.audit.quantity import Quantity
from turnwise.audit.rerun import Improves, advantages_of
from turnwise.credit import batch_baseline, gae_turns, leave_one_out_alive, returns, uniform, whiten
from turnwise.episode import Cut, Episode
from turnwise.testing import build_episode, check_measure

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
FLAT = [GRPO(), DrGRPO(), DAPO(), GSPO(), LUSPO(), RLOO(), CISPO(), SAPO(), VESPO(), GRPO(spread="batch")]


def paid(turns: Sequence[int] = (6, 6, 6), *, tasks: int = 3, seed: int = 0, cut: bool = False) -> list[Episode]:
    """One rollout for each number of turns of each task, with random rewards and actions of one to three tokens."""
    rng = np.random.default_rng(seed)
    return [
        build_episode(
            rng.normal(size=n).tolist(),
            actions=[rng.integers(1, 9, size=rng.integers(1, 4)).tolist() for _ in range(n)],
            observations=[[9 + task, 30 + i, 60 + t] for t in range(n)],
            group=str(task),
            seed=task,
            cut=Cut.TURN_LIMIT if cut and i % 2 else None,
        )
        for task in range(tasks)
        for i, n in enumerate(turns)
    ]


def evidence(code: Advantages, episodes: Sequence[Episode], *, plays: int = 12) -> Evidence:
    return Evidence(iterations=(Iteration(tuple(episodes)),), advantages=code, plays=plays)


def of(algorithm: Improves, episodes: Sequence[Episode], *, plays: int = 12) -> Evidence:
    return evidence(advantages_of(algorithm), episodes, plays=plays)


def measured(measure: Measure, given: Evidence) -> Measurement:
    answer = measure(given)
    assert isinstance(answer, Measurement), answer
    return answer


def geometric(factor: float, n: int) -> float:
    return sum(factor**k for k in range(1, n + 1))


def assert_powers(answer: Measurement, factor: float) -> None:
    """C(k) = factor^k back in time, and nothing after the reward."""
    for lag, share in zip(answer.series[0].x, answer.series[0].y, strict=True):
        assert share == pytest.approx(factor**lag if lag >= 0 else 0.0, abs=1e-6), lag


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda q: q.name)
def test_known_answers(quantity: Quantity) -> None:
    check_measure(quantity.measure, quantity.controls())


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 1.0])
def test_reinforce_reaches_by_gamma(gamma: float, normalise: bool) -> None:
    given = of(Reinforce(gamma=gamma, normalise=normalise), paid((2, 4, 7, 7)), plays=24)
    answer = measured(reach, given)
    assert_powers(answer, gamma)
    lengths = [len(e.turns) for e in given.episodes]
    assert answer.n == len(lengths), "all were asked about"
    assert answer.value == pytest.approx(np.mean([geometric(gamma, n - 1) for n in lengths]), abs=1e-6)
    assert measured(acausal_share, given).value == 0.0


@pytest.mark.parametrize(("gamma", "lam"), [(0.0, 0.9), (0.9, 0.0), (0.99, 0.95), (0.7, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize("cut", [False, True])
def test_ppo_reaches_by_gamma_lambda(gamma: float, lam: float, cut: bool) -> None:
    given = of(PPO(gamma=gamma, lam=lam), paid((5, 6, 6), cut=cut))
    assert_powers(measured(reach, given), gamma * lam)
    assert measured(acausal_share, given).value == 0.0


@pytest.mark.parametrize(("gamma", "lam"), [(0.9, 0.8), (1.0, 0.95), (0.5, 1.0)])
def test_token_ppo_reaches_by_tokens_or_by_turns(gamma: float, lam: float) -> None:
    episodes = paid((4, 5), cut=True)
    by_token = measured(reach_tokens, of(TokenPPO(gamma=gamma, lam=lam, discount="tokens"), episodes))
    assert_powers(by_token, gamma * lam)
    assert by_token.unit == "tokens"
    by_turn = measured(reach, of(TokenPPO(gamma=gamma, lam=lam, discount="turns"), episodes))
    assert_powers(by_turn, gamma * lam)


@pytest.mark.parametrize("gamma", [0.6, 1.0])
def test_reinforce_plus_plus_reaches_by_gamma(gamma: float) -> None:
    given = of(ReinforcePlusPlus(gamma=gamma), paid())
    assert_powers(measured(reach, given), gamma)
    assert measured(acausal_share, given).value == 0.0


@pytest.mark.parametrize("algorithm", FLAT, ids=lambda a: type(a).__name__)
def test_methods_that_judge_whole_episodes_are_flat_and_acausal(algorithm: Improves) -> None:
    given = of(algorithm, paid((2, 5, 6)), plays=18)
    answer = measured(reach, given)
    assert set(np.round(answer.series[0].y, 6)) == {1.0}
    assert answer.value == pytest.approx(np.mean([len(e.turns) - 1 for e in given.episodes]), abs=1e-6)
    # Half-way is turn 0 of 2, turn 2 of 5 and turn 2 of 6.
    later = measured(acausal_share, given)
    assert later.value == pytest.approx(np.mean([1 / 2, 2 / 5, 3 / 6]), abs=1e-6)
    assert later.interval[0] > 0
    assert measured(within_episode, given).value == pytest.approx(0.0, abs=1e-12)


@settings(deadline=None, max_examples=15)
@given(
    turns=st.lists(st.integers(1, 8), min_size=2, max_size=4),
    gamma=st.floats(0.0, 1.0),
    lam=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
)
def test_random_episodes(turns: list[int], gamma: float, lam: float, seed: int) -> None:
    """γ^k and (γλ)^k whatever the lengths; a whitened batch reads as a plain one; γ = 0 and one turn reach nothing."""
    episodes = paid(turns, seed=seed)

    def traced(episodes: Sequence[Episode]) -> list[Floats]:
        rewards = [e.rewards for e in episodes]
        values = [np.sin(np.arange(len(r)) + i) for i, r in enumerate(rewards)]
        return whiten(gae_turns(rewards, values, None, gamma, lam)[0])

    def discounted(episodes: Sequence[Episode]) -> list[Floats]:
        return leave_one_out_alive(returns([e.rewards for e in episodes], gamma), [e.group for e in episodes])

    for code, factor in ((traced, gamma * lam), (discounted, gamma)):
        answer = measured(reach, evidence(code, episodes, plays=64))
        assert_powers(answer, factor)
        assert answer.value == pytest.approx(np.mean([geometric(factor, n - 1) for n in turns]), abs=1e-5)
        assert answer.interval[0] <= answer.value <= answer.interval[1]
        if max(turns) > 1:
            assert measured(acausal_share, evidence(code, episodes)).value == 0.0


def test_one_turn_of_feedback_reaches_no_turn_but_the_tokens_of_its_answer() -> None:
    given = of(PPO(), paid((1, 1)))
    assert measured(reach, given).value == 0.0
    episodes = [e for e in given.episodes]
    tokens = measured(reach_tokens, replace(given, plays=64))
    assert tokens.value == pytest.approx(np.mean([e.n_action_tokens - 1 for e in episodes]))
    for measure in (acausal_share, within_episode):
        assert isinstance(measure(given), NotMeasurable)


def test_shares_of_variance_by_arithmetic() -> None:
    """Recorded advantages go before code; the update's own mean is taken; tokens count as their turn's mean."""
    a, b = build_episode([0.0, 0.0]), build_episode([0.0, 0.0])

    def by_token(episodes: Sequence[Episode]) -> list[Floats]:
        return [np.array([-1.0, 1.0, 1.0, 3.0]), np.array([3.0, 5.0, 5.0, 7.0])]  # turns: 0, 2 and 4, 6

    assert measured(within_episode, evidence(by_token, [a, b])).value == pytest.approx(0.2)
    same = np.array([1.0, 1.0])
    recorded = Iteration((a, b), advantages=(same, -same))
    assert measured(within_episode, Evidence(iterations=(recorded,), advantages=by_token)).value == 0.0
    # Two updates whose means differ by far: 4 of 20, and 0 of 4.
    far = (np.array([0.0, 2.0]) + 100, np.array([4.0, 6.0]) + 100)
    both = Evidence(iterations=(recorded, Iteration((a, b), advantages=far)))
    assert measured(within_episode, both).value == pytest.approx(4 / 24)


def test_what_is_common_to_the_batch_is_taken_off_and_nothing_else() -> None:
    episodes = paid((4, 4, 4))

    def own_left_out(episodes: Sequence[Episode]) -> list[Floats]:
        """With equal lengths all other episodes move by one number, in which the paid one has no part."""
        return batch_baseline(returns([e.rewards for e in episodes], 0.5))

    def whitened_sums(episodes: Sequence[Episode]) -> list[Floats]:
        """One number for each episode, whitened: flat, and every other episode moves as well."""
        return whiten(uniform([e.rewards.sum() for e in episodes], [len(e.turns) for e in episodes]))

    answer = measured(reach, evidence(own_left_out, episodes))
    assert_powers(answer, 0.5)
    assert "taken off" not in answer.how
    flat = measured(reach, evidence(whitened_sums, episodes))
    assert flat.value == pytest.approx(3.0)
    assert "taken off" in flat.how
    assert measured(acausal_share, evidence(whitened_sums, episodes)).value == pytest.approx(0.5)


def test_a_scale_and_a_shift_are_found_where_something_tells() -> None:
    before, any_other = np.array([1.0, 2.0, 4.0]), np.array([7.0])
    assert scale_and_shift(before, 2 * before + 1, any_other) == pytest.approx((2.0, 1.0))
    assert scale_and_shift(before, np.array([3.0, 5.0, 8.0]), any_other) is None
    assert scale_and_shift(before[:2], 2 * before[:2] + 1, any_other) is None, "two points lie on some line"
    assert scale_and_shift(before[:2], 2 * before[:2] + 1, before[:1]) == pytest.approx((2.0, 1.0))
    zeros = np.zeros(4)
    assert scale_and_shift(zeros, zeros - 0.1, np.zeros(2)) == pytest.approx((1.0, -0.1))
    assert scale_and_shift(zeros, np.array([0.0, -0.1, -0.1, -0.1]), np.zeros(2)) is None
    assert scale_and_shift(before, before, any_other) == (1.0, 0.0)
    assert scale_and_shift(zeros[:0], zeros[:0], any_other) is None


@pytest.mark.parametrize("algorithm", [PPO(gamma=0.9, lam=0.9), Reinforce(gamma=0.81)], ids=lambda a: type(a).__name__)
def test_an_update_in_which_nobody_was_paid(algorithm: Improves) -> None:
    """All advantages are 0 until a reward is raised; then the whole batch moves by one number."""
    dull = [replace(e, turns=tuple(replace(t, reward=0.0) for t in e.turns)) for e in paid((4, 5, 6))]
    given = of(algorithm, dull)
    assert_powers(measured(reach, given), 0.81)
    assert measured(acausal_share, given).value == 0.0


def test_what_cannot_be_taken_off_is_said() -> None:
    """Rewards that are whitened move all returns, by no scale and shift of advantages with a critic in them."""
    given = of(PPO(whiten_rewards=True, gamma=0.9, lam=0.9), paid((3, 5, 6)))
    values = [(e, np.arange(len(e.turns), dtype=np.float64)) for e in given.episodes]
    critical = replace(given, advantages=advantages_of(PPO(whiten_rewards=True, gamma=0.9, lam=0.9), values))
    answer = measured(reach, critical)
    assert "could not be told apart" in answer.how
    assert at_lag(1)(answer) == pytest.approx(0.81, abs=0.1)


def test_one_task_alone_is_told_by_later_turns() -> None:
    given = of(Reinforce(gamma=0.5), paid((6, 6, 6, 6), tasks=1), plays=8)
    half = measured(acausal_share, given)
    assert half.value == pytest.approx(0.0, abs=1e-6)


def test_episodes_that_cannot_be_asked_about() -> None:
    """Broken ones, ones with a turn that nobody could score, and ones the method leaves out."""
    whole = paid((4, 4, 4))
    unscored = replace(whole[0], turns=(replace(whole[0].turns[0], reward=float("nan")), *whole[0].turns[1:]))
    broken, empty = build_episode([9.0, 0.0, 9.0], cut=Cut.CRASH), build_episode([], cut=Cut.TIMEOUT)
    given = of(Reinforce(gamma=0.5), [broken, unscored, *whole[1:], empty], plays=64)
    answer = measured(reach, given)
    assert answer.n == len(whole) - 1
    assert_powers(answer, 0.5)
    # A record may hold one rollout of a group, and compares it with nothing.
    alone = of(GRPO(), [whole[0], *whole[3:]], plays=64)
    answer = measured(reach, alone)
    assert (answer.n, answer.value) == (6, pytest.approx(3.0))
    assert "14 rewards raised" in answer.how
    assert "2 of them moved nothing" in answer.how
    # DAPO has nothing to say of a group that all returned the same.
    dull = [replace(e, turns=tuple(replace(t, reward=0.0) for t in e.turns)) for e in whole[:3]]
    assert measured(reach, of(DAPO(), [*dull, *whole[3:]], plays=64)).n == 6


def test_a_reward_nobody_could_give_leaves_nothing_to_raise() -> None:
    nan = [float("nan")] * 3
    answer = reach(of(GRPO(), [build_episode(nan, group=str(g)) for g in (0, 0, 1, 1)]))
    assert isinstance(answer, NotMeasurable)
    assert "reward known at every turn" in answer.why


@pytest.mark.parametrize("measure", [reach, reach_tokens, acausal_share, within_episode])
def test_methods_without_credit_are_not_measured(measure: Measure) -> None:
    answer = measure(of(SFT(), paid()))
    assert isinstance(answer, NotMeasurable)
    assert answer.why == "SFT assigns no credit to turns: no advantage enters its updates"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (lambda episodes: [], "answered for 0 of 18 episodes"),
        (lambda episodes: [np.zeros(1) for _ in episodes], "gave shape .1,. to episode 0"),
        (
            lambda episodes: [np.random.default_rng().normal(size=len(e.turns)) for e in episodes],
            "differently when asked",
        ),
    ],
)
def test_code_that_breaks_its_contract(code: Callable[[Sequence[Episode]], list[Floats]], said: str) -> None:
    with pytest.raises(AuditError, match=said):
        reach(evidence(code, paid()))


def test_a_raise_is_booked_and_nothing_else_changes() -> None:
    episode = build_episode([1.0, 2.0, 3.0])
    more = raised(episode, 1, 0.5)
    assert more.rewards.tolist() == [1.0, 2.5, 3.0]
    assert more.turns[1].rewards["bump"] == 0.5
    assert sum(more.turns[1].rewards.values()) == 2.5
    assert (more.turns[0], more.turns[2]) == (episode.turns[0], episode.turns[2])
    response = Response(1, np.array([1, 2]), np.array([1.0, 2.0, 4.0]))
    assert response.turns.tolist() == [1.0, 3.0]
    assert response.at_end


def test_updates_are_spread_over_the_run() -> None:
    """The first and the last update are among those looked at, and a run of one update has one."""
    seen: list[float] = []

    def code(episodes: Sequence[Episode]) -> list[Floats]:
        seen.append(float(episodes[0].seed))
        return [e.rewards for e in episodes]

    updates = tuple(Iteration(tuple(replace(e, seed=u) for e in paid((3,), tasks=4))) for u in range(9))
    found = responses("credit/reach", Evidence(iterations=updates, advantages=code, plays=16))
    assert isinstance(found, Responses)
    assert set(seen) == {0.0, 3.0, 5.0, 8.0}
    assert len(found.moved) == 4 * 2 * 2
