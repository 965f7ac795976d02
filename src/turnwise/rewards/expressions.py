"""Reading mathematics as people and models write it, plain or in LaTeX, into a tree. Nothing is evaluated, least of all as
Python: a reader of our own, with limits on length and depth.

It knows numbers, letters, ``+ - * / ^ **``, products without a sign, fractions, roots, absolute values, factorials, per
cent, the usual functions and constants, lists, sets, intervals and equations. What it does not know, it refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 1000
"""Letters of the longest text that is read."""
DEEPEST = 40
"""Brackets within brackets that are followed."""
LARGEST = 400
"""Largest decimal exponent of a written number."""

FUNCTIONS = frozenset(
    {"sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh", "tanh"}
    | {"log", "ln", "exp", "sqrt", "abs", "floor", "ceil", "factorial"}
)
"""Functions of one argument; ``log`` is the natural one, unless a base is written."""

_ALIASES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "lg": "log10", "infinity": "inf", "infty": "inf"}
_CONSTANTS = frozenset({"pi", "e", "i", "inf"})
_GREEK = frozenset(
    {"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi"}
    | {"rho", "sigma", "tau", "phi", "chi", "psi", "omega"}
)

_CLEAN = (
    (re.compile(r"\\left|\\right|\\displaystyle|\\[,;:! ]|\\q?quad|\$|\\\(|\\\)|\\\[|\\\]|~"), " "),
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(r"\\(?:text|mathrm|operatorname|mathbf|textbf|mbox)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\cdot|\\times|×|·|⋅"), "*"),
    (re.compile(r"\\div|÷"), "/"),
    (re.compile(r"−|–|—"), "-"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°|\\degree"), ""),
    (re.compile(r"\\lvert|\\rvert|\\vert"), "|"),
    (re.compile(r"\\lbrace|\\\{"), "⟦"),
    (re.compile(r"\\rbrace|\\\}"), "⟧"),
    (re.compile(r"π"), r"\\pi "),
    (re.compile(r"∞"), r"\\infty "),
    (re.compile(r"√"), " sqrt "),
    (re.compile(r"\blog10\b"), "lg "),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
    (re.compile(r"\\cup|∪"), "∪"),
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)|\\([A-Za-z]+)|([A-Za-z]+)|(\*\*|.))", re.DOTALL)


class UnreadableError(ValueError):
    """A text is not mathematics that this reader knows, or exceeds its limits."""


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression.

    Attributes:
        kind: "number", "symbol", "constant", an operation ("add", "mul", "div", "pow", "neg", "call"), or a collection
            ("tuple", "set", "interval", "union", "equation").
        args: Its parts.
        name: Of a symbol, constant or function; the brackets of an interval.
        value: Of a number.
    """

    kind: str
    args: tuple[Node, ...] = ()
    name: str = ""
    value: Fraction = Fraction(0)


def read(text: str) -> Node:
    """The tree of a text.

    Raises:
        UnreadableError: see there.
    """
    if len(text) > LONGEST:
        raise UnreadableError(f"longer than {LONGEST} letters")
    for pattern, plain in _CLEAN:
        text = pattern.sub(plain, text)
    if not set(text) & set("([⟦"):  # else a comma may stand between the parts of a point
        text = _THOUSANDS.sub("", text)
    return _Reading(_tokens(text.strip().rstrip(".").strip())).all()


def words_of(text: str) -> list[str]:
    """The words of a text of nothing but letters, blanks and commas; none where one of them is a known name, such as ``pi``."""
    words = re.findall("[A-Za-z]+", text)
    named = any(
        word in _GREEK or (len(word) > 1 and _is_name(word.lower())) or word.lower() == "sqrt" for word in words
    )
    return [] if named or not re.fullmatch(r"[A-Za-z\s,;]*", text) else words


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            break
        at = match.end()
        number, command, word, sign = match.groups()
        if number is not None:
            found.append(("number", number))
        elif command is not None:
            found.append(("name", command) if command in _GREEK or _is_name(command) else ("command", command))
        elif word is not None:
            found += _letters(word)
        elif sign.strip():
            found.append(("sign", "^" if sign == "**" else sign))
    return found


def _is_name(word: str) -> bool:
    return _ALIASES.get(word, word) in FUNCTIONS | _CONSTANTS | {"log10"} and word != "sqrt"


def _letters(word: str) -> list[tuple[str, str]]:
    """A known name, or a product of letters; any other word is no mathematics."""
    low = word.lower()
    if word in _GREEK or low == "sqrt" or (len(word) > 1 and _is_name(low)):
        return [("command", "root")] if low == "sqrt" else [("name", low)]
    if len(word) > 3:
        raise UnreadableError(f"{word!r} is a word")
    return [("name", letter) for letter in word]


class _Reading:
    """Recursive descent: equation, list, sum, product, sign, power, atom."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0

    def all(self) -> Node:
        parts = [self.items()]
        while self.take("="):
            parts.append(self.items())
        if self.at < len(self.tokens):
            raise UnreadableError(f"{self.tokens[self.at][1]!r} is in the way")
        return parts[0] if len(parts) == 1 else Node("equation", tuple(parts))

    # ---- tokens ------------------------------------------------------------------------------------------------------

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def next(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def take(self, sign: str) -> bool:
        if self.peek() == ("sign", sign):
            self.at += 1
            return True
        return False

    def need(self, *signs: str) -> str:
        kind, text = self.next()
        if kind != "sign" or text not in signs:
            raise UnreadableError(f"{' or '.join(signs)} is missing")
        return text

    # ---- grammar -----------------------------------------------------------------------------------------------------

    def items(self) -> Node:
        parts = [self.union()]
        while self.take(",") or self.take(";"):
            parts.append(self.union())
        return parts[0] if len(parts) == 1 else Node("tuple", tuple(parts))

    def union(self) -> Node:
        parts = [self.sum()]
        while self.take("∪"):
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else Node("union", tuple(parts))

    def sum(self) -> Node:
        parts = [self.product()]
        while self.peek() in (("sign", "+"), ("sign", "-")):
            minus = self.next()[1] == "-"
            part = self.product()
            parts.append(Node("neg", (part,)) if minus else part)
        return parts[0] if len(parts) == 1 else Node("add", tuple(parts))

    def product(self) -> Node:
        left = self.signed()
        while True:
            if self.take("*"):
                left = Node("mul", (left, self.signed()))
            elif self.take("/"):
                left = Node("div", (left, self.signed()))
            elif self.begins():
                left = Node("mul", (left, self.power()))
            else:
                return left

    def begins(self) -> bool:
        """Whether another factor follows without a sign."""
        kind, text = self.peek()
        if kind in ("name", "command"):
            return True
        return kind == "sign" and (text in "({⟦" or (text == "|" and not self.bars))

    def signed(self) -> Node:
        minus = False
        while self.peek() in (("sign", "+"), ("sign", "-")):
            minus ^= self.next()[1] == "-"
        inner = self.power()
        return Node("neg", (inner,)) if minus else inner

    def power(self) -> Node:
        base = self.suffixed()
        if not self.take("^"):
            return base
        with _Deeper(self):
            # To the right: 2^3^2 is 2^(3^2).
            exponent = self.signed()
        return Node("pow", (base, exponent))

    def suffixed(self) -> Node:
        inner = self.atom()
        while True:
            if self.take("!"):
                inner = Node("call", (inner,), "factorial")
            elif self.take("%"):
                inner = Node("div", (inner, _number("100")))
            else:
                return inner

    def atom(self) -> Node:
        with _Deeper(self):
            kind, text = self.next()
            if kind == "number":
                return self.mixed(_number(text))
            if kind == "name":
                return self.named(text)
            if kind == "command":
                return self.command(text)
            if text == "{":
                inner = self.items()
                self.need("}")
                return inner
            if text == "⟦":
                inner = self.items()
                self.need("⟧")
                return Node("set", inner.args if inner.kind == "tuple" else (inner,))
            if text == "|":
                self.bars += 1
                inner = self.sum()
                self.bars -= 1
                self.need("|")
                return Node("call", (inner,), "abs")
            if text in ("(", "["):
                return self.bracket(text)
            raise UnreadableError(f"{text or 'the end'!r} stands where a number should")

    def mixed(self, whole: Node) -> Node:
        """2\\frac{1}{3} is two and a third, and not a product."""
        if self.peek() == ("command", "frac") and whole.value.denominator == 1:
            return Node("add", (whole, self.atom()))
        return whole

    def bracket(self, opening: str) -> Node:
        bars, self.bars = self.bars, 0
        inner = self.items()
        self.bars = bars
        closing = self.need(")", "]")
        plain = opening + closing == "()"
        if inner.kind == "tuple" and len(inner.args) == 2 and not plain:
            return Node("interval", inner.args, opening + closing)
        if not plain and opening + closing != "[]":
            raise UnreadableError("brackets do not match")
        # A pair in round brackets is a point or an open interval; nobody can tell, and comparing does not need to.
        return Node("tuple", inner.args, "()") if inner.kind == "tuple" else inner

    def named(self, text: str) -> Node:
        name = _ALIASES.get(text, text)
        if name in FUNCTIONS or name == "log10":
            return self.function(name)
        if name in _CONSTANTS:
            return Node("constant", name=name)
        if self.take("_"):
            kind, index = self.next()
            if (kind, index) == ("sign", "{"):
                kind, index = self.next()
                self.need("}")
            if kind not in ("number", "name"):
                raise UnreadableError("an index should be a number or a letter")
            name = f"{name}_{index}"
        return Node("symbol", name=name)

    def function(self, name: str) -> Node:
        base = None
        if name == "log" and self.take("_"):
            base = self.atom()
        exponent = self.signed() if self.take("^") else None
        with _Deeper(self):
            inner = self.suffixed() if self.peek()[1] in ("(", "{") else self.bare()
        result = Node("call", (inner,), "log" if name == "log10" else name)
        if name == "log10":
            base = _number("10")
        if base is not None:
            result = Node("div", (result, Node("call", (base,), "log")))
        if exponent is None:
            return result
        inverse = exponent == Node("neg", (_number("1"),)) and f"a{name}" in FUNCTIONS
        return Node("call", (inner,), f"a{name}") if inverse else Node("pow", (result, exponent))

    def bare(self) -> Node:
        """An argument without brackets: sin 2x is sin(2x), sin x cos x is not sin(x cos x)."""
        inner = self.signed()
        while self.begins() and _ALIASES.get(self.peek()[1], self.peek()[1]) not in FUNCTIONS:
            inner = Node("mul", (inner, self.power()))
        return inner

    def command(self, text: str) -> Node:
        if text == "root":
            return Node("call", (self.atom(),), "sqrt")
        if text == "frac":
            return Node("div", (self.argument(), self.argument()))
        if text == "sqrt":
            root = None
            if self.take("["):
                root = self.sum()
                self.need("]")
            inner = self.argument()
            if root is None:
                return Node("call", (inner,), "sqrt")
            return Node("pow", (inner, Node("div", (_number("1"), root))))
        raise UnreadableError(f"\\{text} is not known here")

    def argument(self) -> Node:
        """What \\frac and \\sqrt take: a group, or a single digit or letter."""
        kind, text = self.peek()
        if kind == "number" and len(text) > 1 and self.tokens[self.at - 1][0] in ("command", "number"):
            self.tokens[self.at] = ("number", text[1:])
            return _number(text[0])
        return self.atom()


class _Deeper:
    """Counts how deep the reading is."""

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading

    def __enter__(self) -> None:
        self.reading.depth += 1
        if self.reading.depth > DEEPEST:
            raise UnreadableError(f"more than {DEEPEST} brackets within brackets")

    def __exit__(self, *_: object) -> None:
        self.reading.depth -= 1


def _number(text: str) -> Node:
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and (len(exponent) > 5 or abs(int(exponent)) > LARGEST):
        raise UnreadableError(f"the number {text} is too large or too small")
    return Node("number", value=Fraction(text if not mantissa.endswith(".") else text.replace(".", ".0", 1)))
