"""Charts as SVG text: lines over a number, and estimates with their intervals.

A chart is one ``<svg>`` element that can stand in any HTML page. Its colours are CSS classes with values for light and
dark pages in `STYLE`, which `turnwise.runs.page` puts into every page it writes; without it a chart is black on white.
Everything a chart shows is also in its title, description or text, so that it can be read aloud.

What this file leaves out: log axes, bars, and anything that needs a script. `turnwise.runs.page` adds the script that
shows figures under the pointer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from turnwise.runs.evaluate import Estimate
from turnwise.runs.numbers import estimate_text, nice_ticks, number, tick_labels

SERIES = 4
"""Lines that a chart can tell apart; more belong into several charts."""

STYLE = """
.chart{display:block;width:100%;height:auto;overflow:visible;font:12px system-ui,sans-serif;fill:var(--ink-2,#52514e)}
.chart .grid{stroke:var(--grid,#e4e3dd);stroke-width:1}
.chart .axis{stroke:var(--axis,#b9b7ae);stroke-width:1}
.chart .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.chart .raw{fill:none;stroke-width:1;opacity:.5;stroke-linejoin:round}
.chart .dense{opacity:.22}
.chart .band{opacity:.16;stroke:none}
.chart .s0{stroke:var(--s0,#2a78d6)}.chart .s1{stroke:var(--s1,#d9541e)}
.chart .s2{stroke:var(--s2,#13865f)}.chart .s3{stroke:var(--s3,#7a5bd0)}
.chart .f0{fill:var(--s0,#2a78d6)}.chart .f1{fill:var(--s1,#d9541e)}
.chart .f2{fill:var(--s2,#13865f)}.chart .f3{fill:var(--s3,#7a5bd0)}
.chart .dot{stroke:var(--surface,#fff);stroke-width:1.5}
.chart .interval{stroke-width:2;stroke-linecap:round}
.chart .reference{stroke:var(--ink-2,#52514e);stroke-width:1;stroke-dasharray:3 3}
.chart .name{fill:var(--ink,#111)}
.chart .figure{fill:var(--ink,#111);font-variant-numeric:tabular-nums}
.chart .hit{fill:transparent}
.chart .cross{stroke:var(--ink-2,#52514e);stroke-width:1;visibility:hidden}
.chart .spot{stroke:var(--surface,#fff);stroke-width:1.5;visibility:hidden}
.chart.live .cross,.chart.live .spot.on{visibility:visible}
"""
"""CSS of the charts, for a page that does not come from `turnwise.runs.page`."""

_LETTER = 6.5
"""Width of a letter of the charts' text, on average."""
_BOUNDS = ("mean", "low", "high")
_Scale = Callable[[float], float]

_POINTS = 600
_DENSE = 250
_HITS = 100
_MARGIN = (26.0, 12.0, 32.0, 48.0)  # top, right, bottom, left


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: For the legend, where there is more than one line.
        x: (n,) positions, increasing.
        y: (n,) figures; one that is not finite leaves a gap.
        low: (n,) lower edge of a band around the line, if any.
        high: (n,) upper edge of the band.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for part in (self.y, self.low, self.high):
            if part is not None and len(part) != len(self.x):
                raise ValueError(f"line {self.name!r} has {len(part)} figures for {len(self.x)} positions")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"line {self.name!r}: a band needs both edges, low and high")


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str = "iteration",
    unit: str = "",
    y_range: tuple[float, float] | None = None,
    smooth: int = 1,
    width: int = 290,
    height: int = 165,
) -> Markup:
    """A chart of up to `SERIES` lines on one pair of axes.

    Args:
        lines: What to draw. Long lines are thinned to their extremes, so that no spike is lost.
        title: Stands above the chart and is its name for screen readers.
        x_label: What the horizontal axis counts.
        unit: Of the figures, behind the title; ``share`` writes them in per cent.
        y_range: Ends of the vertical axis; by default what the figures need.
        smooth: Window of a centred moving mean, in points. Above 1 the figures themselves are drawn faintly behind it.
        width: In CSS pixels at its natural size; the chart grows and shrinks with its container.
        height: The same; a legend that needs rows of its own is added to it.

    Raises:
        ValueError: more than `SERIES` lines.
    """
    if len(lines) > SERIES:
        raise ValueError(f"a chart tells {SERIES} lines apart, not {len(lines)}; draw several charts")
    share = unit == "share"
    arrays = [(np.asarray(line.x, np.float64), _floats(line.y)) for line in lines]
    edges = [_floats(edge) for line in lines for edge in (line.low, line.high) if edge is not None]
    finite_x = _finite([x for x, _ in arrays])
    finite_y = _finite([y for _, y in arrays] + edges)
    if not len(finite_y):
        return _frame(title, f"{title}: no figures", width, 64, [_text(width / 2, 44, "no figures", "middle")])
    low, high = y_range or (float(finite_y.min()), float(finite_y.max()))
    if y_range is None and (high > low > 0) and low < 0.4 * high:
        low = 0.0
    y_ticks = nice_ticks(low, high, 4, pad=True)
    x_low, x_high = float(finite_x.min()), float(finite_x.max())
    x_ticks = [t for t in nice_ticks(x_low, x_high, 5) if x_low <= t <= x_high] or [x_low]
    whole = bool(np.all(finite_x == np.round(finite_x)))
    x_ticks = [t for t in x_ticks if not whole or t == round(t)] or [x_low]
    if whole and x_high < 10_000 and x_ticks[0] - x_low > 0.1 * (x_high - x_low):
        x_ticks.insert(0, x_low)

    top, right, bottom, left = _MARGIN
    legend, room = _legend(lines, 7.0 * len(title) + (0 if share else _LETTER * len(unit)), width, right)
    top, height = top + room, height + int(room)
    plot_w, plot_h = width - left - right, height - top - bottom
    y0, y1 = min(y_ticks[0], low), max(y_ticks[-1], high)

    def px(x: float) -> float:
        return left + (plot_w / 2 if x_high == x_low else (x - x_low) / (x_high - x_low) * plot_w)

    def py(y: float) -> float:
        return top + (y1 - min(max(y, y0), y1)) / (y1 - y0) * plot_h

    parts: list[str] = []
    for tick, label in zip(y_ticks, tick_labels(y_ticks, share=share), strict=True):
        y = py(tick)
        kind = "axis" if tick == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{left:g} {y:.1f}h{plot_w:g}"/>')
        parts.append(_text(left - 6, y + 4, label, "end"))
    for tick, label in zip(x_ticks, tick_labels(x_ticks), strict=True):
        parts.append(_text(px(tick), height - bottom + 15, label, "middle"))
    parts.append(_text(left + plot_w, height - 2, x_label, "end", "x-label"))
    parts += [f for i, line in enumerate(lines) for f in _band(i, line, arrays[i][0], px, py)]
    for i, (x, y) in enumerate(arrays):
        smoothed = moving_mean(y, smooth)
        if smooth > 1:
            parts.append(f'<path class="raw{" dense" if len(y) > _DENSE else ""} s{i}" d="{_path(x, y, px, py)}"/>')
        parts.append(f'<path class="line s{i}" d="{_path(x, smoothed, px, py)}"/>')
        if np.isfinite(y).sum() == 1:
            at = int(np.flatnonzero(np.isfinite(y))[0])
            parts.append(f'<circle class="dot f{i}" cx="{px(float(x[at])):.1f}" cy="{py(float(y[at])):.1f}" r="4"/>')
    parts += legend
    parts += _hits(lines, arrays, px, py, x_label, share, (left, top, plot_w, plot_h))
    told = "; ".join(
        _spoken(line.name or title, x, y, x_label, share) for line, (x, y) in zip(lines, arrays, strict=True)
    )
    return _frame(title, f"{title}: {told}", width, height, parts, "" if share else unit)


def dot_interval_chart(
    rows: Sequence[tuple[str, Estimate]],
    *,
    title: str,
    x_label: str = "",
    unit: str = "",
    x_range: tuple[float, float] | None = None,
    reference: float | None = None,
    highlight: Sequence[str] = (),
    width: int = 640,
) -> Markup:
    """Estimates under each other: a dot for the mean, a bar for the interval, and the figures in words.

    Args:
        rows: Name and estimate, from top to bottom. An estimate without an interval is a dot alone.
        title: Stands above the chart and is its name for screen readers.
        x_label: Under the axis.
        unit: ``share`` writes the figures in per cent.
        x_range: Ends of the axis; by default what the intervals need.
        reference: A dashed line at this figure (an optimum, chance).
        highlight: Names to draw in the second colour.
        width: In CSS pixels at its natural size; the chart grows and shrinks with its container.
    """
    share = unit == "share"
    bounded = [
        (name, replace(e, **dict(zip(_BOUNDS, _floats([e.mean, e.low, e.high]).tolist(), strict=True))))
        for name, e in rows
    ]
    shown = [(name, e) for name, e in bounded if math.isfinite(e.mean)]
    if not shown:
        return _frame(title, f"{title}: no figures", width, 64, [_text(width / 2, 44, "no figures", "middle")])
    ends = [v for _, e in shown for v in (e.mean, e.low, e.high) if math.isfinite(v)]
    ends += [reference] if reference is not None else []
    low, high = x_range or (min(ends), max(ends))
    told = [estimate_text(e, share=share) for _, e in shown]
    left = min(width * 0.45, 16 + 6.8 * max(len(name) for name, _ in shown))
    right = 18 + 6.2 * max(map(len, told))
    plot = max(60.0, width - left - right)
    ticks = nice_ticks(low, high, max(1, min(6, int(plot / 56))), pad=True)
    start, stop = min(ticks[0], low), max(ticks[-1], high)
    step, top = 26.0, 32.0
    floor = top + step * len(shown) - 6
    height = int(floor + (36 if x_label else 22))

    def px(x: float) -> float:
        return left + (min(max(x, start), stop) - start) / (stop - start) * plot

    parts: list[str] = []
    for tick, label in zip(ticks, tick_labels(ticks, share=share), strict=True):
        parts.append(f'<path class="grid" d="M{px(tick):.1f} {top - 6:g}V{floor:g}"/>')
        parts.append(_text(px(tick), floor + 15, label, "middle"))
    if x_label:
        parts.append(_text(left + plot, floor + 31, x_label, "end"))
    if reference is not None:
        parts.append(f'<path class="reference" d="M{px(reference):.1f} {top - 6:g}V{floor:g}"/>')
    for i, ((name, estimate), words) in enumerate(zip(shown, told, strict=True)):
        y = top + step * i + 8
        colour = int(name in highlight)
        clipped = name if len(name) * 6.8 <= left - 10 else name[: max(1, int((left - 10) / 6.8) - 1)] + "…"
        parts.append(f"<g><title>{clean(name)}: {clean(words)}; {clean(estimate.how)}</title>")
        parts.append(_text(left - 12, y + 4, clipped, "end", "name"))
        if math.isfinite(estimate.low) and math.isfinite(estimate.high):
            parts.append(
                f'<path class="interval s{colour}" d="M{px(estimate.low):.1f} {y:g}H{px(estimate.high):.1f}"/>'
            )
        parts.append(f'<circle class="dot f{colour}" cx="{px(estimate.mean):.1f}" cy="{y:g}" r="5"/>')
        parts.append(_text(left + plot + 14, y + 4, words, "start", "figure"))
        parts.append("</g>")
    spoken = "; ".join(f"{name}: {words}" for (name, _), words in zip(shown, told, strict=True))
    return _frame(title, f"{title}: {spoken}", width, height, parts, "" if share else unit)


# ---- arithmetic and text ----------------------------------------------------------------------------------------------


def moving_mean(values: NDArray[np.float64] | Sequence[float], window: int) -> NDArray[np.float64]:
    """Centred moving mean over `window` points (n,), shorter at the ends; gaps stay gaps and enter no mean."""
    array = _floats(values)
    if window <= 1 or not len(array):
        return array
    known = np.isfinite(array)
    half = window // 2
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, array, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    index = np.arange(len(array))
    start, stop = np.maximum(index - half, 0), np.minimum(index + half + 1, len(array))
    n = counts[stop] - counts[start]
    mean = np.divide(sums[stop] - sums[start], n, out=np.full(len(array), np.nan), where=n > 0)
    return np.where(known, mean, np.nan)


def clean(text: str) -> str:
    """Text that may stand anywhere in XML: markup escaped, characters that XML forbids replaced."""
    return escape(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


# ---- parts of a chart ------------------------------------------------------------------------------------------------


def _floats(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    # Beyond these sizes the arithmetic of an axis overflows or underflows.
    array = np.where(np.abs(array) < 1e-150, 0.0, array)
    return np.where(np.abs(array) < 1e150, array, np.nan)


def _finite(arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    joined = np.concatenate([np.zeros(0), *arrays])
    return joined[np.isfinite(joined)]


def _frame(title: str, description: str, width: int, height: int, parts: Sequence[str], unit: str = "") -> Markup:
    note = f'<tspan class="unit" dx="5">{clean(unit)}</tspan>' if unit else ""
    head = f'<text class="name" x="0" y="12" font-weight="600">{clean(title)}{note}</text>'
    return Markup(
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{clean(description)}">{head}{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{clean(text)}</text>'


def _path(x: NDArray[np.float64], y: NDArray[np.float64], px: _Scale, py: _Scale) -> str:
    """The line in SVG's path language, lifted wherever a figure is missing."""
    drawn: list[str] = []
    pen_down = False
    for i in _thin(y):
        if not math.isfinite(y[i]):
            pen_down = False
            continue
        drawn.append(f"{'L' if pen_down else 'M'}{px(float(x[i])):.1f} {py(float(y[i])):.1f}")
        pen_down = True
    return "".join(drawn)


def _thin(y: NDArray[np.float64]) -> list[int]:
    """Indices to draw: all, or the lowest and the highest of each of `_POINTS` / 2 stretches."""
    if len(y) <= _POINTS:
        return list(range(len(y)))
    kept: list[int] = [0]
    for part in np.array_split(np.arange(len(y)), _POINTS // 2):
        known = part[np.isfinite(y[part])]
        ends = {int(known[np.argmin(y[known])]), int(known[np.argmax(y[known])])} if len(known) else {int(part[0])}
        kept += sorted(ends)
    return sorted({*kept, len(y) - 1})


def _band(i: int, line: Line, x: NDArray[np.float64], px: _Scale, py: _Scale) -> list[str]:
    if line.low is None or line.high is None:
        return []
    low, high = _floats(line.low), _floats(line.high)
    keep = [j for j in _thin(low) if math.isfinite(low[j]) and math.isfinite(high[j])]
    if not keep:
        return []
    upper = [f"{px(float(x[j])):.1f} {py(float(high[j])):.1f}" for j in keep]
    lower = [f"{px(float(x[j])):.1f} {py(float(low[j])):.1f}" for j in reversed(keep)]
    return [f'<path class="band f{i}" d="M{"L".join(upper + lower)}Z"/>']


def _legend(lines: Sequence[Line], title_width: float, width: float, right: float) -> tuple[list[str], float]:
    """The legend, and the room it needs below the title: none if it fits beside it."""
    if len(lines) < 2:
        return [], 0.0
    widths = [16 + _LETTER * len(line.name) for line in lines]
    below = title_width + sum(widths) + 10 * len(lines) > width - right
    rows, x, y = 0, 0.0 if below else width - right - sum(widths) - 10 * (len(lines) - 1), 12.0
    parts: list[str] = []
    for i, (line, size) in enumerate(zip(lines, widths, strict=True)):
        if below and (i == 0 or x + size > width - right):
            rows, x, y = rows + 1, 0.0, y + 16
        parts.append(f'<path class="line s{i}" d="M{x:.1f} {y - 4:g}h11"/>')
        parts.append(_text(x + 16, y, line.name, "start", "legend"))
        x += size + 10
    return parts, 16.0 * rows


def _hits(
    lines: Sequence[Line],
    arrays: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    px: _Scale,
    py: _Scale,
    x_label: str,
    share: bool,
    box: tuple[float, float, float, float],
) -> list[str]:
    """Invisible columns that know their figures: a tooltip without a script, a crosshair with one."""
    left, top, plot_w, plot_h = box
    found: dict[float, list[tuple[int, float]]] = {}
    for i, (xs, ys) in enumerate(arrays):
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
            if math.isfinite(y):
                found.setdefault(x, []).append((i, y))
    order = sorted(found)
    if len(order) > _HITS:
        order = [order[round(i * (len(order) - 1) / (_HITS - 1))] for i in range(_HITS)]
    middles = [(px(a) + px(b)) / 2 for a, b in pairwise(order)]
    bounds = [left, *middles, left + plot_w]
    several = len(lines) > 1
    parts: list[str] = []
    for k, x in enumerate(order):
        said = ", ".join((f"{lines[i].name} " if several else "") + number(y, share=share) for i, y in found[x])
        spots = " ".join(f"{i}:{py(y):.1f}" for i, y in found[x])
        parts.append(
            f'<rect class="hit" x="{bounds[k]:.1f}" y="{top:g}" width="{bounds[k + 1] - bounds[k]:.1f}" height="{plot_h:g}" '
            f'data-x="{x:g}" data-px="{px(x):.1f}" data-spots="{spots}">'
            f"<title>{clean(x_label)} {number(x)}: {clean(said)}</title></rect>"
        )
    cross = f'<path class="cross" d="M0 {top:g}v{plot_h:g}"/>'
    return [cross, *(f'<circle class="spot f{i}" r="3.5"/>' for i in range(len(lines))), *parts]


def _spoken(name: str, x: NDArray[np.float64], y: NDArray[np.float64], x_label: str, share: bool) -> str:
    known = np.flatnonzero(np.isfinite(y))
    if not len(known):
        return f"{name} has no figures"
    first, last = int(known[0]), int(known[-1])
    return (
        f"{name} from {number(float(y[first]), share=share)} at {x_label} {number(float(x[first]))} "
        f"to {number(float(y[last]), share=share)} at {x_label} {number(float(x[last]))}"
    )
