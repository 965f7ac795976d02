"""E9: a frozen judge is over-optimised, a refreshed one is not. Gold against the judge's own score, over optimisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from turnwise.envs.exact import Array
from turnwise.recipes.claims.claim import Chart, Claim, Comparison, Curve, Outcome
from turnwise.recipes.claims.tabular import softmax
from turnwise.recipes.parallel import Job

REPLIES, FEATURES = 4000, 4
"""Replies there are, and what can be seen of each."""
LABELS, ROUNDS = 2000, 100
"""Gold labels in all, and rounds of optimisation."""
NOISE = 0.5
"""Standard deviation of the error of a label."""
STEP = 0.1
"""What a round adds to the log-probabilities, for each unit of the judge's score."""
OWN_ERROR = 0.3
"""Standard deviation of the error of each weight of the own judge; the true ones have length 1."""
STATIC, REFRESHED, OWN = "frozen judge", "refreshed judge", "own frozen judge"
"""Names of judges."""
CAPABLE = "frozen judge that sees lengths"
"""One that can express the gold."""


@dataclass(frozen=True)
class Replies:
    """A world of one turn.

    Attributes:
        features: (K, d) what a judge sees of each reply.
        slope: (d,) what a feature adds to the worth of an ordinary reply.
        gold: (K,) the true worth.
        start: (K,) log-probabilities of the start policy.
    """

    features: Array
    slope: Array
    gold: Array
    start: Array


def draw(rng: Generator) -> Replies:
    """Replies whose worth rises along a direction and falls again: ``gold = w·x − |x|² / 8`` with |w| = 1.

    The start policy says replies near x = 0, where the worth looks linear; the best is at x = 4 w, which it hardly ever says.
    """
    features = rng.normal(0.0, 2.5, (REPLIES, FEATURES))
    slope = rng.normal(size=FEATURES)
    slope /= np.linalg.norm(slope)
    square = (features**2).sum(-1)
    return Replies(features, slope, features @ slope - square / 8.0, np.log(softmax(-0.5 * square)))


def fit(world: Replies, policy: Array, labels: int, rng: Generator, *, lengths: bool = False) -> Array:
    """(K,) scores of a judge that is linear in the features, by least squares on noisy gold labels of a policy's replies.

    Args:
        world: The replies.
        policy: (K,) who says the replies that are labelled.
        labels: How many.
        rng: What chance is drawn from.
        lengths: The judge sees |x|² as well, and so can tell what the worth really is.
    """
    seen = world.features
    if lengths:
        seen = np.column_stack([seen, (seen**2).sum(-1)])
    said = rng.choice(len(policy), labels, p=policy)
    score = world.gold[said] + rng.normal(0.0, NOISE, labels)
    design = np.column_stack([seen[said], np.ones(labels)])
    return seen @ np.linalg.lstsq(design, score, rcond=None)[0][:-1]


def optimise(world: Replies, judged: Callable[[Array], Array]) -> tuple[list[float], list[float]]:
    """Gold and divergence from the start policy, in nats, before and after each round of exact mirror ascent.

    A round solves one step of KL-regularised optimisation, π' ∝ π exp(STEP · score).

    Args:
        world: The replies.
        judged: The policy -> (K,) scores of this round.
    """
    logits = world.start
    gold: list[float] = []
    moved: list[float] = []
    for i in range(ROUNDS + 1):
        policy = softmax(logits)
        gold.append(float(policy @ world.gold))
        moved.append(float(policy @ (np.log(np.maximum(policy, 1e-300)) - world.start)))
        if i < ROUNDS:
            logits = logits + STEP * judged(policy)
    return gold, moved


def judges(world: Replies, rng: Generator) -> Mapping[str, Callable[[Array], Array]]:
    """Name -> what scores a round. All fitted judges get equally many labels in all."""
    start = softmax(world.start)
    frozen = fit(world, start, LABELS, rng)
    capable = fit(world, start, LABELS, rng, lengths=True)
    own = world.features @ (world.slope + rng.normal(0.0, OWN_ERROR, FEATURES))
    return {
        STATIC: lambda policy: frozen,
        REFRESHED: lambda policy: fit(world, policy, LABELS // ROUNDS, rng),
        OWN: lambda policy: own,
        CAPABLE: lambda policy: capable,
    }


def work(seed: int, tick: Callable[[], None]) -> Outcome:
    """Gold over optimisation for each judge."""
    rng = np.random.default_rng(seed)
    world = draw(rng)
    figures = {"gold, start": float(softmax(world.start) @ world.gold), "gold, best reply": float(world.gold.max())}
    curves: list[Curve] = []
    for name, judged in judges(world, rng).items():
        gold, moved = optimise(world, judged)
        figures |= {
            f"gold, {name}, end": gold[-1],
            f"gold, {name}, best round": max(gold),
            f"nats from the start, {name}": moved[-1],
        }
        curves.append(Curve("gold", name, tuple(map(float, range(ROUNDS + 1))), tuple(gold), "round"))
    tick()
    return Outcome(figures, tuple(curves))


def jobs(seed: int, quick: bool, out: Path) -> list[Job]:
    """One job, short enough to be the same in the quick form."""
    return [Job("judges", work, {"seed": seed}, 1)]


_END, _BEST = "gold, {}, end", "gold, {}, best round"
_FROZEN = (STATIC, OWN, CAPABLE)
CLAIM = Claim(
    key="E9",
    title="a frozen judge is over-optimised",
    statement=(
        "RLHF optimises a reward model that stands still, so that optimising it hard makes the policy worse in truth, and so does "
        "one's own frozen judgement; a judge that is refreshed on what the policy says now does not fail so. Said of static "
        "reward models."
    ),
    expected=(
        "It holds of judges that cannot tell what replies are worth beyond those that they learnt from: gold rises, and falls again "
        "with more optimisation, and stays up under a refreshed judge at equal labels. It does not hold of standing still as such: a "
        "frozen judge of the right form is not over-optimised, so the claim is false as stated."
    ),
    learner="exact tabular",
    claimed=(
        *(Comparison(_END.format(name), "below", _BEST.format(name), 0.2) for name in _FROZEN),
        *(Comparison(_END.format(name), "below", _END.format(REFRESHED), 0.2) for name in _FROZEN),
        Comparison(_END.format(REFRESHED), "within", _BEST.format(REFRESHED), 0.2),
    ),
    found=(
        *(Comparison(_BEST.format(name), "above", "gold, start", 0.2) for name in _FROZEN),
        Comparison(_END.format(CAPABLE), "within", _BEST.format(CAPABLE), 0.05),
    ),
    how=(
        f"One turn, {REPLIES:,} replies with {FEATURES} features. Gold rises along a direction that the seed draws and falls again further "
        "out, where the start policy hardly ever is. A judge is linear in the features. Frozen: fitted once to "
        f"{LABELS:,} noisy gold labels of the start policy's replies. Refreshed: fitted anew in each of {ROUNDS} rounds to {LABELS // ROUNDS} "
        "labels of what the policy says then. Own: the true slope with an error of its own, no labels, never changed. The one that "
        "sees lengths is frozen too, but can express the gold. The policy is optimised exactly, by equal steps of KL-regularised "
        "ascent; gold is its exact expectation."
    ),
    jobs=jobs,
    charts=(
        Chart(
            "gold",
            (
                "gold, start",
                *(template.format(name) for name in (*_FROZEN, REFRESHED) for template in (_BEST, _END)),
            ),
            "gold, best reply",
        ),
    ),
    seeds=8,
)
"""E9."""
