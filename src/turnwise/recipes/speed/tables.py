"""One table and one plot for each question, read off the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from markupsafe import Markup

from turnwise.recipes.speed.cases import WORKLOADS, Case
from turnwise.recipes.speed.flops import work
from turnwise.recipes.speed.measure import OURS, THEIRS
from turnwise.recipes.speed.plan import DECODING, SETTINGS, SHAPES, STEPS, TURNS
from turnwise.recipes.speed.results import Record, records
from turnwise.runs.evaluate import Estimate
from turnwise.runs.figures import SERIES, Line, dot_interval_chart, line_chart
from turnwise.runs.numbers import number


@dataclass(frozen=True)
class Answer:
    """What is shown for a question.

    Attributes:
        key: Its name in file names.
        title: The question.
        text: What the figures are.
        heading: Names of the columns.
        rows: One text per column.
        charts: Its plot, or the parts of it.
    """

    key: str
    title: str
    text: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    charts: Sequence[Markup] = field(default_factory=tuple[Markup, ...])


def answers(results: Mapping[str, Any]) -> list[Answer]:
    """Every question that there are figures for."""
    made = [
        _steps(results),
        _shares(results),
        _turns(results),
        _shapes(results),
        _phases(results),
        _decoding(results),
        _memory(results),
        _startup(results),
        _threads(results),
        _settings(results),
    ]
    return [answer for answer in made if answer is not None and answer.rows]


def missing(results: Mapping[str, Any]) -> list[str]:
    """What was to be measured and could not be, with the reason."""
    return list(
        dict.fromkeys(
            f"{_title(record.case)}, {name}: {reason}"
            for record in records(results)
            for name, reason in record.skipped.items()
        )
    )


# ---- the questions ---------------------------------------------------------------------------------------------------


def _steps(results: Mapping[str, Any]) -> Answer | None:
    first = _first_threads(results)
    found = [r for r in records(results, STEPS) if r.case.threads == first]
    dtypes = _dtypes(found)
    heading = ["workload", "size"]
    for dtype in dtypes:
        heading += [f"TRL {dtype}, s", f"turnwise {dtype}, s", f"ratio {dtype}"]
    heading += [f"{dtype} against TRL's best" for dtype in dtypes if len(dtypes) > 1]
    rows: list[list[str]] = []
    dots: list[tuple[str, Estimate]] = []
    for record in found:
        row = [WORKLOADS[record.case.workload].title, record.case.size]
        for dtype in dtypes:
            ratios = record.same_dtype(dtype)
            row += [_s(record.time(f"{THEIRS} {dtype}")), _s(record.time(f"{OURS} {dtype}")), _ratio(ratios)]
            if ratios:
                dots.append((f"{_title(record.case)}, {dtype}", _estimate(ratios)))
        row += [_ratio(record.against_best(dtype)) for dtype in dtypes if len(dtypes) > 1]
        rows.append(row)
    text = (
        f"Seconds of a whole step, rollout, update and optimizer included ({_clock(found)}, median), and how many times as long "
        "the other side takes: the median of the ratios of the pairs, and their range."
    )
    chart = [dot_interval_chart(dots, title="times as fast as TRL, same dtype", reference=1.0)] if dots else []
    return Answer("steps", "How long is a training step?", text, heading, rows, chart)


def _shares(results: Mapping[str, Any]) -> Answer | None:
    rows: list[list[str]] = []
    dots: list[tuple[str, Estimate]] = []
    for record in records(results, STEPS):
        for dtype in _dtypes([record]):
            rate = record.rate(dtype)
            if rate is None:
                continue
            needed, row = work(record.case), [_title(record.case), dtype, number(rate)]
            for name, operations in (
                (f"{THEIRS} {dtype}", needed.every),
                (f"{OURS} {dtype}", needed.every),
                (f"{OURS} {dtype}", needed.distinct),
            ):
                shares = [operations / seconds / rate / 1e9 for seconds in record.times(name)]
                row.append(number(median(shares), share=True) if shares else "–")
                if shares and operations == needed.every:
                    dots.append((f"{_title(record.case)}, {name}", _estimate(shares)))
            rows.append(
                [*row, *(_s(_per(record.case.tokens, record.time(f"{who} {dtype}"))) for who in (THEIRS, OURS))]
            )
    heading = [
        "workload", "dtype", "products, GFLOP/s", "TRL", "turnwise", "turnwise, distinct tokens", "TRL, tokens/s",
        "turnwise, tokens/s",
    ]  # fmt: skip
    text = (
        "The least number of operations that the work needs, counted from its shapes, per second, as a share of the rate of plain "
        "matrix products that was measured between the steps (the faster of two libraries). TRL and turnwise are credited with "
        "every token of every sequence; in the last share a prompt that several sequences have in common counts once, which is "
        "what turnwise computes. Tokens are all those that a step learns from or reads."
    )
    chart = [dot_interval_chart(dots, title="share of the product rate", unit="share")] if dots else []
    return Answer("floor", "How near is it to what the machine can do?", text, heading, rows, chart)


def _turns(results: Mapping[str, Any]) -> Answer | None:
    found = sorted(records(results, TURNS), key=lambda r: (r.case.size, r.case.turns))
    rows: list[list[str]] = []
    for record in found:
        dtype = _dtypes([record])[0]
        theirs, ours = record.time(f"{THEIRS} {dtype}"), record.time(f"{OURS} {dtype}")
        sampled = record.case.sampled / 1000
        rows.append(
            [
                record.case.size, str(record.case.turns), str(record.case.rows), f"{record.case.tokens:,}", _s(theirs),
                _s(ours), _ratio(record.same_dtype(dtype)), *(_s(t and t / sampled) for t in (theirs, ours)),
                str(len(record.times(f"{OURS} {dtype}"))),
            ]
        )  # fmt: skip
    heading = [
        "size", "turns", "episodes", "tokens", "TRL, s", "turnwise, s", "ratio", "TRL, s per 1,000 sampled",
        "turnwise, s per 1,000 sampled", "rounds",
    ]  # fmt: skip
    charts = _curves(
        found,
        lambda r: r.case.turns,
        lambda r, name: (t := r.time(name)) and t / r.case.sampled * 1000,
        title="seconds per 1,000 sampled tokens",
        x_label="turns",
    )
    text = (
        "Whole steps of GRPO on episodes whose turns have 32 observation and 16 action tokens. The cost per sampled token grows "
        "only by attention where the cache is kept between turns; where each turn reads everything again it grows with the turns."
    )
    return Answer("turns", "What do more turns cost?", text, heading, rows, charts)


def _shapes(results: Mapping[str, Any]) -> Answer | None:
    found = list(records(results, SHAPES))
    rows: list[list[str]] = []
    for record in found:
        dtype, case = _dtypes([record])[0], record.case
        times = [record.time(f"{who} {dtype}") for who in (THEIRS, OURS)]
        row = [case.size, str(case.groups), str(case.group_size), str(case.prompt), str(case.actions)]
        rows.append([*row, *map(_s, times), _ratio(record.same_dtype(dtype))])
    heading = ["size", "prompts", "group size", "prompt tokens", "answer tokens", "TRL, s", "turnwise, s", "ratio"]
    charts: list[Markup] = []
    for title, label, chosen, x in (
        ("64 answers", "group size", lambda c: c.rows == 64 and c.prompt == 64, lambda r: r.case.group_size),
        ("groups of 8", "answers", lambda c: c.group_size == 8 and c.prompt == 64, lambda r: r.case.rows),
        ("32 answers", "prompt tokens", lambda c: c.rows == 32, lambda r: r.case.prompt),
    ):
        part = sorted((r for r in found if chosen(r.case)), key=x)
        charts += _curves(part, x, lambda r, name: r.time(name), title=f"seconds, {title}", x_label=label)
    text = "Whole steps of GRPO with one turn, with other group sizes at 64 answers, batches of groups of 8, and longer prompts."
    return Answer("shapes", "How does it grow with group size, batch and context?", text, heading, rows, charts)


def _phases(results: Mapping[str, Any]) -> Answer | None:
    rows: list[list[str]] = []
    dots: list[tuple[str, Estimate]] = []
    for record in records(results, STEPS):
        if not WORKLOADS[record.case.workload].samples:
            continue
        for dtype in _dtypes([record]):
            name = f"{OURS} {dtype}"
            rollout, update = record.phase(name, "rollout"), record.phase(name, "update")
            if rollout is None or update is None:
                continue
            other = f"{THEIRS} {dtype}"
            theirs = record.phase(other, "rollout") or record.phase(other, "generation")
            whole = record.time(other)
            rest = None if theirs is None or whole is None else whole - theirs
            title = f"{_title(record.case)}, {dtype}"
            rows.append(
                [title, _s(rollout), _s(update), number(update / (rollout + update), share=True), _s(theirs), _s(rest)]
            )
            dots.append((title, Estimate(update / (rollout + update), float("nan"), float("nan"), 1, "median")))
    heading = ["workload", "rollout, s", "update, s", "update's share", "TRL's rollout, s", "TRL's rest, s"]
    text = (
        "Where the seconds of a step of turnwise go, and what TRL spends on generation. PPO's judge is part of our rollout, and "
        "of TRL's rest."
    )
    chart = [dot_interval_chart(dots, title="share of the update", unit="share", x_range=(0.0, 1.0))] if dots else []
    return Answer("phases", "Where does the time of a step go?", text, heading, rows, chart)


def _decoding(results: Mapping[str, Any]) -> Answer | None:
    first = _first_threads(results)
    found = [r for r in records(results, DECODING) if r.case.threads == first]
    rows: list[list[str]] = []
    for record in found:
        for dtype in _dtypes([record]):
            rates = [_per(record.case.sampled, record.time(f"{who} {dtype}")) for who in (THEIRS, OURS)]
            rows.append(
                [record.case.size, str(record.case.rows), dtype, *map(_s, rates), _ratio(record.same_dtype(dtype))]
            )
    heading = ["size", "batch", "dtype", "generate, tokens/s", "turnwise, tokens/s", "ratio"]
    charts = _curves(
        found,
        lambda r: r.case.rows,
        lambda r, name: _per(r.case.sampled, r.time(name)),
        title="sampled tokens per second",
        x_label="batch",
    )
    text = "128 tokens after prompts of 64, by the engine of turnwise and by `generate` of transformers; reading the prompts is included."
    return Answer("decoding", "How fast are tokens sampled?", text, heading, rows, charts)


def _memory(results: Mapping[str, Any]) -> Answer | None:
    first = _first_threads(results)
    rows: list[list[str]] = []
    dots: list[tuple[str, Estimate]] = []
    for record in records(results, STEPS):
        if record.case.threads != first:
            continue
        for dtype in _dtypes([record]):
            theirs, ours = (record.peak(f"{who} {dtype}") for who in (THEIRS, OURS))
            if theirs is None and ours is None:
                continue
            ratio = theirs / ours if theirs and ours else None
            title = f"{_title(record.case)}, {dtype}"
            rows.append([title, _mb(theirs), _mb(ours), number(ratio)])
            if ratio is not None:
                dots.append((title, Estimate(ratio, float("nan"), float("nan"), 1, "one step")))
    heading = ["workload", "TRL, MB", "turnwise, MB", "ratio"]
    text = (
        "What an update needs on top of weights, gradients' and optimizer's memory that are there already, in one step: on a CPU the "
        "rise of the resident set, on a GPU the allocator's. Both with the settings that were timed."
    )
    chart = [dot_interval_chart(dots, title="TRL's memory over ours", reference=1.0)] if dots else []
    return Answer("memory", "How much memory does an update need?", text, heading, rows, chart)


def _startup(results: Mapping[str, Any]) -> Answer | None:
    rows: list[list[str]] = []
    dots: list[tuple[str, Estimate]] = []
    for name, tries in results["startup"].items():
        seconds, cpu = ([pair[i] for pair in tries] for i in (0, 1))
        rows.append([name, _spread(seconds), _spread(cpu), str(len(tries))])
        dots.append((name, _estimate(seconds)))
    text = (
        "Seconds from the start of a process: to the end of the help page, and to the end of the first training step of a tiny "
        "model (GRPO, 8 answers of 16 tokens), imports and all. Median and range."
    )
    chart = [dot_interval_chart(dots, title="seconds")] if dots else []
    return Answer("start-up", "How long until something happens?", text, ["what", "s", "CPU s", "tries"], rows, chart)


def _threads(results: Mapping[str, Any]) -> Answer | None:
    found = [r for r in records(results) if r.question in (STEPS, DECODING)]
    counts = sorted({record.case.threads for record in found})
    if len(counts) < 2:
        return None
    rows: list[list[str]] = []
    dots: list[tuple[str, Estimate]] = []
    by_case: dict[tuple[str, str, int], dict[int, Record]] = {}
    for record in found:
        by_case.setdefault((record.case.workload, record.case.size, record.case.rows), {})[record.case.threads] = record
    for same in by_case.values():
        for dtype in _dtypes(list(same.values())):
            row = [_title(next(iter(same.values())).case), dtype]
            for who in (THEIRS, OURS):
                row += [_wall(same.get(n), f"{who} {dtype}") for n in counts]
            ratios = {n: _wall_ratios(record, dtype) for n, record in same.items()}
            rows.append([*row, *(_ratio(ratios.get(n, [])) for n in counts)])
            dots += [(f"{row[0]}, {dtype}, {n} threads", _estimate(ratios[n])) for n in counts if ratios.get(n)]
    heading = ["workload", "dtype"]
    heading += [f"{side}, {n} thread{'s' * (n > 1)}, s" for side in ("TRL", "turnwise") for n in counts]
    heading += [f"ratio, {n}" for n in counts]
    text = (
        "Seconds by the clock on the wall, because CPU seconds say nothing about waiting threads; ratios of the pairs."
    )
    chart = [dot_interval_chart(dots, title="times as fast as TRL, by threads", reference=1.0)] if dots else []
    return Answer("threads", "What do more threads bring?", text, heading, rows, chart)


def _settings(results: Mapping[str, Any]) -> Answer | None:
    rows: list[list[str]] = []
    dots: list[tuple[str, Estimate]] = []
    for record in records(results, SETTINGS):
        for name in record.sides:
            side = name.split()[0]
            used = f"{side} fp32"
            ratios = record.ratios(used, name) if name != used else []
            title = f"{_named(name)}{', as used' * (name == used)}"
            rows.append([_title(record.case), title, _s(record.time(name)), _ratio(ratios), _mb(record.peak(name))])
            if ratios:
                dots.append((f"{_title(record.case)}: {title}", _estimate(ratios)))
    text = (
        "The settings that each side is measured with, and others, one different at a time. A ratio above 1 is faster than what is "
        "used. Rows, pairs and tokens at a time are those of one forward pass."
    )
    heading = ["workload", "setting", "s", "times as fast", "MB of an update"]
    chart = (
        [dot_interval_chart(dots, title="times as fast as the settings that are used", reference=1.0)] if dots else []
    )
    return Answer("settings", "Which settings are the best?", text, heading, rows, chart)


# ---- parts -----------------------------------------------------------------------------------------------------------


def _title(case: Case) -> str:
    batch = f" at batch {case.rows}" if case.workload == "decode" else ""
    return f"{WORKLOADS[case.workload].title}{batch}, {case.size}"


def _named(name: str) -> str:
    """A participant, as people call it."""
    side, _, rest = name.partition(" ")
    return f"{'turnwise' if side == OURS else 'TRL'} {rest}"


def _first_threads(results: Mapping[str, Any]) -> int:
    return min((record.case.threads for record in records(results)), default=1)


def _dtypes(found: Sequence[Record]) -> list[str]:
    names = {name.split()[1] for record in found for name in (*record.sides, *record.skipped)}
    return [dtype for dtype in ("fp32", "bf16") if dtype in names]


def _clock(found: Sequence[Record]) -> str:
    return "CPU seconds of one thread" if all(record.clock == "cpu" for record in found) else "seconds on the wall"


def _curves(
    found: Sequence[Record],
    x: Callable[[Record], float],
    y: Callable[[Record, str], float | None],
    *,
    title: str,
    x_label: str,
) -> list[Markup]:
    """A chart for each size, with a line for each participant that has figures."""
    charts: list[Markup] = []
    for size in dict.fromkeys(record.case.size for record in found):
        part = [record for record in found if record.case.size == size]
        names = list(dict.fromkeys(name for record in part for name in record.sides))[:SERIES]
        lines: list[Line] = []
        for name in names:
            points = [(x(record), value) for record in part if (value := y(record, name)) is not None]
            lines.append(
                Line(name.replace(OURS, "turnwise").replace(THEIRS, "TRL"), *map(list, zip(*points, strict=True)))
            )
        if lines and len(part) > 1:
            charts.append(line_chart(lines, title=f"{title}, {size}", x_label=x_label))
    return charts


def _estimate(values: Sequence[float]) -> Estimate:
    return Estimate(median(values), min(values), max(values), len(values), "median and range over the rounds")


def _ratio(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else "–"


def _spread(values: Sequence[float]) -> str:
    return (
        f"{number(median(values), trim=False)} [{number(min(values), trim=False)}, {number(max(values), trim=False)}]"
    )


def _wall(record: Record | None, name: str) -> str:
    return "–" if record is None or name not in record.sides else _s(median(record.sides[name]["seconds"]))


def _wall_ratios(record: Record, dtype: str) -> list[float]:
    sides = [record.sides.get(f"{who} {dtype}", {}).get("seconds", []) for who in (THEIRS, OURS)]
    return [a / b for a, b in zip(*sides, strict=False)]


def _per(amount: float, seconds: float | None) -> float | None:
    return amount / seconds if seconds else None


def _s(value: float | None) -> str:
    return number(value, trim=False)


def _mb(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e6:,.0f}"
