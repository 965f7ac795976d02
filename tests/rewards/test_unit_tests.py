"""Code checkers: (1) they pay what passes, (2) what a solution prints, or how it leaves, changes nothing, (3) no solution uses
more time, memory, files or processes than it may, (4) it sees nothing of ours."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from turnwise.rewards import RewardError
from turnwise.rewards.sandbox import LimitedProcess, Limits, run_script
from turnwise.rewards.unit_tests import UnitTests, extract_code, parse_tests

ADD = "assert add(1, 2) == 3\nassert add(2, 2) == 4\nassert add(0, 1) > 0\nassert 9 == add(4, 5)"
RIGHT = "def add(a, b): return a + b"


def score(code: str, tests: Any = ADD, **limits: Any) -> float | None:
    return UnitTests(Limits(**{"seconds": 10.0, **limits}))(completions=[code], tests=[tests])[0]


def test_shares_and_all_or_nothing_many_at_once() -> None:
    completions = [
        RIGHT,
        "```python\n" + RIGHT + "\n```",
        "def add(a, b): return 3",
        "def add(a, b) return 3",
        "",
        RIGHT,
    ]
    tests = [ADD, ADD, ADD, ADD, ADD, None]
    assert UnitTests(workers=3)(completions=completions, tests=tests) == [1.0, 1.0, 0.5, 0.0, 0.0, None]
    assert UnitTests(all_or_nothing=True)(completions=completions[:3], tests=tests[:3]) == [1.0, 1.0, 0.0]


def test_forms_of_tests() -> None:
    calls = [
        {"call": "add", "args": [1, 2], "expected": 3},
        {"call": "add", "args": [1], "kwargs": {"b": 0.2}, "expected": 1.2},
    ]
    assert score(RIGHT, calls) == 1.0
    assert score("def add(a, b): return a, [b]", [{"call": "add", "args": [1, 2], "expected": [1, [2]]}]) == 1.0
    assert score("def add(a, b): return {a: (b,)}", '[{"call": "add", "args": [1, 2], "expected": {"1": [2]}}]') == 1.0
    assert score("def add(a, b): return a == b", [{"call": "add", "args": [1, 1], "expected": 1}]) == 0.0
    programs = [
        {"stdin": "1 2\n", "stdout": "3"},
        {"stdin": "5 5", "stdout": "10 \n\n"},
        {"stdin": "0 0", "stdout": "1"},
    ]
    reads = (
        "import sys\nif __name__ == '__main__':\n    print(sum(map(int, sys.stdin.read().split())))\n    sys.exit(0)"
    )
    assert score(reads, programs) == pytest.approx(2 / 3)
    assert score("print(3)\nraise ValueError", programs[:1]) == 0.0
    check = "def check(f):\n    assert f(1, 2) == 3\n    assert f(1, 1) == 2\n\ncheck(add)"
    assert score(RIGHT, check) == 1.0
    assert score("def add(a, b): return 3", check) == 0.0
    assert score(RIGHT, "import math\nx = math.floor(2.5)\nassert add(x, x) == 4") == 1.0
    assert score(RIGHT, [ADD, calls[0], {"stdin": "", "stdout": ""}]) == 1.0


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("def check(f):\n    assert f(1, 2) == 3\ncheck(add)", "assert add(1, 2) == 3"),
        ("x = 3\nassert add(1, 2) == x", "assert add(1, 2) == 3"),
        ("assert abs(add(1, 2) - 3) < 1e-6", [{"call": "add", "args": [1, 2], "expected": 3.0}]),
    ],
)
def test_an_object_that_equals_everything_passes_only_what_is_decided_inside(inside: Any, outside: Any) -> None:
    """What docs/rewards.md says about the forms of tests."""
    liar = (
        "class Liar:\n    def __eq__(self, other): return True\n    def __sub__(self, other): return self\n"
        "    def __abs__(self): return 0\ndef add(a, b): return Liar()"
    )
    assert (score(liar, inside), score(liar, outside)) == (1.0, 0.0)
    assert (score(RIGHT, inside), score(RIGHT, outside)) == (1.0, 1.0)


def test_values_come_back_as_they_are() -> None:
    expressions = ["None", "True", "10**60", "1.5", "'ü'", "b'\\x00'", "[1, (2, {3: {4}})]", "{'a': None}", "1j"]
    with LimitedProcess(Limits()) as process:
        for expression in expressions:
            reply = process.evaluate(expression)
            assert reply.ok, expression
            assert reply.value == eval(expression)  # written a few lines above
            assert type(reply.value) is type(eval(expression))
        assert process.run("from fractions import Fraction").ok
        assert process.evaluate("Fraction(1, 3) * 3").value == 1
        assert process.evaluate("object()").value != process.evaluate("object()").value
        assert process.evaluate("1 / 0").error == "ZeroDivisionError: division by zero"
        assert process.evaluate("1 + 1").value == 2, "an exception ends one request and not the process"


@pytest.mark.parametrize(
    "code",
    [
        "print('all passed')",
        'print(\'{"value": ["plain", 3]}\' * 10)',
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "def add(a, b):\n    import sys; sys.exit(0)",
        "def add(a, b):\n    import os; os._exit(0)",
        "def add(a, b):\n    print(a + b)",
        'import os\nfor f in range(1, 64):\n    try: os.write(f, b\'{"value": ["plain", 3]}\\n\')\n    except OSError: pass',
        "class Anything:\n    def __eq__(self, other): return True\n    def __gt__(self, other): raise ValueError\n"
        "def add(a, b): return Anything()",
        "class Anything(int):\n    def __eq__(self, other): return True\ndef add(a, b): return Anything(-7)",
        "def bool(x): return True\ndef add(a, b): return 0",
        "raise KeyboardInterrupt",
    ],
)
def test_saying_that_it_passed_is_not_passing(code: str) -> None:
    assert score(code) == 0.0


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("while True: pass", {"seconds": 0.4}),
        ("import time\ndef add(a, b): time.sleep(60)", {"seconds": 0.4}),
        ("x = [0] * 10**9\n" + RIGHT, {"memory_mb": 200}),
        ("def add(a, b): return len('a' * 10**9)", {"memory_mb": 200}),
        ("open('large', 'wb').write(b'0' * 10**8)\n" + RIGHT, {"file_mb": 1}),
        ("def add(a, b): return 'a' * 10**8", {}),
        ("def add(a, b): return add(a, b)", {}),
        ("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True:\n    try:\n        while True: pass\n"
         "    except BaseException: pass", {"seconds": 0.4}),
    ],
)  # fmt: skip
def test_limits_hold(code: str, limits: dict[str, Any]) -> None:
    begun = time.monotonic()
    assert score(code, **limits) == 0.0
    assert time.monotonic() - begun < 3


def test_limits_hold_for_programs() -> None:
    assert not run_script("while True: print('a' * 1000)", "", Limits(seconds=0.5, file_mb=1)).ok
    reply = run_script("while True: pass", "", Limits(seconds=0.3))
    assert reply.error == "it took longer than 0.3 s"
    assert run_script("print(input())", "hello", Limits()).value == "hello\n"


def test_what_it_starts_ends_with_it(tmp_path: Path) -> None:
    sign = tmp_path / "alive"
    code = (
        "import os, time\nif not os.fork():\n    while True:\n"
        f"        open({str(sign)!r}, 'a').write('x')\n        time.sleep(0.02)\n" + RIGHT
    )
    score(code, processes=20)
    size = sign.stat().st_size if sign.exists() else 0
    time.sleep(0.15)
    assert (sign.stat().st_size if sign.exists() else 0) == size


def test_it_sees_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWISE_API_KEY", "sesame")
    with LimitedProcess(Limits()) as process:
        process.run("import os, sys")
        seen = process.evaluate("dict(os.environ)").value
        assert "sesame" not in str(seen)
        assert set(seen) <= {"PATH", "HOME", "TMPDIR", "LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LC_CTYPE"}
        folder = process.evaluate("os.getcwd()").value
        assert process.evaluate("os.listdir('.')").value == []
        assert folder != os.getcwd()
        assert process.evaluate("'turnwise' in sys.modules").value is False
        assert process.evaluate("sys.flags.isolated").value == 1
        assert process.run("open('note', 'w').write('x')").ok
    assert not Path(folder).exists()


def test_code_is_the_last_block_after_the_reasoning() -> None:
    assert extract_code("```python\na = 1\n```\nbetter:\n```py\na = 2\n```\n```text\nbye\n```") == "a = 2\n"
    assert extract_code("<think>```python\na = 1\n```</think>```\na = 2\n```") == "a = 2\n"
    assert extract_code("a = 3") == "a = 3"
    assert extract_code("<think>a = 3") is None
    assert extract_code("<think></think>  ") is None
    assert score(f"<think>```python\n{RIGHT}\n```</think>```python\ndef add(a, b): return 0\n```", ADD) == 0.0


@pytest.mark.parametrize(
    ("tests", "complaint"),
    [
        ("assert add(1, 2) ==", "the tests of row 0 are no Python"),
        ([], "row 0 has no test"),
        ("", "row 0 has no test"),
        ("[1, 2", "look like JSON and are none"),
        ([{"call": "add"}], r"the test \{'call': 'add'\} of row 0 is in none of the forms"),
        ([5], "in none of the forms"),
    ],
)
def test_tests_that_are_none_are_named(tests: Any, complaint: str) -> None:
    with pytest.raises(RewardError, match=complaint):
        score(RIGHT, tests)


def test_nonsense_settings_are_refused() -> None:
    with pytest.raises(RewardError, match="leaves no room"):
        Limits(seconds=0)
    with pytest.raises(RewardError, match="workers=0"):
        UnitTests(workers=0)
    with pytest.raises(RewardError, match="tests for 1 rows and 2 completions"):
        UnitTests()(completions=["a", "b"], tests=["assert 1"])
    assert [check.kind for check in parse_tests("x = 1\nassert f(x) == 2\nassert f(x)")] == ["setup", "value", "truth"]


def test_where_namespaces_are_allowed_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWISE_API_KEY", "sesame")
    with LimitedProcess(
        Limits(),
    ) as process:
        process.run("import os, socket")
        if process.evaluate("os.getpid()").value != 1:
            pytest.skip("this kernel lets no ordinary user make namespaces")
        assert process.evaluate("[name for _, name in socket.if_nameindex()]").value in ([], ["lo"])
        assert "unreachable" in process.evaluate("socket.create_connection(('127.0.0.1', 9), 1)").error
        assert "PermissionError" in process.evaluate(f"open('/proc/{os.getpid()}/environ').read()").error
