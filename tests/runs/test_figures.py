"""A chart promises: (1) it is well-formed XML whatever it is given; (2) no spike and no figure is lost or invented;
(3) gaps stay gaps; (4) axes have round marks that hold the data; (5) a page shows texts as text and loads nothing."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from turnwise.runs import Estimate, RunError
from turnwise.runs.figures import SERIES, Line, clean, dot_interval_chart, line_chart, moving_mean
from turnwise.runs.numbers import estimate_text, nice_ticks, number, tick_labels
from turnwise.runs.page import Section, embedded_json, table, write_page

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "</title></text></script><script>alert(1)</script>\"'&\x00\x1b\ud800\uffff]]>"

anything = st.floats(allow_nan=True, allow_infinity=True)
plain = st.floats(-1e9, 1e9)


def coordinates(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(anything, max_size=30), max_size=SERIES), st.text(max_size=20), st.integers(1, 7))
def test_any_line_chart_is_well_formed_and_stays_in_its_frame(
    figures: list[list[float]], name: str, smooth: int
) -> None:
    lines = [Line(name, [float(i) for i in range(len(ys))], ys) for ys in figures]
    svg = line_chart(lines, title=name, unit=name, smooth=smooth)
    root = ET.fromstring(svg)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert "nan" not in re.sub(r'aria-label="[^"]*"|>[^<]*<', "", svg)
    for path in root.iter(f"{SVG}path"):
        if path.attrib["class"].startswith(("line s", "raw")):
            for x, y in coordinates(path.attrib["d"]):
                assert -0.06 <= x <= width
                assert -0.06 <= y <= height


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=50), anything, anything, anything), max_size=6))
def test_any_dot_chart_is_well_formed(rows: list[tuple[str, float, float, float]]) -> None:
    estimates = [(name, Estimate(mean, low, high, 3, NASTY)) for name, mean, low, high in rows]
    ET.fromstring(dot_interval_chart(estimates, title=NASTY, x_label=NASTY, reference=0.0))


def test_hostile_names_are_text() -> None:
    svg = line_chart([Line(NASTY, [1, 2], [1, 2]), Line(NASTY, [1, 2], [2, 1])], title=NASTY, x_label=NASTY, unit=NASTY)
    tags = {element.tag.removeprefix(SVG) for element in ET.fromstring(svg).iter()}
    assert tags <= {"svg", "text", "tspan", "path", "rect", "title", "circle"}


def test_a_line_passes_through_its_points() -> None:
    svg = line_chart([Line("", [0, 1, 2], [0.0, 10.0, 5.0])], title="t", width=300, height=200)
    (path,) = (p.attrib["d"] for p in ET.fromstring(svg).iter(f"{SVG}path") if p.attrib["class"] == "line s0")
    (x0, y0), (x1, y1), (x2, y2) = coordinates(path)
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.2)
    assert y2 - y1 == pytest.approx((y0 - y1) / 2, abs=0.2)
    assert y1 < y2 < y0  # SVG counts downwards


def test_a_gap_lifts_the_pen() -> None:
    svg = line_chart([Line("", range(5), [1.0, 2.0, math.nan, 4.0, 5.0])], title="t")
    (path,) = (p.attrib["d"] for p in ET.fromstring(svg).iter(f"{SVG}path") if p.attrib["class"] == "line s0")
    assert [re.sub(r"[^ML]", "", path)] == ["MLML"]


@given(st.integers(0, 9999), st.sampled_from([-1.0, 1.0]))
@settings(max_examples=20, deadline=None)
def test_thinning_keeps_every_spike(where: int, sign: float) -> None:
    ys = np.zeros(10_000)
    ys[where] = sign
    svg = line_chart([Line("", range(10_000), ys.tolist())], title="t", y_range=(-1, 1))
    (path,) = (p.attrib["d"] for p in ET.fromstring(svg).iter(f"{SVG}path") if p.attrib["class"] == "line s0")
    assert len({y for _, y in coordinates(path)}) == 2
    assert len(svg) < 40_000


def test_figures_under_the_pointer_are_those_of_the_line() -> None:
    svg = line_chart([Line("a", [1, 2], [0.25, 0.5]), Line("b", [2, 3], [0.1, math.nan])], title="t", unit="share")
    titles = [e.text for e in ET.fromstring(svg).iter(f"{SVG}title")]
    assert titles == ["iteration 1: a 25 %", "iteration 2: a 50 %, b 10 %"]


def test_lines_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="1 figures for 2 positions"):
        Line("a", [1, 2], [1])
    with pytest.raises(ValueError, match="both edges"):
        Line("a", [1], [1], low=[0])
    with pytest.raises(ValueError, match="tells 4 lines apart, not 5"):
        line_chart([Line("", [1], [1])] * 5, title="t")


def test_bars_and_dots_lie_where_the_figures_are() -> None:
    rows = [("one", Estimate(2.0, 1.0, 4.0, 9, "how")), ("two", Estimate(3.0, math.nan, math.nan, 1, "none"))]
    root = ET.fromstring(dot_interval_chart(rows, title="t", x_range=(0, 4)))
    (bar,) = (p.attrib["d"] for p in root.iter(f"{SVG}path") if p.attrib["class"].startswith("interval"))
    start, end = map(float, re.findall(r"[MH]([\d.]+)", bar))
    one, two = (float(c.attrib["cx"]) for c in root.iter(f"{SVG}circle"))
    assert (one - start) / (end - start) == pytest.approx(1 / 3, abs=0.01)
    assert (two - start) / (end - start) == pytest.approx(2 / 3, abs=0.01)


@given(plain, plain, st.integers(2, 8))
def test_padded_ticks_hold_the_range_in_round_steps(a: float, b: float, count: int) -> None:
    low, high = sorted((a, b))
    ticks = nice_ticks(low, high, count, pad=True)
    slack = 1e-5 * (high - low)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= count + 3
    step = ticks[1] - ticks[0]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-3 * max(1.0, max(map(abs, ticks)) / step)


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0, 0.5, 1.0], ["0", "0.5", "1.0"]),
        ([-0.25, 0, 0.25], ["−0.25", "0", "0.25"]),
        ([0, 5000, 10000], ["0", "5k", "10k"]),
        ([0, 5e-8, 1e-7], ["0", "5e−8", "1.0e−7"]),
        ([10, 20], ["10", "20"]),
    ],
)
def test_tick_labels(ticks: list[float], labels: list[str]) -> None:
    assert tick_labels(ticks) == labels


def test_tick_labels_of_shares() -> None:
    assert tick_labels([0, 0.5, 1], share=True) == ["0 %", "50 %", "100 %"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (7.0, "7"), (-0.35625, "−0.356"), (45720.0, "45,720"), (8.08e-8, "8.1e−8"), (0.05, "0.0500"),
     (math.nan, "–"), (None, "–"), (math.inf, "–"), (1e20, "1e20")],
)  # fmt: skip
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_shares_and_estimates() -> None:
    assert [number(x, share=True) for x in (0.0, 0.0014, 0.075, 0.94, 1.0)] == [
        "0 %",
        "0.14 %",
        "7.5 %",
        "94 %",
        "100 %",
    ]
    assert estimate_text(Estimate(7.0, 6.42, 7.56, 16, "")) == "7.00 [6.42, 7.56] n=16"
    assert estimate_text(Estimate(7.0, math.nan, math.nan, 1, "")) == "7.00 n=1"


def test_moving_mean_by_hand() -> None:
    np.testing.assert_allclose(moving_mean([1.0, 2.0, 6.0, 4.0], 3), [1.5, 3.0, 4.0, 5.0])
    np.testing.assert_allclose(moving_mean([1.0, math.nan, 3.0], 3), [1.0, math.nan, 3.0])


@given(st.lists(plain, min_size=1, max_size=40), st.integers(0, 9))
def test_moving_mean_stays_within_its_data(values: list[float], half: int) -> None:
    smoothed = moving_mean(values, 2 * half + 1)
    slack = 1e-6 * (1 + max(map(abs, values)))
    assert smoothed.min() >= min(values) - slack
    assert smoothed.max() <= max(values) + slack


@given(st.text())
def test_clean_text_is_xml(text: str) -> None:
    element = ET.fromstring(f'<a b="{clean(text)}">{clean(text)}</a>')
    assert "<" not in clean(text)
    assert element.tag == "a"


class Tags(HTMLParser):
    """Counts elements and collects attributes and the content of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_page_shows_texts_as_text_and_loads_nothing(tmp_path: Path) -> None:
    chart = line_chart([Line("", [1, 2], [1, 2])], title=NASTY)
    grid = table([NASTY, "n"], [[NASTY, "1"]], caption=NASTY, figures=1)
    out = write_page(NASTY, [Section(NASTY, [NASTY, chart, chart, grid])], tmp_path / "new" / "page.html", lead=NASTY)
    page = Tags(out.read_text(encoding="utf-8"))
    assert page.tags.count("script") == 1
    assert page.tags.count("svg") == 2
    assert not page.links
    assert not page.handlers
    assert sum("alert(1)" in text for text in page.text) >= 6
    assert "default-src 'none'" in out.read_text(encoding="utf-8")


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' has 1 cells for 2 columns"):
        table(["x", "y"], [["a"]])


def test_markup_in_a_cell_stays() -> None:
    assert '<a href="r.html">' in table(["x"], [[Markup('<a href="r.html">go</a>')]])


@given(st.recursive(st.text() | st.integers() | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_embedded_json_never_ends_its_element(data: object) -> None:
    import json

    text = embedded_json({"data": data, "x": "</script><!--<script>&\u2028"})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text)["data"] == data


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        write_page("t", [], tmp_path / "file" / "page.html")
