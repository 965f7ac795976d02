"""Figures in words: how many digits a person gets to see, and where the marks of an axis lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from turnwise.runs.evaluate import Estimate


def number(value: float | None, *, share: bool = False, trim: bool = True) -> str:
    """A figure for people: three significant digits, thousands separated, a real minus sign; a dash for none.

    Args:
        value: The figure.
        share: Write it in per cent.
        trim: Leave the decimals of a whole number out.
    """
    if value is None or not math.isfinite(value):
        return "–"
    if share:
        percent = 100 * value
        digits = 0 if abs(percent) >= 10 or percent == round(percent) else 1 if abs(percent) >= 0.95 else 2
        return f"{percent:.{digits}f} %".replace("-", "−")
    size = abs(value)
    if size >= 1e12 or 0 < size < 1e-3:
        mantissa, exponent = f"{value:.2g}".split("e") if "e" in f"{value:.2g}" else f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    if size >= 1000 or size == 0 or (trim and value == round(value)):
        return f"{value:,.0f}".replace("-", "−")
    digits = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:.{digits}f}".replace("-", "−")


def estimate_text(estimate: Estimate, *, share: bool = False) -> str:
    """``mean [low, high] n=…``, without the interval where there is none."""
    figure = number(estimate.mean, share=share, trim=False)
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        figure += (
            f" [{number(estimate.low, share=share, trim=False)}, {number(estimate.high, share=share, trim=False)}]"
        )
    return f"{figure} n={estimate.n}"


def tick_labels(ticks: Sequence[float], *, share: bool = False) -> list[str]:
    """Labels with as many digits as the distance between ticks needs, and no more."""
    values = [100 * tick for tick in ticks] if share else list(ticks)
    step = min((b - a for a, b in pairwise(values)), default=abs(values[0]) or 1.0)
    size = max(map(abs, values))
    suffix = " %" if share else ""
    if size and (size < 1e-3 or size >= 1e9):
        labels = ["0" if v == 0 else _scientific(v, step) for v in values]
    else:
        scale, unit = (1e6, "M") if size >= 1e6 else (1e3, "k") if size >= 1e4 else (1.0, "")
        digits = max(0, -math.floor(math.log10(step / scale * 1.0000001)))
        if digits and abs(step / scale * 10**digits - round(step / scale * 10**digits)) > 1e-6:
            digits += 1
        labels = ["0" if v == 0 else f"{v / scale:,.{digits}f}{unit}" for v in values]
    return [label.replace("-", "−") + suffix for label in labels]


def nice_ticks(low: float, high: float, count: int, *, pad: bool = False) -> list[float]:
    """About `count` round numbers from `low` to `high`, one, two or five times a power of ten apart.

    With `pad` the first and the last lie at or beyond the ends.
    """
    # A range this narrow has no round numbers in it that a float can tell apart.
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        spread = abs(low) * 0.5 or 1.0
        low, high = (low - spread, high + spread) if pad else (low, low + spread)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    tolerance = 1e-6
    first = math.floor(low / step + tolerance) if pad else math.ceil(low / step - tolerance)
    last = math.ceil(high / step - tolerance) if pad else math.floor(high / step + tolerance)
    # Multiples of a power of ten carry rounding noise; twelve digits are more than a label shows.
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)] or [low]


def _scientific(value: float, step: float) -> str:
    exponent = math.floor(math.log10(abs(value)))
    digits = max(0, exponent - math.floor(math.log10(step)))
    mantissa, power = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(power)}"
