"""``turnwise data``: what a file of data holds, how long its rows are, and which of them are bad."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.text import Text

from turnwise.cli.console import columns as table_of
from turnwise.cli.console import messages, output, pairs, say
from turnwise.cli.parsing import REQUIRED, Flag, parse
from turnwise.errors import TurnwiseError

if TYPE_CHECKING:
    from turnwise.data import Report
    from turnwise.text import Renderer

KINDS = ("prompt-only", "prompt-completion", "messages", "text", "preference", "unpaired-preference", "stepwise")
"""The values of `turnwise.data.Kind`, which a help page need not import."""

_OWN = (
    Flag("file", str, REQUIRED, "File (.jsonl .json .csv .tsv .parquet), folder of datasets, or hub id.", metavar="FILE", positional=True),
    Flag("kind", str, "", f"What its rows hold: {', '.join(KINDS)}.", hint="by its columns", metavar="KIND"),
    Flag("columns", tuple[str, ...], (), "Other names of columns, as in prompt=question,completion=answer.", hint="", metavar="OURS=THEIRS"),
    Flag("split", str, "", "Split of a data set.", hint="train"),
    Flag("model", str, "", "Model folder or hub id whose tokenizer and template measure lengths.", hint="lengths in words"),
    Flag("template", str, "auto", "Chat template: auto (the tokenizer's), plain or raw."),
    Flag("max_length", int, 0, "Longest prompt and answer together.", hint="what the model reads; without one, any"),
)  # fmt: skip

_DESCRIPTION = "Say what a file holds, how long its rows are, and name every bad row. Ends with 2 if there is one."

_SLOW = 2.0
"""Seconds before it says how far it is."""


def main(arguments: Sequence[str]) -> int:
    """Check data.

    Raises:
        TurnwiseError: no such data, or nobody can tell what it is.
    """
    if arguments[:1] == ["check"]:
        return _check(arguments[1:])
    if arguments[:1] in (["procedure"], ["preferences"]):
        from turnwise.cli import principles

        write = principles.write_procedure if arguments[0] == "procedure" else principles.write_preferences
        return write(arguments[1:])
    if arguments and arguments[0] not in ("-h", "--help"):
        raise TurnwiseError(
            f"there is no command `data {arguments[0]}`; there are check FILE, procedure FOLDER and preferences RUN"
        )
    console = output()
    say(console, Text("usage: ", style="bold"), "turnwise data check FILE [OPTIONS]")
    say(
        console,
        "       turnwise data procedure FOLDER           principles and prompts of constitutional, to be edited",
    )
    say(
        console,
        "       turnwise data preferences RUN --out FILE   pairs by the principles of a run of constitutional\n",
    )
    say(console, "check: ", _DESCRIPTION, "\n")
    say(console, Text("it reads", style="bold"))
    console.print(pairs(_COLUMNS.items()))
    say(console, "\nevery setting: turnwise data check --help")
    return 0 if arguments else 2


_COLUMNS = {
    "prompt-only": "prompt",
    "prompt-completion": "prompt, completion",
    "messages": "messages",
    "text": "text",
    "preference": "chosen, rejected [prompt, margin]",
    "unpaired-preference": "prompt, completion, label",
    "stepwise": "prompt, completions, labels",
}


def _check(arguments: Sequence[str]) -> int:
    values = parse("data check", _DESCRIPTION, {"": _OWN}, arguments)
    if values["max_length"] < 0:
        raise TurnwiseError(f"--max-length {values['max_length']}: a length is 1 or more; leave it out for any length")
    from turnwise.cli.hub import offline_if_unreachable
    from turnwise.data import check, renames
    from turnwise.data.sources import is_hub_id

    if is_hub_id(values["file"]):
        offline_if_unreachable(values["file"])
    renderer, limit = _measure(values["model"], values["template"])
    with _counting() as on_row:
        report = check(
            values["file"],
            kind=values["kind"] or None,
            columns=renames(values["columns"]),
            split=values["split"],
            renderer=renderer,
            max_length=values["max_length"] or limit,
            on_row=on_row,
        )
    _print(report, values["max_length"] or limit, values["model"])
    return 0 if report.clean else 2


def _measure(model: str, template: str) -> tuple[Renderer | None, int]:
    """What counts tokens, and how many the model reads."""
    if template not in ("auto", "plain", "raw"):
        raise TurnwiseError(f"--template {template}: choose auto, plain or raw")
    if not model:
        return None, 0
    from turnwise.cli.hub import SIZES, offline_if_unreachable

    if model in SIZES:
        raise TurnwiseError(
            f"--model {model} is built from the words it is going to read and has no tokenizer yet; leave --model out, or "
            "give a folder that holds one"
        )
    offline_if_unreachable(model)
    from transformers import AutoConfig, AutoTokenizer

    from turnwise.text import PLAIN, RAW, Renderer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        config: Any = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise TurnwiseError(f"cannot load a tokenizer from {model!r}: {str(error).splitlines()[0]}") from error
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Renderer(tokenizer, template={"plain": PLAIN, "raw": RAW}.get(template)), int(limit or 0)


@contextmanager
def _counting() -> Iterator[Callable[[int], None]]:
    """Counts rows on standard error, if it takes a while and somebody is looking."""
    console, began = messages(), time.monotonic()
    status = console.status("reading")
    shown = False

    def on_row(count: int) -> None:
        nonlocal shown
        if count % 256 or not console.is_terminal or time.monotonic() - began < _SLOW:
            return
        if not shown:
            status.start()
            shown = True
        status.update(f"{count:,} rows read")

    try:
        yield on_row
    finally:
        status.stop()


def _print(report: Report, limit: int, model: str) -> None:
    console = output()
    say(console, Text(report.name, style="bold"))
    form = "chat messages" if report.conversational == report.good else "plain text"
    if 0 < report.conversational < report.good:
        form = f"{report.conversational:,} of chat messages, the others plain text"
    rows: list[tuple[str, Any]] = [
        ("holds", f"{report.kind}: {_COLUMNS[report.kind]}" + (f" ({form})" if report.good else "")),
        ("rows", f"{report.good + len(report.problems):,}, of them {len(report.problems):,} bad"),
    ]
    if report.columns:
        rows.append(("further", f"{', '.join(report.columns)} (reward functions are given these columns)"))
    unit = f"in tokens of {model}" if model else "in words; --model FOLDER counts tokens"
    most = f"{limit:,} at most for prompt and answer, " if limit else ""
    rows.append(("lengths", most + unit))
    console.print(pairs(rows))
    if report.good:
        table = table_of("", "p50", "p90", "p99", "max")
        for column in table.columns[1:]:
            column.justify = "right"
        for part in report.lengths:
            table.add_row(f"  {part}", *(f"{figure:,}" for figure in report.percentiles(part)))
        console.print(table)
    for note in report.notes:
        say(console, Text("note: ", style="yellow"), note)
    if report.clean:
        say(console, Text("every row is good", style="green"))
        return
    say(console, Text("bad rows", style="bold"))
    for what, count in Counter(problem.what for problem in report.problems).most_common():
        say(console, f"  {count:>7,}  {what}")
    say(console, "")
    for problem in report.problems:
        say(console, str(problem))
