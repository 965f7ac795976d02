"""How much a score can be trusted: against preferences, against labels, and against the length of what it scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
"""float64 array."""

BINS = 10
"""Bins of the calibration error."""


@dataclass(frozen=True)
class Calibration:
    """What a reward model's scores say about preference pairs, and what length alone would say.

    Attributes:
        pairs: Number of pairs N.
        accuracy: Share of pairs in which the chosen side has the higher score; equal scores count one half.
        error: Expected calibration error of the probabilities that the scores stand for, see `calibration_error`.
        margin: Mean of s⁺ − s⁻.
        chosen_mean: Mean score of the chosen sides.
        chosen_std: Its standard deviation over pairs.
        rejected_mean: Mean score of the rejected sides.
        rejected_std: Its standard deviation over pairs.
        length_correlation: Pearson's correlation of score and number of action tokens over all 2 N sides; NaN where
            either is constant.
        longer_is_chosen: Share of pairs whose longer side is the chosen one, equal lengths counting one half: the accuracy
            of a judge that knows nothing but length. One that prefers the shorter side has 1 minus this.
    """

    pairs: int
    accuracy: float
    error: float
    margin: float
    chosen_mean: float
    chosen_std: float
    rejected_mean: float
    rejected_std: float
    length_correlation: float
    longer_is_chosen: float


def calibration(
    chosen: ArrayLike, rejected: ArrayLike, chosen_length: ArrayLike, rejected_length: ArrayLike
) -> Calibration:
    """Compare scores with preferences.

    Args:
        chosen: (N,) scores of the chosen sides.
        rejected: (N,) scores of the rejected sides.
        chosen_length: (N,) action tokens of the chosen sides.
        rejected_length: (N,) action tokens of the rejected sides.

    Raises:
        ValueError: no pairs, or arrays of different lengths.
    """
    sides = [np.asarray(x, dtype=np.float64) for x in (chosen, rejected, chosen_length, rejected_length)]
    if len({x.shape for x in sides}) != 1 or sides[0].ndim != 1 or not len(sides[0]):
        raise ValueError(
            f"scores and lengths have shapes {[x.shape for x in sides]}; give one of each per pair, and a pair"
        )
    better, worse, longer, shorter = sides
    correct = won(better, worse)
    return Calibration(
        pairs=len(better),
        accuracy=float(correct.mean()),
        error=calibration_error(_sigmoid(np.abs(better - worse)), correct),
        margin=float((better - worse).mean()),
        chosen_mean=float(better.mean()),
        chosen_std=float(better.std()),
        rejected_mean=float(worse.mean()),
        rejected_std=float(worse.std()),
        length_correlation=correlation(np.concatenate([better, worse]), np.concatenate([longer, shorter])),
        longer_is_chosen=float(won(longer, shorter).mean()),
    )


def won(first: ArrayLike, second: ArrayLike) -> Floats:
    """1 where `first` is larger, 0 where `second` is, one half where they are equal."""
    return (np.sign(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)) + 1) / 2


def calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error of two-way choices: Σ_b n_b/N · |mean correct in b − mean confidence in b|.

    Guo et al. 2017, arXiv 1706.04599, eq. 3, with bins of equal width over [½, 1]. For a pair the confidence is σ(|s⁺ − s⁻|), the
    probability that Bradley and Terry's model gives to the side it prefers, and the choice is correct if that is the
    chosen one.

    Args:
        confidence: (N,) probability of what was chosen, at least one half.
        correct: (N,) 1 where the choice was right, 0 where not.
        bins: Number of bins.
    """
    p, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    index = np.clip(((p - 0.5) * 2 * bins).astype(np.int64), 0, bins - 1)
    gap = np.bincount(index, weights=right - p, minlength=bins)
    return float(np.abs(gap).sum() / len(p)) if len(p) else float("nan")


def correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation; NaN where either is constant."""
    a, b = (np.asarray(v, dtype=np.float64) - np.mean(np.asarray(v, dtype=np.float64)) for v in (x, y))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-12 * max(1.0, float(len(a))) else float("nan")


def area_under_curve(score: ArrayLike, label: ArrayLike) -> float:
    """Chance that a positive has a higher score than a negative, ties counting one half: the area under the ROC curve.

    Args:
        score: (N,).
        label: (N,) positive above one half.

    Returns:
        NaN where one kind is missing.
    """
    s, positive = np.asarray(score, dtype=np.float64), np.asarray(label, dtype=np.float64) > 0.5
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    _, inverse, counts = np.unique(s, return_inverse=True, return_counts=True)
    # The mean rank of equal scores, from 1 (Mann and Whitney 1947).
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def _sigmoid(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))
