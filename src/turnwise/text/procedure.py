"""The prompts of the procedure: how one asks for a critique, a revision, a comparison. They are text files that a user can edit.

The critique and the revision are asked for in the dialogue that the reply belongs to, so their prompts need not repeat
it; a comparison is a question of its own. Names in braces are filled in: ``{principle}`` everywhere; ``{prompt}``, ``{reply}``,
and ``{critique}`` in the first two; ``{prompt}``, ``{first}`` and ``{second}`` in a comparison.

Bai et al. 2022, "Constitutional AI: Harmlessness from AI Feedback", arXiv 2212.08073. The wording is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Literal

from turnwise.errors import TurnwiseError
from turnwise.text.principles import Principle

_NAMES = {
    "critique": ("principle", "prompt", "reply"),
    "revision": ("principle", "prompt", "reply", "critique"),
    "comparison": ("principle", "prompt", "first", "second"),
}
_NEEDED = {"critique": ("principle",), "revision": (), "comparison": ("first", "second")}
_FILES = ("principles.txt", *(f"{name}.txt" for name in _NAMES))
_SLOT = re.compile(r"\{(\w+)\}")


class ProcedureError(TurnwiseError):
    """A prompt of the procedure that cannot be used; the message names file and line."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a writer is asked for.

    Attributes:
        kind: A critique of the reply, or a revision of it.
        principle: By which principle.
        prompt: What was asked first.
        reply: What is criticised or revised.
        critique: What was said against it; empty where the critique is what is asked for.
        text: The request in words.
    """

    kind: Literal["critique", "revision"]
    principle: Principle
    prompt: str
    reply: str
    critique: str
    text: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """The dialogue up to the request, as chat messages; a critique stands in it as said by the one who revises."""
        said = [_message("user", self.prompt), _message("assistant", self.reply)]
        if not self.critique:
            return [*said, _message("user", self.text)]
        return [*said, _message("user", f"{self.critique}\n\n{self.text}")]


Writer = Callable[[list[Request]], Sequence[str]]
"""Whoever writes critiques or revisions other than the policy: requests -> a text for each, in order; an empty one for none.

All that are open come in one call, so that a writer may batch them.
"""


def by_rule(requests: list[Request]) -> list[str]:
    """A writer that knows the checkable forms: it names what offends, and applies the stated rewrite.

    A principle without a checkable form it lets pass.
    """
    return [_by_rule(request) for request in requests]


def _by_rule(request: Request) -> str:
    check = request.principle.check
    if request.kind == "revision":
        return request.reply if check is None else check.rewrite(request.reply)
    offence = "" if check is None else check.offence(request.reply)
    return f"The reply goes against the principle: {offence}." if offence else "The reply keeps to the principle."


@dataclass(frozen=True)
class Procedure:
    """The prompts.

    Attributes:
        critique: Asks what is wrong with a reply.
        revision: Asks to write it again.
        comparison: Asks which of two replies is better.

    Raises:
        ProcedureError: an empty prompt, a name in braces that nobody fills in, or one that is missing.
    """

    critique: str
    revision: str
    comparison: str

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name), f"the {field.name} prompt")

    @classmethod
    def read(cls, folder: str | Path | None = None) -> Procedure:
        """The prompts in ``critique.txt``, ``revision.txt`` and ``comparison.txt`` of a folder.

        Args:
            folder: Where to look; a file that is not there is taken from those that come with turnwise, as all are
                without a folder.

        Raises:
            ProcedureError: no such folder, a file that cannot be read, or a prompt that cannot be used.
        """
        if folder is not None and not Path(folder).is_dir():
            raise ProcedureError(f"there is no folder {str(folder)!r}; `write_procedure` makes one with all files")
        texts: dict[str, str] = {}
        for name in _NAMES:
            path = None if folder is None else Path(folder) / f"{name}.txt"
            if path is None or not path.exists():
                texts[name] = _shipped(f"{name}.txt").strip()
                continue
            try:
                texts[name] = path.read_text(encoding="utf-8-sig").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ProcedureError(f"cannot read {path}: {error}; it has to be UTF-8 text") from error
            _check(name, texts[name], str(path))
        return cls(**texts)

    def critique_request(self, prompt: str, reply: str, principle: Principle) -> Request:
        """Ask for a critique."""
        text = fill(self.critique, {"principle": principle.text, "prompt": prompt, "reply": reply})
        return Request("critique", principle, prompt, reply, "", text)

    def revision_request(self, prompt: str, reply: str, critique: str, principle: Principle) -> Request:
        """Ask for a revision."""
        values = {"principle": principle.text, "prompt": prompt, "reply": reply, "critique": critique}
        return Request("revision", principle, prompt, reply, critique, fill(self.revision, values))

    def comparison_request(self, prompt: str, first: str, second: str, principle: Principle) -> str:
        """Ask which of two replies keeps better to the principle."""
        values = {"principle": principle.text, "prompt": prompt, "first": first, "second": second}
        return fill(self.comparison, values)


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with each ``{name}`` of `values` replaced; braces in the values stay as they are."""
    return _SLOT.sub(lambda match: values.get(match[1], match[0]), template)


def write_procedure(folder: str | Path) -> list[Path]:
    """Write the prompts and an example of principles into a folder, to be edited; files that are there are left alone.

    Returns:
        The files that were written.

    Raises:
        ProcedureError: the folder cannot be written to.
    """
    written: list[Path] = []
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            path = Path(folder) / name
            if not path.exists():
                path.write_text(_shipped(name), encoding="utf-8")
                written.append(path)
    except OSError as error:
        raise ProcedureError(f"cannot write into {str(folder)!r}: {error.strerror}; name another folder") from error
    return written


def _shipped(name: str) -> str:
    return files("turnwise.text").joinpath("constitution", name).read_text(encoding="utf-8")


def _check(name: str, text: str, where: str) -> None:
    if not text.strip():
        raise ProcedureError(f"{where} is empty; write what to ask, or delete the file to use the one of turnwise")
    for number, line in enumerate(text.splitlines(), start=1):
        for slot in _SLOT.findall(line):
            if slot not in _NAMES[name]:
                known = ", ".join(f"{{{known}}}" for known in _NAMES[name])
                raise ProcedureError(f"{where}, line {number}: nobody fills in {{{slot}}}; there are {known}")
    missing = [slot for slot in _NEEDED[name] if f"{{{slot}}}" not in text]
    if missing:
        raise ProcedureError(f"{where} does not show {{{missing[0]}}}; without it nobody knows what is asked")


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
