"""Online-ness: did the policy learn from what it had just done itself?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.controls import Control, Trial, planted
from turnwise.audit.evidence import Evidence, Iteration, Level
from turnwise.audit.measure import Measurement, NotMeasurable, Series, ratio_interval, share_interval
from turnwise.audit.quantity import Quantity, Section
from turnwise.episode import Episode, Source

_OWN_SHARE = "online/own_share"
_GRADIENT_SHARE = "online/gradient_share"
_VERSION_LAG = "online/version_lag"
_JUDGE_AGE = "online/judge_age"


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
    own = np.array([_own(e, i.version, _lengths(e)) for i, e in pairs], dtype=np.float64)
    share = float(own.sum() / tokens.sum())
    how = f"{int(own.sum()):,} of {int(tokens.sum()):,} action {evidence.unit} in {len(evidence.iterations)} updates; Wilson interval"
    return Measurement(_OWN_SHARE, share, share_interval(share, tokens), len(pairs), how, "share")


def gradient_share(evidence: Evidence) -> Measurement | NotMeasurable:
    """Share of the gradient's mass that came from the policy's own present samples.

    As `own_share`, with each token counting |A|, the size of the advantage that multiplies its gradient. What an algorithm
    left out (NaN) has none. Where no advantages were recorded, as in supervised learning, every token counts 1, and `how`
    says so. Weights of the objective that depend on an episode's length are not in the record and count as equal. Needs
    L2, except where the policy never acted.
    """
    missing = _missing(_GRADIENT_SHARE, evidence)
    if missing:
        return missing
    known = all(len(i.advantages) == len(i.episodes) for i in evidence.iterations if i.trained)
    masses: list[float] = []
    own: list[float] = []
    for iteration in evidence.iterations:
        for index, episode in enumerate(iteration.episodes):
            if not episode.turns or episode.failed:
                continue
            per_turn = _lengths(episode)
            if known:
                per_turn = per_turn * _sizes(iteration.advantages[index], len(episode.turns))
            masses.append(float(per_turn.sum()))
            own.append(_own(episode, iteration.version, per_turn))
    total = sum(masses)
    if not total > 0:
        return NotMeasurable(_GRADIENT_SHARE, Level.L2, "every recorded advantage is 0, so there is no mass to share")
    share = min(sum(own) / total, 1.0)
    weighed = (
        "|advantage| per token" if known else f"every action {evidence.unit[:-1]} alike, no advantages were recorded"
    )
    how = f"{weighed}, in {len(evidence.iterations)} updates; Wilson interval"
    return Measurement(_GRADIENT_SHARE, share, share_interval(share, masses), len(masses), how, "share")


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
    how = f"{int(sum(counts)):,} action {evidence.unit} of the policy in {len(evidence.iterations)} updates; linearised ratio"
    return Measurement(_VERSION_LAG, value, ratio_interval(lags, counts), len(pairs), how, "optimizer steps")


def judge_age(evidence: Evidence) -> Measurement | NotMeasurable:
    """Iterations since the judge was last refreshed, mean over the updates. Needs L0.

    A judge, reward model or teacher that is a model is made before iteration 1; unless metrics say otherwise it stays as it
    is, and is k − 1 iterations old at update k. A run that refreshes its judge logs ``judge/version``, which rises with each
    refresh, and the age is counted from the iteration at which it last rose. Rules, functions and environments do not age.
    """
    judge = _judge(evidence)
    told = {int(line["iteration"]): line["judge/version"] for line in evidence.metrics if "judge/version" in line}
    if not told and not judge:
        return NotMeasurable(_JUDGE_AGE, Level.L0, "no judge, reward model or teacher is named in the settings")
    if not evidence.metrics:
        return NotMeasurable(_JUDGE_AGE, Level.L0, "there are no metrics that say how many iterations there were")
    numbers = [int(line["iteration"]) for line in evidence.metrics]
    if told and set(told) != set(numbers):
        return NotMeasurable(_JUDGE_AGE, Level.L0, "the metrics of some iterations do not say which judge there was")
    ages: list[float] = []
    refreshed = 1
    for before, number in zip([None, *numbers], numbers, strict=False):
        if before is not None and told and told[number] != told[before]:
            refreshed = number
        ages.append(float(number - refreshed))
    value = sum(ages) / len(ages)
    whose = f"{len(set(told.values()))} judges by judge/version" if told else f"{judge}, made before the run and held"
    series = Series(
        "age of the judge", tuple(map(float, numbers)), tuple(ages), x_label="iteration", y_label="iterations"
    )
    how = f"{whose}; a count over the updates, so that the interval is the figure"
    return Measurement(_JUDGE_AGE, value, (value, value), len(ages), how, "iterations", (series,))


def own_share_controls() -> list[Control | Trial]:
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


def gradient_share_controls() -> list[Control | Trial]:
    """Known answers of `gradient_share`."""
    now, before = planted([0.0, 1.0], version=3), planted([0.0, 1.0], version=2)
    human = planted([0.0, 1.0], source=Source.HUMAN)
    return [
        Control("supervised learning on human text", _updates((human, human), None), 0.0),
        Control("without advantages tokens count", _updates((now, human), 3), 0.5),
        Control("own |A| of 3 + 1, an older episode's of 2 + 2", _updates((now, before), 3, [3, -1], [-2, 2]), 0.5),
        Control("own |A| of 1 + 0, human text's of 1 + 2", _updates((now, human), 3, [1, 0], [1, 2]), 0.25),
        Control("what was left out has no mass", _updates((now, before), 3, [1, 1], [np.nan, np.nan]), 1.0),
        Control("nothing had an advantage", _updates((now, now), 3, [0, 0], [0, 0]), None),
        Control("the policy acted, at a version nobody recorded", _updates((now,), None), None),
    ]


def version_lag_controls() -> list[Control | Trial]:
    """Known answers of `version_lag`."""
    now, before = planted([0.0, 1.0], version=3), planted([0.0, 1.0], version=1)
    return [
        Control("synchronous", _updates((now, now), 3), 0.0),
        Control("half of the tokens two steps old", _updates((now, before), 3), 1.0),
        Control("supervised learning", _updates((planted([1.0], source=Source.EXPERT),), None), None),
        Control("no episodes", Evidence(config={}), None),
    ]


def judge_age_controls() -> list[Control | Trial]:
    """Known answers of `judge_age`."""
    held: list[dict[str, Any]] = [
        {"feedback": {"reward": "judge:models/judge"}},
        {"training": {"feedback": {"teacher": "judge:models/judge"}}},
        {"training": {"algorithm": {"name": "self-judge"}}},
    ]
    lines = [{"iteration": float(k)} for k in range(1, 6)]
    refreshed = [{"iteration": float(k), "judge/version": float(k // 3)} for k in range(1, 6)]  # 0 0 1 1 1
    return [
        *(Control(f"held for five iterations ({c})", Evidence(config=c, metrics=lines), 2.0) for c in held),
        Control("refreshed before the third of five: 0 1 0 1 2", Evidence(metrics=refreshed), 0.8),
        Control(
            "paid by the environment", Evidence(config={"feedback": {"reward": "environment"}}, metrics=lines), None
        ),
        Control("paid by a rule", Evidence(config={"feedback": {"reward": "rule:contains:x"}}, metrics=lines), None),
        Control("no metrics", Evidence(config=held[0]), None),
    ]


def _updates(episodes: tuple[Episode, ...], version: int | None, *advantages: list[float]) -> Evidence:
    streams = tuple(np.array(values, dtype=np.float64) for values in advantages)
    return Evidence(iterations=(Iteration(episodes, version, advantages=streams),))


def _lengths(episode: Episode) -> NDArray[np.float64]:
    return episode.act_lengths.astype(np.float64)


def _sizes(advantages: NDArray[np.float64], turns: int) -> NDArray[np.float64]:
    """|A| of each turn; 0 where the algorithm gave the turn, or the episode, none."""
    return np.abs(np.nan_to_num(advantages)) if len(advantages) == turns else np.zeros(turns)


def _own(episode: Episode, version: int | None, per_turn: NDArray[np.float64]) -> float:
    """What of `per_turn` belongs to turns that the policy sampled at `version`."""
    if episode.source is not Source.POLICY:
        return 0.0
    return float(sum(mass for mass, turn in zip(per_turn, episode.turns, strict=True) if turn.version == version))


def _missing(name: str, evidence: Evidence) -> NotMeasurable | None:
    if not evidence.episodes:
        return NotMeasurable(name, Level.L2, "there are no episodes that trained")
    for number, iteration in enumerate(evidence.iterations, start=1):
        if iteration.version is None and any(episode.source is Source.POLICY for episode in iteration.trained):
            update = number if iteration.number is None else iteration.number
            return NotMeasurable(name, Level.L2, f"nobody recorded which weights update {update} began from")
    return None


def _judge(evidence: Evidence) -> str:
    """The model that judges, as the settings name it; empty where none does."""
    feedback, algorithm = evidence.settings.get("feedback"), evidence.settings.get("algorithm")
    if isinstance(algorithm, Mapping) and algorithm.get("name") == "self-judge":
        return "the run's own judge"
    if not isinstance(feedback, Mapping):
        return ""
    teacher = str(feedback.get("teacher") or "")
    if teacher.startswith("judge:"):
        return teacher
    for part in str(feedback.get("reward") or "").split(","):
        entry = part.strip().strip('"')
        is_folder = "/" in entry and ":" not in entry
        if entry.startswith(("judge:", "text:")) or is_folder:
            return entry
    return ""


QUANTITIES = (
    Quantity(
        _OWN_SHARE,
        "own samples",
        "What share of the tokens learnt from had been sampled by the very weights that were updated?",
        Section.ONLINE,
        own_share,
        own_share_controls,
        Level.L2,
    ),
    Quantity(
        _GRADIENT_SHARE,
        "gradient on own samples",
        "What share of the gradient's mass, |advantage| summed over tokens, fell on the policy's own present samples?",
        Section.ONLINE,
        gradient_share,
        gradient_share_controls,
        Level.L2,
    ),
    Quantity(
        _VERSION_LAG,
        "version lag",
        "By how many optimizer steps were the weights that sampled an action older than those that learnt from it?",
        Section.ONLINE,
        version_lag,
        version_lag_controls,
        Level.L2,
    ),
    Quantity(
        _JUDGE_AGE,
        "age of the judge",
        "How many iterations ago was the model that judges last refreshed, on average over the updates?",
        Section.ONLINE,
        judge_age,
        judge_age_controls,
        Level.L0,
    ),
)
"""Online-ness from records, as quantities of a card."""
