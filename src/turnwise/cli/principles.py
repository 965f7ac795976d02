"""``turnwise data procedure`` and ``turnwise data preferences``: what constitutional AI reads, and pairs that it can write."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from turnwise.cli.console import output, say
from turnwise.cli.parsing import REQUIRED, Flag, parse
from turnwise.errors import TurnwiseError

_PROCEDURE = (
    Flag(
        "folder", str, REQUIRED, "Where to; files that are there stay as they are.", metavar="FOLDER", positional=True
    ),
)

_PREFERENCES = (
    Flag("run", str, REQUIRED, "Run of constitutional.", metavar="RUN", positional=True),
    Flag("out", str, REQUIRED, "JSONL file to write.", metavar="FILE"),
    Flag("prompts", int, 256, "Number of prompts to reply to."),
    Flag("replies", int, 2, "Replies to each; the best and the worst are the pair."),
)


def write_procedure(arguments: Sequence[str]) -> int:
    """Write an example of principles, and the prompts of the procedure, to be edited."""
    about = "Write an example of principles and the prompts of critique, revision and comparison, to be edited."
    values = parse("data procedure", about, {"": _PROCEDURE}, arguments)
    from turnwise.recipes.constitutional import write_procedure as write

    written = write(values["folder"])
    for path in written:
        say(output(), f"wrote {path}")
    if not written:
        say(output(), f"all files are in {values['folder']} already")
    principles = Path(values["folder"]) / "principles.txt"
    say(
        output(),
        f"turnwise train constitutional --principles {principles} --procedure {values['folder']} --data PROMPTS",
    )
    return 0


def write_preferences(arguments: Sequence[str]) -> int:
    """Let the model of a constitutional run reply, and write which replies keep to its principles better."""
    about = "Let the model of a constitutional run reply to its prompts, and write pairs by its principles."
    values = parse("data preferences", about, {"": _PREFERENCES}, arguments)
    from turnwise.recipes import constitutional
    from turnwise.recipes.sources import needs_principles
    from turnwise.recipes.training import load

    trained = load(values["run"])
    if not needs_principles(trained.training):
        raise TurnwiseError(f"{values['run']} is no run of constitutional, so there are no principles to prefer by")
    # Another order of the prompts and other noise than in the run, which may have seen the same prompts.
    training = dataclasses.replace(trained.training, seed=trained.training.seed + 1)
    source = constitutional.make_source(training, trained.env, trained.policy, training.principles)
    try:
        n = constitutional.write_preferences(
            source, trained.policy.renderer, values["out"], groups=values["prompts"], group_size=values["replies"]
        )
    finally:
        source.close()
    say(output(), f"wrote {n} pairs to {values['out']}")
    say(output(), f"turnwise train reward-model --data {values['out']} --model {values['run']}/final")
    return 0
