"""``turnwise train``: settings from flags and a file, or from the run that goes on."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnwise import algorithms
from turnwise.algorithms import NAMES
from turnwise.cli.config_file import check_file, read_file
from turnwise.cli.parsing import Flag, parse
from turnwise.errors import TurnwiseError
from turnwise.recipes.api import make_algorithm
from turnwise.recipes.flat import Setting, anchored, assemble, flatten, settings

if TYPE_CHECKING:
    from turnwise.recipes.settings import Training

_USAGE = "turnwise train ALGORITHM [--env ENV] [OPTIONS]      turnwise train --resume RUN [--steps N]"

_OWN = (
    Flag("out", str, "", "Folder of the run, new or empty.", hint="runs/ENV-ALGORITHM-SEED-TIME", metavar="FOLDER"),
    Flag("config", str, "", "TOML file with settings under the names of these flags; flags win.", metavar="FILE"),
    Flag("resume", str, "", "Go on with this run and its settings; only --steps may be raised.", metavar="RUN"),
    Flag("quiet", bool, False, "No progress bar."),
)
"""Flags of the command that are no settings of a run."""


def main(arguments: Sequence[str]) -> int:
    """Train.

    Raises:
        TurnwiseError: anything the user can mend.
    """
    named = arguments[0] if arguments and not arguments[0].startswith("-") else None
    rest = arguments[1:] if named else arguments
    resumed = _peek(rest, "resume")
    if resumed:
        return _resume(Path(resumed), named, rest)
    file = _peek(rest, "config")
    data = read_file(Path(file)) if file else {}
    algorithm = named or data.pop("algorithm", None)
    data.pop("algorithm", None)
    if algorithm is None:
        return _overview(asked=any(argument in ("-h", "--help") for argument in arguments), given=bool(arguments))
    kind = _class(str(algorithm))
    known = settings(kind)
    given = check_file(Path(file), data, known, str(algorithm)) if file else {}
    values, own = _parse(str(algorithm), known, given, rest)
    training = assemble(kind, values)
    out = Path(own["out"]) if own["out"] else default_folder(training, str(algorithm))
    return _train(training, str(algorithm), out, quiet=own["quiet"])


def default_folder(training: Training, algorithm: str) -> Path:
    """``runs/ENV-ALGORITHM-SEED-TIME``."""
    env = re.sub(r"[^\w.]+", "-", training.world.env).strip("-")
    return Path("runs") / f"{env}-{algorithm}-{training.seed}-{datetime.now():%Y%m%d-%H%M%S}"


def _parse(
    algorithm: str, known: Mapping[str, Setting], given: Mapping[str, Any], arguments: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings, and the command's own flags; what is given takes the place of the defaults."""
    groups: dict[str, list[Flag]] = {"": list(_OWN)}
    groups.setdefault(algorithm.replace("-", "_"), [])
    parts = {"": "", "algorithm": algorithm.replace("-", "_")}
    for name, setting in known.items():
        flag = Flag(name, setting.kind, given.get(name, setting.default), setting.help)
        groups.setdefault(parts.get(setting.part, setting.part), []).append(flag)
    own = {flag.name for flag in _OWN}
    about = summary(algorithm) if algorithm else "Go on with a run of an algorithm of your own."
    values = parse(f"train {algorithm}".strip(), about, groups, arguments)
    return {k: v for k, v in values.items() if k not in own}, {k: v for k, v in values.items() if k in own}


def _resume(path: Path, named: str | None, arguments: Sequence[str]) -> int:
    """Go on with a run: its settings are the defaults, and what was typed may not contradict them."""
    from turnwise.cli.acting import run_settings
    from turnwise.runs import RunFolder, read_metrics

    folder = RunFolder.view(path)
    if folder.config.get("phase"):
        raise TurnwiseError(f"{path} is the warm start of a run; resume the run: turnwise train --resume {path.parent}")
    before = run_settings(folder)
    algorithm = str(folder.config["training"]["algorithm"]["name"])
    if named is not None and named != algorithm:
        raise TurnwiseError(f"{path} trains with {algorithm}, not {named}; leave the algorithm out, or start a new run")
    if before.algorithm is None:
        raise TurnwiseError(
            f"the algorithm of {path} is an object of Python, {algorithm}: resume with turnwise.train(..., resume=True)"
        )
    ours = algorithm in NAMES
    # The fields of a class of your own may be of kinds that no flag can say.
    old = flatten(before)
    known = {name: s for name, s in settings(type(before.algorithm) if ours else None).items() if name in old}
    values, own = _parse(algorithm if ours else "", known, old, arguments)
    for name in ("out", "config"):
        if own[name]:
            raise TurnwiseError(
                f"--{name} cannot be combined with --resume: the run stays in {path}, with its settings"
            )
    values = anchored(values)
    changed = [name for name in values if values[name] != old[name] and name != "steps"]
    if changed:
        listed = ", ".join(f"--{name.replace('_', '-')} {values[name]} (the run has {old[name]})" for name in changed)
        raise TurnwiseError(
            f"a resumed run keeps its settings, only --steps may be raised: {listed}; start a new run for it"
        )
    if values["steps"] < old["steps"]:
        raise TurnwiseError(f"{path} was started with --steps {old['steps']}; they may be raised, not lowered")
    done = read_metrics(folder.metrics)
    if folder.final.exists() and done and done[-1]["iteration"] >= values["steps"]:
        raise TurnwiseError(f"{path} is complete after {old['steps']} iterations; to train on, raise --steps")
    training = assemble(type(before.algorithm) if ours else before.algorithm, values)
    return _train(training, algorithm, path, quiet=own["quiet"], resume=True)


def _train(training: Training, algorithm: str, out: Path, *, quiet: bool, resume: bool = False) -> int:
    from turnwise.cli.console import messages
    from turnwise.cli.hub import offline_if_unreachable
    from turnwise.cli.summaries import after, before
    from turnwise.recipes.report import report
    from turnwise.recipes.training import run

    offline_if_unreachable(training.model.model)
    if training.data.data:
        from turnwise.data.sources import is_hub_id

        if is_hub_id(training.data.data):
            offline_if_unreachable(training.data.data)
    console = messages()
    begun = False

    def announce(planned: Training, model: Any, world: Any) -> None:
        nonlocal begun
        begun = True
        if not quiet:
            console.print(before(planned, algorithm, model, world, out))

    try:
        run(training, out, resume=resume, progress=not quiet, on_start=announce)
    except TurnwiseError as error:
        from turnwise.engines.base import EngineError
        from turnwise.rewards import RewardError
        from turnwise.teachers import TeacherError

        if begun and isinstance(error, RewardError | TeacherError | EngineError):
            error.add_note(f"What was learnt before is saved; once this is mended: turnwise train --resume {out}")
        raise
    after(out, report(out))
    return 0


def _class(name: str) -> type[Any]:
    # An unknown name has to be refused before torch is loaded.
    if name not in NAMES:
        make_algorithm(name)
    return getattr(algorithms, NAMES[name])


def _peek(arguments: Sequence[str], name: str) -> str | None:
    """The value of a flag that decides what the other flags are."""
    for number, argument in enumerate(arguments):
        if argument == f"--{name}" and number + 1 < len(arguments):
            return arguments[number + 1]
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
    return None


def summary(algorithm: str) -> str:
    """The first line of an algorithm's docstring, read from its source: importing it would load torch."""
    name = NAMES[algorithm]
    for module in dict.fromkeys(algorithms._HOME.values()):
        found = find_spec(f"turnwise.algorithms.{module}")
        source = Path(str(found.origin) if found else "").read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
    raise AssertionError(f"no module of turnwise.algorithms holds {name}")


def _overview(*, asked: bool, given: bool) -> int:
    """The page of the command without an algorithm."""
    from rich.text import Text

    from turnwise.cli.console import messages, output, pairs, say

    if given and not asked:
        raise TurnwiseError(
            f"name the algorithm first, as in `turnwise train ppo --env errand`; there are {', '.join(NAMES)}"
        )
    console = output() if asked else messages()
    say(console, Text("usage: ", style="bold"), _USAGE.replace("      ", "\n       "))
    say(console, "\nTrain a language model in an environment.\n")
    say(console, Text("algorithms", style="bold"))
    console.print(pairs((name, summary(name)) for name in NAMES))
    say(console, "\nEvery setting, with its vetted value:  turnwise train ppo --help")
    say(console, "All environments:                      turnwise envs")
    return 0 if asked else 2
