"""What `turnwise recipe reasoning` shows: a table in the terminal with its verdict, and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from turnwise.recipes.comparison import counted, links, measured, print_caption, print_table

COLUMNS = (
    ("start", "start"),
    ("accuracy", "held out"),
    ("new", "new items"),
    ("greedy", "greedy"),
    ("reward", "reward"),
    ("tokens", "k tokens"),
    ("seconds", "CPU s"),
)
"""Key and heading of each figure."""


def table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: mean over seeds, with half its 95 % interval where it is a measurement; the constant answer last."""
    rows = [
        [method["label"], *(_cell([run[key] for run in method["runs"]], key) for key, _ in COLUMNS)]
        for method in results["methods"]
    ]
    floor = results["floor"]
    blank = [""] * (len(COLUMNS) - 2)
    rows.append([f"always {floor['answer']!r}", "", f"{floor['score']:.2f}", *blank])
    return ["method", *(heading for _, heading in COLUMNS)], rows


def _cell(values: Sequence[float], key: str) -> str:
    if key in ("tokens", "seconds"):
        return counted(values, 1000 if key == "tokens" else 1)
    return measured(values)


def verdict(results: Mapping[str, Any]) -> str:
    """Whether every seed of every method rose by the bar and ended above the constant answer."""
    said = []
    for method in results["methods"]:
        rises = [run["accuracy"] - run["start"] for run in method["runs"]]
        good = [
            rise >= results["bar"] and run["accuracy"] > results["floor"]["score"]
            for rise, run in zip(rises, method["runs"], strict=True)
        ]
        shown = ", ".join(f"{rise:+.2f}" for rise in rises)
        held = "held" if all(good) else f"missed on seed {', '.join(str(i) for i, ok in enumerate(good) if not ok)}"
        said.append(f"{method['label']} {shown}: {held}")
    return f"Held-out accuracy has to rise by {results['bar']:g} on each seed, above the constant answer. {'; '.join(said)}."


def caption(results: Mapping[str, Any]) -> str:
    """How the figures came about."""
    n = results["seeds"]
    spread = "mean ± half of the 95 % t interval" if n > 1 else "one seed, so no interval"
    runs = [run for method in results["methods"] for run in method["runs"]]
    few, many = (round(pick(run["new_items"] for run in runs)) for pick in (min, max))
    reasoned, hidden, replaced = (
        sum(run[key] for run in runs) / len(runs) for key in ("reasoned", "hidden", "replaced")
    )
    note = " Quick form: too short to learn anything, only to see that it works." if results["quick"] else ""
    return (
        f"{results['task']}. {n} seed{'s' * (n > 1)}, {spread}; accuracy of the final answer over {results['episodes']} held-out "
        f"items, sampled. New items: those of them whose question did not come up in training either, {few} to {many} a run. "
        "Reward: mean score in the last iteration of training. Only the final answer counts: with a wrong "
        f"number in reasoning before it, the same completions have accuracy {reasoned:.2f}; with the answer in the reasoning "
        f"alone {hidden:.2f}; with another number after it {replaced:.2f}.{note}"
    )


def show(results: Mapping[str, Any]) -> None:
    """Print the table and the verdict; narrow enough for 80 columns, so without the greedy figures."""
    print_table("Reasoning by final answer", *table(results), leave_out="greedy")
    print_caption(verdict(results), caption(results))


def write(results: Mapping[str, Any], out: Path) -> Path:
    """Write ``report.html``: the table, the accuracy of each method, and a page for each first run to step through."""
    from turnwise.runs import across_runs
    from turnwise.runs.figures import dot_interval_chart
    from turnwise.runs.page import Section, write_page
    from turnwise.runs.page import table as html_table

    heading, rows = table(results)
    dots = [
        (f"{method['label']}{name}", across_runs([run[key] for run in method["runs"]]))
        for method in results["methods"]
        for key, name in (("start", ", start"), ("accuracy", ""))
    ]
    chart = dot_interval_chart(dots, title="accuracy on held-out items", x_range=(0.0, 1.0))
    folders = [out / f"{method['slug']}-0" for method in results["methods"]]
    return write_page(
        "turnwise: reasoning by final answer",
        [
            Section(
                "Right answers",
                [html_table(heading, rows, figures=len(COLUMNS)), verdict(results), caption(results), chart],
            ),
            Section("Runs", [html_table(["run", ""], links(folders, out, "curves and answers"))]),
        ],
        out / "report.html",
        lead="A tiny model from scratch, warm-started on mostly wrong answers, then paid for its final answer alone.",
    )
