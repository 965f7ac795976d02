"""``turnwise profile``: where the time of a run went, and what further iterations of it would spend theirs on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from turnwise.cli.parsing import REQUIRED, Flag, parse
from turnwise.errors import TurnwiseError

if TYPE_CHECKING:
    from rich.table import Table

    from turnwise.recipes.profile import Profile
    from turnwise.runs.profile import Part, Spending

_OWN = (
    Flag("run", str, REQUIRED, "Run folder; the run may be under way.", metavar="RUN", positional=True),
    Flag(
        "steps", int, 0, "Go on with a copy of the run for so many iterations under each of two profilers.", hint="none"
    ),
    Flag("top", int, 12, "Functions to show, with --steps."),
)

_DESCRIPTION = "Show where the time of a run went: rollout, environment, engine, update, saving."

_TREND = 16
_BARS = "▁▂▃▄▅▆▇█"
_NAME = 44
_OPERATORS = 30


def main(arguments: Sequence[str]) -> int:
    """Print the tables.

    Raises:
        TurnwiseError: there is no run, it has not finished an iteration, or it cannot be gone on with.
    """
    values = parse("profile", _DESCRIPTION, {"": _OWN}, arguments)
    if values["steps"] < 0 or values["top"] < 1:
        raise TurnwiseError(
            f"--steps {values['steps']} --top {values['top']}: steps are not negative, and top is at least 1"
        )
    from turnwise.cli.console import messages, output, say
    from turnwise.runs.profile import time_spent

    console = output()
    spent = time_spent(values["run"])
    for spending in spent:
        title = spending.name or values["run"]
        n = spending.iterations
        say(console, f"{title}: {n} iteration{'s' * (n > 1)}, {_duration(spending.total)}")
        console.print(_table(spending))
    for line in _tokens(spent[-1]):
        say(console, line)
    if values["steps"]:
        from turnwise.recipes.profile import profile_steps

        n = 2 * values["steps"] + 1
        say(messages(), f"going on with a copy of the run for {n} iterations …")
        _show(console, profile_steps(values["run"], values["steps"]), values["top"])
    return 0


def _table(spending: Spending) -> Table:
    from turnwise.cli.console import columns

    table = columns("work", "seconds", "share", "per iteration", f"iteration 1 to {spending.iterations}")
    for i in (1, 2, 3):
        table.columns[i].justify = "right"
    for column in table.columns:
        column.no_wrap = True
    whole = spending.total
    for part in spending.parts:
        name = f"  {part.name}" if part.within else part.name
        table.add_row(name, *_figures(part, whole), _sparkline(part), style="dim" if part.within else None)
    return table


def _figures(part: Part, whole: float) -> tuple[str, str, str]:
    share = part.total / whole if whole else math.nan
    return f"{part.total:,.2f}", f"{share:.1%}", _short(part.total / len(part.seconds))


def _sparkline(part: Part) -> str:
    """A bar for each stretch of the run, from nothing to the longest."""
    from turnwise.runs.profile import trend

    values = trend(part.seconds, _TREND)
    most = max(values)
    if not most:
        return ""
    return "".join(_BARS[min(len(_BARS) - 1, int(value / most * len(_BARS)))] for value in values)


def _tokens(spending: Spending) -> list[str]:
    """What the network did with tokens, and how fast."""
    from turnwise.runs.profile import per_second

    tokens = spending.tokens
    sampled = tokens.get("sampled", 0.0)
    engine = spending.part("engine")
    lines = [f"tokens sampled  {sampled:>12,.0f}   {per_second(sampled, spending.total):,.0f} per second of the run"]
    if engine is not None and engine.total:
        lines[0] += f", {per_second(sampled, engine.total):,.0f} of the engine"
    if "read" in tokens:
        read, shared = tokens["read"], tokens["shared"]
        lines.append(f"tokens read     {read:>12,.0f}")
        if engine is not None and engine.total:
            lines[-1] += f"   {per_second(read, engine.total):,.0f} per second of the engine"
        if read + shared:
            lines.append(
                f"tokens shared   {shared:>12,.0f}   {shared / (read + shared):.0%} of what would be read without a cache"
            )
    return lines


def _show(console: Any, seen: Profile, top: int) -> None:
    from turnwise.cli.console import columns, say

    middle = seen.first + seen.iterations
    under = f"{_duration(seen.seconds)} under the profiler"
    say(console, f"\noperators in {_iterations(seen.first, seen.iterations)}, {under}")
    table = columns("kind", "seconds", "share", "most in")
    for group in seen.groups:
        share = f"{group.seconds / seen.seconds:.1%}"
        table.add_row(group.name, f"{group.seconds:,.2f}", share, _joined(group.operators, _OPERATORS))
    _align(table)
    console.print(table)
    say(console, f"functions in {_iterations(middle, seen.iterations)}, by their own time")
    table = columns("function", "calls", "own s", "total s")
    for function in seen.functions[:top]:
        table.add_row(_cut(function.name, _NAME), f"{function.calls:,}", f"{function.own:.3f}", f"{function.total:.3f}")
    _align(table)
    console.print(table)


def _iterations(first: int, n: int) -> str:
    return f"iteration {first}" if n == 1 else f"iterations {first} to {first + n - 1}"


def _align(table: Table) -> None:
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column.header in ("kind", "function", "most in") else "right"


def _joined(names: Sequence[str], width: int) -> str:
    """As many of the names as fit."""
    text = ""
    for name in names:
        longer = f"{text}, {name}" if text else name
        if len(longer) > width:
            break
        text = longer
    return text


def _cut(text: str, width: int) -> str:
    """The text, its beginning left out where it is too long: paths say more at their end."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _short(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d} min"
