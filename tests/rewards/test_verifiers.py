"""Verifiers: right is 1, wrong is 0, and nothing that a model writes takes long, raises or is run."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.models import build_tokenizer
from turnwise.rewards import EpisodeJudge, RewardError
from turnwise.rewards.equivalence import equivalent
from turnwise.rewards.expressions import UnreadableError, read
from turnwise.rewards.numbers import read_number, same_number
from turnwise.rewards.verifiers import Verifier, exact, numeric, same_text, symbolic
from turnwise.testing import build_dialogue, check_reward
from turnwise.text import Renderer

SAME_NUMBER = [
    ("1,234.5", "1234.5"), ("$5", "5"), ("5 km", "5"), ("5 dollars", "$5"), ("50%", "0.5"), ("50 %", "50"), ("3/4", "0.75"),
    ("2 1/2", "2.5"), ("-3", "−3"), ("1e5", "100000"), ("-$5", "-5"), ("\\frac{3}{4}", "0.75"), ("5.", "5"), ("$5$", "5"),
    ("5 apples", "5 apple"), ("\\$18", "18"), ("0.3333333333", "1/3"), ("1\\frac{1}{2}", "1.5"), ("18 m/s", "18"),
    ("90°", "90"), ("= 4", "4"), (".5", "0.5"), ("+7", "7"), ("1.0000000001", "1"),
]  # fmt: skip
OTHER_NUMBER = [
    ("5 km", "5 m"), ("5 or 6", "5"), ("5 or six", "5"), ("5", "6"), ("1,23", "123"), ("", "0"), ("5 6", "56"), ("-5", "5"),
    ("0.34", "1/3"), ("1/0", "1/0"), ("9" * 300, "9" * 300), ("five", "5"), ("1e99999999", "1"), ("50%", "5"), ("nan", "nan"),
    ("inf", "inf"), ("1.01", "1"),
]  # fmt: skip
SAME = [
    ("1/2", "0.5"), (r"\frac{1}{2}", "0.5"), (r"\dfrac12", "0.5"), ("2x+3", "3+2*x"), ("(x+1)^2", "x^2+2x+1"),
    (r"\sqrt{8}", r"2\sqrt{2}"), (r"\sqrt[3]{-8}", "-2"), (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\sin^2 x + \cos^2 x", "1"), ("sin 2x", "2 sin x cos x"), ("x=5", "5"), ("1,000", "1000"), ("(1,2)", "(1, 2)"),
    (r"\{1,2,3\}", r"\left\{3,2,1\right\}"), ("50%", "1/2"), ("2**10", "1024"), (r"e^{i\pi}", "-1"), (r"2\frac{1}{3}", "7/3"),
    ("3!", "6"), ("|x|", "sqrt(x^2)"), ("[0,1)", r"\left[0,1\right)"), ("2^3^2", "512"), ("-2^2", "-4"), ("a/(bc)", "a/b/c"),
    (r"(-\infty, 2)\cup(3,\infty)", r"(3,\infty) \cup (-\infty,2)"), ("y=2x+1", "y - 2x = 1"), ("2y=4x+2", "y=2x+1"),
    (r"\log_2 8", "3"), (r"\ln(e^2)", "2"), (r"\text{Friday}", "friday."), ("5π", r"5\pi"), (r"90^\circ", "90"),
    ("10^{-3}", "0.001"), ("√12", "2√3"), ("log10(100)", "2"), ("f(x)=x^2", "x^2"), (r"\arctan(1)", r"\frac{\pi}{4}"),
    ("no idea at all", "No idea at all"), (r"x_1+x_{2}", "x_2+x_1"), ("2^100+1", "1+2^100"), (r"\theta^2", r"\theta\cdot\theta"),
    ("YES", "yes"), (r"\text{no}", "No."), ("AB, CD", "AB,CD"), ("xy", "y*x"), ("2xy", "2yx"), ("x y", "y x"), ("pi r", "r pi"),
    ("a=bc", "a=cb"), ("x y", "xy"),
]  # fmt: skip
OTHER = [
    ("2^100", "2^100+1"), ("x", "|x|"), ("sqrt(x^2)", "x"), ("1", "2"), ("(1,2)", "(2,1)"), ("[0,1]", "[0,1)"), ("(0,1)", "[0,1]"),
    ("1/3", "0.333"), ("pi", "3.14159"), ("x", "y"), ("5", "x"), ("Paris", "London"), ("5", "Paris"), ("10^20", "10^20+1"),
    ("x+10^(-9)", "x"), (r"\{1,2\}", r"\{1,2,2\}"), ("y=2x", "y=3x"), ("1/0", "2/0"), ("1/0", "1/0"), ("inf", "-inf"), ("", "0"),
    ("1 2", "12"), ("x=5", "x=6"), ("x=5", "y=6"), (r"\pm 2", "2"), (r"\{1\}", "1"), ("x=1,2", "x=2,1"), ("0.1", "0.1000001"),
    ("on", "no"), ("AB", "BA"), (r"\text{on}", "$no$"), ("AB, CD", "BA, DC"), ("to be", "be to"), ("on", "on it"), ("on", "n o"),
]  # fmt: skip
HOSTILE = [
    "9**9**9**9", "9^9^9^9", "(" * 5000 + "1" + ")" * 5000, "(" * 400 + "1" + ")" * 400, "9!!!!", "(9!)!", "exp(exp(exp(9)))",
    "10^(10^10)", "0.1^(10^10)", "2^(2^(2^(2^(2^2))))", "1e999999999", "sin(10^1000)", "sinh(10^1000)", "tan(10^400)^400",
    "-" * 901 + "1", "9" * 999, "sqrt(" * 30 + "2" + ")" * 30, "|" * 500, "{" * 500, "1/(1-1)", "0^(-1)", "log(0)", "i^i^i^i^i",
    r"\frac" * 200 + "1", r"\sqrt" * 200 + "2", "__import__('os').system('echo no')", "().__class__.__mro__", "lambda: 0",
    "sin " * 200 + "1", "(1+10^(-300))^(10^300)", "factorial(500)^400", "\x00", "²", "٣", "½", "exp(-10^3000)", "cosh(10^9)",
    "x^" * 38 + "x", "1!" * 300, "a" * 100_000, "5 " + "a " * 90, "1," * 99, "\\frac{" * 30, "😀", "<answer>" * 50, "\ud800",
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME_NUMBER)
def test_the_same_number(one: str, other: str) -> None:
    assert same_number(one, other)


@pytest.mark.parametrize(("one", "other"), OTHER_NUMBER)
def test_another_number(one: str, other: str) -> None:
    assert not same_number(one, other)
    assert not same_number(other, one)


@given(st.fractions(max_denominator=10**6), st.booleans())
def test_numbers_are_read_as_they_are_written(value: Fraction, spaced: bool) -> None:
    read_back = read_number(f"{value.numerator}{' / ' if spaced else '/'}{value.denominator}")
    assert read_back is not None
    assert read_back.value == value
    whole = read_number(f"{value.numerator:,}")
    assert whole is not None
    assert whole.value == value.numerator


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_mathematics(one: str, other: str) -> None:
    assert equivalent(one, other)
    assert equivalent(other, one)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_other_mathematics(one: str, other: str) -> None:
    assert not equivalent(one, other)
    assert not equivalent(other, one)


def expressions() -> Any:
    """Texts of rational functions in x and y, with small integers."""
    atoms = st.sampled_from(["x", "y", "1", "2", "3", "7"])
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})"),
            st.tuples(inner, st.integers(0, 3)).map(lambda t: f"({t[0]})^{t[1]}"),
            st.tuples(inner, st.sampled_from(["x^2+3", "y^2+1", "5"])).map(lambda t: f"({t[0]}/({t[1]}))"),
        ),
        max_leaves=6,
    )


@settings(max_examples=60, deadline=None)
@given(expressions(), expressions())
def test_the_verdict_is_that_of_computer_algebra(one: str, other: str) -> None:
    a, b = (sympy.sympify(text.replace("^", "**")) for text in (one, other))  # ours, and nobody else's text
    assert equivalent(one, other) == (sympy.cancel(a - b) == 0)
    assert equivalent(one, str(sympy.expand(a)))
    assert equivalent(one, str(sympy.latex(sympy.factor(a)))) or "operatorname" in sympy.latex(sympy.factor(a))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers_cost_nothing(text: str) -> None:
    begun = time.perf_counter()
    for verifier in (exact, numeric, symbolic):
        for known in ("1", "x + 1"):
            assert verifier.score(text, known) == 0.0
    equivalent(text, text)
    assert time.perf_counter() - begun < 0.5


@given(st.one_of(st.text(max_size=60), st.text(alphabet="0123456789xyei+-*/^(){}[]|!%,=\\ .$", max_size=60)))
def test_no_text_raises(text: str) -> None:
    equivalent(text, "x")
    same_number(text, "1")
    same_text(text, "1")


def test_what_is_no_mathematics_is_refused() -> None:
    for text in ("hello", "", "1 +", "(1", "\\unknown{x}", "[1", "x_", "1e500"):
        with pytest.raises(UnreadableError):
            read(text)


def test_exact_ignores_case_blanks_and_a_full_stop() -> None:
    assert same_text(" Saint  Petersburg. ", "saint petersburg")
    assert same_text("“A”".replace("“", '"').replace("”", '"'), "a")
    assert not same_text("5", "5.0")


def test_a_verifier_is_a_reward_function() -> None:
    renderer = Renderer(build_tokenizer(["what is 2 + 2 ?", "the answer is 4", "5", "none"]))
    said = ["the answer is 4", "5", "4"]
    episodes = [build_dialogue([("what is 2 + 2 ?", text)], renderer, seed=i) for i, text in enumerate(said)]
    known = ["2 + 2 = <<2+2=4>>4\n#### 4", "4", None]
    judge = EpisodeJudge(numeric, renderer, columns=lambda episode: {"answer": known[episode.seed], "other": 1})
    first, second, third = judge(episodes)
    assert first.tolist() == [1.0]
    assert second.tolist() == [0.0]
    assert third[0] != third[0]
    check_reward(judge, episodes)


def test_what_is_wrong_with_a_row_is_said() -> None:
    with pytest.raises(RewardError, match="the known answer is '', which holds no answer"):
        numeric.score("5", "")
    with pytest.raises(RewardError, match="numeric: 1 answers for 2 completions"):
        numeric(completions=["1", "2"], answer=["1"])
    with pytest.raises(RewardError, match="called 'box'"):
        Verifier("mine", same_text, order=("box",))
    assert exact.score("the answer is Paris", "Paris") == 1.0
    assert exact.score([{"role": "assistant", "content": "Paris"}], "paris") == 1.0
    assert exact.score("<think>Paris", "Paris") == 0.0
