"""The cost ledger: what a run took, from the totals of its metrics.

Figures are counts and not estimates, so that the interval is the figure; `n` is the number of iterations. Where lines of the
metrics are missing, nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from turnwise.audit.bill import bits, bits_controls
from turnwise.audit.controls import Control, Trial, planted
from turnwise.audit.evidence import Evidence, Iteration, Level
from turnwise.audit.measure import Measurement, NotMeasurable, Series
from turnwise.audit.quantity import Quantity, Section
from turnwise.episode import Source

_STEPS, _FORWARD, _BACKWARD = "cost/environment_steps", "cost/tokens_forward", "cost/tokens_backward"
_SECONDS, _BITS = "cost/seconds", "cost/label_bits"

_COUNT = "a count, so that the interval is the figure"
_TIMES = ("time/rollout", "time/update", "time/saving", "time/other")


def environment_steps(evidence: Evidence) -> Measurement | NotMeasurable:
    """Actions that the policy took in its environment, over the run. Needs L1.

    ``total/turns`` of the last line of the metrics; the recorded turns where there are no metrics, which are then all that is
    known. A run on stored episodes takes none. A step of reasoning, to which no world answers, counts as an action.
    """
    recorded = evidence.episodes
    sources = {episode.source for episode in recorded}
    if not recorded:
        return NotMeasurable(_STEPS, Level.L1, "there are no episodes that say who acted")
    if Source.POLICY not in sources:
        n = max(len(evidence.metrics), len(evidence.iterations))
        return Measurement(_STEPS, 0.0, (0.0, 0.0), n, f"the run learnt from stored episodes; {_COUNT}", "actions")
    turns = [i.episodes for i in evidence.iterations]
    if not evidence.metrics:
        seen = float(sum(len(e.turns) for episodes in turns for e in episodes if e.source is Source.POLICY))
        how = "recorded actions; nobody wrote down whether there were more"
        return Measurement(_STEPS, seen, (seen, float("inf")), len(evidence.iterations), how, "actions")
    if len(sources) > 1:
        return NotMeasurable(_STEPS, Level.L1, "the metrics do not tell the policy's actions from stored ones")
    total = evidence.metrics[-1].get("total/turns")
    if total is None:
        return NotMeasurable(_STEPS, Level.L1, "the metrics hold no total/turns")
    return _count(_STEPS, evidence, total, "total/turns", "actions", _course(evidence, ("total/turns",), running=True))


def tokens_forward(evidence: Evidence) -> Measurement | NotMeasurable:
    """Tokens that the run passed forward through its network: to sample, to evaluate, and on the way to gradients. Needs L0.

    Σ (``tokens/read`` + ``tokens/forward`` + ``tokens/backward``). Models that judge are not in it. The reading of a common
    beginning once for several episodes makes the work in updates less than the figure.
    """
    sampled = any(episode.source is Source.POLICY for episode in evidence.episodes)
    names = ("tokens/forward", "tokens/backward", *(("tokens/read",) if sampled else ()))
    return _summed(_FORWARD, evidence, names, "tokens")


def tokens_backward(evidence: Evidence) -> Measurement | NotMeasurable:
    """Tokens of the batches that gradients were taken of: Σ ``tokens/backward``. Needs L0."""
    return _summed(_BACKWARD, evidence, ("tokens/backward",), "tokens")


def seconds(evidence: Evidence) -> Measurement | NotMeasurable:
    """Wall-clock time of the run: Σ of rollouts, updates, saving and the rest. Needs L0.

    The time between an interruption and a resume is not in it, nor are imports and the loading of the model.
    """
    return _summed(_SECONDS, evidence, _TIMES, "s")


def label_bits(evidence: Evidence) -> Measurement | NotMeasurable:
    """Information in the feedback, in bits; see `turnwise.audit.bill.bits`. Needs L1."""
    return replace(bits(evidence), name=_BITS)


def _summed(name: str, evidence: Evidence, names: Sequence[str], unit: str) -> Measurement | NotMeasurable:
    gap = _gap(evidence.metrics)
    if gap:
        return NotMeasurable(name, Level.L0, gap)
    missing = [one for one in names if any(one not in line for line in evidence.metrics)]
    if missing:
        return NotMeasurable(name, Level.L0, f"metrics without {missing[0]}")
    total = sum(line[one] for line in evidence.metrics for one in names)
    return _count(name, evidence, total, " + ".join(names), unit, _course(evidence, names, running=False))


def _count(
    name: str, evidence: Evidence, total: float, what: str, unit: str, course: Series
) -> Measurement | NotMeasurable:
    how = f"{what} over {len(evidence.metrics)} iterations; {_COUNT}"
    return Measurement(name, float(total), (float(total), float(total)), len(evidence.metrics), how, unit, (course,))


def _course(evidence: Evidence, names: Sequence[str], *, running: bool) -> Series:
    x, y, total = [], [], 0.0
    for line in evidence.metrics:
        found = sum(line.get(name, 0.0) for name in names)
        total = found if running else total + found
        x.append(line["iteration"])
        y.append(total)
    return Series("so far", tuple(x), tuple(y), x_label="iteration", y_label=" + ".join(names))


def _gap(metrics: Sequence[Mapping[str, float]]) -> str:
    """What is missing of the lines of a run; empty where nothing is."""
    numbers = [int(line["iteration"]) for line in metrics]
    if not numbers:
        return "there are no metrics"
    missing = next((k for k, number in enumerate(numbers, start=1) if k != number), None)
    return "" if missing is None else f"the metrics have no line of iteration {missing}, or have it out of order"


# ---- known answers -----------------------------------------------------------------------------------------------------


def _run(n: int, figures: Mapping[str, float] | None = None, source: Source = Source.POLICY) -> Evidence:
    """`n` iterations whose lines all hold `figures`, and ``total/turns`` of six a line."""
    lines = [{"iteration": float(k), "total/turns": 6.0 * k, **(figures or {})} for k in range(1, n + 1)]
    return Evidence(metrics=lines, iterations=(Iteration((planted([0.0, 1.0], source=source),)),))


def steps_controls() -> list[Control | Trial]:
    """Known answers of `environment_steps`."""
    return [
        Control("six actions in each of four iterations", _run(4), 24.0),
        Control("stored episodes", _run(4, source=Source.DATASET), 0.0),
        Control("no metrics: what was recorded", replace(_run(1), metrics=()), 2.0),
        Control("no episodes", Evidence(metrics=_run(1).metrics), None),
    ]


def forward_controls() -> list[Control | Trial]:
    """Known answers of `tokens_forward`."""
    counted = {"tokens/forward": 10.0, "tokens/backward": 20.0}
    return [
        Control("10 evaluated, 20 learnt from, 5 read, three times", _run(3, {**counted, "tokens/read": 5.0}), 105.0),
        Control("nothing was sampled", _run(3, counted, Source.DATASET), 90.0),
        Control("sampled, and nobody counted what was read", _run(3, counted), None),
        Control("a line is missing", replace(_run(3, counted), metrics=_run(3, counted).metrics[1:]), None),
    ]


def backward_controls() -> list[Control | Trial]:
    """Known answers of `tokens_backward`."""
    return [
        Control("20 tokens three times", _run(3, {"tokens/backward": 20.0}), 60.0),
        Control("nobody counted", _run(3), None),
    ]


def seconds_controls() -> list[Control | Trial]:
    """Known answers of `seconds`."""
    times = {"time/rollout": 1.0, "time/update": 2.0, "time/saving": 0.25, "time/other": 0.5}
    return [
        Control("3.75 s in each of four iterations", _run(4, times), 15.0),
        Control("no clock", _run(4), None),
        Control("no metrics", Evidence(), None),
    ]


QUANTITIES = (
    Quantity(
        _STEPS,
        "environment steps",
        "How many actions did the policy take in its environment?",
        Section.COST,
        environment_steps,
        steps_controls,
        Level.L1,
    ),
    Quantity(
        _FORWARD,
        "tokens forward",
        "How many tokens went forward through the network, in rollouts, evaluations and updates?",
        Section.COST,
        tokens_forward,
        forward_controls,
        Level.L0,
    ),
    Quantity(
        _BACKWARD,
        "tokens backward",
        "How many tokens were gradients taken of?",
        Section.COST,
        tokens_backward,
        backward_controls,
        Level.L0,
    ),
    Quantity(
        _SECONDS,
        "seconds",
        "How long did the run take?",
        Section.COST,
        seconds,
        seconds_controls,
        Level.L0,
    ),
    Quantity(
        _BITS,
        "label bits",
        "How much information was in the feedback, at most?",
        Section.COST,
        label_bits,
        bits_controls,
        Level.L1,
    ),
)
"""The cost ledger, as quantities of a card."""
