"""PPO's settings for judges: (1) the KL coefficient follows its target, exactly across a resume, (2) values are clipped around
those of the collection, (3) whitened rewards keep their mean, (4) while the critic warms up the policy does not move at
all, (5) where nothing moves the policy it says why."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.algorithms.bandit import Bandit
from tests.models import zoo
from turnwise.algorithms import PPO, TokenPPO
from turnwise.algorithms.experience import recall
from turnwise.algorithms.settings import SettingsError
from turnwise.batch import pack
from turnwise.credit import gae_tokens, place_at_end
from turnwise.learners import LocalLearner
from turnwise.models import Policy, build_model
from turnwise.objectives import AdaptiveKL

SCORES = [0.0, 0.5, 1.0, -0.5]


def dialogues(n: int = 8, seed: int = 3) -> list[Any]:
    return zoo.episodes(n, seed=seed)


def learner(seed: int = 2, **options: Any) -> LocalLearner:
    policy = Policy(build_model(zoo.TOKENIZER, seed=seed), zoo.TOKENIZER, value_head=True)
    return LocalLearner(policy, lr=1e-2, reference=policy.reference(), **options)


# ---- adaptive KL -----------------------------------------------------------------------------------------------------


def test_the_coefficient_follows_its_target() -> None:
    """By hand from the reported divergence: e = clip(kl / target − 1, ±0.2), β ← β (1 + 0.1 e), once per iteration."""
    bandit = Bandit(SCORES, value_head=True, seed=1)
    made = LocalLearner(bandit.policy, lr=2e-2, reference=bandit.policy.reference())
    ppo = PPO(episodes=64, reward_scale=1.0, kl_coef=0.3, kl_target=0.02)
    beta, seen = 0.3, []
    for iteration in range(8):
        bandit.refresh(made)
        metrics = ppo.improve(made, ppo.collect(bandit, iteration)).metrics
        assert metrics["kl_coef"] == (pytest.approx(beta), 1.0)
        # One token per episode: nats per token are nats per episode.
        divergence = metrics["kl"][0] / metrics["kl"][1]
        beta *= 1 + 0.1 * min(max(divergence / 0.02 - 1, -0.2), 0.2)
        seen.append(divergence)
    assert made.memory["kl_coef"] == pytest.approx(beta)
    assert seen[0] == pytest.approx(0.0, abs=1e-6)
    assert max(seen) > 0.024


def test_a_divergence_is_told_per_episode() -> None:
    made, other = learner(), learner()
    other.reference = learner(seed=5).policy.reference()
    ppo = PPO(kl_coef=0.1, kl_target=0.5, epochs=1)
    episodes = dialogues()
    metrics = ppo.improve(other, episodes).metrics
    per_episode = metrics["kl"][0] / len(episodes)
    assert other.memory["kl_coef"] == AdaptiveKL(0.1, 0.5).update(per_episode).beta
    ppo.improve(made, episodes)
    assert made.memory["kl_coef"] == pytest.approx(0.1 * 0.98)  # no divergence yet


def test_a_resumed_run_goes_on_with_its_coefficient() -> None:
    ppo = PPO(kl_coef=0.1, kl_target=0.5, minibatch=8)
    made = learner()
    for seed in range(3):
        ppo.improve(made, dialogues(seed=seed))
    tensors, info = made.state()
    stored = {name: tensor.clone() for name, tensor in tensors.items()}
    resumed = learner()
    resumed.restore(stored, dict(info))
    a, b = (ppo.improve(one, dialogues(seed=9)).metrics for one in (made, resumed))
    assert a == b
    assert made.memory == resumed.memory
    assert all(torch.equal(x, resumed.state()[0][name]) for name, x in made.state()[0].items())


def test_a_fixed_coefficient_is_not_remembered() -> None:
    made = learner()
    metrics = PPO(kl_coef=0.1, epochs=1).improve(made, dialogues()).metrics
    assert "kl_coef" not in metrics
    assert not made.memory


def test_the_coefficient_waits_while_the_critic_warms_up() -> None:
    """The policy cannot answer to it then: its divergence stays 0, and the coefficient would only fall."""
    ppo = PPO(kl_coef=0.1, kl_target=0.5, critic_warmup=2)
    made = learner()
    for iteration in range(2):
        made.iteration = iteration
        assert "kl_coef" not in ppo.improve(made, dialogues(seed=iteration)).metrics
        assert not made.memory
    made.iteration = 2
    assert ppo.improve(made, dialogues(seed=2)).metrics["kl_coef"] == (0.1, 1.0)
    assert made.memory["kl_coef"] == pytest.approx(0.1 * 0.98)


# ---- values and rewards ----------------------------------------------------------------------------------------------


def test_values_are_clipped_around_those_of_the_collection() -> None:
    """After the first step the critic has moved; a range of next to nothing then holds most of its predictions back."""
    episodes = [replace(one, group=str(i)) for i, one in enumerate(dialogues(12))]
    ppo = PPO(epochs=4, minibatch=4, reward_scale=1.0)
    free, held = learner(), learner()
    assert "clip_ratio/value" not in ppo.improve(free, episodes).metrics
    held_back, n = replace(ppo, value_clip=1e-4).improve(held, episodes).metrics["clip_ratio/value"]
    assert 0.2 * n < held_back < n
    same = learner()
    replace(ppo, value_clip=1e6).improve(same, episodes)
    assert all(torch.equal(x, same.state()[0][name]) for name, x in free.state()[0].items())


def test_rewards_are_whitened_with_the_divergence_in_them() -> None:
    """By hand for a critic of zero and λ = γ = 1: targets are the returns of (r − mean) / std + mean over the batch."""
    episodes = [replace(one, truncated=False, terminated=True, cut=None) for one in dialogues()]
    made = learner()
    experience = recall(made, episodes)
    assert experience is not None
    rng = np.random.default_rng(0)
    penalty = [rng.normal(size=one.n_action_tokens) for one in episodes]
    for kind in (PPO, TokenPPO):
        ppo = kind(gamma=1.0, lam=1.0, reward_scale=0.5, whiten_rewards=True)
        _, targets, _ = ppo.credit(experience, penalty)
        if kind is PPO:
            steps = []
            for one, taken in zip(episodes, penalty, strict=True):
                parts = np.split(taken, np.cumsum(one.act_lengths)[:-1])
                steps.append([0.5 * (turn.reward + part.sum()) for turn, part in zip(one.turns, parts, strict=True)])
        else:
            steps = []
            for one, taken in zip(episodes, penalty, strict=True):
                paid = taken.copy()
                paid[np.cumsum(one.act_lengths) - 1] += one.rewards
                steps.append((0.5 * paid).tolist())
        flat = np.concatenate([np.array(step) for step in steps])
        for one, step, target in zip(episodes, steps, targets, strict=True):
            whitened = (np.array(step) - flat.mean()) / flat.std(ddof=1) + flat.mean()
            to_go = np.cumsum(whitened[::-1])[::-1]
            expected = np.repeat(to_go, one.act_lengths) if kind is PPO else to_go
            np.testing.assert_allclose(target, expected, atol=1e-6)


def test_values_are_recorded_in_the_unit_of_the_reward_or_not_at_all() -> None:
    """Whitened rewards are shifted as well as scaled, so what the critic says of them is no sum of rewards."""
    made = learner()
    with torch.no_grad():
        made.policy.value_head.bias.fill_(0.3)
    episodes = dialogues()
    streams = PPO(reward_scale=0.1).improve(made, episodes).streams
    assert streams["value"][0][0] == pytest.approx(3.0)
    for kind in (PPO, TokenPPO):
        assert set(kind(whiten_rewards=True).improve(made, episodes).streams) == {"advantage"}


def test_discounts_act_where_they_are_told_to() -> None:
    episodes, made = dialogues(), learner()
    experience = recall(made, episodes)
    assert experience is not None
    zero = [np.zeros(one.n_action_tokens) for one in episodes]
    lengths = [one.act_lengths for one in episodes]
    rewards = place_at_end([one.rewards for one in episodes], lengths)
    for where in ("turns", "tokens"):
        _, found, _ = TokenPPO(gamma=0.8, lam=0.9, reward_scale=1.0, discount=where).credit(experience, zero)
        _, expected = gae_tokens(
            rewards, experience.values, experience.bootstrap, lengths, 0.8, 0.9, discount_turns=where == "turns"
        )
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


# ---- warming the critic ----------------------------------------------------------------------------------------------


def test_while_the_critic_warms_up_the_policy_does_not_move() -> None:
    episodes = dialogues()
    made = learner(weight_decay=0.1)
    before = {name: p.detach().clone() for name, p in made.policy.parameters().items()}
    said = made.evaluate(pack(episodes)).logp
    ppo = PPO(critic_warmup=2, epochs=3, minibatch=4, entropy_coef=0.1, reward_scale=1.0)
    losses = []
    for _ in range(2):
        metrics = ppo.improve(made, episodes).metrics
        losses.append(metrics["value/loss"][0] / metrics["value/loss"][1])
        made.iteration += 1
    assert torch.equal(made.evaluate(pack(episodes)).logp, said)
    after = made.policy.parameters()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "value_head.weight",
        "value_head.bias",
    }
    assert made.version > 4
    assert losses[1] < losses[0]
    assert all(parameter.requires_grad for parameter in after.values())
    # Then everything learns.
    ppo.improve(made, episodes)
    assert not torch.equal(made.evaluate(pack(episodes)).logp, said)


def test_a_run_that_is_resumed_while_the_critic_warms_up_is_the_same() -> None:
    ppo = PPO(critic_warmup=2, minibatch=8)
    made, resumed = learner(), learner()
    ppo.improve(made, dialogues(seed=0))
    tensors, info = made.state()
    resumed.restore({name: tensor.clone() for name, tensor in tensors.items()}, dict(info))
    for one in (made, resumed):
        for iteration in (1, 2):
            one.iteration = iteration
            ppo.improve(one, dialogues(seed=iteration))
    assert all(torch.equal(x, resumed.state()[0][name]) for name, x in made.state()[0].items())


# ---- nothing to learn ------------------------------------------------------------------------------------------------


def test_where_nothing_moves_the_policy_it_says_why(caplog: pytest.LogCaptureFixture) -> None:
    bandit = Bandit([1.0, 1.0, 1.0], value_head=True)
    made = LocalLearner(bandit.policy)
    with caplog.at_level(logging.WARNING):
        PPO(episodes=8).improve(made, bandit.rollouts(0, 8))
        assert "only the critic learns: every action did exactly as well as the critic expected" in caplog.text
        caplog.clear()
        PPO(episodes=4).improve(made, [bandit.episode(k, float("nan")) for k in range(3)])
        assert "none of the 3 episodes has a score" in caplog.text
        caplog.clear()
        PPO(episodes=4).improve(made, [bandit.episode(k, float(k)) for k in range(3)])
        assert not caplog.text


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"kl_target": 0.1}, "kl_target=0.1 with kl_coef=0.0: .* positive start"),
        ({"kl_target": -0.1, "kl_coef": 0.1}, "never negative"),
        ({"value_clip": -0.2}, "use 0 for no clipping"),
        ({"critic_warmup": -1}, "number of iterations"),
        ({"discount": "sentences"}, "'turns', 'tokens'"),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, Any], remedy: str) -> None:
    with pytest.raises(SettingsError, match=remedy):
        TokenPPO(**wrong)
