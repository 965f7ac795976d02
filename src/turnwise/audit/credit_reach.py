"""Credit: how far back a reward reaches, whether it reaches actions that came later, and whether turns are told apart.

A logged reward is raised and the actual advantage code runs again (`turnwise.audit.credit_bump`). C(k) is what the action
k turns before the paid one gains, over the largest gain in the episode: γ^k for REINFORCE, (γλ)^k for GAE, 1 wherever one
number goes to all turns. Negative k are actions that came after the reward.

What this file leaves out: how the gradient weighs tokens, and whether an advantage is right.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.controls import Control, Trial, planted
from turnwise.audit.credit_bump import Floats, advantages_by, by_turn, responses
from turnwise.audit.evidence import Advantages, Evidence, Iteration, Level
from turnwise.audit.measure import Measurement, NotMeasurable, Series, ratio_interval
from turnwise.audit.quantity import Quantity, Section
from turnwise.audit.rerun import NoCreditError
from turnwise.credit import (
    broadcast,
    gae_tokens,
    gae_turns,
    group_relative,
    leave_one_out_alive,
    place_at_end,
    returns,
    uniform,
    unit_scale,
    whiten,
)
from turnwise.episode import Episode

_REACH = "credit/reach"
_TOKENS = "credit/reach_tokens"
_ACAUSAL = "credit/acausal_share"
_WITHIN = "credit/within_episode"

_CURVE = 128
"""Points of a curve over tokens at most."""


def reach(evidence: Evidence) -> Measurement | NotMeasurable:
    """How many earlier turns a reward at the end of an episode reaches, each counted by its share. Needs L1 and the code.

    Mean over episodes of Σ_{k ≥ 1} |C(k)|: with T turns γ + … + γ^(T−1) for discounted returns, 0 at γ = 0 and for one
    turn, T − 1 where all turns get the same.
    """
    found = responses(_REACH, evidence)
    if isinstance(found, NotMeasurable):
        return found
    ends = [one for one in found.moved if one.at_end]
    if not ends:
        return NotMeasurable(_REACH, Level.L1, "no reward of a last turn moved an advantage")
    counts = [float(_weights(one.turns)[: one.turn].sum()) for one in ends]
    curve = _curve([(one.turn - np.arange(len(one.turns)), one.turns) for one in found.moved], "turns")
    return _mean(_REACH, counts, math.inf, found.how, "turns", (curve,))


def reach_tokens(evidence: Evidence) -> Measurement | NotMeasurable:
    """How many earlier action tokens a reward at the end of an episode reaches, counted likewise. Needs L1 and the code.

    The reward arrives with the last token of its action, so tokens of that action count where they get a part. A record
    that counts words answers in words.
    """
    found = responses(_TOKENS, evidence)
    if isinstance(found, NotMeasurable):
        return found
    ends = [one for one in found.moved if one.at_end]
    if not ends:
        return NotMeasurable(_TOKENS, Level.L1, "no reward of a last turn moved an advantage")
    counts = [float(_weights(one.tokens)[:-1].sum()) for one in ends]
    lags = [(len(one.tokens) - 1 - np.arange(len(one.tokens)), one.tokens) for one in ends]
    curve = _curve(lags, evidence.unit)
    return _mean(_TOKENS, counts, math.inf, found.how, evidence.unit, (curve,))


def acausal_share(evidence: Evidence) -> Measurement | NotMeasurable:
    """Share of a reward's effect that goes to actions taken after it, for a reward half-way. Needs L1 and the code.

    Mean over episodes of Σ_{k < 0} |C(k)| / Σ |C(k)| where turn ⌊(T − 1)/2⌋ of T is paid. 0 for every return-to-go;
    (T − 1 − ⌊(T − 1)/2⌋)/T where all turns get the same. No harm is done where the only reward comes at the end.
    """
    found = responses(_ACAUSAL, evidence, least=2)
    if isinstance(found, NotMeasurable):
        return found
    half = [one for one in found.moved if not one.at_end]
    if not half:
        return NotMeasurable(_ACAUSAL, Level.L1, "no reward of an earlier turn moved an advantage")
    shares = [float((weights := _weights(one.turns))[one.turn + 1 :].sum() / weights.sum()) for one in half]
    return _mean(_ACAUSAL, shares, 1.0, found.how, "share")


def within_episode(evidence: Evidence) -> Measurement | NotMeasurable:
    """Share of the variance of advantages over turns that lies within episodes, η. Needs L1.

    Σ_e Σ_t (A_{e,t} − Ā_e)² / Σ_e Σ_t (A_{e,t} − Ā)² with Ā the mean of the update, over all updates. 0 where one number
    goes to all turns of an episode. Advantages are those recorded, or what the code makes of the episodes.
    """
    found = _given(evidence)
    if isinstance(found, NotMeasurable):
        return found
    updates, where = found
    own: list[float] = []
    whole: list[float] = []
    for episodes in updates:
        mean = float(np.concatenate(episodes).mean())
        own += [float(((one - one.mean()) ** 2).sum()) for one in episodes]
        whole += [float(((one - mean) ** 2).sum()) for one in episodes]
    if max(len(one) for episodes in updates for one in episodes) < 2:
        return NotMeasurable(_WITHIN, Level.L1, "no episode has a second turn")
    if sum(whole) <= 1e-20 * sum(float((one**2).sum()) for episodes in updates for one in episodes):
        return NotMeasurable(_WITHIN, Level.L1, "all advantages are equal, so there is no variance to share out")
    value = float(np.sum(own)) / float(np.sum(whole))
    low, high = ratio_interval(own, whole)
    turns = sum(len(one) for episodes in updates for one in episodes)
    how = f"{where} of {turns:,} turns in {len(updates)} update{'s' * (len(updates) > 1)}; linearised ratio"
    return Measurement(_WITHIN, value, (min(max(low, 0.0), value), max(min(high, 1.0), value)), len(own), how, "share")


def _given(evidence: Evidence) -> tuple[list[list[Floats]], str] | NotMeasurable:
    """By update the advantages (n_turns,) of each episode that has some, and where they are from."""
    updates: list[list[Floats]] = []
    told = [one for one in evidence.iterations if one.advantages and len(one.advantages) == len(one.episodes)]
    if told:
        for iteration in told:
            pairs = zip(iteration.episodes, iteration.advantages, strict=True)
            able = [np.asarray(values) for one, values in pairs if one.turns and not one.failed and len(values)]
            updates.append([values for values in able if np.isfinite(values).all()])
        where = "recorded advantages"
    else:
        if evidence.advantages is None:
            return NotMeasurable(
                _WITHIN, Level.L1, "no advantages were recorded, and the code that makes them is not known"
            )
        trained = [iteration.trained for iteration in evidence.iterations if iteration.trained]
        refusal = ""
        for episodes in trained:
            try:
                found = advantages_by(evidence.advantages, episodes)
            except NoCreditError as error:
                refusal = str(error)
                continue
            turns = [by_turn(values, one.act_lengths) for one, values in zip(episodes, found, strict=True)]
            updates.append([values for values in turns if np.isfinite(values).all()])
        if refusal and not updates:
            return NotMeasurable(_WITHIN, Level.L1, refusal)
        where = "advantages made again"
    updates = [episodes for episodes in updates if episodes]
    if not updates:
        return NotMeasurable(_WITHIN, Level.L1, "no episode has an advantage")
    return updates, where


def _weights(gains: Floats) -> Floats:
    """|C|: the gains over the largest of them."""
    return np.abs(gains) / np.abs(gains).max()


def _mean(
    name: str, values: Sequence[float], most: float, how: str, unit: str, series: tuple[Series, ...] = ()
) -> Measurement:
    """The mean over episodes of a figure that lies between 0 and `most`."""
    ones = np.ones(len(values))
    value = float(np.sum(values)) / len(values)
    low, high = ratio_interval(values, ones.tolist())
    interval = min(max(low, 0.0), value), max(min(high, most), value)
    return Measurement(name, value, interval, len(values), f"{how}; mean over {len(values)} episodes", unit, series)


def _curve(lags: Sequence[tuple[NDArray[np.int64], Floats]], unit: str) -> Series:
    """C by lag, the mean over the raises that have an action there, with its interval."""
    at: defaultdict[int, list[float]] = defaultdict(list)
    for lag, gains in lags:
        peak = gains[np.abs(gains).argmax()]
        for k, gain in zip(lag.tolist(), (gains / peak).tolist(), strict=True):
            at[k].append(gain)
    places = sorted(at)
    if len(places) > _CURVE:
        places = [places[i] for i in np.unique(np.geomspace(1, len(places), _CURVE).round().astype(int) - 1)]
    means = [float(np.mean(at[k])) for k in places]
    ends = [ratio_interval(at[k], [1.0] * len(at[k])) for k in places]
    return Series(
        f"C(k) in {unit}",
        tuple(map(float, places)),
        tuple(means),
        tuple(min(low, mean) for (low, _), mean in zip(ends, means, strict=True)),
        tuple(max(high, mean) for (_, high), mean in zip(ends, means, strict=True)),
        f"{unit} from the action to the reward",
        "gain over the largest gain",
    )


def at_lag(lag: int) -> Callable[[Measurement], float]:
    """Reads C(lag) off a measurement's curve.

    Args:
        lag: Turns or tokens back; negative after the reward.
    """
    return lambda m: m.series[0].y[m.series[0].x.index(float(lag))]


def reach_controls() -> list[Control | Trial]:
    """Known answers of `reach`."""
    discounted, traced = _discounted(0.9), _traced(0.99, 0.9)
    return [
        Control("discounted returns, γ = 0.9, 6 turns", _evidence(discounted), _geometric(0.9, 5), 1e-6),
        Control("the action 3 turns before gets γ³", _evidence(discounted), 0.9**3, 1e-6, figure=at_lag(3)),
        Control("GAE, γ = 0.99, λ = 0.9, whitened", _evidence(traced), _geometric(0.99 * 0.9, 5), 1e-6),
        Control("the action 4 turns before gets (γλ)⁴", _evidence(traced), (0.99 * 0.9) ** 4, 1e-6, figure=at_lag(4)),
        Control("γ = 0", _evidence(_discounted(0.0)), 0.0, 1e-6),
        Control("one number for the whole episode reaches all turns", _evidence(_same_for_all), 5.0, 1e-6),
        Control("one turn", _evidence(_discounted(0.99), turns=1), 0.0, 1e-6),
        Control("rewards that count nothing", _evidence(_nothing), None),
        Control("a method without advantages", _evidence(_none), None),
        Control("no code", _evidence(None), None),
    ]


def token_controls() -> list[Control | Trial]:
    """Known answers of `reach_tokens`."""
    by_token = _evidence(_traced_tokens(0.95, 0.9), turns=3, tokens=4)
    return [
        Control("GAE over 12 tokens, γ = 0.95, λ = 0.9", by_token, _geometric(0.95 * 0.9, 11), 1e-5),
        Control("the token 7 before gets (γλ)⁷", by_token, (0.95 * 0.9) ** 7, 1e-6, figure=at_lag(7)),
        Control(
            "γ = 0.9 between 3 turns of 4 tokens",
            _evidence(_discounted(0.9), turns=3, tokens=4),
            3 + 4 * (0.9 + 0.81),
            1e-6,
        ),
        Control("one number for 12 tokens", _evidence(_same_for_all, turns=3, tokens=4), 11.0, 1e-6),
        Control("no code", _evidence(None), None),
    ]


def acausal_controls() -> list[Control | Trial]:
    """Known answers of `acausal_share`."""
    return [
        Control("discounted returns", _evidence(_discounted(0.99)), 0.0, 1e-6),
        Control("GAE, whitened over the batch", _evidence(_traced(0.99, 0.95)), 0.0, 1e-6),
        Control("one number for 6 turns, the third paid", _evidence(_same_for_all), 0.5, 1e-6),
        Control("one number for 5 turns, the third paid", _evidence(_same_for_all, turns=5), 0.4, 1e-6),
        Control("one turn has none after it", _evidence(_same_for_all, turns=1), None),
        Control("no code", _evidence(None), None),
    ]


def within_controls() -> list[Control | Trial]:
    """Known answers of `within_episode`."""
    episodes = (planted([0.0, 0.0]), planted([0.0, 0.0], seed=1))

    def recorded(*advantages: list[float]) -> Evidence:
        return Evidence(iterations=(Iteration(episodes, advantages=tuple(map(np.array, advantages))),))

    return [
        Control("one number for all turns", _evidence(_same_for_all), 0.0),
        Control("turns differ, episodes do not", recorded([1.0, -1.0], [-1.0, 1.0]), 1.0),
        Control("(0, 2) and (4, 6): 4 of 20", recorded([0.0, 2.0], [4.0, 6.0]), 0.2),
        Control("an episode that was left out", recorded([0.0, 2.0], [math.nan, math.nan]), 1.0),
        Control("all advantages are equal", recorded([1.0, 1.0], [1.0, 1.0]), None),
        Control("one turn", _evidence(_discounted(0.9), turns=1), None),
        Control("no code and no record", _evidence(None), None),
    ]


def _geometric(factor: float, n: int) -> float:
    """factor + factor² + … + factorⁿ."""
    return factor * (1 - factor**n) / (1 - factor)


def _evidence(code: Advantages | None, *, turns: int = 6, tokens: int = 2) -> Evidence:
    """Four rollouts of each of four tasks, with random rewards."""
    rng = np.random.default_rng(turns)
    episodes = tuple(
        planted(rng.normal(size=turns).tolist(), tokens=tokens, seed=task) for task in range(4) for _ in range(4)
    )
    return Evidence(iterations=(Iteration(episodes),), advantages=code, plays=16)


def _paid(episodes: Sequence[Episode]) -> tuple[list[Floats], list[str]]:
    return [episode.rewards for episode in episodes], [episode.group for episode in episodes]


def _discounted(gamma: float) -> Advantages:
    def code(episodes: Sequence[Episode]) -> list[Floats]:
        rewards, groups = _paid(episodes)
        return unit_scale(leave_one_out_alive(returns(rewards, gamma), groups))

    return code


def _traced(gamma: float, lam: float) -> Advantages:
    def code(episodes: Sequence[Episode]) -> list[Floats]:
        rewards, _ = _paid(episodes)
        values = [np.linspace(-1.0, 1.0, len(one)) for one in rewards]
        return whiten(gae_turns(rewards, values, None, gamma, lam)[0])

    return code


def _traced_tokens(gamma: float, lam: float) -> Advantages:
    def code(episodes: Sequence[Episode]) -> list[Floats]:
        lengths = [episode.act_lengths for episode in episodes]
        rewards = place_at_end(_paid(episodes)[0], lengths)
        values = [np.linspace(-1.0, 1.0, len(one)) for one in rewards]
        return whiten(gae_tokens(rewards, values, None, lengths, gamma, lam)[0])

    return code


def _same_for_all(episodes: Sequence[Episode]) -> list[Floats]:
    rewards, groups = _paid(episodes)
    return uniform(group_relative([one.sum() for one in rewards], groups), [len(one) for one in rewards])


def _nothing(episodes: Sequence[Episode]) -> list[Floats]:
    return broadcast([np.ones(1)] * len(episodes), [[len(episode.turns)] for episode in episodes])


def _none(episodes: Sequence[Episode]) -> list[Floats]:
    raise NoCreditError("it assigns no credit to turns")


QUANTITIES = (
    Quantity(
        _REACH,
        "reach of the update",
        "How many earlier turns does a reward at the end of an episode move, each counted by its share of the largest gain?",
        Section.CREDIT,
        reach,
        reach_controls,
        Level.L1,
    ),
    Quantity(
        _TOKENS,
        "reach in tokens",
        "The same in action tokens, those of the paid action included.",
        Section.CREDIT,
        reach_tokens,
        token_controls,
        Level.L1,
    ),
    Quantity(
        _ACAUSAL,
        "acausal share",
        "Which share of the effect of a reward half-way goes to actions that were taken after it?",
        Section.CREDIT,
        acausal_share,
        acausal_controls,
        Level.L1,
    ),
    Quantity(
        _WITHIN,
        "variance within episodes",
        "Which share of the variance of advantages tells turns of one episode apart? 0 where an episode has one number.",
        Section.CREDIT,
        within_episode,
        within_controls,
        Level.L1,
    ),
)
"""What a card says about credit."""
