"""Overlap of the policy that acted and the policy that is: how much of what was learnt from is still what it would do.

Both figures compare, action by action, the probability that was recorded when the action was sampled, μ, with the one that the
policy at hand gives to the same tokens after the same context, π. An action is a turn: the product over its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.controls import Control, Trial, planted
from turnwise.audit.evidence import Evidence, Iteration, Level
from turnwise.audit.measure import Measurement, NotMeasurable, Series, bootstrap_interval, ratio_interval
from turnwise.audit.quantity import Quantity, Section
from turnwise.episode import Episode, Source

_OVERLAP = "online/overlap"
_ESS = "online/ess"

CURVE = 8
"""Iterations that the curve over a run looks at, evenly spaced."""


def overlap(evidence: Evidence) -> Measurement | NotMeasurable:
    """Overlap per action of the last iteration's sampling policy with the policy at hand: E_μ[min(1, π/μ)].

    It equals 1 − TV(μ, π), one minus the total variation distance of the two distributions over actions, averaged over the
    contexts that μ met: Σ_a min(μ, π) = Σ_a μ min(1, π/μ). The policy of a finished run is the one after its last update, so
    the figure says how far that update moved it, sampling noise of the engine included. The curve gives the same for
    earlier iterations. Needs L3 (the policy), and recorded log-probabilities.
    """
    return _measure(_OVERLAP, evidence, _overlap_of)


def effective_share(evidence: Evidence) -> Measurement | NotMeasurable:
    """Effective share of the last iteration's actions: (Σ w)² / (n Σ w²) with w = π/μ per action (Kish 1965).

    1 where the policy at hand gives every action the probability it was sampled with; 1/n where one action has all the
    weight. Needs L3 (the policy), and recorded log-probabilities.
    """
    return _measure(_ESS, evidence, _ess_of)


@dataclass(frozen=True)
class _Ratios:
    """log(π/μ) of actions, episode by episode."""

    number: int
    by_episode: tuple[NDArray[np.float64], ...]
    tokens: tuple[NDArray[np.float64], ...]


_Figure = Callable[[Sequence[NDArray[np.float64]], int], tuple[float, tuple[float, float]]]


def _overlap_of(ratios: Sequence[NDArray[np.float64]], seed: int) -> tuple[float, tuple[float, float]]:
    sums = [float(np.exp(np.minimum(r, 0.0)).sum()) for r in ratios]
    counts = [float(len(r)) for r in ratios]
    value = sum(sums) / sum(counts)
    low, high = ratio_interval(sums, counts)
    return value, (max(low, 0.0), min(max(high, value), 1.0))


def _ess_of(ratios: Sequence[NDArray[np.float64]], seed: int) -> tuple[float, tuple[float, float]]:
    largest = max(float(r.max()) for r in ratios)  # a common factor leaves the share as it is
    parts = np.array([[np.exp(r - largest).sum(), np.exp(2 * (r - largest)).sum(), len(r)] for r in ratios])

    def share(rows: NDArray[Any]) -> float:
        first, second, n = parts[rows].sum(0)
        return float(first**2 / (n * second)) if second > 0 else float("nan")

    value = min(share(np.arange(len(parts))), 1.0)
    low, high = bootstrap_interval(share, len(parts), value, seed)
    return value, (max(low, 0.0), max(min(high, 1.0), value))


def _measure(name: str, evidence: Evidence, figure: _Figure) -> Measurement | NotMeasurable:
    found = _evaluated(name, evidence)
    if isinstance(found, NotMeasurable):
        return found
    last = found[-1]
    if figure is _ess_of and not all(np.isfinite(np.concatenate(one.by_episode)).any() for one in found):
        return NotMeasurable(name, Level.L3, "the policy at hand would never say any of the recorded actions")
    value, interval = figure(last.by_episode, evidence.seed)
    per_token, _ = figure(last.tokens, evidence.seed)
    curve = [(one.number, *figure(one.by_episode, evidence.seed)) for one in found]
    series = Series(
        "per action",
        tuple(float(number) for number, _, _ in curve),
        tuple(v for _, v, _ in curve),
        tuple(ends[0] for _, _, ends in curve),
        tuple(ends[1] for _, _, ends in curve),
        "iteration",
        "share",
    )
    actions = sum(map(len, last.by_episode))
    spread = "linearised ratio" if figure is _overlap_of else "bootstrap"
    how = (
        f"per action (turn), {actions:,} actions of {len(last.by_episode)} episodes of iteration {last.number} under the policy at "
        f"hand; {per_token:.3f} per token; {spread} over episodes"
    )
    return Measurement(name, value, interval, len(last.by_episode), how, "share", (series,))


def _evaluated(name: str, evidence: Evidence) -> list[_Ratios] | NotMeasurable:
    """Ratios of the last iteration in which the policy acted, and of some before it, in order."""
    numbered = [(i.number or place, i) for place, i in enumerate(evidence.iterations, start=1)]
    acted = [(number, [e for e in i.trained if e.source is Source.POLICY]) for number, i in numbered]
    acted = [(number, episodes) for number, episodes in acted if episodes]
    if evidence.policy is None:
        return NotMeasurable(name, Level.L3, "there is no policy that could say what it would do now")
    if not acted:
        return NotMeasurable(name, Level.L3, "the policy never acted, so nothing says with what probability")
    if not evidence.ids:
        return NotMeasurable(name, Level.L3, "the record holds no token ids, and a policy reads nothing else")
    if not all(np.isfinite(e.behaviour_logp).all() for _, episodes in acted for e in episodes):
        return NotMeasurable(name, Level.L3, "actions were recorded without their log-probabilities")
    places = sorted({round(x) for x in np.linspace(0, len(acted) - 1, min(CURVE, len(acted)))})
    found = []
    for place in places:
        number, episodes = acted[place]
        rng = np.random.default_rng([evidence.seed, number])
        # The last iteration bears the figure; the curve before it takes a sample.
        if place < len(acted) - 1 and len(episodes) > evidence.plays:
            episodes = [episodes[i] for i in sorted(rng.choice(len(episodes), evidence.plays, replace=False))]
        ratios = _ratios(name, evidence.policy, number, episodes)
        if isinstance(ratios, NotMeasurable):
            return ratios
        found.append(ratios)
    return found


def _ratios(name: str, policy: Any, number: int, episodes: list[Episode]) -> _Ratios | NotMeasurable:
    from turnwise.batch import pack, unpack
    from turnwise.learners.local import evaluate

    largest = max(int(max(turn.act.max() for turn in episode.turns)) for episode in episodes)
    size = getattr(getattr(policy, "model", None), "config", None)
    if size is not None and largest >= size.get_text_config().vocab_size:
        return NotMeasurable(
            name, Level.L3, "the record holds tokens that the policy does not have; it is another's record"
        )
    said = unpack(evaluate(policy, pack(episodes)).logp.double(), episodes)
    tokens = [now - then.astype(np.float64) for now, then in zip(said, map(_recorded, episodes), strict=True)]
    if any(np.isnan(one).any() for one in tokens):
        return NotMeasurable(name, Level.L3, "the policy gives recorded actions no log-probability")
    by_turn = [
        np.add.reduceat(one, np.concatenate([[0], np.cumsum(e.act_lengths)[:-1]]))
        for one, e in zip(tokens, episodes, strict=True)
    ]
    return _Ratios(number, tuple(by_turn), tuple(tokens))


def _recorded(episode: Episode) -> NDArray[np.float32]:
    return episode.behaviour_logp


# ---- known answers -----------------------------------------------------------------------------------------------------


class Categorical:
    """A policy that draws every token from one distribution, whatever came before it.

    Attributes:
        logp: (K,) log-probability of each token.
    """

    def __init__(self, probabilities: Sequence[float]) -> None:
        self.logp = np.log(np.asarray(probabilities, dtype=np.float64))
        self.device = None

    def outputs(self, batch: Any) -> Any:
        """What it says about a batch."""
        import torch

        from turnwise.batch import Outputs

        logp = torch.from_numpy(self.logp)[batch.tokens[batch.action]].double()
        return Outputs(logp, torch.zeros_like(logp))

    def episode(self, draw: np.random.Generator, turns: int, tokens: int, seed: int) -> Episode:
        """`turns` turns of `tokens` tokens each that it drew."""
        blank = planted([0.0] * turns, tokens=tokens, seed=seed)
        ids = draw.choice(len(self.logp), size=(turns, tokens), p=np.exp(self.logp)).astype(np.int32)
        said = self.logp[ids].astype(np.float32)
        return replace(
            blank, turns=tuple(replace(t, act=a, logp=p) for t, a, p in zip(blank.turns, ids, said, strict=True))
        )


@cache
def _drawn(probabilities: tuple[float, ...], tokens: int = 1) -> tuple[Episode, ...]:
    rng = np.random.default_rng(11)
    return tuple(Categorical(probabilities).episode(rng, 100, tokens, seed) for seed in range(100))


def _pair(mu: tuple[float, ...], pi: tuple[float, ...], tokens: int = 1) -> Evidence:
    return Evidence(iterations=(Iteration(_drawn(mu, tokens), 0, 1),), policy=Categorical(pi))  # pyright: ignore[reportArgumentType]


_MU, _PI, _FAR = (0.5, 0.3, 0.2), (0.2, 0.3, 0.5), (0.96, 0.02, 0.02)


def _declined() -> list[Control | Trial]:
    episodes = _drawn(_MU)[:4]
    mute = replace(episodes[0].turns[0], logp=np.array([np.nan], dtype=np.float32))
    silent = replace(episodes[0], turns=(mute, *episodes[0].turns[1:]))
    human = replace(episodes[0], source=Source.HUMAN)
    policy: Any = Categorical(_PI)
    return [
        Control("no policy at hand", Evidence(iterations=(Iteration(episodes, 0, 1),)), None),
        Control("no log-probabilities", Evidence(iterations=(Iteration((silent,), 0, 1),), policy=policy), None),
        Control("human text", Evidence(iterations=(Iteration((human,), None, 1),), policy=policy), None),
    ]


def overlap_controls() -> list[Control | Trial]:
    """Known answers of `overlap`: categorical distributions, whose total variation is half the sum of differences."""
    # Over two independent tokens: Σ over the 9 pairs of min(μμ', ππ').
    two = sum(min(a * c, b * d) for a, b in zip(_MU, _PI, strict=True) for c, d in zip(_MU, _PI, strict=True))
    return [
        Control("the same distribution", lambda: _pair(_MU, _MU), 1.0, 1e-6),
        Control("TV 0.3: (0.5, 0.3, 0.2) and (0.2, 0.3, 0.5)", lambda: _pair(_MU, _PI), 0.7, 0.02),
        Control("TV 0.46: (0.5, 0.3, 0.2) and (0.96, 0.02, 0.02)", lambda: _pair(_MU, _FAR), 0.54, 0.02),
        Control("actions of two tokens", lambda: _pair(_MU, _PI, 2), two, 0.02),
        *_declined(),
    ]


def ess_controls() -> list[Control | Trial]:
    """Known answers of `effective_share`: 1 / Σ_a π²/μ for one categorical pair, since E_μ[w] = 1."""
    chi = sum(p * p / m for m, p in zip(_MU, _PI, strict=True))
    return [
        Control("the same distribution", lambda: _pair(_MU, _MU), 1.0, 1e-6),
        Control("(0.5, 0.3, 0.2) and (0.2, 0.3, 0.5)", lambda: _pair(_MU, _PI), 1.0 / chi, 0.02),
        Control("actions of two tokens", lambda: _pair(_MU, _PI, 2), 1.0 / chi**2, 0.02),
        *_declined(),
    ]


QUANTITIES = (
    Quantity(
        _OVERLAP,
        "overlap with the sampler",
        "How much of the distribution that the last actions were drawn from is still the policy's: E_μ[min(1, π/μ)] = 1 − TV?",
        Section.ONLINE,
        overlap,
        overlap_controls,
        Level.L3,
    ),
    Quantity(
        _ESS,
        "effective share of samples",
        "How many of the last actions, reweighted by π/μ, would be as good as fresh ones: (Σ w)² / (n Σ w²)?",
        Section.ONLINE,
        effective_share,
        ess_controls,
        Level.L3,
    ),
)
"""Online-ness with the policy at hand, as quantities of a card."""
