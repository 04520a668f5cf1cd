import dataclasses
import sys
import threading

import pytest

from ioa_jax.errors import InputError, MissingDependencyError
from ioa_jax.journal import read_journal
from ioa_jax.rows import CallRow
from ioa_jax.teachers import pacing
from ioa_jax.teachers.base import ChatRequest, Sampling, TeacherError
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.openai import OpenAISettings, OpenAITeacher
from ioa_jax.teachers.pacing import Pacer
from ioa_jax.teachers.protocol import TextBody, prompt_span
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.spend import Budget, BudgetExceeded
from tests.teachers.recorded import ask, expected
from tests.teachers.server import is_greedy, logprob_of, running_server, tokens_of
from tests.tiny import tiny_tokenizer

pytest.importorskip("openai")

SAMPLING = Sampling(max_tokens=20, temperature=0.5, top_p=0.9)
REQUESTS = [ask(f"question {n}", seed=n) for n in range(6)]


def test_answers_in_input_order(server, connect):
    teacher = connect()
    seen = {}
    answers = teacher.generate(REQUESTS, SAMPLING, lambda i, c: seen.update({i: c}))
    assert [a.text for a in answers] == expected(REQUESTS)
    assert seen == dict(enumerate(answers))
    assert {a.prompt_tokens for a in answers} == {5}
    assert {a.completion_tokens for a in answers} == {2}
    assert {a.finish_reason for a in answers} == {"stop"}
    assert {a.served_by for a in answers} == {"m-2026-01-01"}
    assert answers[0].logprobs is None
    assert teacher.generate([], SAMPLING) == []


def test_an_answer_is_on_disk_before_it_is_used_and_before_the_next_is_asked(
    server, connect, tmp_path
):
    """Whenever this process is killed, no answer that it has had is asked for again."""
    on_disk = []

    def answer(messages, seed):
        on_disk.append(len(Ledger(tmp_path)))
        return f"answer {seed}"

    def used(index, completion):
        assert completion.text in {one["result"]["text"] for one in Ledger(tmp_path)}
        assert len(read_journal(tmp_path / "counted.jsonl", CallRow)) == len(Ledger(tmp_path))

    server.answer = answer
    teacher = connect(concurrency=1)
    with LedgeredTeacher(teacher, Ledger(tmp_path), counted=tmp_path / "counted.jsonl") as recorded:
        recorded.generate(REQUESTS, SAMPLING, used)
    assert on_disk == list(range(len(REQUESTS)))


def test_an_answer_is_recorded_by_the_thread_that_had_it(server, connect, tmp_path):
    """Others that end while one is made use of don't wait for it in memory."""
    ledger, threads = Ledger(tmp_path), set()
    server.delay = 0.02
    LedgeredTeacher(connect(concurrency=3), ledger).generate(
        REQUESTS, SAMPLING, lambda index, completion: threads.add(threading.current_thread())
    )
    assert threading.current_thread() not in threads


def test_what_is_sent(server, connect):
    teacher = connect(extra_body={"reasoning_effort": "low"})
    chat = ChatRequest(
        ({"role": "system", "content": "s"}, {"role": "user", "content": "u"}), "x", 7
    )
    sampling = Sampling(max_tokens=1, temperature=0.0, top_k=5, stop=("\n",), logprobs=True)
    (answer,) = teacher.generate([chat], sampling)
    assert (answer.text, answer.finish_reason, answer.logprobs) == ("answer", "length", (-0.25,))
    ((path, body, headers),) = server.calls
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer none"
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "max_tokens": 1,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 5,
        "stop": ["\n"],
        "seed": 7,
        "logprobs": True,
        "reasoning_effort": "low",
    }


@pytest.mark.parametrize(
    "fault", ["rate limit", "internal", "unavailable", "cut", "half", "html", "empty"]
)
def test_passing_faults_are_tried_again(server, connect, fault):
    server.faults = [fault, "", fault, fault]
    answers = connect().generate(REQUESTS, SAMPLING)
    assert [a.text for a in answers] == expected(REQUESTS)
    assert len(server.calls) == len(REQUESTS) + 3


def test_a_slow_answer_is_given_up_and_tried_again(server, connect):
    server.faults = ["slow"]
    answers = connect(timeout_seconds=1).generate(REQUESTS, SAMPLING)
    assert [a.text for a in answers] == expected(REQUESTS)
    assert len(server.calls) > len(REQUESTS)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("internal", "status 500: .*oops"),
        ("cut", "APIConnectionError: peer closed connection"),
        ("slow", "APITimeoutError"),
        ("half", "broken answer: not JSON: Unterminated"),
        ("html", "broken answer: not JSON: Expecting value"),
        ("empty", "broken answer: field 'choices'"),
    ],
)
def test_retries_are_bounded(server, connect, fault, message):
    server.faults = [fault] * 3
    teacher = connect(max_retries=2, timeout_seconds=0.1 if fault == "slow" else 60)
    with pytest.raises(TeacherError, match=f"request 0 for 'synthesis'.*3 attempts.*{message}"):
        teacher.generate(REQUESTS[:1], SAMPLING)
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("bad request", "status 400: .*max_tokens is too large"),
        ("unauthorized", "status 401"),
        ("not found", "status 404: .*no such model"),
        ("quota", "status 429: .*no money left"),
    ],
)
def test_lasting_faults_are_not(server, connect, fault, message):
    server.faults = [fault]
    with pytest.raises(TeacherError, match=message):
        connect().generate(REQUESTS[:1], SAMPLING)
    assert len(server.calls) == 1


def test_a_server_that_is_not_there(server, connect, caplog):
    with running_server() as other:
        url = other.url
    settings = OpenAISettings(max_retries=1, backoff_seconds=0.001)
    with (
        OpenAITeacher("m", url, settings) as teacher,
        pytest.raises(
            TeacherError, match=f"m at {url}: request 0.*nothing answers at this address"
        ),
    ):
        teacher.generate(REQUESTS[:1], SAMPLING)
    assert "trying again" not in caplog.text


@pytest.fixture
def pacers(monkeypatch):
    """Every pacer that is made, with what is asked of it."""
    made = []

    class Recorder(Pacer):
        def __init__(self, per_minute=None):
            super().__init__(per_minute)
            self.per_minute, self.amounts, self.holds = per_minute, [], []
            made.append(self)

        def reserve(self, amount=1.0):
            self.amounts.append(amount)
            return super().reserve(amount)

        def hold(self, seconds):
            self.holds.append(seconds)
            super().hold(seconds)

    monkeypatch.setattr("ioa_jax.teachers.server.Pacer", Recorder)
    return made


def test_a_rate_limit_holds_all_calls_for_as_long_as_it_says(server, connect, pacers):
    server.faults = ["rate limit"]
    server.retry_after = "0.125"
    connect().generate(REQUESTS[:2], SAMPLING)
    assert pacers[0].holds == [0.125]


def test_every_attempt_counts_against_the_rate(server, connect, pacers):
    server.faults = ["internal"]
    connect(requests_per_minute=1e5, tokens_per_minute=1e6).generate(REQUESTS[:2], SAMPLING)
    requests, tokens = pacers
    assert (requests.per_minute, tokens.per_minute) == (1e5, 1e6)
    assert requests.amounts == [1, 1, 1]
    # "question 0" is 10 bytes, so 2.5 tokens.
    assert tokens.amounts == [22.5] * 3


def test_a_server_that_goes_away_is_waited_for(monkeypatch, caplog):
    with running_server() as other:
        other.closes = True
        settings = OpenAISettings(max_retries=1, backoff_seconds=0.001)
        teacher = OpenAITeacher("m", other.url, settings)
        teacher.generate(REQUESTS[:1], SAMPLING)
    with teacher, pytest.raises(TeacherError, match="no usable answer after 2 attempts"):
        teacher.generate(REQUESTS[:1], SAMPLING)
    assert "trying again" in caplog.text


def test_calls_that_are_turned_away_are_one_line(server, connect, caplog):
    server.faults = ["rate limit"] * 5
    connect(max_retries=9).generate(REQUESTS, SAMPLING)
    assert [record.getMessage() for record in caplog.records] == [
        f"m at {server.url}: 5 calls were turned away by the rate limit (status 429), and asked "
        "again"
    ]


@pytest.mark.parametrize("value", ["soon", "-3", "inf", "nan", "1e9"])
def test_a_strange_retry_after_is_passed_over(server, connect, value):
    server.faults = ["rate limit"]
    server.retry_after = value
    assert len(connect().generate(REQUESTS[:1], SAMPLING)) == 1


def test_concurrency_is_bounded_and_used(server, connect):
    server.delay = 0.1
    connect(concurrency=3).generate(REQUESTS, SAMPLING)
    assert 1 < server.most_at_once <= 3


def test_a_pacer_hands_out_places_in_turn(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pacing.time, "monotonic", lambda: now[0])
    pacer = Pacer(per_minute=60.0)
    assert [pacer.reserve(2.0), pacer.reserve(), pacer.reserve()] == [0, 2, 3]
    now[0] = 103.5
    assert pacer.reserve() == 0.5
    now[0] = 200.0
    assert pacer.reserve() == 0
    free = Pacer()
    assert [free.reserve(1e9), free.reserve()] == [0, 0]
    free.hold(5.0)
    free.hold(1.0)
    assert free.reserve() == 5


def test_a_failure_keeps_what_is_answered_and_under_way(server, connect):
    server.faults = ["", "", "not found"]
    server.delay = 0.05
    seen = {}
    teacher = connect(concurrency=2)
    with pytest.raises(TeacherError, match="status 404"):
        teacher.generate(
            [ask(str(n)) for n in range(20)], SAMPLING, lambda i, c: seen.update({i: c})
        )
    assert 2 <= len(seen) < 19
    # Every good answer that the server gave is kept.
    assert len(seen) == len(server.calls) - 1


def test_an_interrupt_keeps_what_is_under_way(server, connect):
    seen = []

    def interrupt(index, completion):
        seen.append(index)
        if len(seen) == 1:
            raise KeyboardInterrupt

    server.delay = 0.05
    with pytest.raises(KeyboardInterrupt):
        connect(concurrency=2).generate([ask(str(n)) for n in range(20)], SAMPLING, interrupt)
    assert len(seen) == len(server.calls) < 20


def test_refusals_and_filters(server, connect):
    def refuse(body):
        body["choices"][0]["message"] = {"content": None, "refusal": "I won't."}

    def filtered(body):
        body["choices"][0]["finish_reason"] = "content_filter"

    def reasoning(body):
        body["choices"][0]["message"]["content"] = None
        body["choices"][0]["finish_reason"] = "length"

    teacher = connect()
    results = []
    for edit in (refuse, filtered, reasoning):
        server.edit = edit
        results += teacher.generate(REQUESTS[:1], SAMPLING)
    assert [(r.text, r.finish_reason) for r in results] == [
        ("I won't.", "filtered"),
        (*expected(REQUESTS[:1]), "filtered"),
        ("", "length"),
    ]


def test_a_server_that_heeds_no_limit_is_an_error(server, connect):
    server.edit = lambda body: body["usage"].update(completion_tokens=24)
    with pytest.raises(TeacherError, match="24 tokens although max_tokens was 20"):
        connect().generate(REQUESTS[:1], SAMPLING)


@pytest.mark.parametrize(
    ("model", "setting", "sent"),
    [
        ("m", False, False),
        ("m", "auto", True),
        ("o1", "auto", False),
        ("openai/o4-mini", "auto", False),
        ("gpt-5-mini", "auto", False),
        ("gpt-5.1", "auto", False),
        ("gpt-5-chat-latest", "auto", True),
        ("gpt-4o", "auto", True),
        ("o1", True, True),
    ],
)
def test_a_model_that_samples_as_it_will_is_asked_without(server, model, setting, sent):
    settings = OpenAISettings(sends_sampling=setting)
    with OpenAITeacher(model, server.url, settings) as teacher:
        teacher.generate(REQUESTS[:1], SAMPLING)
    assert ({"temperature", "top_p"} <= server.calls[0][1].keys()) == sent


def test_a_refusal_of_temperature_names_the_setting(server, connect):
    error = {"message": "Unsupported value: 'temperature' has no 0.5", "code": None}
    server.reply = (400, {"error": error})
    with pytest.raises(TeacherError, match=r"no 0\.5; set sends_sampling to false"):
        connect(sends_sampling=True).generate(REQUESTS[:1], SAMPLING)
    assert len(server.calls) == 1


SCHEMA = {"type": "object"}
FORM = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("status", "message", "left_out"),
    [
        (400, "Unsupported value: 'temperature' has no 0.5", ("temperature", "top_p")),
        (400, "'response_format' has to be text", ("response_format",)),
        (400, "failed to parse grammar", ("response_format",)),
        # As of llama-cpp-python.
        (500, "{'loc': ('body', 'response_format', 'type'), 'input': 'json_schema'}",
         ("response_format",)),
    ],
)  # fmt: skip
def test_what_a_server_refuses_is_left_out_from_then_on(
    server, connect, tmp_path, caplog, status, message, left_out
):
    server.refuses = {name: (status, message) for name in left_out}
    requests = [dataclasses.replace(request, answer_schema=SCHEMA) for request in REQUESTS]
    teacher = LedgeredTeacher(connect(concurrency=1), Ledger(tmp_path))
    answers = teacher.generate(requests, SAMPLING)
    assert [a.text for a in answers] == expected(requests)
    assert {a.left_out for a in answers} == {left_out}
    assert len(server.calls) == len(requests) + 1
    assert f"asking without {' and '.join(left_out)} from now on" in caplog.text
    assert len(caplog.records) == 1
    replay = LedgeredTeacher(None, Ledger(tmp_path))
    assert replay.generate(requests, SAMPLING) == answers


def test_a_server_that_takes_a_schema_gets_it(server, connect, tmp_path):
    request = dataclasses.replace(REQUESTS[0], answer_schema=SCHEMA)
    (answer,) = connect().generate([request], SAMPLING)
    assert (server.calls[0][1]["response_format"], answer.left_out) == (FORM, ())
    # Whether it is sent tells apart what the ledger has.
    for setting in ("auto", "off", "off"):
        LedgeredTeacher(connect(structured=setting), Ledger(tmp_path)).generate([request], SAMPLING)
    assert ["response_format" in body for _, body, _ in server.calls] == [True, True, False]


def test_another_refusal_is_no_reason_to_leave_a_schema_out_for_ever(server, connect):
    server.faults = ["not found"]
    request = dataclasses.replace(REQUESTS[0], answer_schema=SCHEMA)
    with pytest.raises(TeacherError, match="status 404"):
        connect().generate([request], SAMPLING)
    assert len(server.calls) == 1


def test_the_limit_has_the_name_that_is_asked_for(server, connect):
    connect(max_tokens_field="max_completion_tokens").generate(REQUESTS[:1], SAMPLING)
    assert server.calls[0][1]["max_completion_tokens"] == 20
    assert "max_tokens" not in server.calls[0][1]


@pytest.mark.parametrize("tells_offsets", [True, False])
@pytest.mark.parametrize("kind", ["vllm", "echo"])
def test_scores(server, connect, kind, tells_offsets):
    server.scores, server.tells_offsets = kind, tells_offsets
    teacher = connect()
    assert teacher.capabilities.score
    pairs = [("a b", " c d"), ("a b ", "c"), ("x", " yé\n z"), ("x", " e")]
    seen = {}
    before = len(server.calls)
    scores = teacher.score(pairs, lambda i, s: seen.update({i: s}))
    assert seen == dict(enumerate(scores))
    tokens = [
        [("a b", " c"), ("a b c", " d")],
        [("a b", " c")],
        [("x", " yé"), ("x yé", "\n z")],
        [("x", " e")],
    ]
    for score, own in zip(scores, tokens, strict=True):
        assert score.logprobs == tuple(logprob_of(*token) for token in own)
        assert score.is_greedy == all(is_greedy(*token) for token in own)
    # All that was asked is counted, whichever pair asked where its prompt ends, where none is told.
    asked = [body for _, body, *_ in server.calls[before:]]
    read = sum(len(tokens_of(body["prompt"])) for body in asked)
    assert sum(score.prompt_tokens for score in scores) == read
    assert (len(asked) > len(pairs)) == (not tells_offsets)
    assert sum(score.completion_tokens for score in scores) == len(asked)
    for score, pair in zip(scores, pairs, strict=True):
        most_read, most_generated = teacher.score_bound(*pair)
        assert score.prompt_tokens <= most_read
        assert score.completion_tokens <= most_generated
    assert len({score.is_greedy for score in scores}) == 2
    body = server.calls[-1][1]
    assert body["add_special_tokens"] is False


@pytest.mark.parametrize(
    ("tokens", "offsets", "span"),
    [
        (["a b", " c", " d"], [0, 3, 5], (1, 2)),
        (["a", " ", "b c", " d"], [0, 1, 2, 5], (2, 3)),  # a token that covers both
        (["a b c", " d"], [0, 5], (0, 1)),
        (["<s>", "a b", " c"], [0, 3, 6], None),  # not the text
        (["a b", " c", " d"], [0, 1, 2], None),  # not of these tokens
        (["a b", " c d"], [0, 3], None),  # one that goes on behind the text
        (["a b"], [0], None),
        ([], [], None),
    ],
)
def test_a_completion_begins_where_tokens_reach_beyond_the_prompt(tokens, offsets, span):
    choice = {"logprobs": {"tokens": tokens, "text_offset": offsets}}
    body = TextBody.model_validate({"choices": [choice]})
    assert prompt_span(body.choices[0], "a b c", 3) == span


def test_a_server_without_prompt_logprobs(server, connect):
    server.scores = None
    teacher = connect()
    assert not teacher.capabilities.score
    with pytest.raises(TeacherError, match="status 404"):
        teacher.score([("a", " b")])
    server.faults = ["unauthorized"]
    with pytest.raises(TeacherError, match="status 401"):
        assert connect().capabilities


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("a", ""), "pair 1: the completion is empty"),
        ((" ", "b"), "pair 1: the prompt is empty"),
        (("a", "b"), "pair 1: the completion has no token of its own"),
    ],
)
def test_pairs_that_cannot_be_scored(connect, pair, message):
    with pytest.raises(InputError, match=message):
        connect().score([("a", " b"), pair])


def test_the_key_comes_from_the_environment_and_goes_nowhere(
    server, connect, monkeypatch, tmp_path, caplog
):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    teacher = connect(api_key_variable="MY_KEY")
    server.faults = ["", "", "rate limit", "unauthorized"]
    ledgered = LedgeredTeacher(teacher, Ledger(tmp_path))
    ledgered.generate(REQUESTS[:2], SAMPLING)
    with pytest.raises(TeacherError, match="Incorrect API key: <key>") as caught:
        ledgered.generate(REQUESTS[2:3], SAMPLING)
    assert {call[2]["authorization"] for call in server.calls} == {"Bearer sk-secret"}
    assert "1 call was turned away by the rate limit (status 429)" in caplog.text
    assert "variable MY_KEY (api_key_variable) holds the key" in str(caught.value)
    written = "".join(p.read_text() for p in tmp_path.iterdir())
    assert written
    for text in (written, caplog.text, str(caught.value), teacher.fingerprint):
        assert "sk-secret" not in text


def test_a_missing_key(connect):
    with pytest.raises(InputError, match="set the variable MY_KEY"):
        connect(api_key_variable="MY_KEY")
    with pytest.raises(InputError, match="set the variable OPENAI_API_KEY"):
        OpenAITeacher("o1", "https://api.openai.com/v1")


@pytest.mark.parametrize(
    "url", ["ftp://host/v1", "host", "http://", "http://me:pw@host/v1", "http://host/v1?key=1"]
)
def test_bad_addresses(url):
    with pytest.raises(InputError, match="base URL") as caught:
        OpenAITeacher("m", url)
    assert "pw" not in str(caught.value)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .ioa-jax\[openai\]"):
        OpenAITeacher("m", "http://127.0.0.1:1/v1")


def test_the_fingerprint_names_what_answers_depend_on(server, connect):
    plain = connect().fingerprint
    assert plain == f"openai:m@{server.url}"
    extra = [connect(extra_body={"a": n}).fingerprint for n in (1, 2)]
    assert len({plain, *extra}) == 3
    assert connect(fingerprint="our 7B").fingerprint == "our 7B"
    assert connect(concurrency=2).fingerprint == plain


def test_a_ledger_and_a_budget(server, connect, tmp_path):
    seen = []
    teacher = LedgeredTeacher(connect(), Ledger(tmp_path), Budget(max_tokens=27))
    with pytest.raises(BudgetExceeded):
        teacher.generate(REQUESTS, SAMPLING, lambda i, _: seen.append(i))
    # Calls take 2 tokens and at most 20: the fourth begins at 6 of 27, a fifth would at 8.
    assert sorted(seen) == [0, 1, 2, 3]
    assert len(server.calls) == 4
    replay = LedgeredTeacher(None, Ledger(tmp_path))
    assert [a.text for a in replay.generate(REQUESTS[:4], SAMPLING)] == expected(REQUESTS[:4])
    assert len(server.calls) == 4


def test_no_thread_is_left(connect):
    teacher = connect()
    before = threading.active_count()
    teacher.generate(REQUESTS, SAMPLING)
    teacher.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("ThreadPoolExecutor")]
    assert before >= 1


def test_chats_are_rendered_by_the_named_tokenizer(server, connect, tmp_path):
    with pytest.raises(InputError, match="chat_template_from"):
        connect().render(ask("5").messages)
    with pytest.raises(InputError, match="chat_template_from="):
        connect(chat_template_from=str(tmp_path / "none")).render(ask("5").messages)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    assert connect(chat_template_from=str(tmp_path)).render(ask("5").messages) == "<5>"
