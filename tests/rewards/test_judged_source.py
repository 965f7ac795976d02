"""Algorithms train on judged episodes unchanged, and a turn that nobody can score trains nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnwise.algorithms import GRPO, PPO, RLOO, Reinforce
from turnwise.episode import Episode, Transcript
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Sampling, build_model, build_tokenizer
from turnwise.rewards import RewardError, TurnJudge, environment
from turnwise.rollout import Collector, Judged, Logged, episodes_of
from turnwise.runs import RunFolder, train
from turnwise.testing import ConstantReward, EchoEnv


def policy(value_head: bool = False) -> Policy:
    tokenizer = build_tokenizer(["yes no maybe say something 0 1 2 3 4 5 6 7 8 9"])
    return Policy(build_model(tokenizer, seed=1), tokenizer, value_head=value_head, sampling=Sampling(max_tokens=2))


def collector(acting: Policy) -> Collector:
    return Collector(lambda: EchoEnv(max_turns=2), acting, on_length="act", where="inline", slots=16)


def says_no(observation: str, action: str) -> float:
    return float(action.startswith("no"))


def test_a_judge_in_place_of_the_environment_is_what_is_learnt(tmp_path: Path) -> None:
    acting = policy()
    rewards = {"obstinate": (1.0, TurnJudge(says_no, acting.renderer))}
    source = Judged(collector(acting), rewards)
    with RunFolder.create(tmp_path / "run", {}) as folder:
        settings: dict[str, Any] = {"save_every": 12, "progress": False, "tensorboard": False}
        algorithm = Reinforce(groups=8, group_size=4, minibatch=32)
        train(algorithm, source, LocalLearner(acting, lr=5e-3), folder, steps=12, **settings)
    source.close()
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert "rewards/environment/mean" not in lines[0]
    assert lines[-1]["rewards/obstinate/mean"] == lines[-1]["reward"]
    assert lines[0]["reward"] < 0.5
    assert lines[-1]["reward"] > 1.5, "of 2, one for each turn"


@pytest.mark.parametrize("algorithm", [Reinforce, PPO, GRPO, RLOO])
def test_unscorable_episodes_leave_every_algorithm_with_finite_weights(algorithm: Any) -> None:
    acting = policy(value_head=algorithm is PPO)

    def sometimes(episodes: list[Episode]) -> list[np.ndarray]:
        return [np.where(np.arange(len(e.turns)) == i % 3, math.nan, 1.0) for i, e in enumerate(episodes)]

    source = Judged(collector(acting), {"sometimes": (1.0, sometimes)})
    learner = LocalLearner(acting, lr=1e-3)
    settings = (
        algorithm(episodes=8, minibatch=8) if algorithm is PPO else algorithm(groups=2, group_size=4, minibatch=8)
    )
    episodes = settings.collect(source, 0)
    assert any(math.isnan(turn.reward) for e in episodes for turn in e.turns)
    improvement = settings.improve(learner, episodes)
    assert all(bool(parameter.isfinite().all()) for parameter in acting.model.parameters())
    assert all(math.isfinite(total) for total, _ in improvement.metrics.values())
    for episode, advantages in zip(episodes, improvement.streams["advantage"], strict=True):
        assert not np.isnan(advantages).any()
        if algorithm in (GRPO, RLOO) and np.isnan(episode.rewards).any():
            assert not advantages.any(), "the return of the episode is unknown"


def test_the_wrapped_source_is_refreshed_and_closed() -> None:
    calls: list[str] = []

    class Source:
        def rollouts(self, iteration: int, groups: int, group_size: int = 1, first: int = 0) -> list[Episode]:
            calls.append(f"rollouts {iteration} {groups} {group_size} {first}")
            return []

        def refresh(self, learner: Any) -> None:
            calls.append(f"refresh {learner}")

        def close(self) -> None:
            calls.append("close")

    source = Judged(Source(), {"environment": (1.0, environment)})
    assert source.rollouts(4, 2, 3, 5) == []
    source.refresh("me")  # type: ignore[arg-type]
    source.close()
    assert calls == ["rollouts 4 2 3 5", "refresh me", "close"]


def test_stored_episodes_can_be_judged_too() -> None:
    acting = policy()
    stored = Transcript(("say something 1",), ("yes",), (1.0,), terminated=True, truncated=False)
    source = Judged(Logged(episodes_of([stored], acting)), {"flat": (2.0, ConstantReward(1.5))})
    assert [e.rewards.tolist() for e in source.rollouts(0, 2)] == [[3.0], [3.0]]
    source.close()


def test_a_table_that_cannot_work_is_refused_at_once() -> None:
    with pytest.raises(RewardError, match="no rewards"):
        Judged(collector(policy()), {})
