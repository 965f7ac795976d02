"""Valid episodes made by hand.

build_episode([0, 0, 1])                          three turns, the last one paid
build_dialogue([("hello", "hi")], renderer)       one turn whose ids spell that text
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Cut, Episode, Ids, Source, Stop, Turn
from turnwise.text import Renderer


def build_episode(
    rewards: Sequence[float] = (0.0, 1.0),
    *,
    actions: Sequence[Sequence[int]] | None = None,
    observations: Sequence[Sequence[int]] | None = None,
    logp: float = -1.0,
    versions: int | Sequence[int] = 0,
    fresh: bool = False,
    cut: Cut | None = None,
    group: str = "task",
    seed: int = 0,
    env: str = "fake",
    source: Source = Source.POLICY,
    goal: str | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Episode:
    """An episode with one turn for each reward.

    Args:
        rewards: What the environment paid for each turn.
        actions: Ids of each action; by default ``[1, 2]`` in every turn.
        observations: Ids of each observation; by default the single id 3 + t.
        logp: Recorded log-probability of every action token.
        versions: Version of the weights, of every turn or of each.
        fresh: Every observation is a context of its own, not only the first.
        cut: Why the episode was truncated; None for one that terminated.
        group: The task instance.
        seed: Seed of the environment.
        env: Name of the environment.
        source: Who acted.
        goal: The goal in words.
        metrics: Figures for people.

    Raises:
        ValueError: actions, observations or versions whose number is not that of the rewards.
    """
    n = len(rewards)
    acts = [(1, 2)] * n if actions is None else actions
    obs = [(3 + t,) for t in range(n)] if observations is None else observations
    by_turn = [versions] * n if isinstance(versions, int) else versions
    for name, given in (("actions", acts), ("observations", obs), ("versions", by_turn)):
        if len(given) != n:
            raise ValueError(f"{len(given)} {name} for {n} rewards; give one per turn")
    turns = [_turn(_ids(obs[t]), _ids(acts[t]), float(rewards[t]), logp, by_turn[t], fresh or t == 0) for t in range(n)]
    after = _ids([3 + n]) if cut is not None and n else _ids([])
    return _episode(turns, after, fresh, cut, group, seed, env, source, goal, metrics)


def build_dialogue(
    exchanges: Sequence[tuple[str, str]],
    renderer: Renderer,
    *,
    rewards: Sequence[float] | None = None,
    last: str | None = None,
    group: str = "task",
    seed: int = 0,
    env: str = "fake",
    source: Source = Source.POLICY,
    goal: str | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Episode:
    """An episode whose ids spell the given text, as a rollout with an unlimited memory would have recorded it.

    Args:
        exchanges: Observation and action of each turn.
        renderer: Turns text into ids.
        rewards: What the environment paid for each turn; nothing by default.
        last: The observation after the last action, if the episode was truncated there.
        group: The task instance.
        seed: Seed of the environment.
        env: Name of the environment.
        source: Who acted.
        goal: The goal in words.
        metrics: Figures for people.
    """
    paid = [0.0] * len(exchanges) if rewards is None else rewards
    turns = []
    for t, ((observation, action), reward) in enumerate(zip(exchanges, paid, strict=True)):
        obs = renderer.following(observation) if t else renderer.first(observation)
        turns.append(_turn(obs, renderer.action_ids(action), float(reward), -1.0, 0, t == 0))
    after = _ids([]) if last is None else renderer.following(last)
    cut = None if last is None else Cut.TURN_LIMIT
    return _episode(turns, after, False, cut, group, seed, env, source, goal, metrics)


def ragged_episodes(seed: int = 0, n: int = 6) -> list[Episode]:
    """`n` episodes of 1 to 4 turns of 1 to 3 tokens in groups of two, every third one truncated."""
    rng = np.random.default_rng(seed)
    episodes = []
    for i in range(n):
        turns = int(rng.integers(1, 5))
        episodes.append(
            build_episode(
                rng.normal(size=turns).round(3).tolist(),
                actions=[rng.integers(1, 9, size=rng.integers(1, 4)).tolist() for _ in range(turns)],
                cut=Cut.TURN_LIMIT if i % 3 == 2 else None,
                fresh=i % 2 == 1,
                group=f"task {i // 2}",
                seed=i // 2,
            )
        )
    return episodes


def _ids(values: Sequence[int]) -> Ids:
    return np.array(values, dtype=np.int32)


def _turn(obs: Ids, act: Ids, reward: float, logp: float, version: int, fresh: bool) -> Turn:
    recorded: NDArray[np.float32] = np.full(len(act), logp, dtype=np.float32)
    return Turn(obs, act, recorded, reward, version, fresh, Stop.STOP, {"environment": reward})


def _episode(
    turns: Sequence[Turn],
    after: Ids,
    fresh: bool,
    cut: Cut | None,
    group: str,
    seed: int,
    env: str,
    source: Source,
    goal: str | None,
    metrics: Mapping[str, float] | None,
) -> Episode:
    return Episode(
        group, tuple(turns), cut is None, cut is not None, after, fresh and cut is not None, env, world=f"{group}/{seed}",
        source=source, seed=seed, goal=goal, metrics=metrics or {}, cut=cut, detail=f"{env}, seed {seed}" if cut else "",
    )  # fmt: skip
