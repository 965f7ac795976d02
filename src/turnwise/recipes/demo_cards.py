"""The audit cards of a demonstration's runs, side by side: a part of the quantities, measured in seconds.

Every policy is played in the same world, also those that were trained on single replies somebody else paid for; the records are
each run's own. `turnwise audit RUN` makes the whole card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from turnwise.audit.card import Card
from turnwise.recipes.parallel import Job, run_jobs

PLAYS = 32
"""Episodes that a measure may play for each of its figures."""

SHOWN = (
    "horizon/policy",
    "reward/foresight",
    "online/own_share",
    "world/closed_loop_gain",
    "world/feedback_worth",
    "world/interaction_depth",
    "reward/density",
    "reward/delay",
    "credit/reach",
    "credit/acausal_share",
    "credit/within_episode",
    "goal/return_ratio",
    "cost/environment_steps",
)
"""The quantities."""


def card(run: str, env: str, tick: Callable[[], None]) -> str:
    """Audit a run, and write ``card.json`` and ``card.html`` into its folder ``audit``.

    Args:
        run: The run's folder.
        env: Where its policy is played.
        tick: Called at the end.

    Returns:
        The path of ``card.json``.
    """
    from turnwise.audit.card import make_card
    from turnwise.audit.card_page import write_card
    from turnwise.audit.catalogue import catalogue
    from turnwise.recipes.evidence import of_run

    gathered = of_run(run, plays=PLAYS, env=env)
    chosen = [quantity for quantity in catalogue() if quantity.name in SHOWN]
    write_card(make_card(Path(run).name, gathered.evidence, chosen, notes=gathered.notes), Path(run) / "audit")
    tick()
    return str(Path(run) / "audit" / "card.json")


def cards(runs: Mapping[str, Path], env: str, *, progress: bool = True) -> dict[str, Card]:
    """Audit several runs at once.

    Args:
        runs: Name for people -> run folder.
        env: Where their policies are played.
        progress: Show a bar with the time left.

    Returns:
        The cards under the names.
    """
    from turnwise.audit.card_file import read_card

    jobs = [Job(f"card of {name}", card, {"run": str(run), "env": env}, 1) for name, run in runs.items()]
    return {
        name: read_card(file) for name, (file, _) in zip(runs, run_jobs("cards", jobs, progress=progress), strict=True)
    }


def show(found: Mapping[str, Card]) -> None:
    """Print cards side by side."""
    from rich.console import Console

    from turnwise.audit.card_text import comparison_text

    console = Console(highlight=False, markup=False)
    console.print(comparison_text(list(found.values()), list(found), console.width))


def sections(found: Mapping[str, Card], runs: Mapping[str, Path], out: Path) -> Sequence[Any]:
    """The sections of a page in `out` that sets the cards side by side, with links to each of them."""
    from turnwise.audit.card_page import comparison_parts
    from turnwise.runs.page import Section, table

    rows: list[list[str | Markup]] = [
        [name, Markup('<a href="{}">audit card</a>').format((run / "audit" / "card.html").relative_to(out))]
        for name, run in runs.items()
    ]
    parts = comparison_parts(list(found.values()), list(found))
    return [*parts, Section("Audit cards", [table(["run", ""], rows)])]
