"""What the server counts by which kills are judged."""

import http.client
import json
import select
import socket
import time

import pytest

from tests.attacks.kills import contents
from tests.attacks.paid import call_of, open_till

BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": "a"}],
    "seed": 3,
    "max_tokens": 5,
    "temperature": 0.5,
}


@pytest.fixture
def till():
    with open_till(lambda text, seed: f"{text}{seed}", seconds=0.05) as till:
        yield till


def address(till):
    host, _, port = till.url.removeprefix("http://").partition("/")[0].partition(":")
    return host, int(port)


def test_whole_answers_are_paid_and_the_second_for_nothing(till):
    connection = http.client.HTTPConnection(*address(till))
    for times in (1, 2):
        connection.request("POST", "/v1/chat/completions", json.dumps(BODY))
        answer = json.loads(connection.getresponse().read())
        assert answer["choices"][0]["message"]["content"] == "a3"
        deadline = time.monotonic() + 10
        while sum(till.paid.values()) < times and time.monotonic() < deadline:
            time.sleep(0.001)
        assert till.paid == {call_of(BODY["messages"], 3, BODY): times}
        assert till.paid_twice == times - 1
    connection.close()


def test_callers_that_are_gone_pay_nothing(till):
    data = json.dumps(BODY).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(address(till)) as caller:
        caller.sendall(head.encode() + data)
    deadline = time.monotonic() + 10
    while not till.broken_off and time.monotonic() < deadline:
        time.sleep(0.001)
    assert (till.broken_off, sum(till.paid.values())) == (1, 0)


def test_an_answer_that_nobody_read_is_told_apart(till):
    data = json.dumps(BODY).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(address(till)) as caller:
        caller.sendall(head.encode() + data)
        select.select([caller], [], [], 10)
        time.sleep(0.05)
    deadline = time.monotonic() + 10
    while not till.unread and time.monotonic() < deadline:
        time.sleep(0.001)
    assert (till.unread, till.broken_off, till.paid) == (1, 0, {})


def test_what_a_run_holds_is_compared_without_its_seconds(tmp_path):
    for name, seconds, order in (("a", 1.5, [1, 2]), ("b", 7.0, [2, 1])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "cell.json").write_text(json.dumps({"spend": {"seconds": seconds, "steps": 2}}))
        rows = [json.dumps({"key": key}) + "\n" for key in order]
        (folder / "teacher.jsonl").write_text("".join(rows))
        (folder / "lessons.jsonl").write_text("".join(rows))
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    # The order of lessons counts, that in which calls ended doesn't.
    assert {name for name in first if first[name] != second[name]} == {"lessons.jsonl"}
