"""Final answers, and the scorers of reasoning-gym on texts that a model wrote.

A scorer reads what a policy said, and a policy may say anything. Several of the package's scorers hand the text to ``eval``
or to sympy's parser, which evaluates it; others compute with any number they are given. Here Python literals are read as
literals, expressions are let through if they are arithmetic of bounded size, and whatever a scorer returns or raises becomes a
score between 0 and 1. An answer that is not handed on scores 0, also where the scorer would pay 0.01 for trying.

What this leaves out: the scores themselves are the package's, generous ones included.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import ast
import math
import re
from importlib import import_module
from typing import Any, Literal, NamedTuple

from turnwise.text.reasoning import after_reasoning, tagged_answer

AnswerForm = Literal["whole", "tag", "last-line"]
"""Where the final answer is, see `final_answer`."""

MAX_LENGTH = 20_000
"""Longer answers are not scored; the longest true one of the default settings has some 5,000 characters."""

# `eval` reads a list that the model may have written; a literal is all that it has to understand.
_LITERALS = (
    "algorithmic.binary_matrix",
    "algorithmic.spiral_matrix",
    "algorithmic.string_insertion",
    "games.n_queens",
)
# These report their progress and their failures on the standard output.
_TALKATIVE = ("code.codeio", "code.contrib.bfit.Compiler.Optimizer")
# sympy.parse_expr evaluates what it parses.
_EXPRESSIONS = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
# Fraction and Decimal write out 1e999999999.
_DECIMALS = frozenset({"coin_flip", "decimal_arithmetic", "decimal_chain_sum", "power_function"})
_HUGE_EXPONENT = re.compile(r"[eE][+-]?[\d_]{4,}")
_GROWING = frozenset({"exp", "sinh", "cosh"})
_FUNCTIONS = _GROWING | {
    "Abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cot", "csc", "erf", "log", "ln", "sec", "sin", "sqrt",
    "tan", "tanh",
}  # fmt: skip
_MAX_EXPRESSION = 500
_MAX_BITS = 1024.0


class Judgement(NamedTuple):
    """What a scorer said.

    Attributes:
        score: Between 0 and 1.
        unscored: The scorer raised, was not asked, or returned what is no number between 0 and 1.
    """

    score: float
    unscored: bool


def final_answer(text: str, form: AnswerForm = "whole") -> str | None:
    """The answer in a completion, without the reasoning before it; None if there is none.

    Everything up to the last ``</think>`` is reasoning, and a ``<think>`` that is not closed leaves no answer. Of the rest,
    ``whole`` takes what is inside the last ``<answer>…</answer>``, or all of it if there are no such tags; ``tag`` insists on the
    tags; ``last-line`` takes the last line that is not blank. Blanks at both ends are dropped; an empty answer is one too, and right where nothing is left over.
    """
    said = after_reasoning(text)
    if said is None:
        return None
    if form == "last-line":
        return said.strip().rpartition("\n")[2].strip() or None
    tagged = tagged_answer(said)
    if tagged is not None:
        return tagged.strip()
    return None if form == "tag" else said.strip()


def make_safe() -> None:
    """Take ``eval`` on answers and ``print`` away from the modules of reasoning-gym that use them; may be called again.

    Shadowing the name in the one module that uses it changes nothing for any other.
    """
    for name in _LITERALS:
        import_module(f"reasoning_gym.{name}").eval = ast.literal_eval  # type: ignore[attr-defined]
    for name in _TALKATIVE:
        import_module(f"reasoning_gym.{name}").print = _say_nothing  # type: ignore[attr-defined]


def judge(dataset: Any, answer: str, item: dict[str, Any]) -> Judgement:
    """The score of an answer to an item by the dataset's own scorer.

    Args:
        dataset: A reasoning-gym dataset; `make_safe` has been called.
        answer: The final answer.
        item: The item, with ``question``, ``answer`` and ``metadata``.
    """
    if not is_safe(str(item["metadata"].get("source_dataset", "")), answer):
        return Judgement(0.0, True)
    try:
        score = float(dataset.score_answer(answer, item))
    # A scorer that an answer trips up has not seen a right one.
    except Exception:
        return Judgement(0.0, True)
    if not math.isfinite(score):
        return Judgement(0.0, True)
    return Judgement(min(1.0, max(0.0, score)), not 0.0 <= score <= 1.0)


def is_safe(dataset: str, answer: str) -> bool:
    """Whether the named dataset's scorer may be given this answer."""
    if len(answer) > MAX_LENGTH:
        return False
    if dataset in _DECIMALS:
        return not _HUGE_EXPONENT.search(answer)
    if dataset not in _EXPRESSIONS:
        return True
    if len(answer) > _MAX_EXPRESSION:
        return False
    try:
        return _bits(ast.parse(answer.strip(), mode="eval").body) <= _MAX_BITS
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def _bits(node: ast.expr) -> float:
    """About how many bits the value has if every variable is 2, so that 9**9**9 is found before it is computed.

    Raises:
        ValueError: something other than arithmetic on numbers, plain names and known functions.
    """
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and math.isfinite(value):
            return math.log2(abs(value) + 1) if abs(value) < 1e300 else _MAX_BITS + 1
        case ast.Name(id=name) if name.isalnum() and len(name) <= 20:
            return 1.0
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            return _bits(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            return max(_bits(left), _bits(right)) + 1
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div(), right=right):
            return _bits(left) + _bits(right)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return max(1.0, _bits(left)) * _size(right)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            return 1.5 * _size(argument) if name in _GROWING else _bits(argument)
        case _:
            raise ValueError(f"not arithmetic: {type(node).__name__}")


def _size(node: ast.expr) -> float:
    """The magnitude that goes with the bits."""
    return 2.0 ** min(_bits(node), 64.0)


def _say_nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for ``print``."""
