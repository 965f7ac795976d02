"""GRPO's relatives: (1) DAPO draws start states until enough groups differ, and says what it dropped, (2) what each does when
the policy has not moved, in closed form, (3) the divergence in the loss, (4) REINFORCE++ by hand, (5) rejection sampling
keeps the best and improves round by round, (6) every method's gradient is the same for any micro-batches."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.algorithms.bandit import Bandit
from tests.models import zoo
from turnwise.algorithms import (
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    LUSPO,
    PPO,
    RLOO,
    SAPO,
    VESPO,
    DrGRPO,
    Reinforce,
    ReinforcePlusPlus,
    RejectionSampling,
    TokenPPO,
)
from turnwise.algorithms.settings import SettingsError
from turnwise.batch import Batch, Outputs, pack
from turnwise.credit import group_relative
from turnwise.episode import Cut, Episode, Stop
from turnwise.errors import TurnwiseError
from turnwise.learners import LocalLearner
from turnwise.models import Policy, build_model
from turnwise.testing import build_episode

# ---- dynamic sampling ------------------------------------------------------------------------------------------------


class Tasks:
    """A source whose group g differs in its returns only if `spread[g]`."""

    def __init__(self, spread: list[bool]) -> None:
        self.spread = spread
        self.asked: list[tuple[int, int, int]] = []

    def rollouts(self, iteration: int, groups: int, group_size: int = 1, first: int = 0) -> list[Episode]:
        self.asked.append((groups, group_size, first))
        return [
            build_episode([float(self.spread[g] and i == 0)], group=f"{iteration}/{g}", actions=[[5 + i, 6]])
            for g in range(first, first + groups)
            for i in range(group_size)
        ]


def learner(seed: int = 2, **options: Any) -> LocalLearner:
    policy = Policy(build_model(zoo.TOKENIZER, seed=seed), zoo.TOKENIZER, value_head=True)
    return LocalLearner(policy, lr=1e-2, reference=policy.reference(), **options)


def test_start_states_are_drawn_until_enough_groups_differ() -> None:
    source = Tasks([False, True, False, False, True, True, True])
    dapo = DAPO(groups=3, group_size=2, max_draws=5)
    episodes = dapo.collect(source, 4)
    assert source.asked == [(3, 2, 0), (2, 2, 3), (1, 2, 5)]
    assert [episode.group for episode in episodes[::2]] == [f"4/{g}" for g in range(6)]
    made = learner()
    improvement = dapo.improve(made, episodes)
    assert improvement.metrics["groups/drawn"] == (6.0, 1.0)
    assert improvement.metrics["groups/kept"] == (3.0, 1.0)
    assert improvement.metrics["frac_reward_zero_std"] == (6.0, 12.0)
    # What was dropped has no advantage at all, and what was kept trains as if nothing else had been drawn.
    dropped = [bool(np.isnan(a).all()) for a in improvement.streams["advantage"]]
    assert dropped == [True, True, False, False, True, True, True, True, False, False, False, False]
    other = learner()
    DAPO(groups=3, group_size=2, max_draws=1).improve(
        other, [e for e, d in zip(episodes, dropped, strict=True) if not d]
    )
    assert all(torch.equal(x, other.state()[0][name]) for name, x in made.state()[0].items())


def test_draws_have_an_end(caplog: pytest.LogCaptureFixture) -> None:
    source, dapo = Tasks([False] * 9), DAPO(groups=3, group_size=2, max_draws=3)
    episodes = dapo.collect(source, 0)
    assert len(source.asked) == 3
    made = learner()
    with caplog.at_level(logging.WARNING):
        metrics = dapo.improve(made, episodes).metrics
    assert made.version == 0
    assert metrics["groups/kept"] == (0.0, 1.0)
    assert "all 18 scores are 0" in caplog.text


def test_the_first_draw_alone_asks_once() -> None:
    source = Tasks([False, True])
    assert len(DAPO(groups=2, group_size=3, max_draws=1).collect(source, 0)) == 6
    assert source.asked == [(2, 3, 0)]


def test_a_broken_episode_does_not_make_a_group_differ() -> None:
    source = Tasks([False, True])
    episodes = source.rollouts(0, 2, 2)
    broken = replace(episodes[0], terminated=False, truncated=True, cut=Cut.CRASH, detail="x")
    paid = replace(broken, turns=(replace(broken.turns[0], reward=9.0),))
    metrics = DAPO(groups=2, group_size=2).improve(learner(), [paid, *episodes[1:]]).metrics
    assert metrics["groups/kept"] == (1.0, 1.0)


# ---- gradients -------------------------------------------------------------------------------------------------------


class Recorded(LocalLearner):
    """Keeps the gradient of every update, and takes no step."""

    def update(self, batch: Batch, objective: Any) -> Any:
        metrics = self.gradient(batch, objective)
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.policy.parameters().values()]
        self.seen: Tensor = torch.cat([part.flatten() for part in parts]).double()
        self.version += 1
        return {**metrics, "grad_norm": (0.0, 1.0)}


def recorded(policy: Policy | None = None, **options: Any) -> Recorded:
    policy = policy or Policy(build_model(zoo.TOKENIZER, seed=2), zoo.TOKENIZER, value_head=True)
    reference = Policy(build_model(zoo.TOKENIZER, seed=3), zoo.TOKENIZER).reference()
    return Recorded(policy, reference=reference, **options)


def dialogues() -> list[Episode]:
    """Groups of three that differ in their returns, of 1–4 turns, packed as one sequence or several."""
    made = zoo.episodes(12, seed=4, fresh=True)
    return [replace(episode, group=f"g{i // 3}") for i, episode in enumerate(made)]


EVERY: dict[str, Any] = {
    "ppo": PPO(kl_coef=0.1),
    "ppo-token": TokenPPO(discount="tokens", value_clip=0.2, whiten_rewards=True),
    "ppo, critic first": PPO(critic_warmup=1),
    "reinforce": Reinforce(kl_coef=0.1),
    "grpo": GRPO(kl_coef=0.1),
    "grpo, k3 in the loss": GRPO(kl_coef=0.1, kl_loss="k3"),
    "grpo, weighted k1 in the loss": GRPO(kl_coef=0.1, kl_loss="weighted-k1"),
    "dr-grpo": DrGRPO(entropy_coef=0.01),
    "dapo": DAPO(),
    "gspo": GSPO(),
    "luspo": LUSPO(),
    "cispo": CISPO(),
    "sapo": SAPO(),
    "vespo": VESPO(),
    "rloo": RLOO(kl_coef=0.1),
    "rloo, whole": RLOO(whole=True),
    "reinforce-plus-plus": ReinforcePlusPlus(kl_coef=0.1),
    "rejection-sampling": RejectionSampling(),
}


@pytest.mark.parametrize("name", EVERY)
def test_the_gradient_does_not_depend_on_micro_batches(name: str) -> None:
    method = EVERY[name]
    gradients: list[Tensor] = []
    for size in (10**6, 40, 1):
        made = recorded(max_tokens=size)
        # What float32 rounds off depends on how many rows a matrix has.
        made.policy.model.double()
        replace(method, epochs=1, minibatch=10**6).improve(made, dialogues())
        gradients.append(made.seen)
    assert gradients[0].norm() > 1e-5
    for gradient in gradients[1:]:
        assert float((gradient - gradients[0]).norm() / gradients[0].norm()) <= 1e-6


def test_at_the_start_every_relative_is_a_weighted_policy_gradient() -> None:
    """Before the first step all ratios are 1, and the loss is −Σ_i A_i Σ_t w log π(a_t) with each method's own w."""
    episodes = [replace(e, turns=tuple(replace(t, fresh=False) for t in e.turns)) for e in dialogues()]
    made = recorded()
    scores, groups = [e.undiscounted_return for e in episodes], [e.group for e in episodes]
    n, total = len(episodes), sum(e.n_action_tokens for e in episodes)
    lengths = np.array([e.n_action_tokens for e in episodes])
    budget = made.policy.sampling.max_tokens
    centred, scaled = (group_relative(scores, groups, normalise=normalise) for normalise in (False, True))
    batch_scaled = group_relative(scores, groups, spread="batch")
    expected: dict[str, tuple[Any, Any, Any]] = {
        "grpo": (GRPO(), scaled, 1 / (n * lengths)),
        "grpo, batch": (GRPO(spread="batch"), batch_scaled, 1 / (n * lengths)),
        "dr-grpo": (DrGRPO(), centred, np.full(n, 1 / (n * budget))),
        "dr-grpo, own budget": (DrGRPO(budget=5), centred, np.full(n, 1 / (n * 5))),
        "dapo": (DAPO(groups=4), scaled, np.full(n, 1 / total)),
        "gspo": (GSPO(), scaled, 1 / (n * lengths)),
        "luspo": (LUSPO(), scaled, np.full(n, 1 / n)),
        "cispo": (CISPO(), scaled, np.full(n, 1 / total)),
        "sapo": (SAPO(), scaled, 1 / (n * lengths)),
        "vespo": (VESPO(), scaled, np.full(n, 1 / total)),
        "rloo": (RLOO(), 1.5 * centred, np.full(n, 1 / total)),
        "rloo, whole": (RLOO(whole=True), 1.5 * centred, np.full(n, 1 / n)),
    }
    parameters = made.policy.parameters()
    for name, (method, advantage, weight) in expected.items():
        for parameter in parameters.values():
            parameter.grad = None
        # The rollout and the learner agree, so that no importance weight differs from 1.
        own = made.evaluate(pack(episodes)).logp.split(lengths.tolist())
        same = [told(episode, logp.numpy()) for episode, logp in zip(episodes, own, strict=True)]
        replace(method, minibatch=10**6).improve(made, same)
        logp = made.policy.outputs(pack(episodes)).logp.split(lengths.tolist())
        loss = sum((-a * w * part.sum() for a, w, part in zip(advantage, weight, logp, strict=True)), torch.zeros(()))
        parts = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
        truth = torch.cat([part.flatten() for part in parts]).double()
        assert float((made.seen - truth).norm() / truth.norm()) < 1e-5, name


def told(episode: Episode, logp: Any) -> Episode:
    """The episode with these log-probabilities on record."""
    parts = np.split(logp.astype(np.float32), np.cumsum(episode.act_lengths)[:-1])
    turns = tuple(replace(turn, logp=part) for turn, part in zip(episode.turns, parts, strict=True))
    return replace(episode, turns=turns)


def test_the_ratio_of_a_whole_episode_does_not_depend_on_what_is_remembered() -> None:
    """With a memory of no turns an episode is packed as several sequences; it is one action all the same."""
    rng = np.random.default_rng(0)
    sizes = [1, 2, 3]
    owner = [i for i, n in enumerate(sizes) for _ in range(n)]
    tokens = 2 * len(owner)
    batch = Batch(
        tokens=torch.arange(3 * len(owner)),
        cu_seqlens=torch.arange(0, 3 * len(owner) + 1, 3),
        action=torch.tensor([False, True, True] * len(owner)),
        turn=torch.zeros(3 * len(owner), dtype=torch.int64),
        final=torch.zeros(3 * len(owner), dtype=torch.bool),
        seq={"episode": torch.tensor(owner)},
    )
    advantage = torch.tensor([1.0, -0.5, 0.7])
    per_token = torch.tensor(owner).repeat_interleave(2)
    old = torch.tensor(rng.normal(-1, 0.3, tokens), dtype=torch.float32)
    batch = batch.with_stream("old_logp", old).with_stream("advantage", advantage[per_token])
    batch = batch.weighted(RLOO(whole=True).weight(None))
    logp = (old + torch.tensor(rng.normal(0, 0.02, tokens), dtype=torch.float32)).requires_grad_()
    loss, _ = RLOO(whole=True).surrogate()(Outputs(logp, torch.zeros(tokens)), batch)
    ratio = torch.zeros(3).index_add(0, per_token, logp - old).exp()
    truth = -(ratio * advantage).mean()
    assert loss.sum().item() == pytest.approx(truth.item(), abs=1e-6)
    (found,) = torch.autograd.grad(loss.sum(), logp, retain_graph=True)
    assert torch.allclose(found, torch.autograd.grad(truth, logp)[0], atol=1e-6)


def test_a_whole_episode_is_not_taken_apart() -> None:
    """The steps of an iteration see all of an episode's sequences at once, and so do their micro-batches."""
    fresh = [
        replace(one, turns=tuple(replace(turn, fresh=True) for turn in one.turns), group="g") for one in dialogues()
    ]
    gradients: list[Any] = []
    for max_tokens in (10**6, 1):
        made = recorded(max_tokens=max_tokens)
        RLOO(whole=True, minibatch=10**6).improve(made, fresh)
        gradients.append(made.seen)
    assert torch.allclose(*gradients, atol=1e-5)
    steps: list[set[int]] = []

    class Watched(Recorded):
        def update(self, batch: Batch, objective: Any) -> Any:
            steps.append(set(batch.seq["episode"].tolist()))
            return super().update(batch, objective)

    RLOO(whole=True, minibatch=2).improve(Watched(Policy(build_model(zoo.TOKENIZER, seed=2), zoo.TOKENIZER)), fresh)
    assert len(steps) > 3
    assert sum(map(len, steps)) == len(set.union(*steps)) == len(fresh)


# ---- learning --------------------------------------------------------------------------------------------------------

RELATIVES = [DrGRPO, DAPO, GSPO, LUSPO, CISPO, SAPO, VESPO]


@pytest.mark.parametrize("seed", [0, 2, 3])
@pytest.mark.parametrize("kind", RELATIVES)
def test_a_relative_learns_with_its_own_settings(kind: Any, seed: int) -> None:
    """The best of six completions is worth 1, what is said at first at most 0.6; two optimizer steps per iteration."""
    bandit = Bandit([0.0, 0.2, 1.0, 0.5, -0.5, 0.7], seed=seed)
    made = LocalLearner(bandit.policy, lr=1e-2)
    method = kind(minibatch=32)
    before = float(bandit.probabilities(bandit.policy) @ bandit.rewards)
    for iteration in range(20):
        made.anneal(iteration / 20)
        bandit.refresh(made)
        method.improve(made, method.collect(bandit, iteration))
    after = float(bandit.probabilities(bandit.policy) @ bandit.rewards)
    assert before < 0.6
    assert after > 0.9


# ---- the divergence in the loss --------------------------------------------------------------------------------------


def test_a_divergence_in_the_loss_is_reported_as_its_own_term() -> None:
    made = recorded()
    metrics = GRPO(kl_coef=0.1, kl_loss="k3").improve(made, dialogues()).metrics
    assert metrics["kl"][0] / metrics["kl"][1] > 0  # k3 is never negative
    assert metrics["kl"][1] == sum(e.n_action_tokens for e in dialogues())
    adaptive = GRPO(kl_coef=0.1, kl_loss="k2", kl_target=1.0).improve(made, dialogues()).metrics
    assert adaptive["kl_coef"] == (0.1, 1.0)
    assert made.memory["kl_coef"] != 0.1


def test_a_divergence_moves_the_policy_where_rewards_do_not() -> None:
    same = [replace(e, turns=tuple(replace(t, reward=1.0) for t in e.turns[:1])) for e in dialogues()]
    made = learner()
    made.reference = Policy(build_model(zoo.TOKENIZER, seed=3), zoo.TOKENIZER).reference()
    GRPO().improve(made, same)
    assert made.version == 0
    before = GRPO(kl_coef=1.0, kl_loss="k2").improve(made, same).metrics["kl"]
    for _ in range(5):
        after = GRPO(kl_coef=1.0, kl_loss="k2").improve(made, same).metrics["kl"]
    assert made.version == 6
    assert after[0] < 0.8 * before[0]


@pytest.mark.parametrize("kl_loss", ["none", "k2"])
def test_a_token_that_the_reference_never_says_is_named(kl_loss: Any) -> None:
    made = learner()
    made.reference = made.policy.with_sampling(top_k=1).reference()
    with pytest.raises(TurnwiseError, match=r"episodes hold tokens that the reference never says .*top-p"):
        GRPO(kl_coef=0.1, kl_loss=kl_loss).improve(made, dialogues())
    assert made.version == 0


@pytest.mark.parametrize(
    ("kind", "wrong", "remedy"),
    [
        (GRPO, {"kl_loss": "k1", "kl_coef": 0.1}, "k1 in the loss has zero expected gradient"),
        (GRPO, {"kl_loss": "k3"}, "would count nothing"),
        (GRPO, {"kl_loss": "k4", "kl_coef": 0.1}, "'weighted-k3'"),
        (GRPO, {"spread": "batch", "normalise": False}, "nothing is divided by a deviation"),
        (RLOO, {"normalise": True}, "use GRPO"),
        (DAPO, {"max_draws": 0}, "at least once"),
        (DrGRPO, {"budget": -1}, "positive number of tokens"),
        (SAPO, {"gate_down": 0.0}, "positive temperature"),
        (SAPO, {"clip": 0.1}, "has no clip range"),
        (SAPO, {"clip_high": 0.3}, "gate_up and gate_down"),
        (VESPO, {"clip": 0.1}, "has no clip range"),
        (VESPO, {"clip_high": 0.3}, "has no clip range"),
        (CISPO, {"clip": 1.5}, "at most 1"),
        (RejectionSampling, {"group_size": 1}, "group_size"),
    ],
)
def test_nonsense_is_refused(kind: Any, wrong: dict[str, Any], remedy: str) -> None:
    with pytest.raises(SettingsError, match=remedy):
        kind(**wrong)


@pytest.mark.parametrize("kl_loss", ["none", "k2"])
def test_a_divergence_needs_a_reference(kl_loss: Any) -> None:
    method = GRPO(kl_coef=0.1, kl_loss=kl_loss)
    assert method.needs_reference
    assert not GRPO().needs_reference
    policy = Policy(build_model(zoo.TOKENIZER, seed=2), zoo.TOKENIZER)
    with pytest.raises(TurnwiseError, match="needs a reference policy"):
        method.improve(LocalLearner(policy), dialogues())


# ---- REINFORCE++ -----------------------------------------------------------------------------------------------------


def test_reinforce_plus_plus_by_hand() -> None:
    """Two episodes, γ = ½ between turns: returns of tokens with the penalty of each, whitened over all six tokens."""
    episodes = [build_episode([1.0, 2.0], actions=[[1, 2], [3]]), build_episode([4.0], actions=[[1, 2, 3]])]
    penalty = [np.array([0.1, 0.2, 0.4]), np.array([-1.0, 0.0, 1.0])]
    # First: 2.4 at the end; 1.2 + 2.4/2 = 2.4 before it; 0.1 + 2.4 = 2.5 at the start. Second: 5, 5, 4 from the end.
    returns = np.array([2.5, 2.4, 2.4, 4.0, 5.0, 5.0])
    found = np.concatenate(ReinforcePlusPlus(gamma=0.5).advantages(episodes, penalty))
    np.testing.assert_allclose(found, (returns - returns.mean()) / returns.std(ddof=1), atol=1e-6)


def test_reinforce_plus_plus_says_why_nothing_moves(caplog: pytest.LogCaptureFixture) -> None:
    made = learner()
    ReinforcePlusPlus().improve(made, [build_episode([1.0], group=str(i), actions=[[4 + i]]) for i in range(4)])
    assert made.version == 0
    assert "all 4 scores are 1" in caplog.text


# ---- rejection sampling ----------------------------------------------------------------------------------------------


def test_the_best_of_each_group_is_kept() -> None:
    returns = {"a": [0.0, 3.0, 1.0], "b": [5.0, 5.0, 0.0], "c": [float("nan"), -1.0, -2.0]}
    episodes = [build_episode([r], group=g, actions=[[5 + i]]) for g, rs in returns.items() for i, r in enumerate(rs)]
    assert RejectionSampling().select(episodes) == [1, 3, 7]
    assert RejectionSampling(threshold=0.0).select(episodes) == [1, 3]
    # Of equals none is the best; a threshold that they reach says that they are good enough.
    solved = [build_episode([1.0], group="s") for _ in range(3)]
    assert RejectionSampling().select(solved) == []
    assert RejectionSampling(threshold=1.0).select(solved) == [0]
    crashed = replace(episodes[1], terminated=False, truncated=True, cut=Cut.CRASH, detail="x")
    assert RejectionSampling().select([episodes[0], crashed, *episodes[2:]]) == [2, 3, 7]
    metrics = RejectionSampling(threshold=0.0).improve(learner(), episodes).metrics
    assert metrics["selected/reward"] == (8.0, 2.0)
    assert metrics["selected/share"] == (2.0, 3.0)
    assert metrics["nll"][1] == 4.0  # two tokens, two passes


def test_a_reply_that_was_cut_short_is_not_imitated() -> None:
    """It has no stop token to learn; but it shows what the others of its group are better than."""

    def group(name: str, *rolled: tuple[float, Stop]) -> list[Episode]:
        made = [build_episode([0.0, reward], group=name) for reward, _ in rolled]
        return [
            replace(one, turns=(one.turns[0], replace(one.turns[1], stop=stop)))
            for one, (_, stop) in zip(made, rolled, strict=True)
        ]

    episodes = [
        *group("cut is best", (1.0, Stop.LENGTH), (0.5, Stop.STOP), (0.0, Stop.STOP)),
        *group("solved once", (0.0, Stop.LENGTH), (0.0, Stop.LENGTH), (1.0, Stop.STOP)),
        *group("not solved", (0.0, Stop.STOP), (0.0, Stop.LENGTH), (0.0, Stop.STOP)),
        *group("cut is right", (1.0, Stop.LENGTH), (0.0, Stop.STOP), (0.0, Stop.STOP)),
    ]
    assert RejectionSampling().select(episodes) == [1, 5]
    assert RejectionSampling(threshold=1.0).select(episodes) == [5]


def test_where_nothing_is_kept_it_says_why(caplog: pytest.LogCaptureFixture) -> None:
    made = learner()
    episodes = [build_episode([float(i)], group="a") for i in range(3)]
    improvement = RejectionSampling(threshold=2.5).improve(made, episodes)
    assert made.version == 0
    assert improvement.metrics["selected/share"] == (0.0, 1.0)
    assert "the best of 3 episodes returned 2, below threshold=2.5" in caplog.text
    RejectionSampling().improve(made, [build_episode([float("nan")], group="a")])
    assert "none of the 1 episodes has a score" in caplog.text
    RejectionSampling().improve(made, [build_episode([1.0], group="a") for _ in range(3)])
    assert "none is better than another of its group" in caplog.text
    cut = build_episode([1.0], group="a")
    cut = replace(cut, turns=(replace(cut.turns[0], stop=Stop.LENGTH),))
    RejectionSampling(threshold=1.0).improve(made, [cut])
    assert "1 of them were cut at the token budget" in caplog.text
    assert made.version == 0


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_expert_iteration_improves_round_by_round(seed: int) -> None:
    """The expected reward under the exact policy never falls, and in the end the best completion is said nearly always."""
    bandit = Bandit([0.0, 0.2, 1.0, 0.5, -0.5, 0.7], seed=seed)
    made = LocalLearner(bandit.policy, lr=5e-3, schedule="constant")
    method = RejectionSampling(groups=32, group_size=4, epochs=1, minibatch=32)
    expected = [float(bandit.probabilities(bandit.policy) @ bandit.rewards)]
    for iteration in range(25):
        bandit.refresh(made)
        method.improve(made, method.collect(bandit, iteration))
        expected.append(float(bandit.probabilities(bandit.policy) @ bandit.rewards))
    rounds = expected[::5]
    assert all(later > earlier for earlier, later in pairwise(rounds))
    assert expected[-1] > 0.95
