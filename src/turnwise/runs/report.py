"""The report of a run: one HTML file that shows what was trained, how it went, and what the policy does turn by turn.

It is made from the run's folder alone, at any time, also while the run goes on or after it died.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from turnwise.runs import report_episodes
from turnwise.runs.figures import SERIES, Line, clean, dot_interval_chart, line_chart
from turnwise.runs.folder import RunFolder
from turnwise.runs.numbers import number
from turnwise.runs.page import render, save, table
from turnwise.runs.report_data import Result, Rows, RunData, Setting, cost, figure, gather, settings

_CHARTS = 48
_TABLE_ROWS = 60


@dataclass(frozen=True)
class Panel:
    """One chart of metrics.

    Attributes:
        title: Above the chart.
        lines: Metric -> name in the legend.
        about: What the figure is, in a line.
        unit: Of the figures; ``share`` for per cent.
        whole: A share whose axis always goes from 0 to 1.
        exact: A schedule, which has no noise to smooth.
    """

    title: str
    lines: Mapping[str, str]
    about: str
    unit: str = ""
    whole: bool = False
    exact: bool = False


_GROUPS: Mapping[str, Sequence[Panel]] = {
    "Outcome": (
        Panel("Return", {"reward": ""}, "sum of the rewards of an episode, mean over episodes"),
        Panel("Success", {"success": ""}, "episodes whose environment reported success", "share", whole=True),
        Panel("Turns per episode", {"turns/mean": ""}, "actions, mean over episodes"),
    ),
    "Policy": (
        Panel("Entropy", {"entropy": ""}, "of the sampling distribution at action tokens", "nats"),
        Panel("Negative log-likelihood", {"nll": ""}, "per target token", "nats"),
        Panel("Approximate KL", {"approx_kl": ""}, "how far one iteration moves the policy, per token", "nats"),
        Panel("KL to the reference", {"kl": ""}, "divergence from the policy that training started from", "nats"),
        Panel("Clip ratio", {"clip_ratio/low": "low", "clip_ratio/high": "high", "clip_ratio/dual": "dual"},
              "action tokens whose probability ratio was clipped", "share"),
        Panel("Policy loss", {"policy/loss": ""}, "the surrogate; near 0 by construction, no measure of progress"),
    ),
    "Critic": (
        Panel("Value explained variance", {"value/explained_variance": ""}, "1 is perfect, 0 no better than a constant"),
        Panel("Value", {"value/mean": "predicted", "value/target": "target"}, "mean, in units of the scaled reward"),
        Panel("Value loss", {"value/loss": ""}, "squared error of the value"),
        Panel("Value clip ratio", {"clip_ratio/value": ""}, "predictions held back by value clipping", "share"),
    ),
    "Credit": (
        Panel("Groups without signal", {"frac_reward_zero_std": ""}, "episodes whose group all had the same return", "share"),
    ),
    "Actions and cuts": (
        Panel("Action length", {"completions/mean_length": ""}, "sampled tokens per action", "tokens"),
        Panel("Actions cut off", {"completions/clipped_ratio": ""}, "without a stop token at the end of the budget", "share"),
        Panel("Episodes truncated", {"episodes/truncated": ""}, "stopped by us, not ended by the task", "share"),
        Panel("Episodes failed", {"episodes/failed": ""}, "broken by the environment; they train nothing", exact=True),
    ),
    "Optimiser and agreement": (
        Panel("Loss", {"loss": ""}, "what was differentiated, mean over optimizer steps"),
        Panel("Gradient norm", {"grad_norm": ""}, "before clipping, mean over optimizer steps"),
        Panel("Learning rate", {"lr": ""}, "as scheduled", exact=True),
        Panel("Drift, mean", {"drift/mean_abs": ""}, "|log-probability at training − at rollout|", "nats"),
        Panel("Drift, maximum", {"drift/max_abs": ""}, "above 0.1 rollout and training disagree", "nats"),
        Panel("Drift, effective sample size", {"drift/ess": ""}, "of the importance weights", "share", whole=True),
    ),
    "Speed": (
        Panel("Tokens per second", {"time/tokens_per_second": ""}, "sampled tokens over rollout and update", "tokens/s"),
        Panel(
            "Time per iteration",
            {"time/rollout": "rollout", "time/update": "update", "time/saving": "saving", "time/other": "other"},
            "wall clock", "s",
        ),
        Panel(
            "Time of a rollout",
            {"time/engine": "engine", "time/environment": "environment", "time/reward": "rewards"},
            "parts of its wall clock that are not bookkeeping", "s",
        ),
        Panel("Tokens of a rollout", {"tokens/read": "read", "tokens/shared": "known already"}, "by the network", "tokens"),
    ),
}  # fmt: skip
_SECOND = {"Actions and cuts", "Optimiser and agreement", "Speed"}
_DEMONSTRATED = {"Outcome", "Rewards by source", "Actions and cuts"}
"""What a warm start logs of its demonstrations, which do not change."""
_UNPLOTTED = {"iteration", "reward_std", "drift/k3", "clip_ratio/region", "episodes/count"}


def write_report(run: str | Path, out: str | Path | None = None, *, defaults: Mapping[str, Any] | None = None) -> Path:
    """Write the report of a run and return its path.

    Args:
        run: The run's folder.
        out: The HTML file; ``report.html`` in the run's folder by default.
        defaults: The configuration with every setting at its default, in the shape of the run's own; what differs is
            marked. None marks nothing.

    Raises:
        RunError: there is no run, or the disk refused. Parts of a run that are missing or damaged are not errors: the
            page says what they are.
    """
    folder = RunFolder.view(run)
    data = gather(folder)
    notes = data.notes
    episodes = report_episodes.gather(folder, notes)
    listed = settings(data.about, defaults)
    smooth = window(len(data.metrics))
    page = render(
        "report.html",
        scripts=["episodes.js"],
        data=episodes,
        title=_title(data, episodes),
        status=data.status,
        finished=data.finished,
        facts=_facts(data),
        notes=list(dict.fromkeys(notes)),
        results=[_tile(result, data.optimum if result.name == "Return" else None) for result in data.results],
        results_from=data.results_from,
        groups=list(_charts(data.metrics, smooth)),
        smooth=smooth,
        numbers=_numbers(data.metrics),
        warm=[g for g in _charts(data.warm, window(len(data.warm))) if g["name"] not in _DEMONSTRATED],
        warm_smooth=window(len(data.warm)),
        episodes=episodes,
        settings=listed,
        compared=defaults is not None,
        changed=[setting for setting in listed if setting.changed],
        settings_table=_settings_table(listed),
        surroundings=_surroundings(data.about),
        cost=_cost_table(data),
    )
    return save(page, out if out is not None else folder.path / "report.html")


def window(n: int) -> int:
    """Points in the moving mean of a curve of `n` points: odd, about a tenth; 1, which is none, below ten points."""
    return 1 if n < 10 else min(101, 2 * (n // 20) + 3)


# ---- the head --------------------------------------------------------------------------------------------------------


def _title(data: RunData, episodes: Mapping[str, Any] | None) -> str:
    env = data.find("world", "env")
    if not env and episodes:
        env = episodes["iterations"][0]["episodes"][0]["env"]
    algorithm = data.find("algorithm", "name")
    return " · ".join(part for part in (env, algorithm) if part) or data.path.resolve().name


def _facts(data: RunData) -> list[tuple[str, str]]:
    known = [
        ("Environment", data.find("world", "env")),
        ("Algorithm", data.find("algorithm", "name")),
        ("Model", data.find("model", "model")),
        ("Iterations", str(data.training.get("steps", ""))),
        ("Seed", ", ".join(str(seed) for seed in data.about["seeds"].values())),
        ("Started", str(data.about.get("created", "")).replace("T", " ").replace("+00:00", " UTC")),
        ("Folder", str(data.path)),
    ]
    return [(name, value) for name, value in known if value]


def _tile(result: Result, optimum: float | None) -> dict[str, Any]:
    share = result.unit == "share"
    spans = (0.0, 1.0) if share else None
    return {
        "name": result.name,
        "before": None if result.before is None else number(result.before.mean, share=share, trim=False),
        "after": None if result.after is None else number(result.after.mean, share=share, trim=False),
        "optimum": None if optimum is None else number(optimum),
        "chart": dot_interval_chart(
            result.rows, title=result.name, unit=result.unit, width=380, x_range=spans,
            reference=optimum,
        ),
    }  # fmt: skip


# ---- curves ----------------------------------------------------------------------------------------------------------


def _charts(rows: Rows, smooth: int) -> Iterator[dict[str, Any]]:
    """Groups of charts of those metrics that exist and say something."""
    names = dict.fromkeys(name for row in rows for name in row)
    used = {*_UNPLOTTED, *_sources(names)}
    drawn = 0
    first, *others = _GROUPS.items()
    groups = [first, ("Rewards by source", _by_source(names)), *others]
    for group, panels in groups:
        charts = []
        for panel in panels:
            used.update(panel.lines)
            chart = _chart(rows, panel, smooth)
            if chart is not None and drawn < _CHARTS:
                charts.append({"svg": chart, "about": panel.about})
                drawn += 1
        if charts:
            yield {"name": group, "charts": charts, "more": group in _SECOND}
    rest = [n for n in names if n not in used and not n.startswith(("total/", "tokens/"))]
    unknown = [Panel(name[:60], {name: ""}, "") for name in rest]
    charts = [{"svg": svg, "about": ""} for panel in unknown[: _CHARTS - drawn] if (svg := _chart(rows, panel, smooth))]
    if charts:
        yield {"name": "Other metrics", "charts": charts, "more": True}


def _sources(names: Mapping[str, Any]) -> list[str]:
    return [name for name in names if name.startswith("rewards/") and name.endswith("/mean")]


def _by_source(names: Mapping[str, Any]) -> list[Panel]:
    """One panel per source of reward, where there is more than one: a single one is the return again."""
    sources = _sources(names)
    if len(sources) < 2:
        return []
    return [
        Panel(name[len("rewards/") : -len("/mean")][:40], {name: ""}, "part of the return from this source")
        for name in sources
    ]


def _chart(rows: Rows, panel: Panel, smooth: int) -> Markup | None:
    xs = [float(row["iteration"]) for row in rows]
    lines = []
    for name, label in panel.lines.items():
        ys = [figure(row, name) for row in rows]
        if any(y == y and y != 0 for y in ys) or (panel.whole and any(y == y for y in ys)):
            lines.append(Line(label, xs, ys))
    if not lines:
        return None
    bounds = (0.0, 1.0) if panel.whole else None
    return line_chart(
        lines[:SERIES], title=panel.title, unit=panel.unit, y_range=bounds, smooth=1 if panel.exact else smooth
    )


def _numbers(rows: Rows) -> Markup | None:
    """The metrics as a table: the same figures for those who do not read charts."""
    wanted = {
        name: panel
        for panels in _GROUPS.values()
        for panel in panels
        for name in panel.lines
        if any(figure(row, name) == figure(row, name) for row in rows)
    }
    if not wanted:
        return None
    shown = [rows[i] for i in report_episodes.spread(range(len(rows)), _TABLE_ROWS)]
    head = ["iteration", *wanted]
    cells = [
        [str(row["iteration"]), *(number(figure(row, n), share=p.unit == "share") for n, p in wanted.items())]
        for row in shown
    ]
    caption = (
        "Metrics by iteration" if len(shown) == len(rows) else f"Metrics of {len(shown)} of {len(rows)} iterations"
    )
    return table(head, cells, caption=caption, figures=len(wanted))


# ---- tables ----------------------------------------------------------------------------------------------------------


def _settings_table(listed: Sequence[Setting]) -> Markup | None:
    if not listed:
        return None
    compared = any(setting.default is not None for setting in listed)
    head = ["setting", "value", *(["default"] if compared else [])]
    rows: list[list[str | Markup]] = []
    for setting in listed:
        value: str | Markup = setting.value
        if setting.changed:
            value = Markup(f'<strong class="changed">{clean(setting.value)}</strong>')
        default = [] if not compared else ["unknown" if setting.default is None else setting.default]
        rows.append([setting.name, value, *default])
    return table(head, rows, caption="All settings")


def _surroundings(about: Mapping[str, Any]) -> Markup:
    packages = about.get("packages")
    threads = about.get("threads")
    command = about.get("command")
    found: list[tuple[str, str]] = [(f"seed: {name}", str(seed)) for name, seed in about["seeds"].items()]
    found += [("python", str(about.get("python", "unknown"))), ("platform", str(about.get("platform", "unknown")))]
    found += [(str(k), str(v)) for k, v in packages.items()] if isinstance(packages, Mapping) else []
    found += [(f"threads: {k}", str(v)) for k, v in threads.items()] if isinstance(threads, Mapping) else []
    if isinstance(command, list):
        found.append(("command", " ".join(map(str, command))))
    rows = [[name[:100], report_episodes.shorten(value, 1000)] for name, value in found[:60]]
    return table(["what", "value"], rows, caption="Seeds, versions and machine")


def _cost_table(data: RunData) -> Markup | None:
    phases = cost(data)
    if not phases:
        return None
    names = {
        "iterations": "iterations",
        "episodes": "episodes",
        "turns": "turns",
        "tokens": "action tokens",
        "rollout": "rollout s",
        "update": "update s",
        "tokens_per_second": "tokens/s",
    }
    rows = [[phase, *(number(totals[key]) for key in names)] for phase, _, totals in phases]
    return table(["phase", *names.values()], rows, caption="Cost by phase", figures=len(names))
