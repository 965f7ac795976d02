"""A chat endpoint: (1) it is asked as the protocol says, (2) what passes is asked again, (3) what does not is named with its
remedy, (4) nothing outlasts the deadline, (5) the key goes nowhere but to the address that was named."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.engines.chat_server import nobody, said, serving
from turnwise.engines import Endpoint, EndpointError, EngineError

USER = [{"role": "user", "content": "hello"}]


def endpoint(url: str, **changes: Any) -> Endpoint:
    return Endpoint(url, "judge", **{"backoff": 0.005, "timeout": 5.0, "deadline": 10.0, **changes})


def answer_of(chat: Endpoint, messages: Any = USER) -> str:
    (answer,) = chat.complete_all([messages])
    if isinstance(answer, EngineError):
        raise answer
    return answer


def test_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURNWISE_API_KEY", raising=False)
    with serving(lambda text, number: said(f"you said {text}")) as server:
        chat = endpoint(server.url + "/", temperature=0.5, max_tokens=7)
        assert answer_of(chat, [{"role": "system", "content": "be brief"}, *USER]) == "you said hello"
    assert server.paths == ["/v1/chat/completions"]
    (asked,) = server.asked
    assert asked["model"] == "judge"
    assert asked["messages"] == [{"role": "system", "content": "be brief"}, *USER]
    assert (asked["temperature"], asked["max_tokens"]) == (0.5, 7)
    assert "Authorization" not in server.headers[0]


def test_answers_come_in_the_order_of_the_questions_and_few_at_once() -> None:
    def slow(text: str, number: int) -> Any:
        time.sleep(0.02 if number % 2 else 0.0)
        return said(text * 2)

    with serving(slow) as server:
        chat = endpoint(server.url, concurrency=3)
        texts = [f"q{i}" for i in range(20)]
        assert chat.complete_all([[{"role": "user", "content": t}] for t in texts]) == [t * 2 for t in texts]
        assert chat.complete_all([]) == []
    assert 1 < server.most_at_once <= 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_asked_again(status: int) -> None:
    def recovering(text: str, number: int) -> Any:
        return said("at last") if number == 2 else (status, b"try later", {})

    with serving(recovering) as server:
        assert answer_of(endpoint(server.url)) == "at last"
    assert len(server.asked) == 3


def test_a_server_that_says_how_long_to_wait_is_obeyed() -> None:
    def busy(text: str, number: int) -> Any:
        return said("now") if number else (429, b"", {"Retry-After": "0.2"})

    with serving(busy) as server:
        begun = time.monotonic()
        assert answer_of(endpoint(server.url, backoff=0.0)) == "now"
        assert time.monotonic() - begun >= 0.2


@pytest.mark.parametrize(
    ("reply", "complaint", "times"),
    [
        ((500, b"out of memory", {}), "answers 500 every time: out of memory", 3),
        ((401, b"", {}), r"refuses the key \(401\).*TURNWISE_API_KEY", 1),
        ((404, b"no such model", {}), r"refuses \(404\): no such model; check the address and the model", 1),
        ((307, b"", {"Location": "http://elsewhere"}), "sends us on to http://elsewhere; name that address", 1),
        ((200, b"<html>hello</html>", {}), "not answer with a chat completion but with '<html>hello", 1),
        ((200, b"[" * 100_000, {}), "not answer with a chat completion", 1),
        ((200, b'{"choices": []}', {}), "not answer with a chat completion", 1),
    ],
)
def test_what_does_not_pass_is_named(reply: Any, complaint: str, times: int) -> None:
    with serving(lambda text, number: reply) as server, pytest.raises(EndpointError, match=complaint):
        answer_of(endpoint(server.url, retries=2))
    assert len(server.asked) == times


def test_an_answer_without_text_is_an_empty_one() -> None:
    with serving(lambda text, number: said(None)) as server:
        assert answer_of(endpoint(server.url)) == ""


def test_one_failure_leaves_the_other_answers() -> None:
    with serving(lambda text, number: said(text) if text != "bad" else (400, b"no", {})) as server:
        given = endpoint(server.url).complete_all([[{"role": "user", "content": t}] for t in ("a", "bad", "b")])
    assert given[0] == "a"
    assert isinstance(given[1], EndpointError)
    assert given[2] == "b"


def test_nobody_there_is_found_out_once_and_not_for_every_question() -> None:
    begun = time.monotonic()
    given = endpoint(nobody(), retries=2, backoff=0.05, concurrency=2).complete_all([USER] * 200)
    assert time.monotonic() - begun < 3
    assert len(given) == 200
    for answer in given:
        assert isinstance(answer, EndpointError)
        assert "nobody answers at http://127.0.0.1" in str(answer)
        assert "start the server" in str(answer)


def test_nothing_outlasts_the_deadline() -> None:
    def asleep(text: str, number: int) -> Any:
        time.sleep(1.0)
        return said("late")

    with serving(asleep) as server:
        begun = time.monotonic()
        given = endpoint(server.url, deadline=0.3, timeout=0.1).complete_all([USER] * 4)
        assert time.monotonic() - begun < 0.8
        assert all(isinstance(answer, EndpointError) for answer in given)
        assert all("did not answer within" in str(answer) for answer in given)
    with serving(lambda text, number: said("drop by drop"), drip=0.05) as server:
        begun = time.monotonic()
        (answer,) = endpoint(server.url, deadline=0.4, timeout=0.2).complete_all([USER])
        assert time.monotonic() - begun < 1.0
        assert "did not answer within" in str(answer)


def test_the_key_comes_from_the_environment_and_stays_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    with serving(lambda text, number: said("hello")) as server:
        chat = endpoint(server.url, key_variable="MY_KEY")
        answer_of(chat)
    assert server.headers[0]["Authorization"] == "Bearer sesame"
    assert "sesame" not in repr(chat) + repr(vars(chat))
    with pytest.raises(EndpointError, match="would travel in the open"):
        answer_of(endpoint("http://192.0.2.1/v1", key_variable="MY_KEY"))


def test_blanks_around_a_key_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " sesame\n")
    with serving(lambda text, number: said("hello")) as server:
        assert endpoint(server.url, key_variable="MY_KEY").complete_all([USER]) == ["hello"]
    assert server.headers[0]["Authorization"] == "Bearer sesame"


@pytest.mark.parametrize("key", ["ses\name", "ses\x07ame", "sesäme", "ses\u2026ame"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    (answer,) = endpoint(nobody(), key_variable="MY_KEY").complete_all([USER])
    assert "MY_KEY has a character" in str(answer)
    assert "ses" not in str(answer) + "".join(capfd.readouterr())


def test_an_error_that_nobody_expected_is_named_by_its_type_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any) -> str:
        raise ValueError("Bearer sesame")

    chat = endpoint(nobody())
    monkeypatch.setattr(chat, "_attempt", failing)
    given = chat.complete_all([USER] * 3)
    assert ["ValueError" in str(answer) for answer in given] == [True] * 3
    assert "sesame" not in str(given) + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("url", "changes", "complaint"),
    [
        ("localhost:8000", {}, "is not an address"),
        ("ftp://localhost/v1", {}, "is not an address"),
        ("http://me:secret@localhost/v1", {}, "holds a password"),
        ("http://localhost/v1?key=secret", {}, "holds a password or a query"),
        ("http://localhost/v1", {"concurrency": 0}, "concurrency=0"),
        ("http://localhost/v1", {"deadline": 0.0}, "deadline=0"),
    ],
)
def test_what_cannot_work_is_refused_at_once(url: str, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(EndpointError, match=complaint) as caught:
        endpoint(url, **changes)
    assert "secret" not in str(caught.value)
