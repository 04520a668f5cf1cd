"""What servers do with the protocol: names of endings, errors, usage, contents and limits."""

import dataclasses
import datetime
import json

import pytest

from ioa_jax.errors import InputError
from ioa_jax.teachers import pacing
from ioa_jax.teachers.base import Sampling, TeacherError, prompt_token_bound
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.pacing import retry_after_seconds
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.spend import Budget, BudgetExceeded
from ioa_jax.teachers.structured import Unfit, answer_text
from tests.teachers.recorded import ask, expected
from tests.teachers.server import chat_body

pytest.importorskip("openai")

SAMPLING = Sampling(max_tokens=20, temperature=0.5, top_p=0.9)
REQUESTS = [ask(f"question {n}", seed=n) for n in range(6)]


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("eos_token", "stop"),
        ("end_turn", "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("FINISH_REASON_MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("max-tokens", "length"),
        ("SAFETY", "filtered"),
        ("content_filter", "filtered"),
        (None, "unknown"),
        ("", "unknown"),
        ("tool_calls", "unknown"),
        ("finished, I think", "unknown"),
    ],
)
def test_ends_of_answers_have_many_names(server, connect, named, reason):
    server.edit = lambda body: body["choices"][0].update(finish_reason=named)
    (answer,) = connect().generate(REQUESTS[:1], SAMPLING)
    assert answer.finish_reason == reason


@pytest.mark.parametrize("named", ["error", "abort", "ABORTED", "cancelled"])
def test_answers_that_are_broken_off_are_asked_for_again(server, connect, named):
    left = [named, named]

    def edit(body):
        if left:
            body["choices"][0]["finish_reason"] = left.pop()

    server.edit = edit
    (answer,) = connect().generate(REQUESTS[:1], SAMPLING)
    assert [answer.text] == expected(REQUESTS[:1])
    assert len(server.calls) == 3


# llama.cpp's Python server finishes a character of up to four bytes.
@pytest.mark.parametrize("count", [20, 21, 23])
@pytest.mark.parametrize("named", ["stop", "length"])
def test_stop_at_the_limit_is_the_limit(server, connect, tmp_path, count, named):
    def edit(body):
        body["usage"].update(completion_tokens=count)
        body["choices"][0]["finish_reason"] = named

    server.edit = edit
    teacher = LedgeredTeacher(connect(), Ledger(tmp_path))
    (answer,) = teacher.generate(REQUESTS[:1], SAMPLING)
    assert (answer.finish_reason, answer.completion_tokens) == ("length", count)
    assert [answer.text] == expected(REQUESTS[:1])
    # What was generated is booked.
    assert teacher.used.completion_tokens == count


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "'utf-8' codec can't decode byte 0xf0 in position 7: unexpected end of data"),
        (500, "[json.exception.type_error.316] incomplete UTF-8 string; last byte: 0x9F"),
        (200, "'utf-8' codec can't decode byte 0xf0 in position 7: unexpected end of data"),
    ],
)
def test_a_text_that_no_server_can_send_is_one_answer_that_was_cut(
    server, connect, tmp_path, caplog, status, message
):
    server.reply = (status, {"error": {"message": message, "code": None}})
    teacher = LedgeredTeacher(connect(), Ledger(tmp_path))
    answers = teacher.generate(REQUESTS[:2], SAMPLING)
    assert [(one.text, one.finish_reason) for one in answers] == [("", "length")] * 2
    # It was generated all the same, and a second attempt would bring the same text.
    assert teacher.used.completion_tokens == 40
    assert len(server.calls) == 2
    assert caplog.text.count("counts as cut at the limit") == 1
    server.reply = None
    good = teacher.generate(REQUESTS[2:3], SAMPLING)
    assert [one.text for one in good] == expected(REQUESTS[2:3])


def test_bytes_that_are_no_character_are_replaced(server, connect):
    body = chat_body({"model": "m", "messages": [], "max_tokens": 20}, "half a sign")
    data = json.dumps(body).encode().replace(b"a sign", b"a \xf0\x9f")
    server.reply = (200, data)
    (answer,) = connect().generate(REQUESTS[:1], SAMPLING)
    assert answer.text == "half a \ufffd"


@pytest.mark.parametrize(
    ("usage", "booked"),
    [
        (None, ("bound", 20)),
        ({}, ("bound", 20)),
        ({"prompt_tokens": 5}, (5, 20)),
        ({"prompt_tokens": 5, "completion_tokens": None}, (5, 20)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, ("bound", 20)),
        ({"prompt_tokens": -1, "completion_tokens": -1}, ("bound", 20)),
        ({"prompt_tokens": 5, "completion_tokens": 2}, (5, 2)),
    ],
)
def test_usage_that_is_not_told_is_booked_at_its_bound(server, connect, usage, booked, caplog):
    server.edit = lambda body: body.update(usage=usage)
    answers = connect().generate(REQUESTS[:3], SAMPLING)
    read = prompt_token_bound(REQUESTS[0]) if booked[0] == "bound" else booked[0]
    for answer in answers:
        assert (answer.prompt_tokens, answer.completion_tokens) == (read, booked[1])
        assert answer.finish_reason == "stop"
    assert len(server.calls) == 3
    assert caplog.text.count("upper bounds are booked") == (booked != (5, 2))


def test_a_budget_binds_where_no_usage_is_told(server, connect, tmp_path):
    server.edit = lambda body: body.pop("usage")
    teacher = LedgeredTeacher(connect(), Ledger(tmp_path), Budget(max_tokens=50))
    with pytest.raises(BudgetExceeded):
        teacher.generate(REQUESTS, SAMPLING)
    assert (len(server.calls), teacher.used.completion_tokens) == (2, 40)


THINKING = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
    {"type": "text", "text": "so"},
]


@pytest.mark.parametrize(
    ("message", "text", "thought"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", None),
        ({"content": ["hel", {"text": "lo"}]}, "hello", None),
        ({"content": "so", "reasoning_content": "hm"}, "so", "hm"),
        ({"content": "so", "reasoning": "hm"}, "so", "hm"),
        ({"content": "so", "reasoning_content": None}, "so", None),
        ({"content": THINKING}, "so", "hm"),
        ({"content": "a \ud83d b"}, "a \ufffd b", None),
        ({"content": "a \U0001f600 b"}, "a \U0001f600 b", None),
    ],
)
def test_content_in_other_shapes(server, connect, tmp_path, message, text, thought):
    server.edit = lambda body: body["choices"][0].update(message=message)
    teacher = LedgeredTeacher(connect(), Ledger(tmp_path))
    (answer,) = teacher.generate(REQUESTS[:1], SAMPLING)
    assert (answer.text, answer.thought) == (text, thought)
    replay = LedgeredTeacher(None, Ledger(tmp_path))
    assert replay.generate(REQUESTS[:1], SAMPLING) == [answer]


def test_content_that_is_no_text_is_not_asked_for_again(server, connect):
    part = {"type": "image_url", "image_url": "x"}
    server.edit = lambda body: body["choices"][0].update(message={"content": [part]})
    with pytest.raises(TeacherError, match=r"part that is no text: .*image_url"):
        connect().generate(REQUESTS[:1], SAMPLING)
    server.edit = lambda body: body["choices"][0].update(message=7)
    with pytest.raises(TeacherError, match=r"broken answer: field 'choices\.0\.message'"):
        connect().generate(REQUESTS[:1], SAMPLING)
    assert len(server.calls) == 2


def test_a_limit_that_went_into_thinking_says_what_to_raise(server, connect, caplog):
    def edit(body):
        body["choices"][0].update(message={"content": None}, finish_reason="length")
        body["usage"]["completion_tokens"] = 20

    server.edit = edit
    connect().generate(REQUESTS, SAMPLING)
    assert caplog.text.count("all 20 tokens went by without an answer") == 1
    assert "raise max_tokens" in caplog.text
    caplog.clear()
    server.edit = lambda body: (
        edit(body),
        body["choices"][0]["message"].update(reasoning_content="hm"),
    )
    (answer,) = connect().generate(REQUESTS[:1], SAMPLING)
    assert "the thoughts used all 20 tokens; raise max_tokens" in caplog.text
    with pytest.raises(Unfit, match="the thoughts used all 20 tokens; raise max_tokens"):
        answer_text(answer)


LOC = {"detail": [{"loc": ["body", "stop"], "msg": "too many"}]}
BAD_TYPE = {"message": "can't", "type": "not_supported_error"}


@pytest.mark.parametrize(
    ("status", "body", "message", "calls"),
    [
        (200, {"error": {"message": "no echo", "code": 400}}, r"the server says \(400\): no", 1),
        (200, {"error": "model not loaded"}, "the server says: model not loaded", 3),
        (200, {"detail": "busy"}, "the server says: busy", 3),
        (200, {"error": {"message": "wait", "code": 503}}, r"says \(503\): wait", 3),
        (200, {"error": {"message": "no", "type": "invalid_request_error"}}, "says: no", 1),
        (200, {"object": "error", "message": "too long", "code": 400}, "too long", 1),
        (200, {"choices": [], "error": {"code": 404}}, "404", 1),
        (200, ["no"], "broken answer: field 'body'", 3),
        (422, LOC, r"body\.stop: too many", 1),
        (422, {"detail": "nothing"}, "status 422: nothing", 1),
        (400, {"error": "bad"}, "status 400: bad", 1),
        (400, {"message": "worse"}, "status 400: worse", 1),
        (500, {"error": BAD_TYPE}, "500: can't", 1),
        (500, {"error": {"message": "invalid_request, or so"}}, "500: invalid_request, or so", 3),
        (502, b"<html><b>Bad gateway</b></html>", "status 502: Bad gateway", 3),
        (429, {"error": {"message": "pay", "code": "insufficient_quota"}}, "429: pay", 1),
        (401, {"error": {"message": "who"}}, "who; the environment variable OPENAI_API_KEY", 1),
        (403, b"", "status 403: no more; the environment variable OPENAI_API_KEY", 1),
    ],
)
def test_the_servers_words_reach_the_user(server, connect, status, body, message, calls):
    server.reply = (status, body)
    with pytest.raises(TeacherError, match=message):
        connect(max_retries=2).generate(REQUESTS[:1], SAMPLING)
    assert len(server.calls) == calls


def test_a_filter_of_requests_is_a_filtered_answer(server, connect):
    server.reply = (400, {"error": {"message": "against a policy", "code": "content_filter"}})
    (answer,) = connect().generate(REQUESTS[:1], SAMPLING)
    assert (answer.finish_reason, answer.completion_tokens) == ("filtered", 0)
    assert "against a policy" in answer.text


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": "20ms"}, 0.02),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Fri, 26 Jul 2024 00:00:07 GMT"}, 7.0),
        ({"retry-after": "Friday, 26-Jul-24 00:00:07 GMT"}, 7.0),
        ({"retry-after": "Fri Jul 26 00:00:07 2024"}, 7.0),
        ({"retry-after": "Thu, 25 Jul 2024 00:00:00 GMT"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "6m0s"}, 0.0),
        ({"retry-after": "7200"}, 0.0),
        ({}, 0.0),
    ],
)
def test_retry_after_in_every_form(monkeypatch, headers, seconds):
    class Then(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(2024, 7, 26, tzinfo=tz)

    monkeypatch.setattr(pacing, "datetime", type("m", (), {"datetime": Then, "UTC": datetime.UTC}))
    assert retry_after_seconds(headers) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [float("-inf"), float("nan")])
def test_logprobs_that_are_no_numbers_are_left_out(server, connect, tmp_path, value):
    given = {"content": [{"logprob": value}, {"logprob": -1.0}]}
    server.edit = lambda body: body["choices"][0].update(logprobs=given)
    sampling = dataclasses.replace(SAMPLING, logprobs=True)
    (answer,) = LedgeredTeacher(connect(), Ledger(tmp_path)).generate(REQUESTS[:1], sampling)
    assert ([answer.text], answer.logprobs) == (expected(REQUESTS[:1]), None)


@pytest.mark.parametrize(
    "choice",
    [
        {"logprobs": {"content": [{"id": 1, "token": " c", "logprob": -0.5, "top_logprobs": []}]}},
        {"logprobs": []},
        {"logprobs": "no"},
        # Fewer tokens than it read, as without the one that begins texts.
        {
            "logprobs": {
                "tokens": ["a b"],
                "text_offset": [0],
                "token_logprobs": [None],
                "top_logprobs": [None],
            }
        },
        {"logprobs": {"token_logprobs": [None, -1.0, -1.0], "top_logprobs": None}},
        {"logprobs": {"token_logprobs": [None, float("nan")], "top_logprobs": [None, {"a": -1}]}},
        {"prompt_logprobs": [{"logprob": -1}]},
        {"prompt_logprobs": [None, {"7": {"logprob": float("-inf"), "rank": 1}}]},
        {"prompt_logprobs": [None, {"7": {"logprob": -1.0, "rank": None}}]},
    ],
)
def test_logprobs_of_an_unknown_shape_mean_that_it_cannot_score(server, connect, choice):
    usage = {"prompt_tokens": 2, "completion_tokens": 1}
    server.reply = (200, {"choices": [{"text": " c", **choice}], "usage": usage})
    assert not connect().capabilities.score
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"error": {"message": "echo is not supported", "code": 400}}),
        (200, {"choices": [{"text": " c"}]}),
        (500, {"error": {"message": "no echo", "type": "not_supported_error"}}),
        (501, b""),
        (404, b""),
    ],
)
def test_refusals_to_score_are_found_with_one_call(server, connect, status, body):
    server.reply = (status, body)
    assert not connect(max_retries=1).capabilities.score
    assert len(server.calls) == 1


@pytest.mark.parametrize("place", ["_sync", "_locked", "refresh"])
def test_answers_that_cannot_be_recorded_are_in_the_log(
    server, connect, tmp_path, caplog, monkeypatch, place
):
    ledger = Ledger(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    def look_up_then_fail(key):
        monkeypatch.setattr(ledger, place, full)

    if place == "refresh":
        monkeypatch.setattr(ledger, "find", look_up_then_fail)
    else:
        monkeypatch.setattr(ledger, place, full)
    server.delay = 0.05
    with pytest.raises(InputError, match="No space left on device; the record is in the log"):
        LedgeredTeacher(connect(concurrency=2), ledger).generate(REQUESTS, SAMPLING)
    logged = [m for m in caplog.messages if m.startswith("a record that the ledger lacks")]
    assert len(logged) == len(server.calls) >= 2
    kept = [json.loads(m.partition(": ")[2])["result"]["text"] for m in logged]
    assert set(kept) <= set(expected(REQUESTS))
