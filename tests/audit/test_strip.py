"""The strip: (1) lengths grow with the horizon and end where the axis ends, (2) what is not known says so."""

from __future__ import annotations

import math
import re

import pytest

from turnwise.audit.evidence import Level
from turnwise.audit.measure import Measurement, NotMeasurable
from turnwise.audit.strip import Row, strip_chart, strip_text


def horizon(value: float, low: float | None = None, high: float | None = None) -> Measurement:
    return Measurement(
        "h", value, (value if low is None else low, value if high is None else high), 9, "planted", "turns"
    )


def length(line: str) -> int:
    return line.index("●")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bars_grow_with_the_horizon(width: int) -> None:
    values = [0.0, 0.5, 1.0, 2.0, 5.0, 12.0, 31.0]
    lines = [str(line) for line in strip_text([("update", horizon(v)) for v in values], width)]
    dots = [length(line) for line in lines[:-1]]
    assert dots == sorted(dots)
    assert len(set(dots)) >= 6
    assert max(map(len, lines)) <= width
    # Doubling 1 + turns adds the same piece: 0, 1, 3 (not shown), 7, 15, 31 are equal steps, and 31 ends the axis.
    room = dots[-1] - dots[0]
    assert dots[2] - dots[0] == pytest.approx(room / 5, abs=1)


def test_open_ends_and_figures_below_zero_stay_on_the_axis() -> None:
    rows: list[Row] = [("reward", horizon(4.0, -math.inf, math.inf)), ("update", horizon(-1.0, -3.0, 0.0))]
    lines = [str(line) for line in strip_text(rows, 80)]
    assert length(lines[1]) == 10
    chart = strip_chart(rows)
    assert "inf" not in chart
    assert "nan" not in chart
    places = [float(x) for x in re.findall(r'cx="([-\d.]+)"', chart)]
    assert all(0 <= x <= 640 for x in places)


def test_what_is_not_known_says_so() -> None:
    rows: list[Row] = [("reward", horizon(3.0)), ("policy", NotMeasurable("h", Level.L4, "there is no <table>"))]
    assert "not measurable (needs L4)" in str(strip_text(rows, 80)[1])
    assert "not measurable (needs L4)" in strip_chart(rows)
    assert "<table>" not in strip_chart(rows)
