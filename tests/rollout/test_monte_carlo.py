"""Step labels from rollouts are action values: (1) in a process small enough to enumerate, the estimates are the exact
chance of success within the binomial error, (2) kinds of label are what they say, (3) they are a function of seed and
place alone, (4) a process reward model trained on them tells good beginnings from bad ones, (5) bad input is named."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.algorithms import ProcessRewardModel
from turnwise.batch import pack, unpack
from turnwise.episode import Episode, Source, Stop, Turn
from turnwise.errors import TurnwiseError
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Sampling, Scorer, build_model, build_tokenizer
from turnwise.rewards.calibration import area_under_curve
from turnwise.rewards.learned import turn_scores
from turnwise.rollout import Logged, MonteCarlo

TOKENIZER = build_tokenizer(["ask up down"])
UP, DOWN, END = (int(i) for i in TOKENIZER.convert_tokens_to_ids(["▁up", "▁down", "<end>"]))
LENGTH = 4
"""Token budget of an answer."""


@cache
def policy() -> Policy:
    """Says up, down and stop, in an order that it was born with."""
    model = build_model(TOKENIZER, seed=5)
    model.generation_config.suppress_tokens = sorted(set(range(len(TOKENIZER))) - {UP, DOWN, END})
    return Policy(model, TOKENIZER, sampling=Sampling(max_tokens=LENGTH))


def answer(ids: tuple[int, ...]) -> Episode:
    """An answer of which every token is a step."""
    obs = policy().renderer.first("ask")
    stop = Stop.STOP if ids[-1] == END else Stop.LENGTH
    turns = tuple(
        Turn(obs if not t else obs[:0], np.array([i], np.int32), np.zeros(1, np.float32), 0.0, fresh=not t, stop=stop)
        for t, i in enumerate(ids)
    )
    return Episode("g", turns, True, False, np.zeros(0, np.int32), source=Source.DATASET)


def wins(ids: Any) -> bool:
    """More ups than downs."""
    return list(ids).count(UP) > list(ids).count(DOWN)


def judge(episodes: list[Episode]) -> list[Any]:
    assert all(len(episode.turns) == 1 for episode in episodes), "a judge reads answers whole"
    return [np.array([float(wins(episode.turns[0].act.tolist()))]) for episode in episodes]


@cache
def outcomes() -> dict[tuple[int, ...], float]:
    """Every answer that the policy can give, with its exact probability."""
    whole = [ids for n in range(1, LENGTH + 1) for ids in product((UP, DOWN, END), repeat=n)
             if END not in ids[:-1] and (ids[-1] == END or n == LENGTH)]  # fmt: skip
    episodes = [answer(ids) for ids in whole]
    with torch.no_grad():
        logp = unpack(policy().outputs(pack(episodes)).logp.double(), episodes)
    chances = {ids: float(np.exp(values.sum())) for ids, values in zip(whole, logp, strict=True)}
    assert sum(chances.values()) == pytest.approx(1.0, abs=1e-5)
    return chances


def exact(beginning: tuple[int, ...]) -> float:
    """Chance of success after a beginning, by enumeration."""
    after = {ids: p for ids, p in outcomes().items() if ids[: len(beginning)] == beginning}
    return sum(p for ids, p in after.items() if wins(ids)) / sum(after.values())


def value(ids: tuple[int, ...]) -> list[float]:
    return [exact(ids[: t + 1]) for t in range(len(ids))]


def test_estimates_are_the_exact_action_values_within_their_error() -> None:
    n = 300
    answers = [(UP, DOWN, UP, END), (DOWN, DOWN, UP, UP), (DOWN, UP, END), (UP, END)]
    source = MonteCarlo(Logged([]), policy(), judge, samples=n, seed=1)
    found = source.estimates([answer(ids) for ids in answers])
    spread = []
    for index, ids in enumerate(answers):
        truth = np.array(value(ids))
        # The last step is judged as it is, and so is a beginning that has used up the budget.
        assert found[index][-1] == truth[-1] == float(wins(ids))
        error = np.sqrt(truth * (1 - truth) / n)
        assert (np.abs(found[index] - truth) <= 4 * error + 1e-9).all(), (ids, found[index], truth)
        spread += truth.tolist()
    assert np.std(spread) > 0.2


def test_the_kinds_of_label() -> None:
    episodes = [answer((UP, DOWN, UP, END)), answer((DOWN, DOWN, UP, UP))]
    (hard, soft, majority), estimates = (
        [MonteCarlo(Logged([]), policy(), judge, samples=20, seed=2, label=label).labelled(episodes)
         for label in ("hard", "soft", "majority")],
        MonteCarlo(Logged([]), policy(), judge, samples=20, seed=2).estimates(episodes),
    )  # fmt: skip
    for i in range(2):
        assert soft[i].rewards.tolist() == estimates[i].tolist()
        assert hard[i].rewards.tolist() == (estimates[i] > 0).astype(float).tolist()
        assert majority[i].rewards.tolist() == (estimates[i] > 0.5).astype(float).tolist()
        assert [dict(turn.rewards) for turn in hard[i].turns] == [{"monte_carlo": r} for r in hard[i].rewards]
        assert [t.act.tolist() for t in hard[i].turns] == [t.act.tolist() for t in episodes[i].turns]


def test_labels_are_a_function_of_seed_and_place() -> None:
    episodes = [answer((UP, DOWN, UP, END)), answer((DOWN, UP, END))]

    def once(seed: int, given: list[Episode]) -> list[list[float]]:
        source = MonteCarlo(Logged([]), policy(), judge, samples=10, seed=seed, label="soft")
        return [episode.rewards.tolist() for episode in source.labelled(given)]

    assert once(3, episodes) == once(3, episodes)
    assert once(3, episodes[:1]) == once(3, episodes)[:1]
    assert once(3, episodes) != once(4, episodes)


def test_every_iteration_continues_with_noise_of_its_own() -> None:
    """Two iterations that hand out the same answers give independent estimates, and so do the held-out ones."""
    stored = Logged([answer((UP, DOWN, UP, END)), answer((DOWN, UP, END))])
    source = MonteCarlo(stored, policy(), judge, samples=10, seed=3, label="soft")
    held_out = source.labelled(stored.episodes)
    labels = [sorted(tuple(e.rewards.tolist()) for e in given)
              for given in (held_out, *(source.rollouts(i, 2) for i in range(3)))]  # fmt: skip
    assert len({str(each) for each in labels}) == 4
    again = source.rollouts(1, 2)
    assert sorted(tuple(e.rewards.tolist()) for e in again) == labels[2]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_process_reward_model_learns_action_values_from_rollouts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = list(outcomes())
    chances = np.array([outcomes()[ids] for ids in whole])
    drawn = [whole[i] for i in rng.choice(len(whole), size=60, p=chances / chances.sum())]
    source = MonteCarlo(
        Logged([answer(ids) for ids in drawn], seed=seed), policy(), judge, samples=4, label="soft", seed=seed
    )
    stored = Logged(source.rollouts(0, 60), seed=seed)
    scorer = Scorer.of(Policy(build_model(TOKENIZER, seed=seed), TOKENIZER), kind="process", seed=seed)
    learner, method = LocalLearner(scorer, lr=2e-3, seed=seed), ProcessRewardModel(episodes=60, minibatch=60)
    for iteration in range(20):
        learner.anneal(iteration / 20)
        log = method.improve(learner, method.collect(stored, iteration))
    truth = np.concatenate([value(ids) for ids in whole])
    said = np.concatenate(turn_scores(scorer, [answer(ids) for ids in whole]))
    assert area_under_curve(said, truth > 0.5) > 0.9
    assert 0.0 < log.metrics["steps/positives"][0] < 1.0
    assert log.metrics["steps/auc"][0] > 0.8


def test_what_cannot_be_rolled_out_is_named() -> None:
    with pytest.raises(TurnwiseError, match="at least one continuation"):
        MonteCarlo(Logged([]), policy(), judge, samples=0)
    with pytest.raises(TurnwiseError, match="'hard', 'soft' or 'majority'"):
        MonteCarlo(Logged([]), policy(), judge, label="firm")  # type: ignore[arg-type]
    one = answer((UP, END))
    later = Turn(np.array([5], np.int32), np.array([END], np.int32), np.zeros(1, np.float32), 0.0)
    two = Episode("g", (*one.turns, later), True, False, np.zeros(0, np.int32))
    with pytest.raises(TurnwiseError, match="several answers"):
        MonteCarlo(Logged([]), policy(), judge).labelled([two])
    with pytest.raises(TurnwiseError, match="judge"):
        MonteCarlo(Logged([]), policy(), lambda episodes: []).labelled([one])  # type: ignore[arg-type]
    assert MonteCarlo(Logged([]), policy(), judge).labelled([]) == []
