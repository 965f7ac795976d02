"""Reading a number as people write it: ``1,234.5``, ``$5``, ``5 %``, ``3/4``, ``2 1/2``, ``1e5``, ``5 km``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_CURRENCY = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen"}
_SIGNS = str.maketrans({"−": "-", "–": "-", "—": "-", "\u00a0": " ", "\u202f": " "})
_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\[,;:! ]|\{,\}|\\left|\\right|\\\(|\\\)"), ""),
)
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_UNIT = r"°[CF]?|(?!(?:or|and|to|but|not)\b)[^\W\d_](?:[^\W\d_]|[°/²³ -]|\^?[23]\b){0,40}"
_NUMBER = re.compile(
    rf"\s*(?P<sign>[-+]?)\s*(?P<before>[$€£¥]?)\s*(?P<inner>[-+]?)\s*(?:(?P<whole>\d+)\s+(?=\d+\s*/))?"
    rf"(?P<number>{_DIGITS})(?:e(?P<exponent>[-+]?\d{{1,3}}))?(?:\s*/\s*(?P<below>{_DIGITS}))?"
    rf"\s*(?P<after>%|per\s?cent|[$€£¥]|{_UNIT})?\s*\.?\s*",
    re.IGNORECASE,
)
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with what stands beside it.

    Attributes:
        value: The number; a percentage as it is written, 50 for 50 %.
        percent: Followed by a per cent sign.
        unit: What it counts, in lower case, without a plural s; empty if nothing is said.
    """

    value: Fraction
    percent: bool = False
    unit: str = ""


def read_number(text: str) -> Quantity | None:
    """The number that a text is; None if it is anything else, or holds several."""
    text = text.translate(_SIGNS)
    if len(text) > _LONGEST:
        return None
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    text = text.strip().removeprefix("=").strip()
    if len(text) > 2 and text.startswith("$") and text.endswith("$"):
        text = text[1:-1]
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    value = Fraction(found["number"].replace(",", "")) * Fraction(10) ** int(found["exponent"] or 0)
    if found["below"]:
        below = Fraction(found["below"].replace(",", ""))
        if not below:
            return None
        value = value / below + int(found["whole"] or 0)
    if (found["sign"] == "-") != (found["inner"] == "-"):
        value = -value
    after = " ".join((found["after"] or "").lower().split())
    percent = after in ("%", "percent", "per cent")
    unit = "" if percent else _CURRENCY.get(after, after) or _CURRENCY.get(found["before"], "")
    return Quantity(value, percent, unit.removesuffix("s"))


def same_number(one: str, other: str, tolerance: float = 1e-6) -> bool:
    """Whether both are numbers, and equal up to `tolerance`, relative to `other`.

    A unit counts only where both name one. Where just one of the two is a percentage, the other may be the share (0.5 for
    50 %) or the figure without its sign (50).
    """
    a, b = read_number(one), read_number(other)
    if a is None or b is None or (a.unit and b.unit and a.unit != b.unit):
        return False
    if a.percent == b.percent:
        return _near(a.value, b.value, tolerance)
    shared = Fraction(1, 100)
    left, right = (shared if q.percent else Fraction(1) for q in (a, b))
    return _near(a.value, b.value, tolerance) or _near(a.value * left, b.value * right, tolerance)


def _near(a: Fraction, b: Fraction, tolerance: float) -> bool:
    return a == b or abs(a - b) <= Fraction(tolerance) * abs(b)
