"""A chat endpoint on this machine that misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, bytes, dict[str, str]]


def said(text: str | None) -> Reply:
    """A chat completion."""
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
    return 200, json.dumps(body).encode(), {"Content-Type": "application/json"}


@dataclass
class Server:
    """What was asked of it, and how to reach it."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def serving(answer: Callable[[str, int], Reply], *, drip: float = 0.0) -> Iterator[Server]:
    """Serve `answer(last message, number of the request from 0)`; with `drip`, the body comes a byte per `drip` seconds."""
    server = Server()
    lock = threading.Lock()
    flying = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal flying
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.asked)
                server.asked.append(body)
                server.headers.append(dict(self.headers))
                server.paths.append(self.path)
                flying += 1
                server.most_at_once = max(server.most_at_once, flying)
            try:
                status, given, headers = answer(body["messages"][-1]["content"], number)
            finally:
                with lock:
                    flying -= 1
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(given)))
                self.end_headers()
                if not drip:
                    self.wfile.write(given)
                for byte in given if drip else b"":
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(drip)
            except OSError:  # the client has gone
                pass

        def log_message(self, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: Any) -> None:
            pass

    http = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=lambda: http.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def nobody() -> str:
    """An address on this machine at which nobody listens."""
    with serving(lambda text, number: said("")) as server:
        pass
    return server.url
