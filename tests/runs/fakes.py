"""Episodes built by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from turnwise.episode import Cut, Episode, Stop, Turn


def turn(
    reward: float = 0.0,
    *,
    act: Sequence[int] = (1, 2),
    obs: Sequence[int] = (3,),
    stop: Stop = Stop.STOP,
    fresh: bool = False,
) -> Turn:
    return Turn(
        obs=np.array(obs, np.int32),
        act=np.array(act, np.int32),
        logp=np.full(len(act), -0.5, np.float32),
        reward=reward,
        rewards={"env": reward},
        stop=stop,
        fresh=fresh,
    )


def episode(
    *turns: Turn,
    group: str = "g",
    seed: int = 0,
    cut: Cut | None = None,
    metrics: Mapping[str, float] | None = None,
    detail: str = "",
) -> Episode:
    return Episode(
        group=group,
        turns=tuple(turns),
        terminated=cut is None,
        truncated=cut is not None,
        last_obs=np.zeros(0, np.int32) if cut is None else np.array([7, 8], np.int32),
        env="fake",
        seed=seed,
        metrics=metrics or {},
        cut=cut,
        detail=detail,
    )
