"""Checked rows of one kind, and the report on them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnwise.data.problems import SHOWN, BadRow, DataError, Problem, refusal
from turnwise.data.rows import NEEDS, Answer, Kind, Row, read_row, recognise
from turnwise.data.sources import Opened, Record, open_rows
from turnwise.text import Conversation, Renderer, RendererError

SEPARATOR = "\n"
"""What stands between the steps of an answer."""

LEARNS: dict[str, tuple[Kind, ...]] = {
    "rollouts": (Kind.PROMPT, Kind.COMPLETION, Kind.MESSAGES, Kind.PREFERENCE, Kind.UNPAIRED, Kind.STEPWISE),
    "demonstrations": (Kind.COMPLETION, Kind.MESSAGES, Kind.TEXT),
    "preferences": (Kind.PREFERENCE,),
    "labels": (Kind.UNPAIRED, Kind.PREFERENCE),
    "steps": (Kind.STEPWISE,),
}
"""What a method learns from -> the kinds of data that have it. A preference is two labels."""

# Columns that data sets often have, and what we would call them.
_ALIASES = {
    "question": "prompt", "instruction": "prompt", "query": "prompt", "input": "prompt", "problem": "prompt",
    "answer": "completion", "response": "completion", "output": "completion", "solution": "completion",
    "conversations": "messages", "conversation": "messages", "dialogue": "messages", "content": "text",
    "accepted": "chosen", "preferred": "chosen", "steps": "completions",
}  # fmt: skip

_PEEK = 100
"""Rows that are looked at to find out what the others are."""

Rows = str | Path | Iterable[Mapping[str, Any]]
"""A file, a folder, a hub id, or rows in memory."""


@dataclass(frozen=True)
class Dataset:
    """Rows of one kind, checked.

    Attributes:
        name: Where they come from.
        kind: What they hold.
        rows: The good ones, in order.
        problems: The bad ones, which were left out.
        notes: What is odd about the whole, for people.
        unit: What the numbers of rows count: "line" or "row".
    """

    name: str
    kind: Kind
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    unit: str = "row"

    @property
    def skipped(self) -> int:
        """How many bad rows were left out."""
        return len(self.problems)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Report:
    """What is in a file, and what is wrong with it.

    Attributes:
        name: Where the rows come from.
        kind: What they hold.
        good: How many can be used.
        problems: Those that cannot, all of them.
        columns: Columns that the kind does not read; they reach reward functions.
        measured: What lengths count: "tokens" or "words".
        lengths: Part of a row (prompt, completion, chosen, rejected …) -> (good,) int64, its length in each good row.
        conversational: How many good rows are chat messages.
        notes: What is odd about the whole.
    """

    name: str
    kind: Kind
    good: int
    problems: tuple[Problem, ...]
    columns: tuple[str, ...]
    measured: str
    lengths: Mapping[str, NDArray[np.int64]]
    conversational: int = 0
    notes: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """No row is bad."""
        return not self.problems

    def percentiles(self, part: str) -> tuple[int, int, int, int]:
        """Length of `part` that 50, 90, 99 and 100 % of the rows do not exceed; each is the length of a row."""
        values = np.percentile(self.lengths[part], [50, 90, 99, 100], method="inverted_cdf")
        return tuple(int(value) for value in values)  # type: ignore[return-value]


def load(
    source: Rows,
    *,
    kind: Kind | str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "",
    learns_from: str = "",
    renderer: Renderer | None = None,
    max_length: int = 0,
    skip_bad: bool = False,
) -> Dataset:
    """Read data to train on.

    Args:
        source: A file, a folder, a hub id, or rows in memory; see `open_rows`.
        kind: What the rows hold; recognised by their columns by default.
        columns: Our name -> the name in the data, as in ``{"prompt": "question"}``.
        split: Split of a data set.
        learns_from: What the method needs, a key of `LEARNS`; data of another kind is refused.
        renderer: Counts the tokens of a row; without it `max_length` counts words.
        max_length: Longest prompt and answer together; 0 for any.
        skip_bad: Leave bad rows out instead of refusing the data.

    Raises:
        DataError: there is no such data, nobody can tell what it is, it is empty or of another kind than is needed, or
            rows of it are bad (the first ones are named).
    """
    scan = _Scan(source, kind, columns, split, renderer, max_length, measured=max_length > 0)
    check_kind(scan.name, scan.kind, learns_from)
    rows: list[Row] = []
    problems: list[Problem] = []
    tally = _Tally(scan.kind)
    for item in scan:
        if isinstance(item, Problem):
            problems.append(item)
        else:
            rows.append(item)
            tally.add(item)
    if problems and (not skip_bad or not rows):
        raise refusal(scan.name, problems, len(rows))
    return Dataset(scan.name, scan.kind, tuple(rows), tuple(problems), tally.notes(), scan.unit)


def check(
    source: Rows,
    *,
    kind: Kind | str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "",
    renderer: Renderer | None = None,
    max_length: int = 0,
    on_row: Callable[[int], None] | None = None,
) -> Report:
    """Read data and report on it. Rows are not kept, so a file of any size can be checked.

    Args:
        source: See `load`, like the other arguments.
        kind: What the rows hold.
        columns: Our name -> the name in the data.
        split: Split of a data set.
        renderer: Counts tokens; without it lengths are in words.
        max_length: Longest prompt and answer together; 0 for any.
        on_row: Called after each row with the number of rows so far.

    Raises:
        DataError: there is no such data, nobody can tell what it is, or it is empty.
    """
    scan = _Scan(source, kind, columns, split, renderer, max_length)
    problems: list[Problem] = []
    names: dict[str, None] = {}
    parts = _PARTS[scan.kind]
    lengths: dict[str, list[int]] = {part: [] for part in parts}
    tally = _Tally(scan.kind)
    for count, item in enumerate(scan, start=1):
        if isinstance(item, Problem):
            problems.append(item)
        else:
            tally.add(item)
            names |= dict.fromkeys(item.columns)
            prompt, answers = scan.latest
            measured = [*([prompt] if "prompt" in parts else []), *answers]
            for part, length in zip(parts, measured, strict=True):
                lengths[part].append(length)
        if on_row is not None:
            on_row(count)
    arrays = {part: np.asarray(values, np.int64) for part, values in lengths.items()}
    measured_in = "words" if renderer is None else "tokens"
    return Report(
        scan.name, scan.kind, tally.rows, tuple(problems), tuple(names), measured_in, arrays, tally.conversational,
        tally.notes(),
    )  # fmt: skip


_PARTS: dict[Kind, tuple[str, ...]] = {
    Kind.PROMPT: ("prompt",),
    Kind.COMPLETION: ("prompt", "completion"),
    Kind.MESSAGES: ("prompt", "messages"),
    Kind.TEXT: ("text",),
    Kind.PREFERENCE: ("prompt", "chosen", "rejected"),
    Kind.UNPAIRED: ("prompt", "completion"),
    Kind.STEPWISE: ("prompt", "completions"),
}


class _Scan:
    """Rows or problems, one by one; `latest` are the lengths of the row that came last."""

    def __init__(
        self,
        source: Rows,
        kind: Kind | str | None,
        columns: Mapping[str, str] | None,
        split: str,
        renderer: Renderer | None,
        max_length: int,
        *,
        measured: bool = True,
    ) -> None:
        opened = open_rows(source, split)
        self.name = opened.name
        self.unit = opened.unit
        self._opened = opened
        self._renames = {theirs: ours for ours, theirs in (columns or {}).items()}
        self._renderer = renderer
        self._limit = max_length
        self._measured = measured
        self.latest: tuple[int, list[int]] = (0, [])
        head = [self._renamed(record) for record in itertools.islice(opened.records, _PEEK)]
        if not head:
            raise DataError(f"{self.name} is empty: it has no row")
        self._records = itertools.chain(head, map(self._renamed, opened.records))
        self.kind = _decide(opened, head, kind, columns or {})

    def _renamed(self, record: Record) -> Record:
        number, values = record
        if isinstance(values, BadRow) or not self._renames:
            return record
        kept = {name: value for name, value in values.items() if name not in self._renames}
        return number, {**kept, **{ours: values[theirs] for theirs, ours in self._renames.items() if theirs in values}}

    def __iter__(self) -> Iterator[Row | Problem]:
        for number, values in self._records:
            try:
                if isinstance(values, BadRow):
                    raise values
                row = read_row(self.kind, number, values, cells=self._opened.cells)
                self._measure(row)
            except BadRow as bad:
                yield Problem(f"{self.unit} {number}", bad.what, bad.detail)
            else:
                yield row

    def _measure(self, row: Row) -> None:
        if not self._measured:
            return
        try:
            self.latest = prompt, answers = lengths(row, self._renderer)
        except RendererError as error:
            raise BadRow("cannot be rendered", str(error)) from error
        longest = max(answers, default=1)
        if self._limit and prompt + longest > self._limit:
            unit = "words" if self._renderer is None else "tokens"
            answer = f" and {longest:,} of the answer" if answers else ", so no room for an answer"
            raise BadRow("over length", f"{prompt:,} {unit} of the prompt{answer}, more than {self._limit:,} in all")


def lengths(row: Row, renderer: Renderer | None = None) -> tuple[int, list[int]]:
    """Length of the prompt and of each answer, in tokens as a policy reads them; in words without a renderer."""
    if renderer is None:
        answers = [sum(len(text.split()) for text in (*a.actions, *a.observations)) for a in row.answers]
        return len(row.prompt.split()), answers
    return len(renderer.first(row.prompt)), [_tokens(answer, renderer) for answer in row.answers]


def _tokens(answer: Answer, renderer: Renderer) -> int:
    if answer.observations and not any(answer.observations):
        return sum(len(ids) for ids in renderer.step_ids(answer.actions, SEPARATOR))
    said = sum(len(renderer.action_ids(action)) for action in answer.actions)
    return said + sum(len(renderer.following(observation)) for observation in answer.observations)


@dataclass
class _Tally:
    """What is counted over the good rows, for the notes."""

    kind: Kind
    rows: int = 0
    conversational: int = 0
    worth: Counter[float] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        self.rows += 1
        self.conversational += isinstance(row.prompt, Conversation)
        if self.kind in (Kind.UNPAIRED, Kind.STEPWISE):
            self.worth.update(row.answers[0].rewards)

    def notes(self) -> tuple[str, ...]:
        if len(self.worth) != 1:
            return ()
        if self.kind is Kind.UNPAIRED:
            only, other = ("desirable", "undesirable") if self.worth[1.0] else ("undesirable", "desirable")
            return (
                f"every label is {'true' if self.worth[1.0] else 'false'}: all answers are {only}, and without {other} ones "
                "a method learns to say more (or less) of everything",
            )
        return (f"every step is labelled {'right' if self.worth[1.0] else 'wrong'}, so there is nothing to tell apart",)


def renames(pairs: Sequence[str]) -> dict[str, str]:
    """What is typed for other names of columns, ``("prompt=question,completion=answer",)``, as our name -> theirs.

    Blanks and commas separate.

    Raises:
        DataError: a part without "=", or one of our names twice.
    """
    found: dict[str, str] = {}
    for part in " ".join(pairs).replace(",", " ").split():
        ours, equals, theirs = part.partition("=")
        if not (ours and equals and theirs):
            raise DataError(f"--columns {part}: write it as OURS=THEIRS, for example prompt=question")
        if ours in found:
            raise DataError(f"--columns names {ours} twice, as {found[ours]} and as {theirs}")
        found[ours] = theirs
    return found


# ---- which kind


def _decide(opened: Opened, head: list[Record], kind: Kind | str | None, columns: Mapping[str, str]) -> Kind:
    records = [values for _, values in head if not isinstance(values, BadRow)]
    seen = list(dict.fromkeys(str(name) for values in records for name in values))
    if not records:
        listed = "".join(
            f"\n  {Problem(f'{opened.unit} {n}', bad.what, bad.detail)}"
            for n, bad in head[:SHOWN]
            if isinstance(bad, BadRow)
        )
        raise DataError(f"none of the first {len(head)} rows of {opened.name} can be read:{listed}")
    for ours, theirs in columns.items():
        if ours not in seen:
            near = get_close_matches(theirs, seen, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"{opened.name} has no column {theirs!r} to be the {ours}{hint}; its columns are {', '.join(seen)}"
            )
    if kind is not None:
        return _asked_for(opened.name, kind, records, seen)
    found = Counter(known for values in records if (known := recognise(values)) is not None)
    if not found:
        raise DataError(_unrecognised(opened.name, seen))
    # A few rows may lack a field, or have one more.
    common = found.most_common(1)[0][0]
    if common is Kind.PROMPT and len({"chosen", "rejected"} & set(seen)) == 1:
        raise DataError(_unrecognised(opened.name, seen))
    return common


def _asked_for(name: str, kind: Kind | str, records: list[Mapping[str, Any]], seen: list[str]) -> Kind:
    kinds = [known.value for known in Kind]
    if kind not in kinds:
        near = get_close_matches(str(kind), kinds, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"there is no kind of data {str(kind)!r}{hint}; the kinds are {', '.join(kinds)}")
    wanted = Kind(kind)
    missing = [column for column in NEEDS[wanted] if column not in seen]
    if missing:
        raise DataError(
            f"{name} has no column {missing[0]!r}, which {wanted} data needs; its columns are {', '.join(seen)}"
            + _renaming(missing, seen)
        )
    return wanted


def _unrecognised(name: str, seen: list[str]) -> str:
    have = set(seen)
    if len(have & {"chosen", "rejected"}) == 1:
        one = "chosen" if "chosen" in have else "rejected"
        return (
            f"{name} has a column {one!r} and no {'rejected' if one == 'chosen' else 'chosen'!r}: a preference has both "
            f"sides. To imitate the one side, call it the completion: --kind prompt-completion --columns completion={one}"
        )
    hint = ""
    for needed in NEEDS.values():
        found = {column: column if column in have else _theirs(column, seen) for column in needed}
        if all(found.values()):
            pairs = ",".join(f"{ours}={theirs}" for ours, theirs in found.items() if ours != theirs)
            hint = f"; if these are what they seem, say --columns {pairs}"
            break
    return (
        f"nobody can tell what {name} holds: its columns are {', '.join(seen) or 'none'}, and data has prompt; prompt and "
        "completion; messages; text; chosen and rejected; prompt, completion and label; or prompt, completions and "
        f"labels{hint}"
    )


def _theirs(ours: str, seen: list[str]) -> str | None:
    """The column that is likely to be `ours` under another name."""
    alias = next((name for name in seen if _ALIASES.get(name.lower()) == ours), None)
    near = get_close_matches(ours, [name for name in seen if name not in _ALIASES], n=1, cutoff=0.75)
    return alias or (near[0] if near else None)


def _renaming(missing: list[str], seen: list[str]) -> str:
    pairs = ",".join(f"{ours}={theirs}" for ours in missing if (theirs := _theirs(ours, seen)) is not None)
    return f"; name yours with --columns {pairs or f'{missing[0]}=COLUMN'}"


def check_kind(name: str, kind: Kind, learns_from: str) -> None:
    """Refuse data that has not what a method learns from.

    Args:
        name: Where the data comes from.
        kind: What it holds.
        learns_from: A key of `LEARNS`; empty for anything.

    Raises:
        DataError: it is of another kind; says which would do.
    """
    if not learns_from or kind in LEARNS[learns_from]:
        return
    kinds = " or ".join(f"{fit} ({', '.join(NEEDS[fit])})" for fit in LEARNS[learns_from])
    raise DataError(f"this method learns from {learns_from}, so its data is {kinds}; {name} holds {kind} data")
