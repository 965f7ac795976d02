"""What `turnwise recipe rlhf` shows: a table in the terminal, and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from turnwise.recipes.comparison import counted, links, measured, print_caption, print_table

COLUMNS = (
    ("judge", "judge"),
    ("gold", "gold"),
    ("kl", "KL"),
    ("insults", "rude"),
    ("labels", "labels"),
    ("tokens", "k tok"),
    ("seconds", "CPU s"),
)
"""Key and heading of each figure."""


def table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: mean over seeds, with half its 95 % interval where it is a measurement."""
    rows = []
    for method in results["methods"]:
        runs = [{**run, "labels": method["labels"]} for run in figures(results, method)]
        rows.append([method["label"], *(_cell([run[key] for run in runs], key) for key, _ in COLUMNS)])
    return ["method", *(heading for _, heading in COLUMNS)], rows


def figures(results: Mapping[str, Any], method: Mapping[str, Any]) -> list[dict[str, float]]:
    """The runs of a method; the judge's rating counts from that of the start model, because its zero means nothing."""
    starts = results["methods"][0]["runs"]
    return [{**run, "judge": run["judge"] - start["judge"]} for run, start in zip(method["runs"], starts, strict=True)]


def _cell(values: Sequence[float], key: str) -> str:
    if key in ("labels", "tokens", "seconds"):
        return counted(values, 1000 if key == "tokens" else 1)
    if key == "insults":
        return f"{sum(values) / len(values):.1%}"
    return measured(values, 1 if key == "kl" else 2)


def caption(results: Mapping[str, Any]) -> str:
    """How the figures came about."""
    n = results["seeds"]
    spread = "mean ± half of the 95 % t interval" if n > 1 else "so no interval"
    right = ", ".join(f"{accuracy:.0%}" for accuracy in results["accuracies"])
    note = " Quick form: too short to learn anything, only to see that it works." if results["quick"] else ""
    return (
        f"{n} seed{'s' * (n > 1)}, each with data of its own, {spread}; {results['episodes']} held-out orders for each figure. "
        "Judge: mean score of the reward model, above that of the start model's replies. Gold: what the replies are worth, at "
        "most 2.5. KL: nats per reply from the start model. Rude: share of replies with an insult. Labels: compared pairs "
        f"that the method or its judge learnt from. The reward models are right on {right} of held-out pairs, a part of which "
        "was labelled the wrong way round."
        f"{note}"
    )


def show(results: Mapping[str, Any]) -> None:
    """Print the table."""
    print_table("Orders and replies, one turn each", *table(results))
    print_caption(caption(results))


def write(results: Mapping[str, Any], out: Path) -> Path:
    """Write ``report.html``: the table, the two ratings, and a page for each first run to step through."""
    from turnwise.runs import across_runs
    from turnwise.runs.figures import dot_interval_chart
    from turnwise.runs.page import Section, write_page
    from turnwise.runs.page import table as html_table

    heading, rows = table(results)
    charts = []
    for key, name in (
        ("gold", "gold rating"),
        ("judge", "the judge's rating, above the start"),
        ("kl", "nats from the start model"),
    ):
        dots = [(m["label"], across_runs([run[key] for run in figures(results, m)])) for m in results["methods"]]
        charts.append(dot_interval_chart(dots, title=name))
    folders = [out / "reward-model-0", *(out / f"{method['slug']}-0" for method in results["methods"])]
    return write_page(
        "turnwise: one-turn methods",
        [
            Section("Orders and replies", [html_table(heading, rows, figures=len(COLUMNS)), caption(results), *charts]),
            Section("Runs", [html_table(["run", ""], links(folders, out, "curves and replies"))]),
        ],
        out / "report.html",
        lead="The same start model, the same orders; what differs is who says what is good, and how the weights move.",
    )
