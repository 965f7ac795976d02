"""Training through one's own frozen judge: (1) a judge learns from few labels, and more the more it has seen, (2) both ways raise what it
says, and what is true, on three seeds, while the judge stays bit for bit what it was, (3) the figures are those of the definition,
(4) what is read before an answer begins, (5) what cannot work is refused."""

from __future__ import annotations

import copy
import random
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import zoo
from turnwise.algorithms import SFT
from turnwise.algorithms.answer_judge import AnswerJudge, prefix_scores, with_prompt_ends
from turnwise.algorithms.self_judge import SelfJudge
from turnwise.algorithms.settings import SettingsError
from turnwise.batch import pack
from turnwise.envs.prompts import PromptEnv
from turnwise.episode import Episode, Transcript
from turnwise.errors import TurnwiseError
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Sampling, Scorer, build_model, build_tokenizer
from turnwise.rewards.learned import RewardModelReward
from turnwise.rollout import Collector, Judged, Logged, episodes_of
from turnwise.rollout.measured import Measured
from turnwise.testing import build_episode
from turnwise.text import Reader

WORDS = ["good", "kind", "plain", "dull", "bad"]
LENGTH = 5


def answers(seed: int, n: int) -> list[Transcript]:
    """Five random words; the label says whether at least two of them are "good"."""
    rng, made = random.Random(seed), []
    for i in range(n):
        words = [rng.choice(WORDS) for _ in range(LENGTH)]
        label = float(words.count("good") >= 2)
        made.append(Transcript((rng.choice(["speak", "talk"]),), (" ".join(words),), (label,), True, False, seed=i))
    return made


@lru_cache
def learnt(seed: int) -> tuple[Policy, list[Episode], Scorer]:
    """A model that says five random words, labelled answers, and a judge made of the model."""
    rows = answers(seed, 300)
    tokenizer = build_tokenizer([text for row in rows for text in (*row.observations, *row.actions)])
    policy = Policy(build_model(tokenizer, seed=seed, context=32), tokenizer, sampling=Sampling(max_tokens=8))
    learner = LocalLearner(policy, lr=3e-3, seed=seed)
    episodes = episodes_of(rows, policy)
    source = Logged(episodes, seed=seed)
    for iteration in range(20):
        learner.anneal(iteration / 20)
        SFT(minibatch=32).improve(learner, source.rollouts(iteration, 64))
    judge = Scorer.of(policy, seed=seed)
    learner, method, train = LocalLearner(judge, lr=2e-3, seed=seed), AnswerJudge(), Logged(episodes, seed=seed + 1)
    for iteration in range(20):
        learner.anneal(iteration / 20)
        method.improve(learner, method.collect(train, iteration))
    judge.model.requires_grad_(False)
    return policy, episodes, judge


def fresh(seed: int) -> tuple[Policy, Scorer]:
    """The model, ready to be trained, and its judge."""
    policy, _, judge = learnt(seed)
    copied = Policy(copy.deepcopy(policy.model), policy.tokenizer, renderer=policy.renderer, sampling=policy.sampling)
    return copied, judge


def test_a_judge_knows_more_the_more_it_has_seen() -> None:
    policy, _, judge = learnt(0)
    unseen = episodes_of(answers(100, 300), policy)
    labels = np.array([episode.undiscounted_return for episode in unseen]) > 0.5
    scores = np.array(prefix_scores(judge, unseen))
    assert scores.shape == (300, LENGTH + 2)  # nothing, five words, the stop token
    right = ((scores > 0) == labels[:, None]).mean(0)
    assert right[-1] > 0.9
    assert (
        abs(right[0] - max(labels.mean(), 1 - labels.mean())) < 0.1
    )  # before a word is said, the base rate is all there is
    assert right[0] < right[3] < right[-1]


def gold_of(policy: Policy) -> Any:
    reader = Reader(policy.renderer)

    def gold(episodes: list[Episode]) -> list[Any]:
        return [np.array([float(reader.action(episode, 0).split().count("good") >= 2)]) for episode in episodes]

    return gold


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("through", ["backprop", "reinforce"])
def test_both_ways_raise_the_judge_and_leave_it_as_it_is(through: Any, seed: int) -> None:
    policy, judge = fresh(seed)
    before = {name: tensor.clone() for name, tensor in judge.model.state_dict().items()}
    method = SelfJudge(through=through, groups=8, group_size=8, minibatch=32)
    learner = LocalLearner(policy, lr=1e-3, seed=seed, reference=policy.reference(), judge=judge)
    collector = Collector(
        partial(PromptEnv, ["speak", "talk"], lambda *_: 0.0), policy, slots=64, where="inline", seed=seed
    )
    paid = Judged(collector, {"judge": (1.0, RewardModelReward(judge, policy.renderer))})
    source = Measured(paid, {"gold": gold_of(policy)})
    rows = []
    for iteration in range(12):
        learner.anneal(iteration / 12)
        source.refresh(learner)
        improvement = method.improve(learner, method.collect(source, iteration))
        rows.append({name: total / count for name, (total, count) in improvement.metrics.items() if count})
    source.close()
    first, last = rows[0], rows[-1]
    assert first["judge/proxy"] < 0.5
    assert last["judge/proxy"] > first["judge/proxy"] + 0.25
    assert last["judge/gold"] > first["judge/gold"] + 0.25
    assert last["judge/gap"] == pytest.approx(last["judge/gold"] - last["judge/proxy"], abs=1e-9)
    assert first["judge/kl"] == pytest.approx(0.0, abs=1e-4)
    assert last["judge/kl"] > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in judge.model.state_dict().items())


def test_the_figures_are_those_of_the_definition() -> None:
    policy, judge = fresh(0)
    learner = LocalLearner(policy, reference=policy.reference(), judge=judge)
    made = [
        build_episode(
            [score], actions=[[7, 3]], observations=[[8, 4]], group="g", metrics={"gold": gold} if gold else {}
        )
        for score, gold in ((2.0, 1.0), (-1.0, 0.0), (0.0, 0.5))
    ]
    for index, episode in enumerate(made):
        object.__setattr__(episode.turns[0], "rewards", {"judge": episode.turns[0].reward})
        object.__setattr__(episode, "seed", index)
    figures = SelfJudge(through="reinforce").improve(learner, made).metrics
    total, n = figures["judge/proxy"]
    assert (total, n) == (pytest.approx(0.880797 + 0.268941 + 0.5, abs=1e-5), 3)
    assert figures["judge/gold"] == (1.5, 2)  # one of the three has none
    assert figures["judge/gap"] == (pytest.approx(1.5 - 0.880797 - 0.5, abs=1e-5), 2)


def test_what_the_judge_did_not_score_is_left_out() -> None:
    policy, judge = fresh(0)
    learner = LocalLearner(policy, reference=policy.reference(), judge=judge)
    made = []
    for score in (2.0, None):
        episode = build_episode([score or 0.0], actions=[[7, 3]], observations=[[8, 4]], metrics={"gold": 1.0})
        object.__setattr__(episode.turns[0], "rewards", {} if score is None else {"judge": score})
        made.append(episode)
    figures = SelfJudge(through="reinforce").improve(learner, made).metrics
    assert figures["judge/proxy"] == (pytest.approx(0.880797, abs=1e-5), 1)
    assert figures["judge/gold"] == (2.0, 2)
    assert figures["judge/gap"] == (pytest.approx(1 - 0.880797, abs=1e-5), 1)
    assert figures["judge/kl"][1] == 2
    figures = SelfJudge(through="reinforce").improve(learner, made[1:]).metrics
    assert not {"judge/proxy", "judge/gap"} & figures.keys()


def test_what_is_read_before_an_answer_begins() -> None:
    episodes = zoo.episodes(5, seed=3)
    batch = pack(episodes)
    marked = with_prompt_ends(batch)
    added = marked.action & ~batch.action
    assert int(added.sum()) == sum(len(episode.turns) for episode in episodes)
    assert bool((batch.action[added.nonzero().squeeze(1) + 1]).all())
    assert bool(marked.action[batch.action].all())
    with pytest.raises(TurnwiseError, match="one answer each"):
        prefix_scores(None, [build_episode([0.0, 1.0])])
    assert prefix_scores(None, []) == []


def test_what_cannot_work_is_refused() -> None:
    policy, judge = fresh(0)
    made = [build_episode([1.0], actions=[[7, 3]], observations=[[8, 4]])]
    with pytest.raises(TurnwiseError, match="frozen judge"):
        SelfJudge().improve(LocalLearner(policy, reference=policy.reference()), made)
    with pytest.raises(TurnwiseError, match="reference"):
        SelfJudge().improve(LocalLearner(policy, judge=judge), made)
    with pytest.raises(TurnwiseError, match="between 0"):
        AnswerJudge().improve(
            LocalLearner(Scorer.of(policy)), [build_episode([3.0], actions=[[7, 3]], observations=[[8, 4]])]
        )
    bad: Any = ({"through": "osmosis"}, {"group_size": 1}, {"kl_coef": -1.0}, {"judge_passes": 0})
    for settings in bad:
        with pytest.raises(SettingsError, match=next(iter(settings))):
            SelfJudge(**settings)
