"""Servers that aren't what they should be, and keys that aren't for them."""

import contextlib
import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ioa_jax.errors import InputError
from ioa_jax.teachers.base import Sampling, TeacherError
from tests.teachers.recorded import ask

pytest.importorskip("openai")

from ioa_jax.teachers import transport
from ioa_jax.teachers.openai import OpenAISettings, OpenAITeacher

SAMPLING = Sampling(max_tokens=20, temperature=0.5)


@contextlib.contextmanager
def serving(handle):
    """A server whose every POST is `handle`'s; yields its address and the headers it was sent."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(dict(self.headers))
            # Whoever asked may have gone.
            with contextlib.suppress(OSError):
                handle(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def reply(handler, body, status=200, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def chat(text, **usage):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    body = {"model": "m", "choices": [choice | {"finish_reason": "stop"}], "usage": usage}
    return json.dumps(body).encode()


ANSWER = chat("a", prompt_tokens=1, completion_tokens=1)


def answer(url, **settings):
    quick = {"backoff_seconds": 0.001, "max_retries": 0, **settings}
    with contextlib.closing(OpenAITeacher("m", url, OpenAISettings.model_validate(quick))) as one:
        return one.generate([ask("question", seed=1)], SAMPLING)[0]


def test_redirects_are_not_followed(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with serving(lambda h: reply(h, chat("stolen"))) as (elsewhere, stolen):
        location = elsewhere + "/chat/completions"
        with serving(lambda h: reply(h, b"", 307, location=location)) as (url, seen):
            with pytest.raises(TeacherError, match=r"status 307: the server sends calls on to"):
                answer(url, api_key_variable="MY_KEY")
            assert len(seen) == 1
        assert stolen == []


def test_an_answer_that_trickles_is_given_up():
    enough = threading.Event()

    def trickle(handler):
        handler.send_response(200)
        handler.end_headers()
        while not enough.wait(0.02):
            handler.wfile.write(b" ")

    def trickle_headers(handler):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nx: ")
        while not enough.wait(0.02):
            handler.wfile.write(b"x")

    try:
        for slowly in (trickle, trickle_headers):
            with serving(slowly) as (url, seen):
                began = time.monotonic()
                with pytest.raises(TeacherError, match=r"no whole answer within 0\.5 s"):
                    answer(url, timeout_seconds=0.5)
                # It would go on for as long as the test lets it.
                assert time.monotonic() - began < 60
                assert len(seen) == 1
    finally:
        enough.set()


@pytest.mark.parametrize("compressed", [False, True])
def test_an_endless_answer_is_cut(monkeypatch, compressed):
    monkeypatch.setattr(transport, "MOST_BYTES", 1 << 20)
    body = chat("x" * (4 << 20), prompt_tokens=1, completion_tokens=2)
    packed = gzip.compress(body)
    with (
        serving(
            lambda h: reply(h, packed, content_encoding="gzip") if compressed else reply(h, body)
        ) as (url, _),
        pytest.raises(TeacherError, match="the answer has more than 1048576 bytes"),
    ):
        answer(url)


def test_a_compressed_answer_is_read():
    body = gzip.compress(chat("fine", prompt_tokens=1, completion_tokens=2))
    with serving(lambda h: reply(h, body, content_encoding="gzip")) as (url, _):
        assert answer(url).text == "fine"


@pytest.mark.parametrize(("counted", "booked"), [(-40000, 20), (0, 20), (1, 10), (12, 12)], ids=str)
def test_a_server_that_counts_too_few_does_not_stretch_the_budget(counted, booked):
    body = chat("x" * 1280, prompt_tokens=5, completion_tokens=counted)
    with serving(lambda h: reply(h, body)) as (url, _):
        assert answer(url).completion_tokens == booked


def test_the_default_key_is_for_openai_alone(monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(lambda h: reply(h, chat("a", prompt_tokens=1, completion_tokens=1))) as (
        url,
        seen,
    ):
        answer(url)
        assert "OPENAI_API_KEY isn't sent to a server other than api.openai.com" in caplog.text
        answer(url, api_key_variable="OPENAI_API_KEY")
        sent = [{k.lower(): v for k, v in headers.items()}["authorization"] for headers in seen]
        assert sent == ["Bearer none", "Bearer sk-secret"]
    assert "sk-secret" not in caplog.text
    with pytest.raises(InputError, match="has to begin with https://"):
        OpenAITeacher("m", "http://api.openai.com/v1")


@pytest.mark.parametrize("key", ["sk-se\ncret", "sk-se cret", "sk-secr\u00e9t", "sk-se\x00cret"])
def test_a_key_that_is_none_is_not_shown(monkeypatch, caplog, key):
    if "\x00" in key:
        # No environment holds it; whatever else reads keys might.
        monkeypatch.setattr("os.environ", {"MY_KEY": key})
    else:
        monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(InputError, match="MY_KEY holds no API key") as caught:
        answer("http://127.0.0.1:1/v1", api_key_variable="MY_KEY")
    assert "sk-" not in str(caught.value) + caplog.text


def test_a_key_may_end_its_line(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret\n")
    with serving(lambda h: reply(h, chat("a", prompt_tokens=1, completion_tokens=1))) as (
        url,
        seen,
    ):
        answer(url, api_key_variable="MY_KEY")
    assert "Bearer sk-secret" in seen[0].values()


def test_a_key_that_goes_unencrypted_is_warned_of(monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    settings = OpenAISettings.model_validate({"api_key_variable": "MY_KEY"})
    OpenAITeacher("m", "http://192.0.2.1:8000/v1", settings).close()
    assert "the key in MY_KEY goes over the network unencrypted" in caplog.text
    caplog.clear()
    for url in ("https://192.0.2.1/v1", "http://127.0.0.1:1/v1", "http://localhost:1/v1"):
        OpenAITeacher("m", url, settings).close()
    assert caplog.text == ""
