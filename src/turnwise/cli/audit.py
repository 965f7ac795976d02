"""``turnwise audit``: what a run's evidence says about what was learnt, with known answers for every figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnwise.cli.parsing import Flag, parse
from turnwise.errors import TurnwiseError

if TYPE_CHECKING:
    from turnwise.audit.card import Card
    from turnwise.audit.catalogue import ControlResult
    from turnwise.audit.quantity import Quantity
    from turnwise.recipes.evidence import Gathered

_OWN = (
    Flag("run", str, "", "Run folder, or another framework's records.", metavar="RUN", positional=True),
    Flag("policy", str, "", "Audit a policy instead: a model folder or id, or a run folder.", metavar="FOLDER"),
    Flag("env", str, "", "Environment to play the policy in.", hint="that of its run", metavar="ENV"),
    Flag("base", str, "", "The policy before it was trained, to compare with.", metavar="FOLDER"),
    Flag(
        "advantages", str, "", "Audit credit instead: code that turns episodes into advantages.", metavar="FILE.py:NAME"
    ),
    Flag("compare", tuple[str, ...], (), "Set the cards of several runs side by side.", metavar="RUN RUN ..."),
    Flag("controls", bool, False, "Put every measure to the test where the answer is known, and print what came out."),
    Flag("records", bool, False, "Look at the records only: play nothing."),
    Flag("plays", int, 64, "Episodes that a measure may play for each of its figures."),
    Flag("seed", int, 0, "Of all random choices."),
    Flag("out", str, "", "Folder for card.json and card.html.", hint="RUN/audit", metavar="FOLDER"),
    Flag("quiet", bool, False, "No progress bar."),
)

_DESCRIPTION = "Measure what kind of learning a run was. Every figure comes with n and an interval, or is not printed."

_MADE_UP = "the episodes are made up, with random rewards; only what the code does with them is measured"


def main(arguments: Sequence[str]) -> int:
    """Audit, print the card and write it down.

    Returns:
        1 where a control failed under ``--controls``, else 0.

    Raises:
        TurnwiseError: anything the user can mend.
    """
    from turnwise.cli.acting import FLAGS

    values = parse("audit", _DESCRIPTION, {"": _OWN, "acting": FLAGS}, arguments)
    if values["plays"] < 1:
        raise TurnwiseError(f"--plays {values['plays']} leaves nothing to measure; use at least 1, better 64")
    if values["seed"] < 0:
        raise TurnwiseError(f"--seed {values['seed']}: a seed is a whole number of at least 0")
    subjects = [name for name in ("run", "policy", "advantages", "compare", "controls") if values[name]]
    if len(subjects) != 1:
        asked = "nothing" if not subjects else " and ".join(_typed(name) for name in subjects)
        raise TurnwiseError(
            f"{asked} to audit; name one of: a run folder, --policy FOLDER with --env ENV, --advantages FILE.py:NAME, "
            "--compare RUN RUN ..., --controls"
        )
    if values["base"] and not values["policy"]:
        raise TurnwiseError("--base belongs to --policy FOLDER; a run has its own")
    if values["env"] and values["records"]:
        raise TurnwiseError("--env says where to play and --records to play nothing; choose one")
    return _MODES[subjects[0]](values)


def _typed(name: str) -> str:
    return "RUN" if name == "run" else f"--{name}"


# ---- what is audited -------------------------------------------------------------------------------------------------


def _run(values: dict[str, Any]) -> int:
    path = Path(values["run"])
    card = _card_of_run(path, values)
    out = Path(values["out"]) if values["out"] else _home(path) / "audit"
    return _show(card, out)


def _card_of_run(path: Path, values: dict[str, Any]) -> Card:
    from turnwise.recipes.evidence import of_run

    with _waiting(f"reading {path}", values):
        asked = {name: values[name] for name in ("plays", "seed", "records", "env")}
        gathered = of_run(path, **asked)
    return _measured(str(path), gathered, values)


def _policy(values: dict[str, Any]) -> int:
    from turnwise.cli.acting import resolve
    from turnwise.recipes.evidence import elsewhere, of_policy

    actor = resolve("", values["policy"], values["env"], values)
    base = ""
    if values["base"]:
        base = resolve("", values["base"], values["env"] or actor.training.world.env, values).model
    # In a world that is named here the policy acts for what that world pays, whoever paid in its run.
    training = elsewhere(actor.training, values["env"]) if values["env"] else actor.training
    with _waiting(f"loading {actor.model}", values):
        gathered = of_policy(training, actor.model, base=base, plays=values["plays"], seed=values["seed"])
    if gathered.evidence.player is None:
        raise TurnwiseError(f"{actor.model} in {actor.training.world.env}: {'; '.join(gathered.notes)}")
    card = _measured(f"{actor.model} in {actor.training.world.env}", gathered, values)
    return _show(card, Path(values["out"] or "audit"))


def _advantages(values: dict[str, Any]) -> int:
    from turnwise.audit.advantage_file import load_advantages, made_up_evidence
    from turnwise.audit.catalogue import catalogue
    from turnwise.audit.quantity import Section
    from turnwise.recipes.evidence import Gathered

    code = load_advantages(values["advantages"])
    evidence = made_up_evidence(code, plays=values["plays"], seed=values["seed"])
    # What it cannot do shows at once.
    code(evidence.episodes)
    credit = [quantity for quantity in catalogue() if quantity.section is Section.CREDIT]
    card = _measured(values["advantages"], Gathered(evidence, (_MADE_UP,)), values, credit)
    return _show(card, Path(values["out"] or "audit"))


def _compare(values: dict[str, Any]) -> int:
    from turnwise.audit.card_page import write_comparison
    from turnwise.audit.card_text import comparison_text
    from turnwise.cli.console import messages, output, say

    paths = [Path(name) for name in values["compare"]]
    if len(paths) < 2:
        raise TurnwiseError(f"--compare {paths[0]}: name at least two runs")
    cards: list[Card] = []
    for path in paths:
        stored = _stored(path, values)
        say(messages(), f"{path}: {'the card that is there' if stored else 'auditing'}")
        card = stored or _card_of_run(path, values)
        if stored is None:
            from turnwise.audit.card_page import write_card

            write_card(card, _home(path) / "audit")
        cards.append(card)
    names = _short(paths)
    console = output()
    console.print(comparison_text(cards, names, console.width))
    out = Path(values["out"]) if values["out"] else _home(paths[0]).parent / "audit"
    say(console, f"\nwritten to {write_comparison(cards, names, out / 'comparison.html')}")
    return 0


def _controls(values: dict[str, Any]) -> int:
    from turnwise.audit.card_text import controls_text
    from turnwise.audit.catalogue import catalogue, run_controls
    from turnwise.cli.console import output, say

    quantities = catalogue()
    titles = {quantity.name: quantity.title for quantity in quantities}
    with _progress(values) as step:

        def shown(result: ControlResult, done: int, total: int) -> None:
            step(titles[result.quantity], done, total)

        results = run_controls(quantities, slow=True, on_result=shown)
    console = output()
    console.print(controls_text(results, titles))
    failed = [result for result in results if not result.passed]
    seconds = sum(result.seconds for result in results)
    say(console, f"\n{len(results) - len(failed)} of {len(results)} known answers right, in {seconds:.0f} s")
    if failed:
        say(
            console,
            "failed, and refused on every card: " + ", ".join(dict.fromkeys(titles[r.quantity] for r in failed)),
        )
    return 1 if failed else 0


_MODES: dict[str, Callable[[dict[str, Any]], int]] = {
    "run": _run,
    "policy": _policy,
    "advantages": _advantages,
    "compare": _compare,
    "controls": _controls,
}


# ---- measuring and showing -------------------------------------------------------------------------------------------


def _measured(
    subject: str, gathered: Gathered, values: dict[str, Any], quantities: Sequence[Quantity] | None = None
) -> Card:
    from turnwise.audit.card import make_card

    with _progress(values) as step:
        return make_card(subject, gathered.evidence, quantities, notes=gathered.notes, on_step=step)


def _show(card: Card, out: Path) -> int:
    from turnwise.audit.card_page import write_card
    from turnwise.audit.card_text import card_text
    from turnwise.cli.console import output, say

    console = output()
    console.print(card_text(card, console.width))
    page = write_card(card, out)
    say(console, f"written to {page} and card.json beside it")
    return 0


def _stored(path: Path, values: dict[str, Any]) -> Card | None:
    """A card that was made before, as long as nothing it depends on has changed since; or one that was named itself."""
    from turnwise import __version__
    from turnwise.audit.card_file import read_card
    from turnwise.audit.catalogue import catalogue

    if path.name == "card.json":
        return read_card(path)
    file, metrics = _home(path) / "audit" / "card.json", path / "metrics.jsonl"
    if not file.exists() or not metrics.exists() or file.stat().st_mtime < metrics.stat().st_mtime:
        return None
    card = read_card(file)
    same = (card.version, card.plays, card.seed) == (__version__, values["plays"], values["seed"])
    # A card of some quantities only, or of an older catalogue, does not stand for a whole one.
    whole = {line.name for line in card.lines} == {quantity.name for quantity in catalogue()}
    return card if same and whole else None


def _home(path: Path) -> Path:
    """The folder that a card of these records goes to."""
    return path if path.is_dir() else path.parent


def _short(paths: Sequence[Path]) -> list[str]:
    """Names that tell the paths apart."""
    homes = [path.parent.parent if path.name == "card.json" else path for path in paths]
    names = [home.resolve().name for home in homes]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


@contextmanager
def _progress(values: dict[str, Any]) -> Iterator[Callable[[str, int, int], None]]:
    """A bar with what is under way and the time left, on a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from turnwise.cli.console import messages

    console = messages()
    shown = not values["quiet"] and console.is_terminal
    parts: tuple[Any, ...] = (
        TextColumn("{task.description:26.26}"), BarColumn(bar_width=16), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("ETA"), TimeRemainingColumn(compact=True),
    )  # fmt: skip
    with Progress(*parts, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=None)
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)


@contextmanager
def _waiting(what: str, values: dict[str, Any]) -> Iterator[None]:
    """Says what is waited for, on a terminal."""
    from turnwise.cli.console import messages

    console = messages()
    if values["quiet"] or not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
