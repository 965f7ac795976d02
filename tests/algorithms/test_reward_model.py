"""A reward model learns what it is told: (1) preferences by a known linear reward on words give it back, near the best
accuracy that their noise allows, (2) its figures are those of unseen pairs, (3) runs repeat, (4) bad data are named."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from turnwise.algorithms import RewardModel
from turnwise.algorithms.settings import SettingsError
from turnwise.episode import Episode, Source, Turn
from turnwise.errors import TurnwiseError
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Scorer, build_model, build_tokenizer
from turnwise.rewards.learned import turn_scores
from turnwise.rollout import Logged
from turnwise.runs.scoring import evaluate_preferences

WORDS = ["amber", "birch", "cedar", "daisy", "elder", "fern", "gorse", "hazel", "iris", "jasmine"]
TOKENIZER = build_tokenizer([" ".join(WORDS)])


@cache
def worth() -> dict[str, float]:
    return dict(zip(WORDS, np.random.default_rng(7).normal(0, 1, len(WORDS)).tolist(), strict=True))


def answers(n: int, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [rng.choice(WORDS, size=rng.integers(2, 7)).tolist() for _ in range(n)]


def truth(words: list[str]) -> float:
    return sum(worth()[word] for word in words)


def episode(words: list[str], reward: float, group: str) -> Episode:
    renderer = _renderer()
    act = renderer.action_ids(" ".join(words))
    turn = Turn(
        renderer.first("say"), act, np.zeros(len(act), np.float32), reward, fresh=True, rewards={"label": reward}
    )
    return Episode(group, (turn,), True, False, np.zeros(0, np.int32), source=Source.DATASET)


@cache
def _renderer() -> Any:
    from turnwise.text import Renderer

    return Renderer(TOKENIZER)


def preferences(n: int, seed: int) -> tuple[list[Episode], float]:
    """Pairs answered by Bradley and Terry's model of the truth, and the accuracy of the truth itself."""
    rng = np.random.default_rng(seed)
    found: list[Episode] = []
    right = 0.0
    for i, (a, b) in enumerate(zip(answers(n, seed + 1), answers(n, seed + 2), strict=True)):
        difference = truth(a) - truth(b)
        a_wins = rng.random() < 1 / (1 + np.exp(-difference))
        right += a_wins == (difference > 0)
        found += [episode(a, float(a_wins), str(i)), episode(b, float(not a_wins), str(i))]
    return found, right / n


def trained(seed: int, iterations: int, pairs: list[Episode], method: RewardModel) -> tuple[Scorer, list[Any]]:
    scorer = Scorer.of(Policy(build_model(TOKENIZER, seed=seed), TOKENIZER), seed=seed)
    learner = LocalLearner(scorer, lr=2e-3, seed=seed)
    source = Logged(pairs, seed=seed, grouped=True)
    log = []
    for iteration in range(iterations):
        learner.anneal(iteration / iterations)
        log.append(method.improve(learner, method.collect(source, iteration)))
    return scorer, log


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_known_reward_is_recovered_from_preferences(seed: int) -> None:
    pairs, _ = preferences(1200, 10 + seed)
    held_out, best = preferences(400, 1000)
    scorer, log = trained(seed, 25, pairs, RewardModel(groups=96, minibatch=32))
    texts = answers(200, 77)
    said = [scores[-1] for scores in turn_scores(scorer, [episode(words, 0.0, "") for words in texts])]
    assert np.corrcoef(said, [truth(words) for words in texts])[0, 1] > 0.95
    report = evaluate_preferences(scorer, held_out)
    assert report.calibration.accuracy > best - 0.04
    assert report.low < report.calibration.accuracy < report.high
    assert report.calibration.error < 0.12
    assert abs(report.calibration.longer_is_chosen - 0.5) < 0.3
    seen = [improvement.metrics["scores/accuracy"][0] for improvement in log]
    assert seen[0] < 0.7 < np.mean(seen[-5:])
    assert ("pairs", "400", "") in report.rows()


def test_centring_holds_the_mean_of_the_scores() -> None:
    pairs, _ = preferences(200, 3)
    means = []
    for centre in (0.0, 0.3):
        scorer = Scorer.of(Policy(build_model(TOKENIZER, seed=1), TOKENIZER), seed=1)
        learner, method = LocalLearner(scorer, lr=1e-3), RewardModel(centre=centre, groups=64, minibatch=16)
        for iteration in range(10):
            method.improve(learner, method.collect(Logged(pairs, grouped=True), iteration))
        means.append(abs(np.mean([scores[-1] for scores in turn_scores(scorer, pairs)])))
    assert means[1] < 0.15 < means[0]


def test_a_margin_asks_for_a_larger_difference() -> None:
    pairs, _ = preferences(150, 4)
    large = [replace(e, turns=(replace(e.turns[0], reward=3 * e.turns[0].reward),)) for e in pairs]
    plain, asked = (
        trained(0, 8, large, RewardModel(margin=margin, groups=75, minibatch=16))[1][-1].metrics["scores/margin"][0]
        for margin in (0.0, 1.0)
    )
    assert asked > plain + 0.5


@pytest.mark.parametrize(("minibatch", "steps"), [(4, 5.0), (20, 1.0)])
def test_figures_are_taken_before_the_update_and_booked_to_their_episodes(minibatch: int, steps: float) -> None:
    pairs, _ = preferences(20, 5)
    alone = episode(["fern"], 1.0, "alone")
    scorer = Scorer.of(Policy(build_model(TOKENIZER), TOKENIZER))
    given = [*pairs, alone]
    before = [float(scores[-1]) for scores in turn_scores(scorer, pairs)]
    improvement = RewardModel(minibatch=minibatch).improve(LocalLearner(scorer, lr=1e-2, max_tokens=64), given)
    streams = [float(stream[-1]) for stream in improvement.streams["score"]]
    np.testing.assert_allclose(streams[:-1], before, atol=1e-5)
    assert np.isnan(streams[-1])
    won = [a > b if x.undiscounted_return > y.undiscounted_return else b > a
           for a, b, x, y in zip(before[::2], before[1::2], pairs[::2], pairs[1::2], strict=True)]  # fmt: skip
    assert improvement.metrics["scores/accuracy"] == (pytest.approx(np.mean(won)), 1.0)
    assert improvement.metrics["lr"][1] == steps


@pytest.mark.parametrize("lora", ["", "r=2,dropout=0.1"])
def test_a_resumed_run_is_the_run(lora: str) -> None:
    if lora:
        pytest.importorskip("peft")
    pairs, _ = preferences(24, 6)
    source, method = Logged(pairs, seed=1, grouped=True), RewardModel(groups=8, minibatch=4)

    def begin() -> LocalLearner:
        return LocalLearner(Scorer.of(Policy(build_model(TOKENIZER), TOKENIZER), lora=lora), lr=1e-3, seed=1)

    def go_on(learner: LocalLearner, iterations: range) -> Any:
        return [method.improve(learner, method.collect(source, i)).metrics for i in iterations][-1]

    whole = go_on(begin(), range(4))
    first = begin()
    go_on(first, range(2))
    tensors, info = first.state()
    second = begin()
    second.restore({name: tensor.clone() for name, tensor in tensors.items()}, info)
    assert go_on(second, range(2, 4)) == whole


def test_what_holds_no_preference_is_named(caplog: pytest.LogCaptureFixture) -> None:
    learner = LocalLearner(Scorer.of(Policy(build_model(TOKENIZER), TOKENIZER)))
    same = [episode(["fern"], 1.0, "a"), episode(["iris"], 1.0, "a"), episode(["iris"], 1.0, "b")]
    with pytest.raises(TurnwiseError, match="3 episodes in 2 groups hold no preference"):
        RewardModel().check_stored(same)
    RewardModel().check_stored([*same, episode(["fern"], 0.0, "b")])
    # An iteration may happen to have none where others do.
    assert not RewardModel().improve(learner, same).metrics
    assert learner.version == 0
    assert "no update: 3 episodes in 2 groups hold no preference" in caplog.text
    with pytest.raises(TurnwiseError, match="chosen and a rejected"):
        evaluate_preferences(learner.policy, same)
    with pytest.raises(TurnwiseError, match="kind 'reward'"):
        evaluate_preferences(Scorer.of(Policy(build_model(TOKENIZER), TOKENIZER), kind="process"), same)
    for bad in ({"margin": -1.0}, {"centre": -0.1}, {"groups": 0}, {"minibatch": 0}):
        with pytest.raises(SettingsError):
            RewardModel(**bad)  # type: ignore[arg-type]
    assert RewardModel(margin=1.0, centre=0.01).trains == "reward-model"
