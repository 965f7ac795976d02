"""What was to be expected: baselines made of other rollouts instead of a critic.

A baseline leaves the expected gradient alone as long as it does not depend on the action it is subtracted from.
Other rollouts' returns satisfy that exactly; means that contain the rollout itself only up to a factor or a term of
order 1/n. Values that are NaN could not be scored: they enter no statistic and get advantage 0.

What this file leaves out: centring each turn index over the rollouts alive there *before* summing over time. It removes
the reward for being alive at all (the reason why the turn exists) and its gradient can point the wrong way;
``tests/credit/test_exact_gradient.py`` holds the counterexamples.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from turnwise.credit.returns import Floats, arrays


def leave_one_out_alive(returns: Sequence[ArrayLike | None], groups: Sequence[Hashable]) -> list[Floats]:
    """Return-to-go minus the mean of the *other* rollouts of the group that are still alive at that turn.

    A_{i,t} = G_{i,t} − mean_{j ≠ i, n_j > t} G_{j,t}. The baseline depends on other rollouts only, so the policy gradient
    is unbiased whatever the episode lengths; at one turn it is `leave_one_out` bit for bit.

    A rollout that outlives all others is compared at the last turn that any other one reached. That baseline still
    depends on other rollouts only; 0 would be unbiased as well, but has more variance and makes the result depend on
    where the zero of the reward lies; advantage 0 would fade the gradient of late turns.

    Args:
        returns: Per episode (n_turns,), or None for an episode that failed. NaN entries were not scorable.
        groups: Group of each episode: the task instance it started from.

    Returns:
        Per episode (n_turns,) float64; empty where `returns` is None. Zero for a NaN entry, and where nobody else of
        the group was scored at that turn or before: a group of one trains nothing.

    Raises:
        ValueError: not one group per episode, or an infinite return.
    """
    episodes = _known("returns", returns)
    advantages = [np.zeros(len(r)) for r in episodes]
    for members in partition(groups, len(episodes)):
        table = np.full((len(members), max(episodes[i].size for i in members)), np.nan)
        for row, i in enumerate(members):
            table[row, : len(episodes[i])] = episodes[i]
        scored = ~np.isnan(table)
        centred, others = _leave_one_out(table)
        for row, i in enumerate(members):
            reached = np.where(others[row] > 0, np.arange(table.shape[1]), -1)
            reached = np.maximum.accumulate(reached) if len(reached) else reached
            for t in np.flatnonzero(scored[row]):
                if others[row, t] > 0:
                    advantages[i][t] = centred[row, t]
                elif reached[t] >= 0:
                    past = np.delete(table[:, reached[t]], row)
                    advantages[i][t] = table[row, t] - past[~np.isnan(past)].mean()
    return advantages


def leave_one_out(scores: ArrayLike, groups: Sequence[Hashable]) -> Floats:
    """Score minus the mean score of the other rollouts of the group (RLOO; Kool et al. 2019, arXiv 2402.14740).

    Args:
        scores: (n_episodes,), one number per trajectory, NaN where there is none.
        groups: Group of each episode.

    Returns:
        (n_episodes,) float64; 0 for a NaN score and where no other score of the group exists.
    """
    values, members_of = _scores(scores, groups)
    result = np.zeros(len(values))
    for members in members_of:
        centred, _ = _leave_one_out(values[members][:, None])
        result[members] = centred[:, 0]
    return result


def group_relative(
    scores: ArrayLike,
    groups: Sequence[Hashable],
    *,
    normalise: bool = True,
    spread: Literal["group", "batch"] = "group",
    epsilon: float = 1e-4,
) -> Floats:
    """Score minus the group's mean, over its standard deviation (GRPO, arXiv 2402.03300, eq. for outcome supervision).

    A_i = (R_i − mean) / (std + ε), with Bessel's correction in std. Without `normalise` (Dr.GRPO, arXiv 2503.20783) the
    expected gradient is the exact one times 1 − 1/n, because the mean contains the rollout itself. Dividing by std
    weighs a task up the more its rollouts agree; the deviation of all scores of the batch (arXiv 2508.08221) does not.

    Args:
        scores: (n_episodes,), one number per trajectory, whatever its number of turns; NaN where there is none.
        groups: Group of each episode.
        normalise: Divide by the standard deviation.
        spread: Whose standard deviation: that of the group, or of all scores.
        epsilon: Added to the standard deviation.

    Returns:
        (n_episodes,) float64; 0 for a NaN score and in groups with fewer than two scores.
    """
    values, members_of = _scores(scores, groups)
    result = np.zeros(len(values))
    known = values[~np.isnan(values)]
    overall = float((known - known.min()).std(ddof=1)) if len(known) > 1 else 0.0
    for members in members_of:
        scored = [i for i in members if not np.isnan(values[i])]
        if len(scored) < 2:
            continue
        shifted = values[scored] - values[scored].min()
        centred = shifted - shifted.mean()
        scale = shifted.std(ddof=1) if spread == "group" else overall
        result[scored] = centred / (scale + epsilon) if normalise else centred
    return result


def batch_baseline(returns: Sequence[ArrayLike | None]) -> list[Floats]:
    """Return-to-go minus the mean over all turns of all *other* episodes of the batch; needs no groups.

    A_{i,t} = G_{i,t} − Σ_{j≠i} Σ_s G_{j,s} / Σ_{j≠i} n_j. Leaving the own episode out makes it unbiased; `whiten` has the
    published form of return batch normalisation, which keeps it in.

    Args:
        returns: Per episode (n_turns,), or None for an episode that failed. NaN entries were not scorable.

    Returns:
        Per episode (n_turns,) float64; empty where `returns` is None, 0 for NaN, all 0 if no other episode was scored.
    """
    episodes = _known("returns", returns)
    scored = [~np.isnan(r) for r in episodes]
    lowest = min((float(r[ok].min()) for r, ok in zip(episodes, scored, strict=True) if ok.any()), default=0.0)
    shifted = [r - lowest for r in episodes]
    sums = np.array([r[ok].sum() for r, ok in zip(shifted, scored, strict=True)])
    counts = np.array([ok.sum() for ok in scored])
    advantages: list[Floats] = []
    for i, (r, ok) in enumerate(zip(shifted, scored, strict=True)):
        n = int(counts.sum() - counts[i])
        mean = float(np.delete(sums, i).sum()) / n if n else 0.0
        advantages.append(np.where(ok, r - mean, 0.0) if n else np.zeros(len(r)))
    return advantages


def whiten(values: Sequence[ArrayLike | None], *, epsilon: float = 1e-8) -> list[Floats]:
    """Values minus their mean over the batch, over their standard deviation, every entry counting once.

    Over returns this is return batch normalisation (ReBN, GEM, arXiv 2510.01051) and REINFORCE++ (arXiv 2501.03262);
    over GAE advantages it is PPO's advantage normalisation. Mean and deviation contain the entry itself: a bias of
    order 1/n that a batch of hundreds of turns does not notice.

    Args:
        values: Per episode (n,), per turn or per token; None for an episode that failed, NaN where not scorable.
        epsilon: Added to the standard deviation (Bessel-corrected).

    Returns:
        Per episode (n,) float64; empty where None, 0 for NaN, all 0 with fewer than two entries.
    """
    episodes = _known("values", values)
    flat = np.concatenate(episodes) if episodes else np.zeros(0)
    flat = flat[~np.isnan(flat)]
    if len(flat) < 2:
        return [np.zeros(len(v)) for v in episodes]
    lowest = flat.min()
    shifted = flat - lowest
    mean, scale = shifted.mean(), shifted.std(ddof=1) + epsilon
    return [np.where(np.isnan(v), 0.0, (v - lowest - mean) / scale) for v in episodes]


def whiten_rewards(rewards: Sequence[ArrayLike], *, epsilon: float = 1e-8) -> list[Floats]:
    """Rewards with unit standard deviation around the mean that they had, every entry of the batch counting once.

    r' = (r − mean) / std + mean (Ziegler et al. 2019, arXiv 1909.08593, whose code whitens without shifting the mean). The mean
    stays because moving it would pay or fine every step, and so the length of an episode.

    Args:
        rewards: Per episode (n,), per turn or per token; NaN where not scorable.
        epsilon: Added to the standard deviation (Bessel-corrected).

    Returns:
        Per episode (n,) float64; NaN stays NaN, and fewer than two or all equal entries stay as they are.
    """
    given = arrays("rewards", rewards)
    flat = np.concatenate(given) if given else np.zeros(0)
    flat = flat[~np.isnan(flat)]
    if len(flat) < 2 or (flat == flat[0]).all():
        return given
    mean, scale = flat.mean(), flat.std(ddof=1) + epsilon
    return [(r - mean) / scale + mean for r in given]


def unit_scale(values: Sequence[ArrayLike | None], *, epsilon: float = 1e-8) -> list[Floats]:
    """Values over their root mean square, every entry counting once.

    For advantages that have a baseline already: dividing by one number keeps the direction of an unbiased gradient, which
    centring a second time (`whiten`) would not.

    Args:
        values: Per episode (n,); None for an episode that failed, NaN where not scorable.
        epsilon: Added to the root mean square.

    Returns:
        Per episode (n,) float64; empty where None, 0 for NaN.
    """
    episodes = _known("values", values)
    flat = np.concatenate(episodes) if episodes else np.zeros(0)
    flat = flat[~np.isnan(flat)]
    scale = float(np.sqrt(np.mean(flat**2))) + epsilon if len(flat) else 1.0
    return [np.nan_to_num(v / scale, nan=0.0) for v in episodes]


def partition(groups: Sequence[Hashable], n_episodes: int) -> list[list[int]]:
    """Indices of the episodes of each group, in order of first appearance."""
    if len(groups) != n_episodes:
        raise ValueError(f"{len(groups)} groups for {n_episodes} episodes; give the group of each episode")
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    return list(members.values())


def _known(name: str, values: Sequence[ArrayLike | None]) -> list[Floats]:
    """The arrays, with an empty one for each failed episode."""
    return arrays(name, [np.zeros(0) if value is None else value for value in values])


def _scores(scores: ArrayLike, groups: Sequence[Hashable]) -> tuple[Floats, list[list[int]]]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores have shape {values.shape}; give one number per trajectory")
    arrays("scores", [values])
    return values, partition(groups, len(values))


def _leave_one_out(table: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Column by column, x minus the mean of the other scored entries, and how many those are.

    0 for an entry that is not scored (NaN) or alone.
    Values are shifted by the smallest of their column first: the result does not change, and equal values give exactly 0.
    """
    scored = ~np.isnan(table)
    lowest = np.where(scored, table, np.inf).min(axis=0, initial=np.inf)
    shifted = np.where(scored, table - np.where(np.isfinite(lowest), lowest, 0.0), 0.0)
    others = scored.sum(axis=0) - scored
    mean = (shifted.sum(axis=0) - shifted) / np.maximum(others, 1)
    return np.where(scored & (others > 0), shifted - mean, 0.0), others


__all__ = [
    "batch_baseline",
    "group_relative",
    "leave_one_out",
    "leave_one_out_alive",
    "partition",
    "whiten",
    "whiten_rewards",
]
