"""A server on loopback that bills its answers, as others do that run a model for each call."""

from __future__ import annotations

import collections
import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.teachers.server import chat_body

LOOK_SECONDS = 0.005  # how often it is looked whether the caller is still there


class Till:
    """What a server was asked, and what it was paid for.

    Attributes:
        url: Base URL.
        paid: By call, how often its whole answer was sent to a caller that read it.
        unread: Whole answers that still lay in the socket of their caller when it was killed, as
            the reset of its connection tells: it was never given them, and so can't keep them.
        broken_off: Calls whose callers were gone before their answers were written: generation
            stops then, as vLLM's does, and nothing is paid.
        first: Time (monotonic) of the first call since this was last set to None.
        seconds: That an answer takes.
    """

    def __init__(self, answer: Callable[[str, int], str], seconds: float) -> None:
        """Takes what answers (text, seed)."""
        self.url = ""
        self.paid: collections.Counter[str] = collections.Counter()
        self.broken_off = self.unread = 0
        self.first: float | None = None
        self.answer = answer
        self.seconds = seconds
        self.lock = threading.Lock()

    @property
    def paid_twice(self) -> int:
        """Answers that were sent once more than needed."""
        return sum(self.paid.values()) - len(self.paid)

    def forget(self) -> None:
        """For the next run, which has a ledger of its own."""
        with self.lock:
            self.paid.clear()


def call_of(messages: Any, seed: Any, sampling: Mapping[str, Any]) -> str:
    """Which call it is, as the server and a ledger have it."""
    return json.dumps([messages, seed, sampling["max_tokens"], sampling["temperature"]])


def _is_gone(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    try:
        return bool(readable) and not connection.recv(1, socket.MSG_PEEK)
    except ConnectionError:
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    till: Till
    answered: str | None = None

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            with self.till.lock:
                if self.answered is not None:
                    self.till.unread += 1
                    self.till.paid[self.answered] -= 1
                    self.till.paid += collections.Counter()

    def do_POST(self) -> None:
        self.answered = None
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._send(404, b'{"error": {"message": "no such path", "code": null}}')
            return
        till = self.till
        with till.lock:
            till.first = till.first or time.monotonic()
        until = time.monotonic() + till.seconds
        while time.monotonic() < until:
            if _is_gone(self.connection):
                self._stop()
                return
            time.sleep(LOOK_SECONDS)
        text = till.answer(body["messages"][-1]["content"], body["seed"])
        try:
            if _is_gone(self.connection):
                raise ConnectionError
            self._send(200, json.dumps(chat_body(body, text)).encode())
        except ConnectionError:
            self._stop()
            return
        with till.lock:
            self.answered = call_of(body["messages"], body["seed"], body)
            till.paid[self.answered] += 1

    def _stop(self) -> None:
        self.close_connection = True
        with self.till.lock:
            self.till.broken_off += 1

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the output."""


@contextlib.contextmanager
def open_till(answer: Callable[[str, int], str], seconds: float) -> Iterator[Till]:
    """Run a server until the end of the block."""
    till = Till(answer, seconds)
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"till": till})
    ) as http:
        # A killed caller's connections end without being answered.
        http.daemon_threads = True
        till.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield till
        finally:
            http.shutdown()
            thread.join()
