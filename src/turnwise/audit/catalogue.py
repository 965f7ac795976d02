"""All quantities there are, and their known answers put to the test."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from turnwise.audit.controls import Control, Side, Trial
from turnwise.audit.quantity import Quantity, Section

MODULES: tuple[str, ...] = (
    "horizon",
    "onlineness",
    "overlap",
    "gain",
    "actions",
    "exploration",
    "difficulty",
    "reward_signal",
    "credit_reach",
    "bill",
    "goal",
    "temptation",
    "persistence",
    "locus",
    "conditional",
    "reasoning",
    "cost",
    "judge",
)
"""Modules of this package that export ``QUANTITIES``, one a line."""


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What came out where the answer is known.

    Attributes:
        quantity: Name of the quantity.
        control: What was planted, in words.
        expected: The known answer; None where the measure has to decline.
        measured: Its answer; None where it declined, or raised.
        passed: The answer is right.
        seconds: How long it took.
        tolerance: Largest distance from `expected` that is still right.
        side: On which side of `expected` the answer has to lie.
        error: What the measure or the control raised, in a line; empty where it did not.
    """

    quantity: str
    control: str
    expected: float | None
    measured: float | None
    passed: bool
    seconds: float
    tolerance: float = 0.0
    side: Side = "equal"
    error: str = ""

    @property
    def known(self) -> str:
        """The known answer in words."""
        if self.expected is None:
            return "not measurable"
        near = "" if self.side == "equal" else f"{self.side} "
        # A tolerance that only allows for rounding says nothing to people.
        give = f" ± {self.tolerance:.2g}" if self.tolerance > 1e-4 else ""
        return f"{near}{self.expected:.4g}{give}"

    @property
    def found(self) -> str:
        """What came out, in words."""
        if self.error:
            return self.error
        return "not measurable" if self.measured is None else f"{self.measured:.4g}"


@cache
def catalogue() -> tuple[Quantity, ...]:
    """Every quantity, in the order of a card.

    Raises:
        ValueError: two quantities of one name.
    """
    found = [quantity for name in MODULES for quantity in import_module(f"turnwise.audit.{name}").QUANTITIES]
    names = [quantity.name for quantity in found]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the quantities {', '.join(twice)} are there twice; each name is one quantity")
    order = list(Section)
    return tuple(sorted(found, key=lambda quantity: order.index(quantity.section)))


def run_controls(
    quantities: Sequence[Quantity], *, slow: bool, on_result: Callable[[ControlResult, int, int], None] | None = None
) -> list[ControlResult]:
    """Put the known answers of quantities to the test.

    Args:
        quantities: Whose.
        slow: Also run the trials that take more than about a second.
        on_result: Called after each with the result, how many are done, and how many there are.
    """
    planned = [(q, c) for q in quantities for c in _controls(q) if slow or not (isinstance(c, Trial) and c.slow)]
    results: list[ControlResult] = []
    for quantity, control in planned:
        results.append(control if isinstance(control, ControlResult) else _try(quantity, control))
        if on_result is not None:
            on_result(results[-1], len(results), len(planned))
    return results


@cache
def checked(quantity: Quantity) -> tuple[ControlResult, ...]:
    """The results of a quantity's fast controls, found once in a process."""
    return tuple(run_controls([quantity], slow=False))


def _controls(quantity: Quantity) -> Sequence[Control | Trial | ControlResult]:
    """The controls; if they cannot even be made, that is the one result."""
    try:
        found = quantity.controls()
    except Exception as error:
        return [ControlResult(quantity.name, "its controls can be made", None, None, False, 0.0, error=said(error))]
    if not found:
        return [ControlResult(quantity.name, "it has a known answer", None, None, False, 0.0, error="has no controls")]
    return found


def _try(quantity: Quantity, control: Control | Trial) -> ControlResult:
    began = time.perf_counter()
    error = ""
    try:
        measured = control.measured(quantity.measure)
    except Exception as raised:
        measured, error = None, said(raised)
    seconds = time.perf_counter() - began
    passed = not error and control.is_met(measured)
    return ControlResult(
        quantity.name, control.name, control.expected, measured, passed, seconds, control.tolerance, control.side, error
    )


def said(error: Exception) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"raised {type(error).__name__}" + (f": {text:.200}" if text else "")
