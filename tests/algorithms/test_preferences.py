"""Learning from preferences and labels: (1) DPO finds the optimum of RL with a KL penalty, whatever the number of tokens and
turns, and so does every loss that claims to, (2) online methods climb the reward, (3) no result depends on micro-batches,
(4) a resumed run repeats an uninterrupted one, (5) where nothing is better than anything else it is said so."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.algorithms.bandit import Bandit, total_variation
from tests.models import zoo
from turnwise.algorithms import DPO, KTO
from turnwise.algorithms.preferences import kl_baseline, labelled, mismatched, paired, turns_of, with_reference
from turnwise.algorithms.settings import SettingsError
from turnwise.batch import Batch
from turnwise.episode import Cut, Episode
from turnwise.errors import TurnwiseError
from turnwise.learners import LocalLearner
from turnwise.objectives import PAIR_LOSSES, chosen_token_mean, kto, pair_mean
from turnwise.rollout import Asked
from turnwise.teachers import ReturnTeacher

LOSSES = list(PAIR_LOSSES)
# Differences of these rewards make Bradley–Terry choices with probabilities ½, ¾ and 9/10: twentieths, so that twenty
# answers about each pair of completions are the exact distribution.
REWARDS = [0.0, math.log(3), math.log(3), 2 * math.log(3)]
ANSWERS = 20


def answers(bandit: Bandit) -> list[Episode]:
    """What a Bradley–Terry teacher says about all pairs of different completions, as a preference file holds it."""
    stored: list[Episode] = []
    for i in range(len(bandit)):
        for j in range(i):
            share = ANSWERS / (1 + math.exp(bandit.rewards[j] - bandit.rewards[i]))
            assert share == pytest.approx(round(share))
            for n in range(ANSWERS):
                better, worse = (i, j) if n < round(share) else (j, i)
                group = f"{i} or {j}: {n}"
                stored += [bandit.episode(better, 1.0, group), bandit.episode(worse, 0.0, group)]
    return stored


def descend(bandit: Bandit, algorithm: Any, steps: int, lr: float = 0.02) -> LocalLearner:
    learner = LocalLearner(bandit.policy, lr=lr, reference=bandit.policy.reference())
    stored = answers(bandit)
    for step in range(steps):
        learner.anneal(step / steps)
        algorithm.improve(learner, stored)
    return learner


# ---- known answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [{}, {"length": 2}, {"length": 2, "turns": True}], ids=["token", "tokens", "turns"])
def test_dpo_finds_the_optimum_of_rl_with_a_kl_penalty(shape: dict[str, Any]) -> None:
    """π* ∝ ref · exp(r/β): fitted to exact Bradley–Terry preferences, without ever seeing a reward."""
    bandit, beta = Bandit(REWARDS, **shape), 0.5
    reference = bandit.probabilities(bandit.policy)
    optimum = bandit.optimum(reference, beta)
    assert total_variation(reference, optimum) > 0.3
    learner = descend(bandit, DPO(beta=beta, minibatch=1000), 60)
    assert total_variation(bandit.probabilities(learner.policy), optimum) < 0.02


def test_flipped_preferences_are_undone() -> None:
    """With a share ε of flipped answers, robust DPO finds the optimum of the true ones; plain DPO does not.

    Answers p become p(1 − ε) + (1 − p)ε. With ε = ¼ and true odds of 9 to 1 and 1 to 1 among rewards (0, log 9) these are
    0.7 and ½, tenths.
    """
    bandit, beta, share = Bandit([0.0, math.log(9)]), 0.7, 0.25
    reference = bandit.probabilities(bandit.policy)
    optimum = bandit.optimum(reference, beta)
    stored = [bandit.episode(k, float(k == (1 if n < 7 else 0)), f"{n}") for n in range(10) for k in range(2)]
    found = {}
    for loss in ("robust", "sigmoid"):
        fresh = Bandit([0.0, math.log(9)])
        learner = LocalLearner(fresh.policy, lr=0.02, reference=fresh.policy.reference())
        algorithm = DPO(loss=loss, beta=beta, label_smoothing=share if loss == "robust" else 0.0)  # pyright: ignore[reportArgumentType]
        for step in range(80):
            learner.anneal(step / 80)
            algorithm.improve(learner, stored)
        found[loss] = total_variation(fresh.probabilities(learner.policy), optimum)
    assert found["robust"] < 0.02 < 0.1 < found["sigmoid"]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_prefers_the_preferred(loss: Any) -> None:
    """The best completion gains on the worst."""
    bandit = Bandit(REWARDS, spread=0.2)
    beta = 2.0 if loss in ("simpo", "sigmoid_norm") else 0.5
    algorithm = DPO(
        loss=loss, beta=beta, label_smoothing=1e-3 if loss in ("exo_pair", "robust") else 0.0, minibatch=1000
    )
    before = bandit.probabilities(bandit.policy)
    after = bandit.probabilities(descend(bandit, algorithm, 12).policy)
    assert math.log(after[3] / after[0]) > math.log(before[3] / before[0]) + 0.3


# ---- online ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("judge", ["reward", "teacher"])
def test_online_dpo_climbs(seed: int, judge: str) -> None:
    bandit = Bandit([0.0, 0.2, 0.4, 1.0], seed=seed, length=2, spread=0.2)
    source = bandit if judge == "reward" else Asked(bandit, ReturnTeacher(beta=10.0, seed=seed))
    algorithm = DPO(online=True, groups=16, minibatch=16)
    assert algorithm.learns_from == "rollouts"
    learner = LocalLearner(bandit.policy, lr=0.01, reference=bandit.policy.reference())
    for iteration in range(30):
        algorithm.improve(learner, algorithm.collect(source, iteration))
        source.refresh(learner)
    assert float(bandit.probabilities(learner.policy) @ bandit.rewards) > 0.85


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_online_kto_climbs(seed: int) -> None:
    bandit = Bandit([0.0, 0.2, 0.4, 1.0], seed=seed, length=2, spread=0.2)
    algorithm = KTO(online=True, episodes=48, minibatch=24)
    learner = LocalLearner(bandit.policy, lr=0.01, reference=bandit.policy.reference())
    for iteration in range(30):
        algorithm.improve(learner, algorithm.collect(bandit, iteration))
        bandit.refresh(learner)
    assert float(bandit.probabilities(learner.policy) @ bandit.rewards) > 0.85


def test_kto_learns_from_stored_labels() -> None:
    bandit = Bandit([0.0, 0.0, 0.0, 1.0])
    stored = [bandit.episode(k, group=str(n)) for n in range(8) for k in (0, 1, 2, 3, 3, 3)]
    algorithm, learner = KTO(), LocalLearner(bandit.policy, lr=0.02, reference=bandit.policy.reference())
    assert algorithm.learns_from == "labels"
    for _ in range(25):
        algorithm.improve(learner, stored)
    assert bandit.probabilities(learner.policy)[3] > 0.9


# ---- exactness -------------------------------------------------------------------------------------------------------


def dialogues(n: int = 12) -> list[Episode]:
    """Pairs of dialogues of several turns, some of which start afresh at each; one in four has failed."""
    made = zoo.episodes(n, seed=3, fresh=True)
    return [
        replace(e, group=f"{i // 2}", truncated=False, terminated=True, cut=None, last_obs=e.last_obs[:0])
        for i, e in enumerate(made)
    ]


def new_learner(**options: Any) -> LocalLearner:
    policy, reference = zoo.policy(), zoo.policy(zoo.PACKED["llama, one key head per query head"])
    return LocalLearner(policy, reference=reference, **options)


def gradient(learner: LocalLearner, batch: Batch, objective: Any) -> Tensor:
    learner.gradient(batch, objective)
    return torch.cat([p.grad.flatten() for p in learner.policy.parameters().values() if p.grad is not None])


def settings_of(loss: Any) -> DPO:
    smoothing = 0.1 if loss in ("robust", "exo_pair", "aot", "simpo") else 0.0
    return DPO(loss=loss, beta=0.2, label_smoothing=smoothing, sft_coef=0.3)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_does_not_depend_on_the_micro_batches(loss: Any) -> None:
    """One micro-batch, or one per pair: statistics of the minibatch are worked out on all of it."""
    algorithm, found = settings_of(loss), []
    for size in (10_000, 1):
        learner = new_learner(max_tokens=size)
        batch = with_reference(learner, paired(dialogues(), [(2 * i, 2 * i + 1) for i in range(6)]))
        batch = algorithm.prepare(learner, batch).weighted(pair_mean)
        batch = batch.with_stream("sft_weight", chosen_token_mean(batch))
        assert len(list(batch.micro_batches(size))) == (1 if size > 1 else 6)
        found.append(gradient(learner, batch, algorithm.objective))
    assert float((found[0] - found[1]).abs().max()) < 1e-6 * max(1.0, float(found[0].abs().max()))


def test_the_gradient_of_kto_does_not_depend_on_the_micro_batches() -> None:
    found = []
    for size in (10_000, 1):
        learner = new_learner(max_tokens=size)
        batch = with_reference(learner, labelled(dialogues(), [i % 3 == 0 for i in range(12)]))
        batch = kl_baseline(learner, batch).weighted(pair_mean)
        found.append(gradient(learner, batch, kto(0.2, desirable=1.3)))
    assert float((found[0] - found[1]).abs().max()) < 1e-6 * max(1.0, float(found[0].abs().max()))


def test_strangers_are_told_how_others_went_on() -> None:
    """Every episode's own continuation once, behind the first observation of the next; sequences stay as many."""
    batch = labelled(dialogues(4), [True] * 4)
    strange = mismatched(batch, limit=10_000)
    assert len(strange) == len(batch)
    assert int(strange.action.sum()) == int(batch.action.sum())
    assert torch.equal(strange.tokens[strange.action], batch.tokens[batch.action])
    first = {int(e): i for i, e in reversed(list(enumerate(batch.seq["episode"])))}
    for s, owner in enumerate(batch.seq["episode"].tolist()):
        ids, host = zoo.rows(strange)[s], zoo.rows(batch)[first[(owner + 1) % 4]]
        begins = int(ids[1].int().argmax())
        assert torch.equal(ids[0][:begins], host[0][:begins])
        assert not host[1][:begins].any()
        assert host[1][begins]
    short = mismatched(batch, limit=9)
    assert int(short.lengths.max()) == 9
    alone = labelled(dialogues(1), [True])
    assert torch.equal(mismatched(alone, 10_000).tokens[:3], alone.tokens[:3])


def test_minibatches_are_counted_in_pairs() -> None:
    batch = paired(dialogues(), [(2 * i, 2 * i + 1) for i in range(6)])
    parts = list(batch.minibatches(turns_of(batch, 2), np.random.default_rng(0)))
    assert len(parts) == 3
    assert sum(len(set(part.seq["unit"].tolist())) for part in parts) == 6
    for part in parts:
        for unit in set(part.seq["unit"].tolist()):
            assert set(part.seq["side"][part.seq["unit"] == unit].tolist()) == {1, -1}


@pytest.mark.parametrize("algorithm", [DPO(loss="bco", groups=4, minibatch=2), DPO(loss="aot"), KTO(minibatch=4)])
def test_a_resumed_run_repeats_an_uninterrupted_one(algorithm: Any) -> None:
    stored = [
        replace(
            e, turns=(*e.turns[:-1], replace(e.turns[-1], reward=float(i % 2) - sum(t.reward for t in e.turns[:-1])))
        )
        for i, e in enumerate(dialogues())
    ]
    straight = new_learner()
    for _ in range(3):
        algorithm.improve(straight, stored)
    first = new_learner()
    algorithm.improve(first, stored)
    tensors, info = first.state()
    second = new_learner()
    second.restore({name: tensor.clone() for name, tensor in tensors.items()}, info)
    for _ in range(2):
        algorithm.improve(second, stored)
    assert second.memory == straight.memory
    assert (len(second.memory) == 2) == (getattr(algorithm, "loss", "") == "bco")
    assert all(torch.equal(tensor, second.state()[0][name]) for name, tensor in straight.state()[0].items())


def test_the_running_mean_of_bco_by_hand() -> None:
    """Two minibatches of rewards: the mean over all sides so far, the present ones included."""
    learner = new_learner()
    algorithm = DPO(loss="bco", beta=0.2)
    batch = with_reference(learner, paired(dialogues(), [(2 * i, 2 * i + 1) for i in range(6)]))
    own = learner.evaluate(batch).logp - batch.stream("reference_logp")
    sums = torch.zeros(12).index_add(0, batch.seq["episode"][batch.sequence[batch.action]], own)
    early, late = (
        batch.select(range(sum(batch.seq["unit"] < 2))),
        batch.select(range(sum(batch.seq["unit"] < 2), len(batch))),
    )
    shifts = [float(algorithm.prepare(learner, part).seq["shift"][0]) for part in (early, late)]
    assert shifts == pytest.approx([0.2 * float(sums[:4].mean()), 0.2 * float(sums.mean())], abs=1e-5)


def test_a_baseline_that_is_no_number_is_not_taken_for_zero() -> None:
    bandit = Bandit([0.0, 1.0])
    learner = LocalLearner(bandit.policy, reference=bandit.policy.reference())
    batch = labelled([bandit.episode(0), bandit.episode(1)], [False, True])
    assert (kl_baseline(learner, batch).seq["baseline"] == 0.0).all()
    learner.reference = bandit.policy.with_sampling(top_k=1).reference()
    with pytest.raises(TurnwiseError, match="the reference never says"):
        kl_baseline(learner, batch)
    learner.reference = bandit.policy.reference()
    with torch.no_grad():
        bandit.policy.model.get_output_embeddings().weight.fill_(math.nan)
    with pytest.raises(TurnwiseError, match="not a number"):
        kl_baseline(learner, batch)


# ---- nothing to learn from -------------------------------------------------------------------------------------------


def test_stored_episodes_without_a_preference_are_an_error() -> None:
    bandit = Bandit([0.0, 1.0])
    same = [bandit.episode(k, 1.0, group=str(n)) for n in range(3) for k in range(2)]
    with pytest.raises(TurnwiseError, match=r"no group has two different rewards.*6 episodes in 3 groups, 0 of them"):
        DPO().check_stored(same)
    onesided = [bandit.episode(1, 1.0, group=str(n)) for n in range(3)]
    with pytest.raises(TurnwiseError, match=r"3 of them with one episode only\. .*use kto"):
        DPO().check_stored(onesided)
    DPO().check_stored([*same, bandit.episode(0, 0.0, group="0")])


def test_stored_labels_of_one_kind_are_an_error() -> None:
    bandit = Bandit([0.0, 1.0])
    for reward, said in ((1.0, "desirable"), (0.0, "undesirable")):
        alike = [bandit.episode(k, reward) for k in (0, 1, 1)]
        with pytest.raises(TurnwiseError, match=rf"all of the 3 episodes are {said} .*threshold=0.5.*both kinds"):
            KTO().check_stored(alike)
        KTO().check_stored([*alike, bandit.episode(0, 1.0 - reward)])
    with pytest.raises(TurnwiseError, match="all of the 2 episodes are undesirable"):
        KTO(threshold=2.0).check_stored([bandit.episode(0, 0.0), bandit.episode(1, 1.0)])
    with pytest.raises(TurnwiseError, match="none of the 1 episodes have a label"):
        KTO().check_stored([bandit.episode(0, math.nan)])


def test_an_iteration_of_a_file_without_a_preference_is_skipped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    bandit = Bandit([0.0, 1.0])
    learner = LocalLearner(bandit.policy, reference=bandit.policy.reference())
    with caplog.at_level(logging.WARNING):
        done = DPO().improve(learner, [bandit.episode(k, 1.0) for k in range(2)])
    assert learner.version == 0
    assert "no update: no group has two different rewards" in caplog.text
    assert done.metrics["frac_reward_zero_std"] == (2.0, 2.0)


def test_sampled_episodes_without_a_preference_are_skipped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    bandit = Bandit([1.0, 1.0])
    learner = LocalLearner(bandit.policy, reference=bandit.policy.reference())
    algorithm = DPO(online=True, groups=3)
    with caplog.at_level(logging.WARNING):
        done = algorithm.improve(learner, algorithm.collect(bandit, 0))
    assert learner.version == 0
    assert "no update: no group has two different rewards" in caplog.text
    assert done.metrics["frac_reward_zero_std"] == (6.0, 6.0)


@pytest.mark.parametrize(
    ("reward", "said"), [(1.0, "all of the 3 episodes are desirable"), (math.nan, "none of the 3")]
)
def test_labels_of_one_kind_are_skipped_and_said(reward: float, said: str, caplog: pytest.LogCaptureFixture) -> None:
    bandit = Bandit([0.0, 1.0])
    learner = LocalLearner(bandit.policy, reference=bandit.policy.reference())
    with caplog.at_level(logging.WARNING):
        KTO().improve(learner, [bandit.episode(k, reward) for k in (0, 1, 1)])
    assert learner.version == 0
    assert said in caplog.text


def test_failed_and_unscored_episodes_train_nothing() -> None:
    """They change nothing about what the others teach."""
    bandit = Bandit([0.0, 1.0, 0.5])
    good = [bandit.episode(k, group="a") for k in range(2)]
    broken = replace(bandit.episode(2, 9.0, "a"), terminated=False, truncated=True, cut=Cut.CRASH)
    unknown = bandit.episode(2, math.nan, "a")
    moved = []
    for episodes in (good, [*good, broken, unknown]):
        fresh = Bandit([0.0, 1.0, 0.5])
        learner = LocalLearner(fresh.policy, reference=fresh.policy.reference())
        for algorithm in (DPO(), KTO()):
            algorithm.improve(learner, episodes)
        assert learner.version == 2
        moved.append(fresh.probabilities(learner.policy))
    assert np.array_equal(*moved)


def test_a_loss_without_a_reference_needs_none() -> None:
    bandit = Bandit([0.0, 1.0])
    stored = [bandit.episode(k, group="a") for k in range(2)]
    learner = LocalLearner(bandit.policy)
    assert not DPO(loss="simpo").needs_reference
    DPO(loss="simpo", beta=2.0, margin=1.0).improve(learner, stored)
    assert learner.version == 1
    assert DPO().needs_reference
    with pytest.raises(TurnwiseError, match="no reference policy"):
        DPO().improve(learner, stored)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss": "ppo"}, "one of 'sigmoid'"),
        ({"beta": 0.0}, "price of leaving the reference"),
        ({"label_smoothing": 0.5}, r"lies in \[0, 0.5\)"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "does not know of wrong preferences"),
        ({"loss": "exo_pair"}, "infinite without smoothing"),
        ({"margin": 1.0}, "asks for no margin"),
        ({"loss": "apo_zero", "divergence": "forward_kl"}, "made for reverse_kl"),
        ({"sft_coef": -1.0}, "less likely"),
        ({"group_size": 1, "online": True}, "group_size"),
    ],
)
def test_nonsense_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        DPO(**settings)


def test_nonsense_is_refused_by_kto_too() -> None:
    with pytest.raises(SettingsError, match="teach nothing"):
        KTO(desirable=0.0)


def test_every_loss_can_be_named() -> None:
    assert set(get_type_hints(DPO)["loss"].__args__) == set(LOSSES)
