"""Write the API reference: one Markdown page per public module of the package.

The source is read, never imported, so that this takes a second and needs none of the package's dependencies.
Run as ``python docs/reference.py OUTPUT``. It exits with 1 and a list when a public symbol has no docstring, when a
dataclass of settings leaves one of them undescribed, or when a docstring describes an argument that does not exist.
Public means: no part of the dotted name starts with an underscore.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import griffe

SOURCE = Path(__file__).parent.parent / "src"
PACKAGE = "turnwise"

SETTINGS = tuple(f"{PACKAGE}.{layer}" for layer in ("algorithms", "recipes", "runs"))
"""Where every field of a dataclass must be described, because it is a setting that users type."""

INHERITED = {
    "Env": {"reset", "step", "render", "close"},
    "Wrapper": {"reset", "step", "render", "close"},
    "Space": {"sample", "contains"},
    "Module": {"forward"},
}
"""Methods that need no docstring of their own because the named class of another library documents them."""


class Complaints(logging.Handler):
    """Collects what the docstring parser warns about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        self.lines.append(record.getMessage())


def is_public(item: griffe.Object | griffe.Alias) -> bool:
    """Defined here (not imported) under a name without a leading underscore."""
    return not item.is_alias and not item.name.startswith("_")


def members(owner: griffe.Module | griffe.Class) -> list[griffe.Object]:
    """Public members in the order of the source, submodules left out."""
    found = [m for m in owner.members.values() if isinstance(m, griffe.Object) and is_public(m) and not m.is_module]
    return sorted(found, key=lambda member: member.lineno or 0)


def modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """The module and its public submodules, depth first."""
    yield module
    for name in sorted(module.modules):
        child = module.modules[name]
        if isinstance(child, griffe.Module) and is_public(child):
            yield from modules(child)


def must_describe_fields(item: griffe.Class) -> bool:
    """A dataclass whose docstring begins a list of fields, or whose fields are settings that users type."""
    begun = any(isinstance(section, griffe.DocstringSectionAttributes) for section in sections(item))
    return "dataclass" in item.labels and (begun or item.module.path.startswith(SETTINGS))


def sections(item: griffe.Object) -> Sequence[griffe.DocstringSection]:
    """The parsed docstring, in Google's style."""
    if item.docstring is None:
        return []
    return item.docstring.parse(
        "google",
        returns_multiple_items=False,
        returns_named_value=False,
        warn_missing_types=False,
        warn_unknown_params=False,
    )


# --- the check


def inherits_docstring(method: griffe.Object) -> bool:
    """A class above documents the method."""
    owner = method.parent
    if not isinstance(owner, griffe.Class):
        return False
    classes = (owner, *owner.mro())
    bases = {str(base).split("[")[0].split(".")[-1] for item in classes for base in item.bases}
    if any(method.name in INHERITED.get(base, ()) for base in bases):
        return True
    return any(item.members[method.name].has_docstring for item in classes if method.name in item.members)


def undocumented(module: griffe.Module) -> Iterator[str]:
    """Names of public symbols without a docstring, each with where it is."""
    if not module.has_docstring:
        yield f"{where(module)}: module {module.path}"
    for member in members(module):
        if isinstance(member, griffe.Class):
            yield from undocumented_in_class(member)
        elif not member.has_docstring and not is_plumbing(member):
            yield f"{where(member)}: {member.kind.value} {member.path}"


def undocumented_in_class(item: griffe.Class) -> Iterator[str]:
    """The same for a class, its methods and properties and, if it is a dataclass, its fields."""
    if not item.has_docstring:
        yield f"{where(item)}: class {item.path}"
    described = described_fields(item)
    for member in members(item):
        if isinstance(member, griffe.Class):
            yield from undocumented_in_class(member)
        elif isinstance(member, griffe.Function) or "property" in member.labels:
            if not member.has_docstring and not inherits_docstring(member):
                yield f"{where(member)}: method {member.path}"
        elif (
            must_describe_fields(item)
            and is_field(member)
            and not member.has_docstring
            and member.name not in described
        ):
            yield f"{where(member)}: field {member.path}"


def is_field(member: griffe.Object) -> bool:
    """An annotated attribute of a class body that is not a class variable."""
    return (
        isinstance(member, griffe.Attribute)
        and member.annotation is not None
        and "ClassVar" not in str(member.annotation)
    )


def is_plumbing(member: griffe.Object) -> bool:
    """A type variable or a logger, which no reader looks up."""
    makers = ("TypeVar(", "ParamSpec(", "logging.getLogger(")
    return isinstance(member, griffe.Attribute) and str(member.value).startswith(makers)


def described_fields(item: griffe.Class) -> set[str]:
    """Fields that the docstring of the class, or of one above it, lists under Attributes or speaks of in backticks."""
    names: set[str] = set()
    for owner in (item, *item.mro()):
        for section in sections(owner):
            if isinstance(section, griffe.DocstringSectionAttributes | griffe.DocstringSectionParameters):
                names.update(entry.name for entry in section.value)
            elif isinstance(section, griffe.DocstringSectionText):
                names.update(re.findall(r"`(\w+)", section.value))
    return names


def where(item: griffe.Object) -> str:
    """``path:line``, relative to the current folder."""
    path = item.filepath
    return f"{os.path.relpath(path) if isinstance(path, Path) else path}:{item.lineno or 1}"


def misdescribed(item: griffe.Object) -> Iterator[str]:
    """Arguments that the docstring of a function or class describes and its signature lacks, down through its members."""
    if isinstance(item, griffe.Function | griffe.Class):
        known = {parameter.name for parameter in item.parameters}
        for section in sections(item):
            if isinstance(section, griffe.DocstringSectionParameters):
                for entry in section.value:
                    for name in re.split(r",\s*", entry.name):
                        if name.lstrip("*") not in known:
                            yield f"{where(item)}: {item.path} describes an argument {name!r} that it does not have"
    if isinstance(item, griffe.Module | griffe.Class):
        for member in (*item.modules.values(), *members(item)):
            if isinstance(member, griffe.Object) and is_public(member):
                yield from misdescribed(member)


# --- the pages


def prose(item: griffe.Object) -> Iterator[str]:
    """The docstring as Markdown lines."""
    for section in sections(item):
        match section:
            case griffe.DocstringSectionText():
                yield section.value
            case griffe.DocstringSectionParameters() | griffe.DocstringSectionAttributes():
                title = "Arguments" if isinstance(section, griffe.DocstringSectionParameters) else "Attributes"
                yield f"**{title}**\n"
                for entry in section.value:
                    kind = f" (`{entry.annotation}`)" if entry.annotation is not None else ""
                    yield bullet(f"`{entry.name}`{kind}: {entry.description}")
            case griffe.DocstringSectionReturns() | griffe.DocstringSectionYields():
                yield "**Returns**\n" if isinstance(section, griffe.DocstringSectionReturns) else "**Yields**\n"
                for entry in section.value:
                    # A string is text before a colon that the parser took for a type; an expression is the annotation.
                    lead = f"{entry.annotation}: " if isinstance(entry.annotation, str) else ""
                    yield bullet(lead + entry.description)
            case griffe.DocstringSectionRaises():
                yield "**Raises**\n"
                for entry in section.value:
                    yield bullet(f"`{entry.annotation}`: {entry.description}")
            case griffe.DocstringSectionExamples():
                yield "**Examples**\n"
                for kind, text in section.value:
                    yield text if kind is griffe.DocstringSectionKind.text else f"```python\n{text}\n```"
            case griffe.DocstringSectionAdmonition():
                yield f"**{section.title}**\n\n{section.value.description}"
            case _:
                raise SystemExit(
                    f"{where(item)}: the docstring has a {section.kind.value!r} section, which pages cannot show"
                )
        yield ""


def bullet(text: str) -> str:
    """One list item, its further lines indented under it."""
    return "- " + text.strip().replace("\n", "\n  ")


def signature(item: griffe.Function | griffe.Class) -> str:
    """``name(arguments) -> type``, without self and cls."""
    shown: list[str] = []
    seen_star = False
    positional_only = False
    for parameter in item.parameters:
        if parameter.name in ("self", "cls") and not shown:
            continue
        kind = parameter.kind
        if positional_only and kind is not griffe.ParameterKind.positional_only:
            shown.append("/")
            positional_only = False
        positional_only |= kind is griffe.ParameterKind.positional_only
        if kind is griffe.ParameterKind.keyword_only and not seen_star:
            shown.append("*")
            seen_star = True
        star = "*" if kind is griffe.ParameterKind.var_positional else ""
        seen_star |= bool(star)
        if kind is griffe.ParameterKind.var_keyword:
            star = "**"
        text = star + parameter.name + (f": {parameter.annotation}" if parameter.annotation is not None else "")
        if parameter.default is not None and not star:
            text += f" = {parameter.default}"
        shown.append(text)
    if positional_only:
        shown.append("/")
    returns = f" -> {item.returns}" if isinstance(item, griffe.Function) and item.returns is not None else ""
    return f"{item.name}({', '.join(shown)}){returns}"


def describe(item: griffe.Object, depth: int = 0) -> Iterator[str]:
    """One symbol as a directive of Sphinx's Python domain."""
    # Outer fences are longer than inner ones, and all are longer than those of a docstring.
    fence = "`" * (10 - depth)
    match item:
        case griffe.Class():
            bases = f"\n\nBases: {', '.join(f'`{base}`' for base in item.bases)}" if item.bases else ""
            head = f"{{py:class}} {signature(item)}"
            body = [*prose(item), bases, *(line for m in members(item) if shown(m) for line in describe(m, depth + 1))]
        case griffe.Function():
            options = [f":{label}:" for label in ("async", "classmethod", "staticmethod") if label in item.labels]
            head = f"{{py:{'method' if item.parent is not None and item.parent.is_class else 'function'}}} {signature(item)}"
            body = [*options, "", *prose(item)]
        case griffe.Attribute():
            kind = (
                "property"
                if "property" in item.labels
                else "attribute"
                if item.parent and item.parent.is_class
                else "data"
            )
            head = f"{{py:{kind}}} {item.name}"
            value = f":value: {item.value}" if item.value is not None and len(str(item.value)) < 100 else ""
            options = [
                f":type: {item.annotation}" if item.annotation is not None else "",
                "" if kind == "property" else value,
            ]
            body = [*filter(None, options), "", *prose(item)]
        case _:
            return
    yield "\n".join([fence + head, *body, fence, ""])


def shown(member: griffe.Object) -> bool:
    """Fields are listed in the docstring of their class; only attributes with a docstring of their own get an entry."""
    return not isinstance(member, griffe.Attribute) or member.has_docstring


def page(module: griffe.Module) -> str:
    """The page of one module."""
    lines = [f"# {module.path}\n", f"```{{py:module}} {module.path}\n```\n", *prose(module)]
    imported = sorted(name for name, m in module.members.items() if m.is_alias and name in (module.exports or ()))
    if imported:
        lines.append(f"Importable from here: {', '.join(f'`{name}`' for name in imported)}.\n")
    lines += [line for member in members(module) for line in describe(member)]
    children = [child.path for child in modules(module) if child.parent is module]
    if children:
        lines.append("```{toctree}\n:titlesonly:\n\n" + "\n".join(children) + "\n```\n")
    return "\n".join(lines)


def main(output: Path, source: Path = SOURCE) -> int:
    """Check the docstrings of the package in `source` and write its pages into `output`; the exit status."""
    complaints = Complaints()
    logger = logging.getLogger("griffe")
    logger.addHandler(complaints)
    logger.propagate = False
    package = griffe.load(PACKAGE, search_paths=[source], allow_inspection=False)
    if not isinstance(package, griffe.Module):
        raise SystemExit(f"{PACKAGE} is not a module under {source}")
    pages = {module.path: page(module) for module in modules(package)}
    missing = [line for module in modules(package) for line in undocumented(module)]
    faulty = [*dict.fromkeys(complaints.lines), *misdescribed(package)]

    output.mkdir(parents=True, exist_ok=True)
    for stale in set(output.glob("*.md")) - {output / f"{path}.md" for path in pages}:
        stale.unlink()
    for path, text in pages.items():
        (output / f"{path}.md").write_text(text, encoding="utf-8")

    for line in missing:
        print(f"{line} has no documentation", file=sys.stderr)
    for line in faulty:
        print(line, file=sys.stderr)
    print(f"{len(pages)} reference pages, {len(missing)} public symbols undocumented, {len(faulty)} faulty docstrings")
    return 1 if missing or faulty else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: python {sys.argv[0]} OUTPUT")
    raise SystemExit(main(Path(sys.argv[1])))
