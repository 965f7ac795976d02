"""A policy and tasks for the rollout tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tests.rollout.envs import WalkEnv, duel
from turnwise.episode import Episode
from turnwise.models import Policy, Sampling, build_model, build_tokenizer
from turnwise.rollout import Task

TEXTS = ["say something yes no", "turn left right 0123456789", "word you lost won alice bob it is your"]
TOKENIZER = build_tokenizer(TEXTS)


@lru_cache
def policy(max_tokens: int = 4, **sampling: Any) -> Policy:
    """A small random policy; the same one for the same settings."""
    model = build_model(TOKENIZER, seed=7, context=512)
    return Policy(model, TOKENIZER, sampling=Sampling(max_tokens=max_tokens, **sampling))


def tasks(n: int, *, group_size: int = 1, key: int = 0) -> list[Task]:
    """Tasks with the seeds 0 … n-1."""
    return [Task(i, f"g{i}", 1000 * key + 10 * i + sample) for i in range(n) for sample in range(group_size)]


__all__ = ["TOKENIZER", "WalkEnv", "duel", "policy", "summaries", "summary", "tasks"]


def summary(episode: Episode) -> tuple[Any, ...]:
    """Everything about an episode but its log-probabilities."""
    turns = tuple(
        (t.obs.tolist(), t.act.tolist(), t.reward, t.version, t.fresh, t.stop, dict(t.rewards)) for t in episode.turns
    )
    return (
        episode.group, turns, episode.terminated, episode.truncated, episode.last_obs.tolist(), episode.last_fresh,
        episode.env, episode.agent, episode.world, episode.seed, episode.goal, dict(episode.metrics), episode.cut,
        episode.detail,
    )  # fmt: skip


def summaries(episodes: Sequence[Episode]) -> list[tuple[Any, ...]]:
    """The summary of each."""
    return [summary(episode) for episode in episodes]
