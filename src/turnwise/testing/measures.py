"""A conformance check for measures, and a measure whose figure is fixed.

check_measure(my_measure, my_controls())    returns quietly, or says which known answer it missed
"""

from __future__ import annotations

from collections.abc import Sequence

from turnwise.audit import Control, Evidence, Level, Measure, Measurement, NotMeasurable, Trial
from turnwise.testing.errors import CheckFailed


class FixedMeasure:
    """Says `value` of any evidence that has episodes."""

    def __init__(self, value: float = 0.5, name: str = "fake/fixed") -> None:
        self.value = value
        self.name = name

    def __call__(self, evidence: Evidence) -> Measurement | NotMeasurable:
        """The figure, or that there are no episodes."""
        n = len(evidence.episodes)
        if not n:
            return NotMeasurable(self.name, Level.L1, "there are no episodes")
        return Measurement(self.name, self.value, (self.value, self.value), n, "said so")


def check_measure(measure: Measure, controls: Sequence[Control | Trial]) -> None:
    """Check that a measure keeps the contract of `turnwise.audit.Measure`.

    1. It hits the known answer of every control, and declines where the control says so.
    2. It declines, with a reason, where there is no evidence at all.
    3. It says of what, from how many units and how, and its interval encloses its figure.
    4. Asked again, it answers the same.
    5. It has at least one control with a figure and one that it must decline.

    Args:
        measure: The measure.
        controls: Known answers.

    Raises:
        CheckFailed: the first promise that is broken.
    """
    who = str(getattr(measure, "__name__", type(measure).__name__))
    figures = [control for control in controls if control.expected is not None]
    if not figures or len(figures) == len(controls):
        raise CheckFailed(
            f"measure {who!r} has {len(figures)} controls with a figure and {len(controls) - len(figures)} that it must "
            "decline; give at least one of each"
        )
    if not isinstance(_ask(measure, who, "no evidence at all", Evidence()), NotMeasurable):
        raise CheckFailed(f"measure {who!r} has a figure for no evidence at all; return NotMeasurable")
    for control in controls:
        why = ""
        if isinstance(control, Control):
            evidence = control.evidence() if callable(control.evidence) else control.evidence
            answer = _ask(measure, who, control.name, evidence)
            why = f" ({answer.why})" if isinstance(answer, NotMeasurable) else ""
        found = control.measured(measure)
        if control.is_met(found):
            continue
        if control.expected is None:
            raise CheckFailed(
                f"measure {who!r} says {found:g} of the control {control.name!r}, which does not bear a figure"
            )
        if found is None:
            raise CheckFailed(f"measure {who!r} declines the control {control.name!r}{why}")
        near = "" if control.side == "equal" else f"{control.side} "
        raise CheckFailed(
            f"measure {who!r} says {found:g} of the control {control.name!r}; the known answer is "
            f"{near}{control.expected:g} ± {control.tolerance:g}"
        )


def _ask(measure: Measure, who: str, what: str, evidence: Evidence) -> Measurement | NotMeasurable:
    try:
        result, again = measure(evidence), measure(evidence)
    except Exception as error:
        raise CheckFailed(
            f"measure {who!r} raised {type(error).__name__}: {error} on {what!r}; return NotMeasurable where it cannot say"
        ) from error
    if not isinstance(result, Measurement | NotMeasurable):
        raise CheckFailed(f"measure {who!r} returned {result!r:.80} on {what!r}; return Measurement or NotMeasurable")
    if result != again:
        raise CheckFailed(f"measure {who!r} answers {what!r} differently when asked again; seed what is random")
    words = (result.name, result.how if isinstance(result, Measurement) else result.why)
    if not all(words):
        raise CheckFailed(f"measure {who!r} leaves its name or its reason empty on {what!r}; fill them in")
    return result
