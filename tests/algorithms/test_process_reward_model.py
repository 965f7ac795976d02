"""A process reward model learns which steps are right: (1) from labels, better than their position tells, (2) from the last
step alone if asked, (3) its figures are those before the update, (4) bad labels are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from turnwise.algorithms import ProcessRewardModel
from turnwise.algorithms.settings import SettingsError
from turnwise.episode import Episode, Source, Turn
from turnwise.errors import TurnwiseError
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Scorer, build_model, build_tokenizer
from turnwise.rewards.learned import turn_scores
from turnwise.rollout import Logged
from turnwise.runs.scoring import evaluate_steps, step_report
from turnwise.text import Renderer

TOKENIZER = build_tokenizer(["count from 1 2 3 4 5 6 7 8 9 0\n"])
RENDERER = Renderer(TOKENIZER)


def answer(rng: np.random.Generator) -> Episode:
    """Counting upwards, now and then with a slip; a step is right if it is one more than the step before it."""
    now = int(rng.integers(0, 3))
    obs, texts, labels = RENDERER.first(f"count from {now}"), [], []
    for _ in range(int(rng.integers(2, 6))):
        right = rng.random() < 0.6
        after = now + 1 if right else int(rng.choice([k for k in range(10) if k != now + 1]))
        texts.append(str(after))
        labels.append(float(right))
        now = after % 9
        if after == 9:
            break
    ids = RENDERER.step_ids(texts, "\n")
    turns = tuple(
        Turn(obs if not t else obs[:0], act, np.zeros(len(act), np.float32), label, fresh=not t)
        for t, (act, label) in enumerate(zip(ids, labels, strict=True))
    )
    return Episode("g", turns, True, False, np.zeros(0, np.int32), source=Source.DATASET)


def answers(n: int, seed: int) -> list[Episode]:
    rng = np.random.default_rng(seed)
    return [answer(rng) for _ in range(n)]


def scorer(seed: int = 0) -> Scorer:
    return Scorer.of(Policy(build_model(TOKENIZER, seed=seed), TOKENIZER), kind="process", seed=seed)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_steps_are_told_apart(seed: int) -> None:
    model = scorer(seed)
    learner, source = LocalLearner(model, lr=3e-3, seed=seed), Logged(answers(400, seed), seed=seed)
    method = ProcessRewardModel(episodes=100, minibatch=64)
    for iteration in range(14):
        learner.anneal(iteration / 14)
        log = method.improve(learner, method.collect(source, iteration))
    report = evaluate_steps(model, answers(150, 99))
    assert report.auc > 0.9
    assert report.auc > report.auc_of_position + 0.25
    assert report.low < report.accuracy < report.high
    assert log.metrics["steps/accuracy"][0] > 0.8
    assert ("answers", "150", "") in report.rows()


def test_figures_are_those_before_the_update() -> None:
    model, given = scorer(), answers(12, 1)
    before = [np.exp(scores) for scores in turn_scores(model, given)]
    improvement = ProcessRewardModel(minibatch=8).improve(LocalLearner(model, lr=1e-2), given)
    for stream, p in zip(improvement.streams["right"], before, strict=True):
        np.testing.assert_allclose(stream, p, atol=1e-5)
    p, y = np.concatenate(before), np.concatenate([episode.rewards for episode in given])
    assert improvement.metrics["steps/accuracy"][0] == pytest.approx(np.mean((p > 0.5) == (y > 0.5)))
    assert improvement.metrics["steps/positives"][0] == pytest.approx(y.mean())


def test_a_report_by_hand() -> None:
    right = [np.array([0.9, 0.2, 0.8]), np.array([0.6, 0.7]), np.array([0.4])]
    labels = [np.array([1.0, 0.0, 0.0]), np.array([1.0, np.nan]), np.array([1.0])]
    report = step_report(right, labels)
    # Known steps: .9/1, .2/0, .8/0, .6/1, .4/1.
    assert report.steps == 5
    assert report.accuracy == pytest.approx(3 / 5)
    assert report.positives == pytest.approx(3 / 5)
    # Of the six pairs of a right and a wrong step: .9 > .2, .9 > .8, .6 > .2, .4 > .2; .6 < .8, .4 < .8.
    assert report.auc == pytest.approx(4 / 6)
    # Right steps all come first in their answer, wrong ones second and third.
    assert report.auc_of_position == pytest.approx(1.0)
    # The ends: the first answer's is wrong, the last one's is right, and the second one's has no label.
    assert report.auc_of_end == pytest.approx(7 / 12)
    assert report.first_error == 1.0


def test_the_last_step_alone_is_an_outcome_reward_model() -> None:
    given = answers(10, 2)
    blank = [np.full(len(e.turns), np.nan) for e in given]
    for array, episode in zip(blank, given, strict=True):
        array[-1] = episode.rewards[-1]
    log = ProcessRewardModel(last_step_only=True).improve(LocalLearner(scorer()), given)
    assert log.metrics["steps/positives"][0] == pytest.approx(np.mean([array[-1] for array in blank]))


@pytest.mark.parametrize(
    ("reward", "message"), [(2.0, "has the label 2"), (-1.0, "has the label -1"), (np.nan, "none of 1")]
)
def test_bad_labels_are_named(reward: float, message: str) -> None:
    obs = RENDERER.first("count from 1")
    act = RENDERER.action_ids("2")
    turn: Any = Turn(obs, act, np.zeros(len(act), np.float32), reward, fresh=True)
    bad = Episode("p7", (turn,), True, False, np.zeros(0, np.int32))
    with pytest.raises(TurnwiseError, match=message):
        ProcessRewardModel().improve(LocalLearner(scorer()), [bad])
    with pytest.raises(SettingsError):
        ProcessRewardModel(minibatch=0)
    if np.isnan(reward):
        with pytest.raises(TurnwiseError, match="no step has a label"):
            evaluate_steps(scorer(), [bad])
