"""Whether two expressions are the same, by arithmetic whose cost is bounded.

Two formulas that are equal as functions agree everywhere, and two that differ agree almost nowhere, so they are compared at
a few fixed points (Schwartz 1980, "Fast probabilistic algorithms for verification of polynomial identities"): in
fractions where that is possible, and otherwise with 50 digits. Every number is kept below a bound, so that no expression,
however hostile, takes long or much memory.

What this file leaves out: rules of algebra. Nothing is simplified, solved or integrated.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from turnwise.rewards.expressions import Node, UnreadableError, read, words_of

if TYPE_CHECKING:
    import mpmath

_BITS = 4096
"""Largest numerator, denominator or binary exponent of any number on the way."""
_TEXT = re.compile(r"\\(?:text|mathrm|mbox)\{([^{}]*)\}")
_POINTS = 6
_CLOSE = Fraction(1, 10**30)
"""Two numbers of 50 digits are equal when they differ by less than this, relative to the larger one."""


class _OutOfReachError(Exception):
    """A value does not exist at this point, or is too large to be computed."""


def equivalent(one: str, other: str) -> bool:
    """Whether two texts are the same piece of mathematics; texts that are none are compared as texts.

    An equation ``x = 5`` is the same as ``5``; two equations are the same if their sides differ by a constant factor; sets
    are compared without order, points, lists and intervals with it. Where both are nothing but words ("no", "AB"), they
    are texts and no products of letters.
    """
    words = [words_of(_bare(text)) for text in (one, other)]
    if all(words) and any(len(word) > 1 for word in (*words[0], *words[1])):
        return _plain(one) == _plain(other)
    trees = [_tree(text) for text in (one, other)]
    if trees[0] is None or trees[1] is None:
        return trees[0] is trees[1] and _plain(one) == _plain(other)
    try:
        return _same(trees[0], trees[1])
    except (_OutOfReachError, RecursionError):
        return False


def _tree(text: str) -> Node | None:
    try:
        return read(text)
    except (UnreadableError, RecursionError):
        return None


def _plain(text: str) -> str:
    return "".join(_bare(text).split()).lower()


def _bare(text: str) -> str:
    return _TEXT.sub(r"\1", text).replace("$", "").rstrip(". ")


def _same(a: Node, b: Node) -> bool:
    if a.kind == "equation" and b.kind == "equation":
        return _same_equation(a, b)
    if a.kind == "equation" or b.kind == "equation":
        return _same(_solved(a), _solved(b))
    kinds = {a.kind, b.kind}
    if kinds & {"tuple", "interval", "set", "union"}:
        if len(kinds) > 1 or len(a.args) != len(b.args) or (a.kind == "interval" and a.name != b.name):
            return False
        if a.kind in ("set", "union"):
            return _matched(list(a.args), list(b.args))
        return all(_same(x, y) for x, y in zip(a.args, b.args, strict=True))
    return _agree(a, b)


def _matched(left: list[Node], right: list[Node]) -> bool:
    """Whether each on the left has one of its own on the right; being the same is transitive, so taking any one will do."""
    for node in left:
        found = next((i for i, other in enumerate(right) if _same(node, other)), None)
        if found is None:
            return False
        del right[found]
    return True


def _solved(node: Node) -> Node:
    """The right side of ``x = …`` or ``f(x) = …``."""
    if node.kind != "equation":
        return node
    left = node.args[0]
    called = left.kind == "mul" and all(part.kind == "symbol" for part in left.args)
    return node.args[-1] if left.kind == "symbol" or called else node


def _same_equation(a: Node, b: Node) -> bool:
    if len(a.args) != 2 or len(b.args) != 2:
        return len(a.args) == len(b.args) and all(_same(x, y) for x, y in zip(a.args, b.args, strict=True))
    if any(side.kind in ("tuple", "set", "interval", "union") for side in (*a.args, *b.args)):
        return all(_same(x, y) for x, y in zip(a.args, b.args, strict=True))
    one, other = (Node("add", (left, Node("neg", (right,)))) for left, right in (a.args, b.args))
    # The ratio of the differences is one number, and not 0, wherever it is defined.
    ratios = []
    for point in _points(_symbols(one) | _symbols(other)):
        pair = _values(one, other, point)
        if pair is not None and not _zero(pair[0]) and not _zero(pair[1]):
            ratios.append(_quotient(*pair))
        elif pair is not None and _zero(pair[0]) != _zero(pair[1]):
            return False
    return bool(ratios) and all(_close(ratio, ratios[0]) for ratio in ratios)


def _agree(a: Node, b: Node) -> bool:
    """Whether both have the same value wherever both have one; they need to have one at two points or more."""
    symbols = _symbols(a) | _symbols(b)
    compared = 0
    for point in _points(symbols):
        pair = _values(a, b, point)
        if pair is None:
            continue
        if not _close(*pair):
            return False
        compared += 1
    return compared >= (2 if symbols else 1)


def _symbols(node: Node) -> frozenset[str]:
    own = frozenset({node.name} if node.kind == "symbol" else ())
    return own.union(*(_symbols(part) for part in node.args))


@lru_cache(maxsize=256)
def _points(symbols: frozenset[str]) -> list[Mapping[str, Fraction]]:
    """Fixed points, some with negative coordinates; none is special to any formula that people write."""
    rng = random.Random(20_080_514)
    points: list[Mapping[str, Fraction]] = []
    for k in range(_POINTS if symbols else 1):
        sign = -1 if k % 3 == 2 else 1
        points.append({name: sign * Fraction(rng.randrange(101, 997), 331) for name in sorted(symbols)})
    return points


def _values(a: Node, b: Node, point: Mapping[str, Fraction]) -> tuple[Any, Any] | None:
    """Both values, exact if both can be; None if neither has one.

    Raises:
        _OutOfReachError: one has a value and the other has none.
    """
    values = []
    for node in (a, b):
        try:
            values.append(_value(node, point))
        except (_OutOfReachError, ArithmeticError, ValueError):
            values.append(None)
    if values[0] is None and values[1] is None:
        return None
    if values[0] is None or values[1] is None:
        raise _OutOfReachError
    return values[0], values[1]


# ---- numbers ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _context() -> mpmath.MPContext:
    import mpmath

    context = mpmath.MPContext()  # its own precision, whatever the global one is
    context.dps = 50
    return context


def _wide(value: Any) -> Any:
    """A number with 50 digits."""
    if isinstance(value, Fraction):
        return _context().mpf(value.numerator) / value.denominator
    return value


def _kept(value: Any) -> Any:
    """The value, if it is a number that is small enough to go on with."""
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > _BITS:
            raise _OutOfReachError
        return value
    context = _context()
    if isinstance(value, context.mpc) and value.imag == 0:
        value = value.real
    if context.isnan(value) or (not context.isinf(value) and abs(context.mag(value)) > _BITS and value != 0):
        raise _OutOfReachError
    return value


def _zero(value: Any) -> bool:
    return value == 0 if isinstance(value, Fraction) else bool(abs(value) < _wide(_CLOSE))


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    a, b = _wide(a), _wide(b)
    if _context().isinf(a) or _context().isinf(b):
        return bool(a == b)
    return bool(abs(a - b) <= _wide(_CLOSE) * max(1, abs(a), abs(b)))


def _quotient(a: Any, b: Any) -> Any:
    return a / b if isinstance(a, Fraction) and isinstance(b, Fraction) else _wide(a) / _wide(b)


def _value(node: Node, point: Mapping[str, Fraction]) -> Any:
    if node.kind == "number":
        return _kept(node.value)
    if node.kind == "symbol":
        return point[node.name]
    if node.kind == "constant":
        context = _context()
        return {"pi": +context.pi, "e": +context.e, "i": context.mpc(0, 1), "inf": context.inf}[node.name]
    if node.kind not in ("add", "mul", "div", "pow", "neg", "call"):
        raise _OutOfReachError  # a list or an interval within a formula
    args = [_value(part, point) for part in node.args]
    if node.kind == "call":
        return _kept(_called(node.name, args[0]))
    if node.kind == "pow":
        return _kept(_power(args[0], args[1]))
    if node.kind == "neg":
        return -args[0]
    exact = all(isinstance(arg, Fraction) for arg in args)
    total, *rest = args if exact else [_wide(arg) for arg in args]
    for arg in rest:
        total = _kept(total + arg if node.kind == "add" else total * arg if node.kind == "mul" else total / arg)
    return total


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator == 1 and size * abs(exponent.numerator) <= _BITS:
            return base**exponent.numerator
        if base < 0 and exponent.denominator % 2 == 1 and exponent.denominator > 1:
            # Over the reals an odd root of a negative number is negative.
            root = _power(-base, exponent)
            return -root if exponent.numerator % 2 else root
    base, exponent = _wide(base), _wide(exponent)
    context = _context()
    # A large exponent would turn the rounding of the base into a wrong result.
    if abs(exponent) > 10**15 or (base != 0 and abs(context.log(base)) * abs(exponent) > _BITS):
        raise _OutOfReachError
    return context.power(base, exponent)


def _called(name: str, value: Any) -> Any:
    if name == "abs":
        return abs(value)
    if name == "factorial":
        if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= 500:
            raise _OutOfReachError
        product = 1
        for factor in range(2, int(value) + 1):
            product *= factor
        return Fraction(product)
    if name in ("floor", "ceil") and isinstance(value, Fraction):
        return Fraction(value.__floor__() if name == "floor" else value.__ceil__())
    context = _context()
    wide = _wide(value)
    if name in ("exp", "sinh", "cosh", "tanh") and abs(wide) > _BITS:
        raise _OutOfReachError
    if name == "log" and wide == 0:
        raise _OutOfReachError
    return getattr(context, name)(wide)
