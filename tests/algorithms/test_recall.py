"""What a rollout recorded stands for what the learner would say, only where the two agree.

1. Episodes of the present weights: an eighth is evaluated, and the recorded log-probabilities are used.
2. Any doubt, and all are evaluated: an engine that differs, older weights, episodes that nobody sampled, a critic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from turnwise.algorithms.experience import AGREE, SAMPLED, recall
from turnwise.batch import Batch, Outputs, pack, unpack
from turnwise.envs import make
from turnwise.episode import Episode, Source
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Sampling, build_model, build_tokenizer
from turnwise.rollout import Collector

N = 24
TEXTS = ["a number between 1 and 64 higher lower"]


class Watched(LocalLearner):
    """A learner that counts the tokens it is asked about."""

    tokens = 0

    def evaluate(self, batch: Batch) -> Outputs:
        self.tokens += len(batch.tokens)
        return super().evaluate(batch)


@pytest.fixture(scope="module")
def rolled() -> tuple[Policy, list[Episode]]:
    tokenizer = build_tokenizer(TEXTS)
    policy = Policy(build_model(tokenizer), tokenizer, sampling=Sampling(max_tokens=3))
    collector = Collector(lambda: make("guess"), policy, slots=8, where="inline", on_length="act")
    return policy, collector.rollouts(0, N)


def other_engine(episode: Episode) -> Episode:
    return replace(
        episode, turns=tuple(replace(turn, logp=turn.logp + 10 * np.float32(AGREE)) for turn in episode.turns)
    )


def older(episode: Episode) -> Episode:
    return replace(episode, turns=tuple(replace(turn, version=turn.version - 1) for turn in episode.turns))


def test_an_eighth_is_evaluated_where_rollout_and_learner_agree(rolled: tuple[Policy, list[Episode]]) -> None:
    policy, episodes = rolled
    learner = Watched(policy)
    experience = recall(learner, episodes)
    assert experience is not None
    assert 0 < learner.tokens < len(experience.batch.tokens) / 2
    for episode, logp in zip(experience.episodes, experience.logp, strict=True):
        np.testing.assert_array_equal(logp, episode.behaviour_logp)
    truth = unpack(learner.evaluate(pack(episodes)).logp.double(), episodes)
    for said, known in zip(experience.logp, truth, strict=True):
        np.testing.assert_allclose(said, known, atol=1e-5)
    counted = experience.metrics["drift/mean_abs"][1]
    assert 0 < counted < sum(episode.n_action_tokens for episode in episodes)


@pytest.mark.parametrize(
    "doubtful",
    [
        lambda episodes: [other_engine(episode) for episode in episodes],
        lambda episodes: [older(episodes[0]), *episodes[1:]],
        lambda episodes: [replace(episodes[0], source=Source.DATASET), *episodes[1:]],
        lambda episodes: episodes[: SAMPLED - 1],
    ],
    ids=["another engine", "older weights", "a dataset", "few episodes"],
)
def test_all_are_evaluated_in_doubt(
    rolled: tuple[Policy, list[Episode]], doubtful: Callable[[list[Episode]], list[Episode]]
) -> None:
    policy, episodes = rolled
    learner, given = LocalLearner(policy), doubtful(episodes)
    experience = recall(learner, given)
    assert experience is not None
    truth: list[Any] = unpack(learner.evaluate(pack(given)).logp.double(), given)
    for said, known in zip(experience.logp, truth, strict=True):
        np.testing.assert_allclose(said, known, atol=1e-6)
    assert experience.metrics["drift/mean_abs"][1] == sum(episode.n_action_tokens for episode in given)
