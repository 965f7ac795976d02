"""Principles in a text file, and the part of them that a program can check and mend.

    # comments and empty lines are left out
    Be honest.
    Never mention the weather. [forbids: weather|rain|sun]
    Say "dislike". [forbids: hate => dislike]
    Be polite. [requires: please => please]
    Be brief. [words: 12]

What stands in the brackets is the checkable form: who judges by rules reads it, who judges by reading (a person, a model) is
shown the words before it. A pattern is a regular expression of Python and finds whole words in either case. It is yours: one
that takes forever on some reply does so here too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from turnwise.errors import TurnwiseError

FORMS = {
    "forbids": "[forbids: PATTERN], [forbids: PATTERN => TEXT]",
    "requires": "[requires: PATTERN], [requires: PATTERN => TEXT]",
    "words": "[words: N]",
}
"""Name of a checkable form -> how it is written."""

_CHECK = re.compile(r"^(?P<text>.*?)\s*\[\s*(?P<form>[A-Za-z ]+?)\s*:\s*(?P<argument>.*?)\s*\]$")
# A match may begin and end anywhere but inside of a word.
_WHOLE = r"(?:(?<!\w)|(?!\w))(?:{})(?:(?<!\w)|(?!\w))"


class PrincipleError(TurnwiseError):
    """A file of principles that cannot be read; the message names the line."""


@dataclass(frozen=True, slots=True)
class Check:
    """The checkable form of a principle.

    Attributes:
        form: What is checked: no word may match, some word has to, or there may be so many words.
        pattern: What is looked for; matches nothing where words are counted.
        instead: What offending words are replaced by, or what is added where something is missing.
        limit: Most words allowed.
    """

    form: Literal["forbids", "requires", "words"]
    pattern: re.Pattern[str]
    instead: str = ""
    limit: int = 0

    def holds(self, reply: str) -> bool:
        """The reply keeps to it."""
        if self.form == "words":
            return len(reply.split()) <= self.limit
        return (self.pattern.search(reply) is None) == (self.form == "forbids")

    def rewrite(self, reply: str) -> str:
        """The reply, changed so that it keeps to it; word for word the same if it does already.

        Offending words are taken out or replaced, what is missing is added at the end, and what is too much is cut off. A
        requirement that does not say what to add leaves the reply as it is.
        """
        if self.holds(reply):
            return reply
        if self.form == "words":
            return " ".join(reply.split()[: self.limit])
        if self.form == "requires":
            return f"{reply} {self.instead}".strip() if self.instead else reply
        if self.instead:
            return self.pattern.sub(lambda _: self.instead, reply)
        # Taking words out may bring together what offends again.
        while (shorter := " ".join(self.pattern.sub(" ", reply).split())) != reply:
            reply = shorter
        return reply

    def offence(self, reply: str) -> str:
        """What is wrong with the reply, in words; empty if nothing is."""
        if self.holds(reply):
            return ""
        if self.form == "words":
            return f"it has {len(reply.split())} words, and {self.limit} are allowed"
        if self.form == "requires":
            return f"it lacks {self.instead or self.pattern.pattern!r}"
        return "it says " + ", ".join(dict.fromkeys(match.group() for match in self.pattern.finditer(reply)))


@dataclass(frozen=True, slots=True)
class Principle:
    """One line of the file.

    Attributes:
        text: The principle in words, as a reader is shown it.
        line: Number of the line, from 1.
        check: Its checkable form, if it has one.
    """

    text: str
    line: int = 0
    check: Check | None = None


def read_principles(path: str | Path) -> tuple[Principle, ...]:
    """The principles of a file.

    Raises:
        PrincipleError: there is no such file, it is not UTF-8, or see `parse_principles`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PrincipleError(
            f"cannot read the principles in {str(path)!r}: {error.strerror}; give a text file with one a line"
        ) from error
    except UnicodeDecodeError as error:
        raise PrincipleError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8 text") from error
    return parse_principles(text, str(path))


def parse_principles(text: str, where: str = "principles") -> tuple[Principle, ...]:
    """The principles of a text, one a line.

    Args:
        text: What the file holds.
        where: What messages call it.

    Raises:
        PrincipleError: no principle, a line without words, an unknown form, a pattern that is no regular expression or
            matches nothing at all, or a text that is put in and offends against a principle itself.
    """
    found: list[Principle] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line and not line.startswith("#"):
            found.append(_principle(line, number, f"{where}, line {number}"))
    if not found:
        raise PrincipleError(f"{where} holds no principle; write one a line ('#' begins a comment)")
    _check_agreement(found, where)
    return tuple(found)


def violations(principles: Sequence[Principle], reply: str) -> tuple[Principle, ...]:
    """The principles that the reply offends against, among those that can be checked."""
    return tuple(p for p in principles if p.check is not None and not p.check.holds(reply))


def rewrite(principles: Sequence[Principle], reply: str) -> str:
    """The reply after the rewrite of each principle that can be checked, in order."""
    for principle in principles:
        if principle.check is not None:
            reply = principle.check.rewrite(reply)
    return reply


def require_checks(principles: Sequence[Principle], who: str) -> None:
    """Refuse to judge by rules where no principle has one.

    Raises:
        PrincipleError: no principle is checkable; says how they are written.
    """
    if not any(principle.check for principle in principles):
        raise PrincipleError(
            f"{who} judges by rules, and none of the {len(principles)} principles has a checkable form; add one, such as "
            f"{' or '.join(FORMS.values())}, or let a model judge"
        )


def drawn(principles: Sequence[Principle], seed: int | str, n: int) -> list[Principle]:
    """`n` principles in random order, a function of the seed: none comes again before all have come."""
    rng = random.Random(f"principles {seed}")
    order: list[Principle] = []
    while len(order) < n:
        order += rng.sample(list(principles), len(principles))
    return order[:n]


def _principle(line: str, number: int, where: str) -> Principle:
    match = _CHECK.match(line)
    if match is None:
        return Principle(line, number)
    text, form, argument = match["text"], match["form"].lower(), match["argument"]
    if form not in FORMS:
        raise PrincipleError(f"{where}: there is no form {form!r}; there are {'; '.join(FORMS.values())}")
    if not text:
        raise PrincipleError(f"{where}: say the principle in words before the brackets; a model or a person reads them")
    return Principle(text, number, _count(argument, where) if form == "words" else _pattern(form, argument, where))


def _count(argument: str, where: str) -> Check:
    if not (argument.isascii() and argument.isdigit() and 0 < len(argument) < 10 and int(argument) > 0):
        raise PrincipleError(f"{where}: [words: {argument}] needs a number of words, such as [words: 60]")
    return Check("words", re.compile(r"(?!)"), limit=int(argument))


def _pattern(form: str, argument: str, where: str) -> Check:
    source, arrow, instead = (part.strip() for part in argument.partition("=>"))
    if not source:
        raise PrincipleError(f"{where}: [{form}: ...] needs a pattern, such as [{form}: weather|rain]")
    if arrow and not instead:
        raise PrincipleError(f"{where}: nothing stands behind '=>'; leave it out, or say what is to be put in")
    try:
        re.compile(source)
        pattern = re.compile(_WHOLE.format(source), re.IGNORECASE)
    except re.error as error:
        raise PrincipleError(
            f"{where}: {source!r} is not a regular expression: {error.msg}; put a backslash before a sign that is meant "
            "as it stands"
        ) from error
    if pattern.search("") is not None:
        raise PrincipleError(f"{where}: {source!r} matches the empty text, so it says nothing; use + in place of *")
    check = Check("forbids" if form == "forbids" else "requires", pattern, instead)
    if instead and not check.holds(instead):
        fault = "is itself forbidden" if form == "forbids" else "does not have what is required"
        raise PrincipleError(f"{where}: {instead!r}, which would be put in, {fault} by {source!r}")
    return check


def _check_agreement(principles: Sequence[Principle], where: str) -> None:
    """What one line puts in must not be what another forbids: the rewrite would never keep to both."""
    for one in principles:
        if one.check is None or not one.check.instead:
            continue
        for other in violations([p for p in principles if p.check and p.check.form == "forbids"], one.check.instead):
            raise PrincipleError(
                f"{where}, line {one.line} puts in {one.check.instead!r}, which line {other.line} forbids; change one of them"
            )
