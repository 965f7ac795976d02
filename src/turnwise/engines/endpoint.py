"""A client of any server that speaks OpenAI's chat completions: POST ``{base_url}/chat/completions``.

It asks again after what passes (429, 5xx, a lost connection), with growing pauses, and gives up at one deadline for all
that was asked together. A key comes from an environment variable, is read when it is sent and is kept nowhere; it goes to
the address that was named and to no other, so redirections are refused.

What this file leaves out: streams, tools, images, token ids.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from turnwise.engines.base import EngineError
from turnwise.engines.chat import Message

KEY_VARIABLE = "TURNWISE_API_KEY"
"""The environment variable that holds the key of an endpoint, unless another is named."""

_LARGEST = 8 * 2**20
_PASSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class EndpointError(EngineError):
    """An endpoint is down, refuses, or answers with something that is not a chat completion.

    Attributes:
        down: Nobody answers at the address, so that asking it anything else is of no use either.
    """

    def __init__(self, message: str, *, down: bool = False) -> None:
        super().__init__(message)
        self.down = down


class _PassingError(Exception):
    """Worth asking again, after `pause` seconds if the server said so."""

    def __init__(self, error: EndpointError, pause: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause = pause


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirection would carry the key to an address that nobody named."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass
class _Round:
    """What the threads of one call share."""

    open: queue.SimpleQueue[int]
    until: float
    answers: list[str | EndpointError | None]
    down: EndpointError | None = None
    reached: bool = False
    finished: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Endpoint:
    """A model behind an address.

    Args:
        base_url: Where ``/chat/completions`` is, such as ``http://127.0.0.1:8000/v1``.
        model: Name of the model there.
        key_variable: Environment variable that holds the key; without the variable no key is sent.
        temperature: As the server understands it.
        max_tokens: Longest answer.
        concurrency: Questions in flight at once.
        timeout: Seconds that one attempt may take.
        retries: Further attempts at one question.
        backoff: Seconds before the second attempt; doubled each time, unless the server says how long to wait.
        deadline: Seconds for all the questions of one call together.

    Raises:
        EndpointError: an address that is not http or https, or holds a password; or a setting that cannot work.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_variable: str = KEY_VARIABLE,
        temperature: float = 0.0,
        max_tokens: int = 256,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 4,
        backoff: float = 0.5,
        deadline: float = 600.0,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EndpointError(f"{base_url!r} is not an address; give one like http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise EndpointError(
                f"the address of {parts.hostname} holds a password or a query; leave them out and put the key into the "
                f"environment variable {key_variable}"
            )
        if concurrency < 1 or retries < 0 or max_tokens < 1:
            raise EndpointError(
                f"concurrency={concurrency}, retries={retries}, max_tokens={max_tokens}: at least 1, 0 and 1 are needed"
            )
        if not (timeout > 0 and deadline > 0 and backoff >= 0):
            raise EndpointError(f"timeout={timeout:g}, deadline={deadline:g} and backoff={backoff:g} must be positive")
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.key_variable = key_variable
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.concurrency = concurrency
        self.timeout = timeout
        self.retries = retries
        self.backoff = backoff
        self.deadline = deadline
        self._secure = parts.scheme == "https" or parts.hostname in _LOOPBACK
        handlers: list[Any] = [_NoRedirect()]
        if parts.hostname in _LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {self.model!r})"

    def complete_all(self, conversations: Sequence[Sequence[Message]]) -> list[str | EngineError]:
        """The answer to each conversation, in order; in place of one that failed, why.

        Once an attempt has found nobody at the address, and nothing was ever answered, the rest is not asked.
        """
        shared = _Round(queue.SimpleQueue(), time.monotonic() + self.deadline, [None] * len(conversations))
        for i in range(len(conversations)):
            shared.open.put(i)
        workers = min(self.concurrency, len(conversations))
        for _ in range(workers):
            threading.Thread(
                target=self._work, args=(shared, conversations), daemon=True, name="turnwise-endpoint"
            ).start()
        # A thread that a server keeps waiting byte by byte is left behind.
        for _ in range(workers):
            shared.finished.acquire(timeout=max(0.0, shared.until - time.monotonic()))
        late = EndpointError(f"{self!r} did not answer within {self.deadline:g} s; raise its deadline or concurrency")
        return [answer if answer is not None else (shared.down or late) for answer in list(shared.answers)]

    def _work(self, shared: _Round, conversations: Sequence[Sequence[Message]]) -> None:
        try:
            while time.monotonic() < shared.until and shared.down is None:
                try:
                    i = shared.open.get_nowait()
                except queue.Empty:
                    return
                try:
                    shared.answers[i] = self._persist(conversations[i], shared)
                except EndpointError as error:
                    shared.answers[i] = error
                    if error.down and not shared.reached:
                        shared.down = error
                except Exception as error:  # its message may hold what was sent, and with it the key
                    shared.answers[i] = EndpointError(f"{self!r} cannot be asked: {type(error).__name__}")
        finally:
            shared.finished.release()

    def _persist(self, messages: Sequence[Message], shared: _Round) -> str:
        for attempt in range(self.retries + 1):
            left = shared.until - time.monotonic()
            try:
                answer = self._attempt(messages, min(self.timeout, max(left, 0.01)))
            except _PassingError as passing:
                shared.reached |= not passing.error.down
                pause = self.backoff * 2**attempt if passing.pause is None else passing.pause
                if attempt == self.retries or time.monotonic() + pause >= shared.until or shared.down is not None:
                    raise passing.error from None
                time.sleep(pause)
            else:
                shared.reached = True
                return answer
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _attempt(self, messages: Sequence[Message], timeout: float) -> str:
        body = {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        request = urllib.request.Request(
            f"{self.base_url}/chat/completions", json.dumps(body).encode(), self._headers(), method="POST"
        )
        begun = time.monotonic()
        try:
            with self._opener.open(request, timeout=timeout) as response:
                given = b""
                while part := response.read1(65536):
                    given += part
                    if len(given) > _LARGEST:
                        raise EndpointError(f"{self!r} sends more than {_LARGEST // 2**20} MiB for one answer")
                    if time.monotonic() - begun > timeout:
                        raise TimeoutError
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except TimeoutError:
            late = f"{self!r} did not answer within {timeout:.3g} s; is it overloaded? Raise timeout, or ask for less"
            raise _PassingError(EndpointError(late)) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                late = (
                    f"{self!r} did not answer within {timeout:.3g} s; is it overloaded? Raise timeout, or ask for less"
                )
                raise _PassingError(EndpointError(late)) from None
            lost = f"nobody answers at {self.base_url} ({reason}); start the server there, or correct the address"
            raise _PassingError(EndpointError(lost, down=True)) from None
        return self._content(given)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "turnwise"}
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise EndpointError(
                f"the key in {self.key_variable} has a character that no header can carry, such as a line break; set it again"
            )
        if key:
            if not self._secure:
                raise EndpointError(
                    f"{self.base_url} is neither https nor on this machine, so the key in {self.key_variable} would travel "
                    "in the open; use https, or unset the variable"
                )
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _refused(self, error: urllib.error.HTTPError) -> EndpointError | _PassingError:
        with error:
            said = _one_line(error.read(2000))
        if error.code in _PASSES:
            wait = error.headers.get("Retry-After", "")
            pause = float(wait) if wait.replace(".", "", 1).isdigit() else None
            return _PassingError(EndpointError(f"{self!r} answers {error.code} every time: {said}"), pause)
        if 300 <= error.code < 400:
            elsewhere = error.headers.get("Location", "another address")
            return EndpointError(f"{self.base_url} sends us on to {elsewhere}; name that address if you trust it")
        if error.code in (401, 403):
            return EndpointError(f"{self!r} refuses the key ({error.code}): put a valid one into {self.key_variable}")
        return EndpointError(f"{self!r} refuses ({error.code}): {said}; check the address and the model's name")

    def _content(self, given: bytes) -> str:
        try:
            content = json.loads(given)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise EndpointError(
                f"{self!r} does not answer with a chat completion but with {_one_line(given)!r}; check the address"
            ) from None
        return content if isinstance(content, str) else ""


def _one_line(given: bytes) -> str:
    return " ".join(given.decode("utf-8", "replace").split())[:120]
