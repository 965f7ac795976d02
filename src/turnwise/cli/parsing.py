"""From a list of flags to a parsed command line, by tyro."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

REQUIRED = object()
"""The default of an argument that has none."""


@dataclass(frozen=True)
class Flag:
    """One flag or argument of a command.

    Attributes:
        name: Its name, with underscores.
        kind: Its type.
        default: Its value when it is not given; `REQUIRED` if it must be.
        help: What it means.
        hint: What is shown as its default, where the value itself would say nothing.
        metavar: What stands for its value on the page; from the type by default.
        positional: It is given without its name.
    """

    name: str
    kind: Any
    default: Any
    help: str
    hint: str | None = None
    metavar: str | None = None
    positional: bool = False


def parse(
    command: str, description: str, groups: Mapping[str, Sequence[Flag]], arguments: Sequence[str]
) -> dict[str, Any]:
    """Parse the arguments of a command.

    Args:
        command: Its name, as in ``turnwise NAME``.
        description: Head of the help page.
        groups: Title -> flags; all names lie in one flat space. The group titled "" is the command's own.
        arguments: What was typed.

    Returns:
        Flag name -> value.

    Raises:
        SystemExit: after a help page (0), or a message about a wrong argument (2), has been printed.
    """
    fields: list[Any] = []
    for title, flags in groups.items():
        if title:
            part = _dataclass(title, [_field(flag) for flag in flags])
            fields.append((title, part, dataclasses.field(default=part())))
        else:
            # A flag of the command itself is given or not; a setting may be on in a file and off on the command line.
            fields += [_field(flag, pair=False) for flag in flags]
    kind = _dataclass("arguments", fields)
    parsed = tyro.cli(
        tyro.conf.OmitArgPrefixes[kind], prog=f"turnwise {command}", description=description, args=list(arguments)
    )
    values: dict[str, Any] = {}
    for title, flags in groups.items():
        owner = getattr(parsed, title) if title else parsed
        values |= {flag.name: getattr(owner, flag.name) for flag in flags}
    return values


def _field(flag: Flag, *, pair: bool = True) -> Any:
    hint = flag.hint
    if hint is None and (flag.default is None or flag.default is False or flag.default == ""):
        hint = ""
    extra: dict[str, Any] = {} if hint is None else {"help_behavior_hint": f"(default: {hint})" if hint else ""}
    annotation = Annotated[flag.kind, tyro.conf.arg(help=flag.help, metavar=flag.metavar, **extra)]
    if not pair:
        annotation = tyro.conf.FlagCreatePairsOff[annotation]
    if flag.positional:
        annotation = tyro.conf.Positional[annotation]
    if flag.default is REQUIRED:
        return flag.name, annotation
    return flag.name, annotation, dataclasses.field(default=flag.default)


def _dataclass(name: str, fields: Sequence[Any]) -> Any:
    # Arguments without a default come first, as Python wants it.
    ordered = sorted(fields, key=len)
    made = dataclasses.make_dataclass(name, ordered, frozen=True)
    # The generated signature would be printed as the description of the group.
    made.__doc__ = None
    return made
