"""Prompts with gaps, in text files that a person can edit.

A gap is a name in braces, ``{completion}``. It is filled once: braces inside what is filled in stay as they are, so that
nothing a model wrote can reach into the template.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path

from turnwise.errors import TurnwiseError

_GAP = re.compile(r"\{(\w+)\}")


class TemplateError(TurnwiseError):
    """A template cannot be read, or has gaps that nothing fills."""


def read_template(path: str | Path | None, package: str, name: str) -> str:
    """The text of a template.

    Args:
        path: A file of the user's own; None takes the one that comes with the package.
        package: The package that holds the default, such as ``turnwise.rewards``.
        name: File name of the default in the package's folder ``templates``.

    Raises:
        TemplateError: the file is missing or is not UTF-8 text.
    """
    if path is None:
        return (resources.files(package) / "templates" / name).read_text(encoding="utf-8")
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"cannot read the template {str(path)!r}: {error}; give a UTF-8 text file") from error


def check_template(template: str, needed: Collection[str], known: Collection[str], where: str) -> None:
    """Refuse a template that leaves out what it is about, or asks for what nobody fills in.

    Args:
        template: The text.
        needed: Gaps that it must have.
        known: All the gaps that can be filled.
        where: What messages call the template.

    Raises:
        TemplateError: a gap is missing or unknown.
    """
    gaps = set(_GAP.findall(template))
    missing = [name for name in needed if name not in gaps]
    if missing:
        raise TemplateError(f"{where} does not say where {{{missing[0]}}} goes; put it into the text")
    unknown = sorted(gaps - set(known))
    if unknown:
        raise TemplateError(
            f"{where} has the gap {{{unknown[0]}}}, which nothing fills; the gaps are "
            + ", ".join(f"{{{name}}}" for name in known)
        )


def fill(template: str, fields: Mapping[str, str]) -> str:
    """The template with each gap replaced by the field of its name; other braces stay."""
    return _GAP.sub(lambda gap: fields.get(gap[1], gap[0]), template)
