"""Principles: (1) what the forms find, (2) a rewrite keeps to its principle and leaves alone what does, (3) drawing is a function
of the seed and visits all, (4) a file that cannot be used is refused with its line, (5) prompts with gaps, shipped and edited."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.text import Conversation
from turnwise.text.principles import (
    PrincipleError,
    drawn,
    parse_principles,
    read_principles,
    require_checks,
    rewrite,
    violations,
)
from turnwise.text.procedure import Procedure, by_rule
from turnwise.text.template import TemplateError, read_template

FILE = """# how to speak
Be honest.

Never mention the weather. [forbids: weather|rain|sun]
Say "dislike". [forbids: hates? => dislike]
Be polite. [requires: please|thanks => please]
Be brief. [words: 6]
Do not shout. [forbids: !]
"""
ALL = parse_principles(FILE)
BY_LINE = {principle.line: principle for principle in ALL}


def offended(reply: str) -> list[int]:
    return [principle.line for principle in violations(ALL, reply)]


def test_what_the_forms_find() -> None:
    assert list(BY_LINE) == [2, 4, 5, 6, 7, 8]
    assert BY_LINE[2].check is None
    assert BY_LINE[4].text == "Never mention the weather."
    assert offended("please go") == []
    assert offended("Please, the SUN shines") == [4]
    assert offended("please take the train on sunday") == []  # whole words
    assert offended("thanks for the rain! I hates it so much") == [4, 5, 7, 8]
    assert offended("") == [6]


def test_rewrites_by_hand() -> None:
    assert rewrite(ALL, "please, the sun and the rain") == "please, the and the"
    assert rewrite(ALL, "I hate it, thanks") == "I dislike it, thanks"
    assert rewrite(ALL, "go home") == "go home please"
    assert rewrite(ALL, "thanks one two three four five six seven") == "thanks one two three four five"
    assert rewrite(ALL, "hi! please!") == "hi please"


words = st.lists(
    st.sampled_from(["the", "sun", "rain,", "sunny", "hate", "hates", "please", "!", "go", "it"]), max_size=9
).map(" ".join)


@given(words)
def test_a_rewrite_keeps_to_its_principle_and_leaves_alone_what_does(reply: str) -> None:
    for principle in ALL:
        if principle.check is None:
            continue
        after = principle.check.rewrite(reply)
        assert principle.check.holds(after)
        assert after == reply or not principle.check.holds(reply)
        assert principle.check.rewrite(after) == after
        assert (principle.check.offence(reply) == "") == principle.check.holds(reply)


def test_patterns_that_match_between_letters_end() -> None:
    (principle,) = parse_principles(r"Odd. [forbids: (?=x)|\b]")
    assert principle.check is not None
    principle.check.rewrite("x y  x")


@given(st.integers(0, 2**40), st.integers(1, 20))
def test_drawing_visits_all_before_any_comes_again(seed: int, n: int) -> None:
    chosen = [principle.line for principle in drawn(ALL, seed, n)]
    assert chosen == [principle.line for principle in drawn(ALL, seed, n)]
    assert len(chosen) == n
    for start in range(0, n, len(ALL)):
        part = chosen[start : start + len(ALL)]
        assert len(set(part)) == len(part)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no principle"),
        ("# nothing\n\n", "holds no principle"),
        ("Fine.\nBe. [forbid: x]", "line 2: there is no form 'forbid'"),
        ("Be. [forbids: (]", "line 1: '(' is not a regular expression"),
        ("Be. [forbids:]", "needs a pattern"),
        ("Be. [forbids: x*]", "matches the empty text"),
        ("Be. [words: few]", "needs a number of words"),
        ("Be. [words: 0]", "needs a number of words"),
        ("[forbids: x]", "say the principle in words"),
        ("Be. [forbids: a|b => b]", "is itself forbidden"),
        ("Be. [requires: please => thanks]", "does not have what is required"),
        ("Be. [forbids: x =>]", "nothing stands behind"),
        (
            "Be. [requires: please => please]\nNo begging. [forbids: please]",
            "line 1 puts in 'please', which line 2 forbids",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "principles.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PrincipleError) as caught:
        read_principles(path)
    assert said in str(caught.value)
    assert "principles.txt" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PrincipleError, match="cannot read"):
        read_principles(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(PrincipleError, match="not UTF-8"):
        read_principles(tmp_path / "latin.txt")
    with pytest.raises(PrincipleError, match="none of the 1 principles"):
        require_checks(parse_principles("Be kind."), "somebody")


def test_principles_travel_to_worker_processes() -> None:
    assert pickle.loads(pickle.dumps(ALL)) == ALL


def test_the_shipped_files_are_usable() -> None:
    shipped = parse_principles(read_template(None, "turnwise.text", "principles.txt"))
    require_checks(shipped, "a test")
    procedure = Procedure.read()
    request = procedure.critique_request("Hi?", "no {principle} here", shipped[0])
    assert shipped[0].text in request.text
    assert [message["role"] for message in request.messages] == ["user", "assistant", "user"]


def test_edited_prompts(tmp_path: Path) -> None:
    (tmp_path / "critique.txt").write_text("{prompt} -> {reply}: {principle}?\n")
    procedure = Procedure.read(tmp_path)
    assert procedure.revision == Procedure.read().revision
    asked = procedure.critique_request("a {reply} b", "R", BY_LINE[4])
    assert asked.text == "a {reply} b -> R: Never mention the weather.?"  # what is filled in is not filled again
    (tmp_path / "critique.txt").write_text("what about {critique} and {principle}?")
    with pytest.raises(TemplateError, match="critique"):
        Procedure.read(tmp_path)
    (tmp_path / "critique.txt").write_text("what?")
    with pytest.raises(TemplateError, match="principle"):
        Procedure.read(tmp_path)


def test_a_rule_writes_critiques_and_revisions() -> None:
    procedure = Procedure.read()
    prompt = Conversation([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    critique = procedure.critique_request(prompt, "the sun", BY_LINE[4])
    kept = procedure.critique_request(prompt, "the moon", BY_LINE[4])
    unchecked = procedure.critique_request(prompt, "the sun", BY_LINE[2])
    said = by_rule([critique, kept, unchecked])
    assert "sun" in said[0]
    assert said[1] == said[2] == "The reply keeps to the principle."
    revision = procedure.revision_request(prompt, "the sun", said[0], BY_LINE[4])
    assert by_rule([revision]) == ["the"]
    assert [message["role"] for message in revision.messages] == ["system", "user", "assistant", "user"]
    assert said[0] in revision.messages[-1]["content"]
