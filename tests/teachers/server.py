"""A real HTTP server on loopback that speaks OpenAI's protocol, well or badly as it is told.

A token is a word with the white space before it; what the model thinks of one is a hash.
"""

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = {
    "bad request": (400, {"message": "max_tokens is too large", "code": None}),
    "unauthorized": (401, {"message": "Incorrect API key: {key}", "code": "invalid_api_key"}),
    "not found": (404, {"message": "no such model", "code": "model_not_found"}),
    "rate limit": (429, {"message": "slow down", "code": "rate_limit_exceeded"}),
    "quota": (429, {"message": "no money left", "code": "insufficient_quota"}),
    "internal": (500, {"message": "oops", "code": None}),
    "unavailable": (503, {"message": "starting", "code": None}),
}


class Server:
    """A running server.

    Attributes:
        url: Base URL.
        faults: What goes wrong with the next calls, first come first: a key of `FAULTS`, `cut`,
            `slow`, `html`, `half`, `empty`, `no usage`, or "" for a good answer.
        calls: (path, body, headers) of each call.
        scores: `vllm` (prompt_logprobs with ranks), `echo` (log-probabilities of the echoed prompt)
            or None (text completions are refused).
        tells_offsets: Scores say where each token stands in the text.
        refuses: Fields that make a bad request, with (status, message).
        retry_after: Header of rate limits.
        most_at_once: Calls that were under way at the same time, at most.
        delay: Seconds that a call takes.
        awake: `slow` answers wait for this.
        edit: Changes a chat completion's body.
        closes: End connections after an answer.
        reply: (status, body) of every answer, whatever was asked.
        answer: Text that answers (messages, seed).
    """

    def __init__(self) -> None:
        self.url = ""
        self.faults: list[str] = []
        self.calls: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.scores: str | None = "vllm"
        self.tells_offsets = True
        self.refuses: dict[str, tuple[int, str]] = {}
        self.retry_after: str | None = None
        self.most_at_once = 0
        self.delay = 0.0
        self.awake = threading.Event()
        self.edit: Callable[[dict[str, Any]], None] = lambda body: None
        self.closes = False
        self.reply: tuple[int, Any] | None = None
        self.answer: Callable[[list[dict[str, str]], int], str] = answer_text
        self._running = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def call(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Iterator[str]:
        """Note a call; yields its fault."""
        with self._lock:
            self.calls.append((path, body, headers))
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
            fault = self.faults.pop(0) if self.faults else ""
        time.sleep(self.delay)
        if fault == "slow":
            self.awake.wait(60)
        try:
            yield fault
        finally:
            with self._lock:
                self._running -= 1


def answer_text(messages: list[dict[str, str]], seed: int) -> str:
    text = json.dumps([messages, seed])
    return f"answer {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def tokens_of(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def logprob_of(before: str, token: str) -> float:
    return -(hashlib.sha256((before + token).encode()).digest()[0] / 64) - 0.01


def is_greedy(before: str, token: str) -> bool:
    return hashlib.sha256((before + token).encode()).digest()[1] % 2 == 0


def chat_body(body: dict[str, Any], text: str) -> dict[str, Any]:
    limit = body.get("max_tokens", body.get("max_completion_tokens"))
    kept = tokens_of(text)[:limit]
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(kept)},
        "finish_reason": "length" if len(kept) < len(tokens_of(text)) else "stop",
        "logprobs": None,
    }
    if body.get("logprobs"):
        entries = [{"token": t, "logprob": -0.25 * (n + 1)} for n, t in enumerate(kept)]
        choice["logprobs"] = {"content": entries}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"] + "-2026-01-01",
        "choices": [choice],
        "usage": {
            "prompt_tokens": sum(len(tokens_of(m["content"])) for m in body["messages"]) + 3,
            "completion_tokens": len(kept),
        },
    }


def text_body(body: dict[str, Any], scores: str) -> dict[str, Any]:
    tokens = tokens_of(body["prompt"])
    choice: dict[str, Any] = {"index": 0, "text": " next", "finish_reason": "length"}
    if body.get("echo"):
        choice["text"] = body["prompt"] + " next"
        befores = ["".join(tokens[:n]) for n in range(len(tokens) + 1)]
        all_tokens = [*tokens, " next"]
        values = [logprob_of(b, t) for b, t in zip(befores, all_tokens, strict=True)]
        ranks = [1 if is_greedy(b, t) else 2 for b, t in zip(befores, all_tokens, strict=True)]
        best = [v if rank == 1 else v / 2 for v, rank in zip(values, ranks, strict=True)]
        choice["logprobs"] = {
            "tokens": all_tokens,
            "token_logprobs": [None, *values[1:]],
            "top_logprobs": [None, *({"best": value} for value in best[1:])],
            "text_offset": [len(before) for before in befores],
        }
        if scores == "vllm":
            choice["prompt_logprobs"] = [None] + [
                {str(900 + n): {"logprob": values[n], "rank": ranks[n], "decoded_token": tokens[n]}}
                for n in range(1, len(tokens))
            ]
            # vLLM's top_logprobs of an echoed prompt are no more than what was asked for above.
            choice["logprobs"]["top_logprobs"] = None
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 0,
        "model": body["model"],
        "choices": [choice],
        "usage": {"prompt_tokens": len(tokens), "completion_tokens": 1},
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.state.call(self.path, body, headers) as fault:
            self._answer(fault, body, headers)

    def _answer(self, fault: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        if self.state.reply is not None:
            status, content = self.state.reply
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self._send(status, data)
            return
        refused = [said for name, said in self.state.refuses.items() if name in body]
        if refused:
            status, message = refused[0]
            self._send(status, json.dumps({"error": {"message": message}}).encode())
            return
        if fault in FAULTS:
            status, error = FAULTS[fault]
            message = error["message"].format(key=headers["authorization"].removeprefix("Bearer "))
            self._send(status, json.dumps({"error": {**error, "message": message}}).encode())
            return
        if self.path == "/v1/chat/completions":
            content = chat_body(body, self.state.answer(body["messages"], body["seed"]))
            self.state.edit(content)
        elif self.path == "/v1/completions" and self.state.scores is not None:
            content = text_body(body, self.state.scores)
            if not self.state.tells_offsets and body.get("echo"):
                del content["choices"][0]["logprobs"]["text_offset"]
        else:
            self._send(404, b'{"error": {"message": "no such path", "code": null}}')
            return
        if fault == "empty":
            content["choices"] = []
        if fault == "no usage":
            del content["usage"]
        data = json.dumps(content).encode()
        if fault == "html":
            self._send(200, b"<html>a proxy says hello</html>", "text/html")
        elif fault == "half":
            self._send(200, data[: len(data) // 2])
        elif fault == "cut":
            self._send(200, data, cut=True)
        else:
            self._send(200, data)

    def _send(
        self, status: int, data: bytes, kind: str = "application/json", cut: bool = False
    ) -> None:
        # The client of a slow answer has hung up by now.
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if self.state.closes:
                self.send_header("Connection", "close")
            if status == 429 and self.state.retry_after is not None:
                self.send_header("Retry-After", self.state.retry_after)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = cut or self.state.closes

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the tests' output."""


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    state = Server()
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            state.awake.set()
            http.shutdown()
            thread.join()
