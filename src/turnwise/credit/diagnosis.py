"""Why a batch teaches nothing, said in words, and how well the critic predicts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from turnwise.credit.baselines import partition
from turnwise.metrics import Metrics


def zero_std(scores: ArrayLike, groups: Sequence[Hashable]) -> NDArray[np.bool_]:
    """Whether an episode's group has no spread: all its scores are equal, or fewer than two exist.

    Such a group has zero group-relative advantage. DAPO's dynamic sampling (arXiv 2503.14476) replaces it.

    Args:
        scores: (n_episodes,), NaN where there is none.
        groups: Group of each episode.

    Returns:
        (n_episodes,) bool.
    """
    values = np.asarray(scores, dtype=np.float64)
    flat = np.zeros(len(values), dtype=bool)
    for members in partition(groups, len(values)):
        scored = values[members][~np.isnan(values[members])]
        flat[members] = len(scored) < 2 or bool((scored == scored[0]).all())
    return flat


def zero_std_metrics(scores: ArrayLike, groups: Sequence[Hashable]) -> Metrics:
    """``frac_reward_zero_std``: share of episodes whose group has no spread in its scores."""
    flat = zero_std(scores, groups)
    return {"frac_reward_zero_std": (float(flat.sum()), float(len(flat)))}


def explained_variance(values: Sequence[ArrayLike], targets: Sequence[ArrayLike]) -> Metrics:
    """``value/explained_variance`` = 1 − Var(target − value) / Var(target), of a whole batch, counted once.

    1 is a perfect critic, 0 one that knows only the mean, below 0 worse than that. Not counted if targets do not vary.
    """
    if not targets:
        return {"value/explained_variance": (0.0, 0.0)}
    value = np.concatenate([np.asarray(v, dtype=np.float64) for v in values])
    target = np.concatenate([np.asarray(t, dtype=np.float64) for t in targets])
    spread = float(target.var()) if len(target) else 0.0
    if spread == 0.0:
        return {"value/explained_variance": (0.0, 0.0)}
    return {"value/explained_variance": (1.0 - float((target - value).var()) / spread, 1.0)}


def why_zero(
    advantages: Sequence[ArrayLike], groups: Sequence[Hashable], scores: ArrayLike, *, tolerance: float = 1e-12
) -> str | None:
    """Why this batch has no policy gradient, with the remedy; None if it has one.

    Args:
        advantages: Per episode, per turn or per token.
        groups: Group of each episode.
        scores: (n_episodes,) return of each trajectory, NaN for those that failed or could not be scored.
        tolerance: An advantage this small in absolute value is zero.
    """
    if any(np.abs(np.asarray(a, dtype=np.float64)).max(initial=0.0) > tolerance for a in advantages):
        return None
    values = np.asarray(scores, dtype=np.float64)
    if len(values) == 0:
        return "the batch holds no episode; collect some before improving"
    scored = ~np.isnan(values)
    if not scored.any():
        return (
            f"none of the {len(values)} episodes has a score: all failed or could not be scored; "
            "look at their `cut` and `detail`"
        )
    sizes = [int(scored[members].sum()) for members in partition(groups, len(values))]
    if max(sizes) < 2:
        return (
            f"no group has two scored episodes ({len(sizes)} groups, {int(scored.sum())} scores), so there is nothing "
            "to compare with; use a group size of at least 2, a batch baseline or a critic"
        )
    seen = values[scored]
    if (seen == seen[0]).all():
        return (
            f"all {len(seen)} scores are {seen[0]:g}: the policy always or never succeeds; change the difficulty of the "
            "tasks, start from demonstrations, sample more episodes per task or pay for progress"
        )
    if zero_std(values, groups).all():
        return (
            f"within each of the {len(sizes)} groups all scores are equal, although they differ between groups: every "
            "task is always or never solved; use larger groups, a higher temperature, a batch baseline or a critic"
        )
    return (
        "every advantage is zero although scores differ within a group; the discount or the credit function "
        "removes what distinguishes the episodes"
    )
