"""Temptation: for how many turns does the policy wait for a large payment, with a small one in reach?

The policy plays `turnwise.envs.temptation`, whatever world it comes from. A probe begins anew with a payment that so many
waits bring, and a smaller one that ends the episode at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from turnwise.audit.controls import Control, Trial
from turnwise.audit.evidence import Evidence, Level
from turnwise.audit.measure import Measurement, NotMeasurable, Series, share_interval
from turnwise.audit.player import Player, speaker
from turnwise.audit.players import held_out_seeds
from turnwise.audit.quantity import Quantity, Section
from turnwise.envs import temptation
from turnwise.envs.temptation import Temptation
from turnwise.envs.text_env import plain

_NAME = "probes/patience"

DELAYS = tuple(range(1, 21))
"""Turns by which the large payment comes later than the small one."""


def patience(evidence: Evidence) -> Measurement | NotMeasurable:
    """The longest horizon, in turns, over which the policy still waits in at least half of the probes.

    With a delay of d the large payment comes with the (d + 1)-th wait, so only who looks at least d + 1 turns ahead sees it
    (Mischel's delay of gratification, with the delay counted in turns). The figure is the greatest d + 1 with a share of
    waiting of at least one half, or 1 where there is none: always grabbing is a horizon of one turn. Its interval runs from
    the horizon up to which every share's interval lies at or above one half, to the greatest whose share's interval reaches
    one half (Wilson's, one interval for each delay). To wait is to be paid the large payment; a reply that is neither
    waiting nor grabbing waits for nothing. Needs L3.
    """
    if evidence.player is None:
        return NotMeasurable(_NAME, Level.L3, "there is no policy to tempt")
    probes = max(evidence.plays // 8, 4)
    seeds = held_out_seeds(probes, evidence.seed)
    shares, lows, highs = list[float](), list[float](), list[float]()
    understood = replies = 0
    for delay in DELAYS:
        played = evidence.player(partial(Temptation, delay=delay), seeds)
        share = float(np.mean([episode.metrics.get("success", 0.0) for episode in played]))
        low, high = share_interval(share, np.ones(probes))
        shares, lows, highs = [*shares, share], [*lows, low], [*highs, high]
        texts = [plain(text) for episode in played for text in episode.actions]
        replies += len(texts)
        understood += sum(text in temptation.ACTIONS for text in texts)
        if not understood:
            return NotMeasurable(
                _NAME, Level.L3, f"none of the policy's {replies:,} replies is an action of the probes"
            )
    value = _greatest(shares)
    certain = next((d for d, low in zip(DELAYS, lows, strict=True) if low < 0.5), DELAYS[-1] + 1)
    patient_at = [d + 1 for d, share in zip(DELAYS, shares, strict=True) if share >= 0.5]
    gaps = f", not at each up to there ({len(patient_at)} of {value - 1})" if len(patient_at) < value - 1 else ""
    how = (
        f"waits in {shares[0]:.2f} of probes for 2 turns, in {shares[-1]:.2f} for {DELAYS[-1] + 1}; {probes} probes for each of "
        f"{len(DELAYS)} delays{gaps}; {understood / replies:.0%} of its replies were actions; Wilson interval of each share"
    )
    series = Series(
        "share of waiting", tuple(d + 1.0 for d in DELAYS), tuple(shares), tuple(lows), tuple(highs),
        "turns to the large payment", "share of probes",
    )  # fmt: skip
    ends = float(min(certain, value)), float(_greatest(highs))
    return Measurement(_NAME, float(value), ends, probes * len(DELAYS), how, "turns", (series,))


def _greatest(shares: Sequence[float]) -> int:
    """The longest horizon that is waited over in half of the probes."""
    return max((d + 1 for d, share in zip(DELAYS, shares, strict=True) if share >= 0.5), default=1)


def looks_ahead(h: int) -> Player:
    """A player of temptations who sees the payments of its next h turns, and goes for the best of them.

    Args:
        h: Number of turns.
    """
    return speaker(lambda observations, own, seed: "wait" if _needed(observations[-1]) <= h else "grab")


def _needed(observation: str) -> int:
    """The number of waits to the large payment, as the observation says it."""
    return int(observation.rpartition("big in ")[2].split()[0])


def controls() -> list[Control | Trial]:
    """Known answers of `patience`."""
    return [
        Control("always grabs", _of(looks_ahead(1)), 1.0),
        Control("looks 2 turns ahead", _of(looks_ahead(2)), 2.0),
        Control("looks 9 turns ahead", _of(looks_ahead(9)), 9.0),
        Control(
            "looks 9 turns ahead: waits in no probe beyond", _of(looks_ahead(9)), 0.0, figure=lambda m: _after(m, 9)
        ),
        Control("always waits: as long as the probes go", _of(looks_ahead(10**6)), float(DELAYS[-1] + 1)),
        # 10 turns are waited through with probability 0.9 ** 10 = 0.35, 6 with 0.53, 5 with 0.59 and 7 with 0.48.
        Control("waits with probability 0.9 each turn", _of(_wavering(0.9), 400), 6.0, 1.0),
        Control("nobody plays", Evidence(), None),
        Control("says nothing that is an action", _of(speaker(lambda observations, own, seed: "")), None),
    ]


def _after(found: Measurement, h: int) -> float:
    curve = found.series[0]
    return max(y for x, y in zip(curve.x, curve.y, strict=True) if x > h)


def _of(player: Player, plays: int = 32) -> Evidence:
    return Evidence(player=player, plays=plays)


def _wavering(probability: float) -> Player:
    def say(observations: Sequence[str], own: Sequence[str], seed: int) -> str:
        chance = np.random.default_rng([seed, len(own), _needed(observations[-1])]).random()
        return "wait" if chance < probability else "grab"

    return speaker(say)


QUANTITIES = (
    Quantity(
        _NAME,
        "patience",
        "Over how many turns does the policy still wait for a large payment in half of the probes, with a small one in reach?",
        Section.HORIZONS,
        patience,
        controls,
        Level.L3,
    ),
)
"""What this module measures."""
