"""Code against tests: the share of tests that a completion's code passes, or all or nothing.

A row's tests are in one of three forms, or several in a list:

- assertions, as text: ``assert add(1, 2) == 3``, one test each; other statements (imports, helpers) run in between. A
  text without an assertion at its top level (``def check(f): …`` and ``check(add)``) is one test as a whole;
- calls: ``{"call": "add", "args": [1, 2], "expected": 3}``;
- programs: ``{"stdin": "1 2", "stdout": "3"}``, the code being run from its beginning for each.

In calls, programs and assertions of the form ``expression == literal`` the expected value never enters the process that
runs the code: it computes, and the comparison is made outside. Any other assertion is decided inside, by the objects of
the code itself: one that returns an object which says that it equals everything passes. Printing and leaving pass nothing.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from turnwise.rewards.answers import text_of
from turnwise.rewards.reward import RewardError
from turnwise.rewards.sandbox import LimitedProcess, Limits, Reply, run_script
from turnwise.text.reasoning import THINK, after_reasoning

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_PYTHON = ("", "python", "py", "python3")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to do with a solution.

    Attributes:
        kind: "setup" (statements that are no test), "block" (statements that must not raise), "value" (an expression that
            must have the value `expected`), "truth" (an expression that must be true) or "program".
        source: Statements or expression; what a program reads.
        expected: The value; what a program must write.
        loose: JSON wrote the expected value: a tuple equals a list, and floats need to agree to nine digits.
    """

    kind: str
    source: str
    expected: Any = None
    loose: bool = False


class UnitTests:
    """Tests as a reward function, ``f(prompts, completions, completion_ids, tests, **columns)``.

    The code of a completion is its last fenced block of Python after the reasoning, or else everything after it.

    Args:
        limits: What the code of one completion may use.
        all_or_nothing: Pay 1 only if every test passes; otherwise the share that does.
        workers: Completions that are tested at once; as many as there are processors by default.
        think: Tags around the reasoning.

    Raises:
        RewardError: no worker.
    """

    __name__ = "code"

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        all_or_nothing: bool = False,
        workers: int | None = None,
        think: tuple[str, str] = THINK,
    ) -> None:
        if workers is not None and workers < 1:
            raise RewardError(f"workers={workers}: at least one has to test")
        self.limits = limits or Limits()
        self.all_or_nothing = all_or_nothing
        self.workers = workers or os.cpu_count() or 1
        self.think = think

    def __call__(
        self,
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Any] = (),
        completion_ids: Sequence[Any] | None = None,
        *,
        tests: Sequence[Any],
        **columns: Any,
    ) -> list[float | None]:
        """One score per completion; None for a row without tests.

        Raises:
            RewardError: tests that cannot be read, naming the row.
        """
        if len(tests) != len(completions):
            raise RewardError(f"code: tests for {len(tests)} rows and {len(completions)} completions")
        checks = [None if row is None else parse_tests(row, f"row {i}") for i, row in enumerate(tests)]
        with ThreadPoolExecutor(min(self.workers, max(1, len(completions)))) as pool:
            return list(pool.map(self._score, completions, checks))

    def _score(self, completion: Any, checks: list[Check] | None) -> float | None:
        if checks is None:
            return None
        passed = self.passed(text_of(completion), checks)
        return float(all(passed)) if self.all_or_nothing else sum(passed) / len(passed)

    def passed(self, completion: str, checks: Sequence[Check]) -> list[bool]:
        """Which of the tests the completion's code passes, setups left out."""
        tests = [check for check in checks if check.kind != "setup"]
        code = extract_code(completion, self.think)
        if code is None:
            return [False] * len(tests)
        until = time.monotonic() + self.limits.seconds
        programs = [check for check in tests if check.kind == "program"]
        results = {id(check): _program(code, check, self.limits, until) for check in programs}
        if len(programs) < len(tests):
            with LimitedProcess(self.limits, until) as process:
                if process.run(code).ok:
                    for check in checks:
                        if check.kind != "program":
                            results[id(check)] = _holds(process, check)
        return [results.get(id(check), False) for check in tests]


def extract_code(completion: str, think: tuple[str, str] = THINK) -> str | None:
    """The last fenced block of Python after the reasoning, else everything after it; None if there is nothing."""
    part = after_reasoning(completion, think)
    if part is None:
        return None
    blocks = [body for language, body in _FENCE.findall(part) if language.lower() in _PYTHON]
    code = blocks[-1] if blocks else part
    return code if code.strip() else None


def parse_tests(tests: Any, row: str = "a row") -> list[Check]:
    """What a row's column of tests asks for.

    Args:
        tests: Text, a mapping, a list of these, or JSON of a list or mapping; see the module.
        row: What messages call the row.

    Raises:
        RewardError: a test that is in none of the forms, or none at all.
    """
    if isinstance(tests, str) and tests.lstrip()[:1] in ("[", "{"):
        try:
            tests = json.loads(tests)
        except (ValueError, RecursionError) as error:
            raise RewardError(f"code: the tests of {row} look like JSON and are none: {error}") from error
    listed = tests if isinstance(tests, list | tuple) else [tests]
    checks = [check for test in listed for check in _checks(test, row)]
    if all(check.kind == "setup" for check in checks):
        raise RewardError(f"code: {row} has no test; use None where there is nothing to check")
    return checks


def _checks(test: Any, row: str) -> list[Check]:
    if isinstance(test, str):
        return _assertions(test, row)
    if isinstance(test, Mapping) and "call" in test and "expected" in test:
        arguments = f"*{list(test.get('args', []))!r}, **{dict(test.get('kwargs', {}))!r}"
        return [Check("value", f"{test['call']}({arguments})", test["expected"], loose=True)]
    if isinstance(test, Mapping) and "stdout" in test:
        return [Check("program", str(test.get("stdin", "")), str(test["stdout"]))]
    raise RewardError(
        f"code: the test {test!r:.80} of {row} is in none of the forms: text with assert, {{'call', 'args', 'expected'}}, "
        "{'stdin', 'stdout'}"
    )


def _assertions(text: str, row: str) -> list[Check]:
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RewardError(f"code: the tests of {row} are no Python: {error}") from error
    if not any(isinstance(statement, ast.Assert) for statement in statements):
        return [Check("block", text)] if statements else []
    checks: list[Check] = []
    for statement in statements:
        if isinstance(statement, ast.Assert):
            checks.append(_assertion(statement.test))
        else:
            checks.append(Check("setup", ast.unparse(statement)))
    return checks


def _assertion(test: ast.expr) -> Check:
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        sides = (test.left, test.comparators[0])
        for computed, literal in (sides, sides[::-1]):
            try:
                return Check("value", ast.unparse(computed), ast.literal_eval(literal))
            except (ValueError, TypeError):
                continue
    return Check("truth", f"not not ({ast.unparse(test)})")  # `bool` may be another one there


def _holds(process: LimitedProcess, check: Check) -> bool:
    if check.kind in ("setup", "block"):
        return process.run(check.source).ok
    reply = process.evaluate(check.source)
    if check.kind == "truth":
        return reply.ok and reply.value is True
    return reply.ok and (_alike if check.loose else _equal)(reply.value, check.expected)


def _equal(given: Any, expected: Any) -> bool:
    try:
        return bool(given == expected)
    except RecursionError:
        return False


def _alike(given: Any, expected: Any) -> bool:
    """Equal as JSON would have it."""
    if isinstance(given, list | tuple) and isinstance(expected, list | tuple):
        return len(given) == len(expected) and all(map(_alike, given, expected))
    if isinstance(given, dict) and isinstance(expected, dict):
        named = {str(key): value for key, value in given.items()}
        return named.keys() == {str(key) for key in expected} and all(
            _alike(named[str(key)], value) for key, value in expected.items()
        )
    if isinstance(given, bool) or isinstance(expected, bool):
        return given is expected
    if isinstance(given, int | float) and isinstance(expected, int | float) and float in (type(given), type(expected)):
        try:
            return math.isclose(given, expected, rel_tol=1e-9, abs_tol=1e-12)
        except OverflowError:  # a whole number beyond all floats
            return False
    return _equal(given, expected)


def _program(code: str, check: Check, limits: Limits, until: float) -> bool:
    if time.monotonic() >= until:
        return False
    reply: Reply = run_script(code, check.source, limits, until)
    return reply.ok and _lines(reply.value) == _lines(check.expected)


def _lines(text: str) -> list[str]:
    """The lines without blanks at their ends, and without empty ones at the end of all."""
    return [line.rstrip() for line in text.rstrip().splitlines()]
