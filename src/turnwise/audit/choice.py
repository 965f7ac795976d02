"""How well a planner explains choices, when it acts at random in a share ε of them.

The choice model is ``P(a | s, t) = (1 - ε) g(a | s, t) + ε / A`` with g the planner's policy, uniform over its best actions.
It is not a softmax of the values: someone who errs once in a while, however dearly, would pass there for indifferent to all
values (the maximum-entropy model of MacDermott et al. 2024, "Measuring goal-directedness", misleads so).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""Any float64 array."""

_EPSILONS: Array = np.sin(np.pi * np.arange(65) / 128) ** 2
"""The ε that evidence is averaged over: quantiles of the arcsine law, Jeffreys' prior of a share, both ends included."""


@dataclass(frozen=True)
class Explained:
    """How well each of M planners explains choices; everything may have a leading axis of separate sets of choices.

    Attributes:
        epsilon: (..., M) ε of greatest likelihood.
        fit: (..., M) log-likelihood of the choices at that ε, nats.
        evidence: (..., M) log-likelihood of the likelihood's average over a prior of ε, nats.
        uniform: (...) log-likelihood under uniform actions, nats.
        bits: (..., M) bits per action by which a planner explains the choices better than uniform actions, `evidence` less
            `uniform`. Unlike the fit at the best ε, random actions gain nothing from it on average.
    """

    epsilon: Array
    fit: Array
    evidence: Array
    uniform: Array
    bits: Array


def explain(chances: Array, n_actions: int, groups: NDArray[np.int64] | None = None) -> Explained:
    """Fit ε for each planner by maximum likelihood.

    The log-likelihood is concave in ε, and its maximum is found by bisection of the derivative.

    Args:
        chances: (M, N) probability that planner m gave to choice n, before any ε.
        n_actions: A.
        groups: (N,) which of the separate sets, from 0, each choice belongs to; one set by default.
    """
    values, where = np.unique(chances, return_inverse=True)
    m, v = len(chances), len(values)
    sets = np.zeros(chances.shape[1], np.int64) if groups is None else groups
    n_sets = int(sets.max()) + 1
    cells = (sets * m + np.arange(m)[:, None]) * v + where.reshape(chances.shape)
    counts = np.bincount(cells.reshape(-1), minlength=n_sets * m * v).reshape(n_sets, m, v).astype(np.float64)
    epsilon = _best_epsilon(values, counts, n_actions)
    fit = likelihood(epsilon, values, counts, n_actions)
    over = np.stack([likelihood(np.array(e), values, counts, n_actions) for e in _EPSILONS], axis=-1)
    top = over.max(-1)
    evidence = top + np.log(np.exp(over - top[..., None]).mean(-1))
    total = counts[:, 0].sum(-1)
    uniform = -total * np.log(n_actions)
    bits = (evidence - uniform[:, None]) / (np.maximum(total, 1.0)[:, None] * np.log(2.0))
    parts = (epsilon, fit, evidence, uniform, bits)
    return Explained(*(part[0] if groups is None else part for part in parts))


def identified(explained: Explained, level: float = 0.95) -> NDArray[np.bool_]:
    """(..., M) which planners may have made the choices: a confidence set that holds for any number of choices.

    Planner m is in the set where ``log mean_m' E_m' - fit_m <= log 1/(1 - level)``, E being the likelihood averaged over ε.
    If m at some ε made the choices, the ratio inside is at most ``mean_m' E_m' / L_m(ε)``, whose expected value is 1, since
    numerator and denominator are both probabilities of the choices given the states (what the world did cancels). By
    Markov's inequality it exceeds 1/(1 - level) with probability at most 1 - level (Robbins 1970; universal inference,
    Wasserman, Ramdas and Balakrishnan 2020). Nothing has to be large, regular or independent for this. The set is never
    empty.

    Args:
        explained: See `explain`.
        level: Probability that the set holds the truth, if that is among the planners.
    """
    top = explained.evidence.max(-1, keepdims=True)
    mixed = top + np.log(np.exp(explained.evidence - top).mean(-1, keepdims=True))
    return mixed - explained.fit <= -np.log(1.0 - level)


def likelihood_ends(chances: Array, n_actions: int, drop: float = 1.920729) -> tuple[float, float]:
    """The least and the greatest ε whose log-likelihood is within `drop` of the greatest one.

    Half the 95 % quantile of χ² with one degree of freedom is 1.92 (Wilks 1938): the interval holds the true ε in about 95 of
    100 cases where there are many choices.

    Args:
        chances: (N,) probability that the planner gave to each choice, before any ε.
        n_actions: A.
        drop: In nats.
    """
    values, counts = np.unique(chances, return_counts=True)
    best = explain(chances[None], n_actions)
    over = np.unique(np.concatenate([np.linspace(0.0, 1.0, 2001), np.geomspace(1e-9, 0.1, 400), best.epsilon]))
    found = likelihood(over, values, np.tile(counts.astype(np.float64), (len(over), 1)), n_actions)
    top = float(best.fit[0])
    near = over[found >= top - drop - 1e-9 * abs(top)]
    return float(near[0]), float(near[-1])


def likelihood(epsilon: Array, chances: Array, counts: Array, n_actions: int) -> Array:
    """Log-likelihood of choices under the choice model, nats: ``sum_v n_v log((1 - ε) v + ε / A)``.

    Args:
        epsilon: (...) ε.
        chances: (V,) different probabilities that a planner gave to choices.
        counts: (..., V) how often it gave each.
        n_actions: A.
    """
    inside = (1.0 - epsilon[..., None]) * chances + epsilon[..., None] / n_actions
    with np.errstate(divide="ignore"):
        # A choice that never occurred costs nothing, however impossible.
        logs = np.where(counts > 0, np.log(inside), 0.0)
    return (counts * logs).sum(-1)


def _best_epsilon(chances: Array, counts: Array, n_actions: int) -> Array:
    """Where the derivative, which falls with ε, crosses zero; an end where it does not."""

    def slope(epsilon: Array) -> Array:
        inside = (1.0 - epsilon[..., None]) * chances + epsilon[..., None] / n_actions
        return (counts * (1.0 / n_actions - chances) / np.maximum(inside, 1e-300)).sum(-1)

    low, high = np.zeros(counts.shape[:-1]), np.ones(counts.shape[:-1])
    at_zero, at_one = slope(low) <= 0, slope(high) >= 0
    for _ in range(50):
        middle = (low + high) / 2
        rising = slope(middle) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    # Where every action is equal to the planner, chance explains as much.
    return np.where(at_one, 1.0, np.where(at_zero, 0.0, (low + high) / 2))
