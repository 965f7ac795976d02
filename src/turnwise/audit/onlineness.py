"""Online-ness: did the policy learn from what it had just done itself?"""

from __future__ import annotations

import numpy as np

from turnwise.audit.controls import Control, planted
from turnwise.audit.evidence import Evidence, Iteration, Level
from turnwise.audit.measure import Measurement, NotMeasurable, ratio_interval, share_interval
from turnwise.episode import Episode, Source

_OWN_SHARE = "online/own_share"
_VERSION_LAG = "online/version_lag"


def own_share(evidence: Evidence) -> Measurement | NotMeasurable:
    """Share of the action tokens that the weights being updated had sampled themselves.

    Σ tokens sampled by the policy at the version the update began from / Σ tokens, over all updates. 1 is strictly
    on-policy; supervised learning from others is 0; an engine that lags behind the learner lies in between.
    Needs L2, except where the policy never acted.
    """
    missing = _missing(_OWN_SHARE, evidence)
    if missing:
        return missing
    pairs = [(iteration, episode) for iteration in evidence.iterations for episode in iteration.trained]
    tokens = np.array([episode.n_action_tokens for _, episode in pairs], dtype=np.float64)
    own = np.array([_own_tokens(episode, iteration.version) for iteration, episode in pairs], dtype=np.float64)
    share = float(own.sum() / tokens.sum())
    how = f"{int(own.sum()):,} of {int(tokens.sum()):,} action tokens in {len(evidence.iterations)} updates; Wilson interval"
    return Measurement(_OWN_SHARE, share, share_interval(share, tokens), len(pairs), how)


def version_lag(evidence: Evidence) -> Measurement | NotMeasurable:
    """By how many optimizer steps the weights that sampled an action were older than those that learnt from it.

    Mean of (version the update began from − version that sampled) over the policy's action tokens, in optimizer steps,
    before the first step of each update. 0 is synchronous. Needs L2.
    """
    missing = _missing(_VERSION_LAG, evidence)
    if missing:
        return missing
    pairs = [
        (iteration.version, episode)
        for iteration in evidence.iterations
        for episode in iteration.trained
        if episode.source is Source.POLICY and iteration.version is not None
    ]
    if not pairs:
        return NotMeasurable(_VERSION_LAG, Level.L2, "the policy never acted, so nothing it did has an age")
    counts = [float(episode.n_action_tokens) for _, episode in pairs]
    lags = [
        float(sum((version - turn.version) * len(turn.act) for turn in episode.turns)) for version, episode in pairs
    ]
    value = sum(lags) / sum(counts)
    how = f"{int(sum(counts)):,} action tokens of the policy in {len(evidence.iterations)} updates; linearised ratio"
    return Measurement(_VERSION_LAG, value, ratio_interval(lags, counts), len(pairs), how)


def own_share_controls() -> list[Control]:
    """Known answers of `own_share`."""
    now, before = planted([0.0, 1.0], version=3), planted([0.0, 1.0], version=2)
    taught = planted([0.0, 1.0], source=Source.EXPERT)
    longer = planted([0.0, 1.0], version=2, tokens=6)
    return [
        Control("every token by the present weights", _updates((now, now), 3), 1.0),
        Control("every token one step old", _updates((before, before), 3), 0.0),
        Control("half of the tokens one step old", _updates((now, before), 3), 0.5),
        Control("tokens count, not episodes: 4 of 16", _updates((now, longer), 3), 0.25),
        Control("an expert's tokens are nobody's own", _updates((taught, now), 3), 0.5),
        Control("supervised learning", _updates((taught, taught), None), 0.0),
        Control("the policy acted, at a version nobody recorded", _updates((now,), None), None),
        Control("no episodes", Evidence(config={}), None),
    ]


def version_lag_controls() -> list[Control]:
    """Known answers of `version_lag`."""
    now, before = planted([0.0, 1.0], version=3), planted([0.0, 1.0], version=1)
    return [
        Control("synchronous", _updates((now, now), 3), 0.0),
        Control("half of the tokens two steps old", _updates((now, before), 3), 1.0),
        Control("supervised learning", _updates((planted([1.0], source=Source.EXPERT),), None), None),
        Control("no episodes", Evidence(config={}), None),
    ]


def _updates(episodes: tuple[Episode, ...], version: int | None) -> Evidence:
    return Evidence(iterations=(Iteration(episodes, version),))


def _own_tokens(episode: Episode, version: int | None) -> int:
    if episode.source is not Source.POLICY:
        return 0
    return sum(len(turn.act) for turn in episode.turns if turn.version == version)


def _missing(name: str, evidence: Evidence) -> NotMeasurable | None:
    if not evidence.episodes:
        return NotMeasurable(name, Level.L2, "there are no episodes that trained")
    for number, iteration in enumerate(evidence.iterations, start=1):
        if iteration.version is None and any(episode.source is Source.POLICY for episode in iteration.trained):
            return NotMeasurable(name, Level.L2, f"nobody recorded which weights update {number} began from")
    return None
