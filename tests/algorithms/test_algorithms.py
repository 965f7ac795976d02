"""What algorithms do with episodes: (1) at one turn they are the bandit methods, (2) only truncation bootstraps, (3) what
failed trains nothing, (4) a batch without signal is skipped with its reason, (5) KL is taken off the reward, (6) nonsense
is refused at construction."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models import zoo
from turnwise.algorithms import GRPO, NAMES, PPO, RLOO, SFT, Reinforce, ReinforcePlusPlus, TokenPPO
from turnwise.algorithms.experience import recall, turn_rewards
from turnwise.algorithms.reference import kl_penalty
from turnwise.algorithms.settings import SettingsError, Surrogate
from turnwise.batch import Batch, Outputs, pack, per_turn, unpack
from turnwise.credit import unit_scale
from turnwise.episode import Cut, Episode, Turn
from turnwise.errors import TurnwiseError
from turnwise.learners import LocalLearner
from turnwise.models import Policy, build_model

NOTHING = np.zeros(0, np.int32)


def turn(reward: float, n: int = 2, token: int = 7) -> Turn:
    return Turn(np.array([5, 6], np.int32), np.full(n, token, np.int32), np.full(n, -1.5, np.float32), reward)


def episode(rewards: list[float], group: str = "g", cut: Cut | None = None, token: int = 7, **fields: Any) -> Episode:
    turns = tuple(turn(r, 1 + t % 3, token + t) for t, r in enumerate(rewards))
    last = np.array([8], np.int32) if cut is Cut.TURN_LIMIT else NOTHING
    return Episode(group, turns, cut is None, cut is not None, last, cut=cut, **fields)


def learner(value_head: bool = True, reference: bool = False, **options: Any) -> LocalLearner:
    policy = Policy(build_model(zoo.TOKENIZER, seed=2), zoo.TOKENIZER, value_head=value_head)
    return LocalLearner(policy, lr=1e-2, reference=policy.reference() if reference else None, **options)


class Critic:
    """A learner that only evaluates: the value before a token is `values[token]`, after the end it is `final`."""

    version = 0

    def __init__(self, values: dict[int, float], final: float) -> None:
        self.values, self.final = values, final
        self.policy = SimpleNamespace(value_head=object())

    def evaluate(self, batch: Batch) -> Outputs:
        taken = batch.tokens[batch.action]
        return Outputs(
            logp=torch.full(taken.shape, -1.5),
            entropy=torch.zeros(taken.shape),
            value=torch.tensor([self.values.get(int(token), 0.0) for token in taken]),
            final_value=torch.full((int(batch.final.sum()),), self.final),
        )


# ---- one turn --------------------------------------------------------------------------------------------------------

rewards_ = st.lists(st.floats(-10, 10), min_size=1, max_size=12)


@given(rewards_, st.floats(0, 1), st.randoms(use_true_random=False))
def test_at_one_turn_return_to_go_is_the_bandit_bit_for_bit(rewards: list[float], gamma: float, rng: Any) -> None:
    groups = [rng.choice("abc") for _ in rewards]
    paid = [np.array([reward]) for reward in rewards]
    multi = Reinforce(gamma=gamma).advantages(paid, groups)
    bandit = RLOO().advantages(paid, groups)
    assert [a.tobytes() for a in multi] == [a.tobytes() for a in bandit]


def test_at_one_turn_reinforce_moves_the_weights_as_rloo_does() -> None:
    episodes = [episode([r], f"g{i // 4}", token=7 + i) for i, r in enumerate([1.0, 0.0, 3.0, 0.5, 2.0, 2.0, 0.0, 1.0])]
    a, b = learner(False), learner(False)
    Reinforce(normalise=False, epochs=2, minibatch=4).improve(a, episodes)
    RLOO(epochs=2, minibatch=4).improve(b, episodes)
    assert a.version == b.version == 4
    assert all(torch.equal(x, b.state()[0][name]) for name, x in a.state()[0].items())


@given(rewards_)
def test_at_one_turn_the_advantage_of_ppo_is_reward_minus_value(rewards: list[float]) -> None:
    episodes = [episode([r], token=7 + i) for i, r in enumerate(rewards)]
    values = {7 + i: 0.3 * i - 1 for i in range(len(rewards))}
    experience = recall(Critic(values, 99.0), episodes)
    assert experience is not None
    advantages, targets, _ = PPO(reward_scale=1.0, gamma=0.9).credit(experience, [np.zeros(1)] * len(rewards))
    raw = np.array(rewards, dtype=np.float64) - np.float32([values[7 + i] for i in range(len(rewards))])
    np.testing.assert_allclose([t[0] for t in targets], rewards, atol=1e-6)
    whitened = (raw - raw.mean()) / (raw.std(ddof=1) + 1e-8) if len(raw) > 1 else np.zeros(1)
    np.testing.assert_allclose([a[0] for a in advantages], whitened, atol=1e-5)


# ---- truncation ------------------------------------------------------------------------------------------------------


def test_only_truncation_bootstraps() -> None:
    """By hand: γ = ½, λ = ½, rewards (1, 2), values (10, 20), 40 after the last observation.

    Truncated: δ = (1 + 10 − 10, 2 + 20 − 20) = (1, 2), A = (1 + ¼·2, 2). Terminated: δ = (1, 2 − 20), A = (1 − ¼·18, −18).
    Truncated without a last observation: 20, the last state acted in, stands in for it: δ = (1, 2 + 10 − 20), A = (1 − ¼·8, −8).
    """
    episodes = [
        episode([1, 2]),
        episode([1, 2], cut=Cut.TURN_LIMIT),
        episode([1, 2], cut=Cut.CRASH),
        episode([1, 2], cut=Cut.CONTEXT),
    ]
    experience = recall(Critic({7: 10.0, 8: 20.0}, 40.0), episodes)
    assert experience is not None
    assert experience.bootstrap.tolist() == [0.0, 40.0, 20.0]
    penalty = [np.zeros(e.n_action_tokens) for e in experience.episodes]
    advantages, targets, _ = PPO(reward_scale=1.0, gamma=0.5, lam=0.5).credit(experience, penalty)
    for target, expected in zip(targets, [[6.5, 2.0], [11.5, 22.0], [9.0, 12.0]], strict=True):
        assert per_turn([target], [episodes[0]])[0].tolist() == expected
    flat = np.array([-3.5, -18.0, 1.5, 2.0, -1.0, -8.0])
    whitened = (flat - flat.mean()) / flat.std(ddof=1)
    np.testing.assert_allclose(np.concatenate(per_turn(advantages, experience.episodes)), whitened, atol=1e-6)


def test_a_token_is_a_step_where_asked_for() -> None:
    """By hand: one turn of one token, one of two; γ = ½, λ = 1 (A is return minus value), 8 after the end."""
    experience = recall(Critic({7: 1.0, 8: 2.0}, 8.0), [episode([4, 6], cut=Cut.TURN_LIMIT)])
    assert experience is not None
    penalty = [np.array([0.0, 1.0, 0.0])]
    _, targets, _ = TokenPPO(reward_scale=1.0, gamma=0.5, lam=1.0).credit(experience, penalty)
    # Returns from the last token back, discounted from turn to turn: 6 + ½·8 = 10, 1 + 10 = 11, 4 + ½·11 = 9.5.
    assert targets[0].tolist() == [9.5, 11.0, 10.0]


def test_the_sentinel_reads_the_learners_own_value() -> None:
    made = learner()
    assert made.policy.value_head is not None
    torch.nn.init.normal_(made.policy.value_head.weight, generator=torch.Generator().manual_seed(1))
    episodes = zoo.episodes(9, seed=5)
    experience = recall(made, episodes)
    assert experience is not None
    for value, one in zip(experience.bootstrap, episodes, strict=True):
        if one.truncated:
            # The value before an action that would have followed the last observation.
            extra = Turn(one.last_obs, np.array([9], np.int32), np.zeros(1, np.float32), 0.0, fresh=one.last_fresh)
            longer = replace(
                one, turns=(*one.turns, extra), last_obs=NOTHING, truncated=False, terminated=True, cut=None
            )
            said = made.evaluate(pack([longer])).value
            assert said is not None
            assert value == pytest.approx(float(said[-1]), abs=1e-5)
        else:
            assert value == 0.0


# ---- failures and nothing to learn -----------------------------------------------------------------------------------

METHODS: dict[str, Any] = {
    "reinforce": Reinforce(minibatch=3, epochs=1),
    "ppo": PPO(minibatch=3, epochs=1),
    "ppo-token": TokenPPO(minibatch=3, epochs=1),
    "grpo": GRPO(minibatch=3),
    "rloo": RLOO(minibatch=3),
    "reinforce-plus-plus": ReinforcePlusPlus(minibatch=3),
}


@pytest.mark.parametrize("name", METHODS)
def test_what_failed_trains_nothing(name: str) -> None:
    good = [episode([float(i), -1.0], f"g{i // 3}", token=6 + i) for i in range(6)]
    bad = [
        episode([1e6, 1e6], "g0", Cut.CRASH, token=9),
        episode([-1e6], "g1", Cut.TIMEOUT),
        episode([], "g1", Cut.CRASH),
    ]
    a, b = learner(), learner()
    METHODS[name].improve(a, good)
    mixed = [bad[0], *good[:3], bad[1], *good[3:], bad[2]]
    improvement = METHODS[name].improve(b, mixed)
    assert a.version == b.version > 0
    assert all(torch.equal(x, b.state()[0][key]) for key, x in a.state()[0].items())
    for stream in improvement.streams.values():
        assert [len(array) for array in stream] == [len(e.turns) for e in mixed]
        for array, one in zip(stream, mixed, strict=True):
            assert np.isnan(array).all() if one.failed else np.isfinite(array).all()


@pytest.mark.parametrize("name", METHODS)
def test_nothing_but_failures_moves_nothing_and_says_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    made = learner()
    improvement = METHODS[name].improve(made, [episode([1.0], cut=Cut.CRASH), episode([], cut=Cut.TIMEOUT)])
    assert made.version == 0
    assert not improvement.metrics
    assert "none of the 2 episodes can train" in caplog.text


@pytest.mark.parametrize("name", ["reinforce", "grpo", "rloo"])
def test_a_batch_without_signal_is_skipped_with_its_reason(name: str, caplog: pytest.LogCaptureFixture) -> None:
    episodes = [episode([1.0, 0.5], f"g{i // 2}", token=6 + i) for i in range(4)]
    made = learner(False)
    with caplog.at_level(logging.WARNING):
        improvement = METHODS[name].improve(made, episodes)
    assert made.version == 0
    assert "all 4 scores are 1.5" in caplog.text
    assert improvement.metrics["frac_reward_zero_std"] == (4.0, 4.0)
    assert all((array == 0).all() for array in improvement.streams["advantage"])
    # An entropy bonus has something to climb nevertheless.
    before = float(made.evaluate(pack(episodes)).entropy.mean())
    replace(METHODS[name], entropy_coef=1.0).improve(made, episodes)
    assert made.version > 0
    assert float(made.evaluate(pack(episodes)).entropy.mean()) > before


def test_streams_of_the_record_are_per_turn() -> None:
    episodes = [episode([1.0, 0.0, 2.0], token=6), episode([0.0], token=9), episode([5.0, 5.0], token=4)]
    improvement = PPO(reward_scale=0.5, minibatch=10, epochs=1).improve(learner(), episodes)
    assert set(improvement.streams) == {"advantage", "value"}
    for stream in improvement.streams.values():
        assert [array.shape for array in stream] == [(3,), (1,), (2,)]
    # Values are told in the unit of rewards, before scaling; a new head says zero.
    assert all((array == 0).all() for array in improvement.streams["value"])


def test_scale_counts_what_was_scored_only() -> None:
    scaled = unit_scale([np.array([3.0, np.nan]), None, np.array([-4.0, np.nan, np.nan])])
    rms = (25 / 2) ** 0.5
    np.testing.assert_allclose(scaled[0], [3 / rms, 0.0], rtol=1e-6)
    np.testing.assert_allclose(scaled[2], [-4 / rms, 0.0, 0.0], rtol=1e-6)


# ---- KL --------------------------------------------------------------------------------------------------------------


def test_the_divergence_is_taken_off_the_reward() -> None:
    made = learner(reference=True)
    with torch.no_grad():
        for name, parameter in made.policy.parameters().items():
            if name.startswith("model"):
                parameter.mul_(1.05)
    episodes = zoo.episodes(6, seed=3)
    experience = recall(made, episodes)
    assert experience is not None
    penalty, metrics = kl_penalty(made, experience, 0.25)
    moved, base = build_model(zoo.TOKENIZER, seed=2), build_model(zoo.TOKENIZER, seed=2)
    moved.load_state_dict(made.policy.model.state_dict())
    own = unpack(zoo.own_log_probs(moved, pack(episodes)).detach().double(), episodes)
    ref = unpack(zoo.own_log_probs(base, pack(episodes)).detach().double(), episodes)
    total = 0.0
    for one, paid, a, b in zip(episodes, turn_rewards(experience, penalty), own, ref, strict=True):
        begin = 0
        for t, turn_ in enumerate(one.turns):
            k1 = float((a - b)[begin : begin + len(turn_.act)].sum())
            assert paid[t] == pytest.approx(turn_.reward - 0.25 * k1, abs=1e-4)
            begin, total = begin + len(turn_.act), total + k1
    assert metrics["kl"][0] == pytest.approx(total, abs=1e-3)
    assert metrics["kl"][1] == sum(e.n_action_tokens for e in episodes)
    assert abs(total) > 0.1
    nothing, none = kl_penalty(made, experience, 0.0)
    assert not none
    assert all((p == 0).all() for p in nothing)


@pytest.mark.parametrize("name", METHODS)
def test_a_penalty_needs_a_reference(name: str) -> None:
    with pytest.raises(TurnwiseError, match=r"kl_coef=0.1 needs a reference policy.*policy.reference\(\)"):
        replace(METHODS[name], kl_coef=0.1).improve(learner(), [episode([1.0]), episode([0.0])])


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "wrong", "remedy"),
    [
        (Reinforce, {"group_size": 1}, "use a critic"),
        (GRPO, {"group_size": 1}, "use a critic"),
        (RLOO, {"groups": 0}, "at least one start state"),
        (PPO, {"gamma": 1.1}, "discount"),
        (PPO, {"gamma": float("nan")}, "discount"),
        (PPO, {"lam": -0.1}, "trace"),
        (PPO, {"clip": 0.0}, "width"),
        (PPO, {"value_coef": 0.0}, "reinforce"),
        (PPO, {"reward_scale": -1.0}, "flip"),
        (TokenPPO, {"epochs": 0}, "never be used"),
        (Reinforce, {"entropy_coef": -1.0}, "collapse"),
        (Reinforce, {"kl_coef": -1.0}, "leaving"),
        (SFT, {"minibatch": 0}, "at least one turn"),
    ],
)
def test_nonsense_is_refused_at_construction(kind: Any, wrong: dict[str, Any], remedy: str) -> None:
    with pytest.raises(SettingsError, match=remedy) as caught:
        kind(**wrong)
    assert next(iter(wrong)) in str(caught.value)


def test_names_are_classes_with_at_most_ten_settings_of_their_own() -> None:
    from dataclasses import fields

    from turnwise import algorithms

    shared = {field.name for field in fields(Surrogate)}
    for name in NAMES.values():
        kind = getattr(algorithms, name)
        assert len({field.name for field in fields(kind)} - shared) <= 10
        assert kind() == kind()
        with pytest.raises(AttributeError):
            kind().minibatch = 1


@pytest.mark.parametrize("kind", [PPO, TokenPPO])
def test_ppo_says_that_it_needs_a_critic(kind: Any) -> None:
    with pytest.raises(TurnwiseError, match=r"value_head=True, or use reinforce"):
        kind().improve(learner(False), [episode([1.0])])


def test_sft_learns_from_whole_episodes_only() -> None:
    made, other = learner(False), learner(False)
    good = [episode([0.0, 0.0], token=6 + i) for i in range(4)]
    SFT(minibatch=2).improve(made, good)
    SFT(minibatch=2).improve(other, [episode([1.0], cut=Cut.CRASH, token=12), *good, episode([], cut=Cut.CONTEXT)])
    assert made.version == other.version > 0
    assert all(torch.equal(x, other.state()[0][name]) for name, x in made.state()[0].items())
    assert not SFT().improve(made, [episode([], cut=Cut.CONTEXT)]).metrics
