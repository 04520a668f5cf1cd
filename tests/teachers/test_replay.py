import datetime
import json
import subprocess
import sys

import numpy as np
import pytest

from ioa_jax.errors import InputError
from ioa_jax.teachers.base import ChatRequest, Sampling
from ioa_jax.teachers.ledger import Ledger, call_key
from ioa_jax.teachers.replay import LedgeredTeacher, ReplayMiss
from ioa_jax.teachers.spend import Budget, BudgetExceeded, Prices, Spend, Usage
from tests.teachers.recorded import ScriptedTeacher, answer, ask

SAMPLING = Sampling(max_tokens=20)
RESULT = {"text": "a", "prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "stop"}
PRICES = Prices(prompt=1e6, completion=2e6, currency="USD", as_of=datetime.date(2026, 1, 1))


def budget(tokens=None, cost=None):
    return Budget(max_tokens=tokens, max_cost=cost)


def texts(completions):
    return [completion.text for completion in completions]


def test_only_what_is_missing_is_called(tmp_path):
    inner = ScriptedTeacher()
    teacher = LedgeredTeacher(inner, Ledger(tmp_path))
    first = [ask("a"), ask("b")]
    assert texts(teacher.generate(first, SAMPLING)) == [answer(r) for r in first]
    mixed = [ask("c"), ask("b"), ask("a", seed=1), ask("a")]
    seen = {}
    found = teacher.generate(mixed, SAMPLING, lambda i, c: seen.update({i: c}))
    assert texts(found) == [answer(r) for r in mixed]
    assert seen == dict(enumerate(found))
    assert inner.asked == [*first, mixed[0], mixed[2]]
    with teacher:
        pass
    assert inner.closed


def test_everything_that_an_answer_depends_on_is_in_the_key(tmp_path):
    inner = ScriptedTeacher()
    teacher = LedgeredTeacher(inner, Ledger(tmp_path))
    request = ask("a")
    system = ChatRequest(({"role": "system", "content": "s"}, *request.messages), "synthesis")
    for other in (request, ask("b"), ask("a", seed=1), system):
        teacher.generate([other], SAMPLING)
    for sampling in (
        Sampling(max_tokens=21),
        Sampling(max_tokens=20, temperature=0.0),
        Sampling(max_tokens=20, top_p=0.5),
        Sampling(max_tokens=20, top_k=3),
        Sampling(max_tokens=20, stop=("x",)),
        Sampling(max_tokens=20, logprobs=True),
    ):
        teacher.generate([request], sampling)
    assert len(inner.asked) == 10
    # The purpose is no part of the call.
    teacher.generate([ask("a", purpose="verify")], SAMPLING)
    assert len(inner.asked) == 10


def test_equal_requests_share_a_call(tmp_path):
    inner = ScriptedTeacher()
    teacher = LedgeredTeacher(inner, Ledger(tmp_path))
    first, second = teacher.generate([ask("a"), ask("a")], SAMPLING)
    assert first == second
    assert len(inner.asked) == 1
    assert teacher.used.calls == 1


def test_replay_without_the_teacher(tmp_path):
    recorded = LedgeredTeacher(ScriptedTeacher(), Ledger(tmp_path))
    requests = [ask("a"), ask("b")]
    answers = recorded.generate(requests, SAMPLING)
    scores = recorded.score([("p", "cc")])
    replay = LedgeredTeacher(None, Ledger(tmp_path))
    assert replay.fingerprint == "scripted"
    assert replay.generate(requests, SAMPLING) == answers
    assert replay.score([("p", "cc")]) == scores
    assert replay.spend["synthesis"].called == Usage()
    assert replay.spend["synthesis"].replayed.calls == 2
    with pytest.raises(ReplayMiss, match="request 1 for 'verify'"):
        replay.generate([ask("a"), ask("c", "verify")], SAMPLING)


def test_which_model_is_replayed(tmp_path):
    with pytest.raises(InputError, match="calls of these models: none"):
        LedgeredTeacher(None, Ledger(tmp_path))
    ledger = Ledger(tmp_path)
    for model in "xy":
        ledger.append({"key": call_key({"model": model}), "model": model})
    with pytest.raises(InputError, match="x, y"):
        LedgeredTeacher(None, ledger)
    assert LedgeredTeacher(None, ledger, fingerprint="y").fingerprint == "y"


def test_spend_by_purpose(tmp_path):
    ledger = Ledger(tmp_path)
    LedgeredTeacher(ScriptedTeacher(), ledger).generate([ask("a")], SAMPLING)
    teacher = LedgeredTeacher(ScriptedTeacher(), ledger, prices=PRICES)
    teacher.generate([ask("a"), ask("b"), ask("c", "verify")], SAMPLING)
    teacher.generate([ask("a")], SAMPLING)
    teacher.score([("p", "c")], purpose="zone")
    # A call reads 10 tokens at 1 each and writes 5 at 2 each.
    assert teacher.spend == {
        "synthesis": Spend(Usage(1, 10, 5, 20.0), Usage(1, 10, 5, 20.0)),
        "verify": Spend(Usage(1, 10, 5, 20.0)),
        "zone": Spend(Usage(1, 7, 0, 7.0)),
    }
    assert teacher.used == Usage(4, 37, 15, 67.0)
    assert LedgeredTeacher(ScriptedTeacher(), ledger).used == Usage()


def test_a_budget_is_used_up_but_never_exceeded(tmp_path):
    inner = ScriptedTeacher(tokens=5)
    teacher = LedgeredTeacher(inner, Ledger(tmp_path), budget(tokens=42))
    seen = []
    with pytest.raises(BudgetExceeded, match=r"'synthesis' could bring the .*tokens to 45 of 42"):
        teacher.generate([ask(str(n)) for n in range(9)], SAMPLING, lambda i, _: seen.append(i))
    # Behind four calls of 5 tokens a fifth of up to 20 still fits, behind five none does.
    assert seen == [0, 1, 2, 3, 4]
    assert teacher.used.completion_tokens == 25
    # No call is begun that the running ones could leave no room for.
    assert inner.batches == [2, 1, 1, 1]
    # What is recorded stays usable.
    replay = LedgeredTeacher(None, Ledger(tmp_path))
    assert texts(replay.generate([ask("4")], SAMPLING)) == [answer(ask("4"))]


def test_a_budget_ends_a_run_at_the_same_call_whatever_the_ledger_has(tmp_path):
    requests = [ask(str(n)) for n in range(9)]
    full = Ledger(tmp_path)
    LedgeredTeacher(ScriptedTeacher(), full).generate(requests[2:], SAMPLING)
    teacher = LedgeredTeacher(ScriptedTeacher(), full, budget(tokens=42))
    seen = []
    with pytest.raises(BudgetExceeded):
        teacher.generate(requests, SAMPLING, lambda i, _: seen.append(i))
    assert sorted(seen) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "limits", [{"tokens": 40}, {"cost": 130}, {"tokens": 40, "cost": 130}], ids=repr
)
def test_a_call_that_just_fits_is_made(tmp_path, limits):
    # A call takes 5 tokens and a cost of 20, and at most 20 tokens and 50: behind four calls a
    # fifth brings them to 40 and 130 at most, and behind five a sixth to 45 and 150.
    teacher = LedgeredTeacher(ScriptedTeacher(), Ledger(tmp_path), budget(**limits), PRICES)
    seen = []
    with pytest.raises(BudgetExceeded):
        teacher.generate([ask(str(n)) for n in range(9)], SAMPLING, lambda i, _: seen.append(i))
    assert len(seen) == 5


def test_calls_count_once_against_the_budget(tmp_path):
    teacher = LedgeredTeacher(ScriptedTeacher(), Ledger(tmp_path), budget(tokens=20))
    for _ in range(3):
        teacher.generate([ask("a")], SAMPLING)
    with pytest.raises(BudgetExceeded):
        teacher.generate([ask("b")], SAMPLING)


def test_a_budget_of_cost(tmp_path):
    # 10 + 2 * 20 at most a call, 20 in fact.
    teacher = LedgeredTeacher(ScriptedTeacher(), Ledger(tmp_path), budget(cost=100), PRICES)
    seen = []
    with pytest.raises(BudgetExceeded, match=r"cost to 110\.0000 of 100\.0 USD"):
        teacher.generate([ask(str(n)) for n in range(9)], SAMPLING, lambda i, _: seen.append(i))
    assert len(seen) == 3
    with pytest.raises(InputError, match="prices"):
        LedgeredTeacher(ScriptedTeacher(), Ledger(tmp_path), budget(cost=1))


def test_an_estimate_calls_nothing(tmp_path):
    inner = ScriptedTeacher()
    teacher = LedgeredTeacher(inner, Ledger(tmp_path), prices=PRICES)
    teacher.generate([ask("a")], SAMPLING)
    estimate = teacher.estimate([ask("a"), ask("b"), ask("c"), ask("c")], SAMPLING)
    assert estimate.replayed == Usage(1, 10, 5, 20.0)
    assert estimate.called == Usage(2, 20, 40, 100.0)
    assert len(inner.asked) == 1
    unpriced = LedgeredTeacher(inner, Ledger(tmp_path)).estimate([ask("b")], SAMPLING)
    assert unpriced.called == Usage(1, 10, 20)


def test_what_was_answered_before_a_failure_is_recorded(tmp_path):
    def script(request, number):
        if number == 2:
            raise RuntimeError("lost")
        return answer(request)

    requests = [ask(str(n)) for n in range(4)]
    with pytest.raises(RuntimeError, match="lost"):
        LedgeredTeacher(ScriptedTeacher(script), Ledger(tmp_path)).generate(requests, SAMPLING)
    assert len(Ledger(tmp_path)) == 2


def test_a_ledger_is_read_and_replayed_without_jax():
    names = "sys, ioa_jax.teachers.structured, ioa_jax.teachers.replay"
    code = f"import {names}; print('jax' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop": ("",)}, "stop"),
    ],
)
def test_bad_sampling(fields, message):
    with pytest.raises(InputError, match=message):
        Sampling(**fields)


def test_bad_requests():
    with pytest.raises(InputError, match="messages is empty"):
        ChatRequest((), "synthesis")
    with pytest.raises(InputError, match="message 1 has the fields"):
        ChatRequest(({"role": "user"},), "synthesis")


class RenderingTeacher(ScriptedTeacher):
    """Its template is known, and it gives hidden states."""

    def render(self, messages):
        return f"<{messages[-1]['content']}>"

    def embed(self, texts):
        return np.ones((len(texts), 2), np.float32)


def test_rendered_chats_replay_without_the_teacher(tmp_path):
    teacher = LedgeredTeacher(RenderingTeacher(), Ledger(tmp_path))
    assert teacher.render(ask("a").messages) == "<a>"
    assert teacher.embed(["x"]).shape == (1, 2)
    replay = LedgeredTeacher(None, Ledger(tmp_path))
    assert replay.render(ask("a").messages) == "<a>"
    assert replay.used == Usage()
    with pytest.raises(ReplayMiss, match="rendered"):
        replay.render(ask("b").messages)
    with pytest.raises(ReplayMiss, match="hidden states"):
        replay.embed(["x"])


def test_a_teacher_without_template_or_hidden_states_says_so():
    with pytest.raises(InputError, match="template isn't known"):
        ScriptedTeacher().render(ask("a").messages)
    with pytest.raises(InputError, match="hidden states"):
        ScriptedTeacher().embed(["a"])


def test_a_run_that_is_started_again_knows_what_it_used(tmp_path):
    def run(*requests):
        teacher = LedgeredTeacher(
            ScriptedTeacher(), Ledger(tmp_path / "ledger"), counted=tmp_path / "counted.jsonl"
        )
        with teacher:
            teacher.generate(requests, SAMPLING)
        return teacher.used

    first = run(ask("a"), ask("b"))
    assert first.calls == 2
    # A step that is on disk asks nothing, and counts all the same; a call counts once.
    assert run() == first
    assert run(ask("b"), ask("c")).calls == 3


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("completion_tokens", -400, "usage.completion_tokens': Input should be greater than or eq"),
        ("calls", 1.5, "usage.calls': "),
        ("prompt_tokens", "7", "usage.prompt_tokens': "),
        ("cost", -1.0, "usage.cost': "),
        ("price", 1, "usage.price': "),
    ],
)
def test_counted_calls_with_figures_that_cant_be_are_named(tmp_path, field, value, told):
    path = tmp_path / "counted.jsonl"
    with LedgeredTeacher(ScriptedTeacher(), Ledger(tmp_path), counted=path) as teacher:
        teacher.generate([ask("a"), ask("b")], SAMPLING)
    first, second = map(json.loads, path.read_text().splitlines())
    second["usage"][field] = value
    path.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    with pytest.raises(InputError, match=rf"counted\.jsonl:2: field '{told}"):
        LedgeredTeacher(ScriptedTeacher(), Ledger(tmp_path), counted=path)


@pytest.mark.parametrize(
    "result", [{"text": "a"}, {**RESULT, "completion_tokens": -40}, {**RESULT, "text": 3}, None]
)
def test_a_recorded_answer_that_is_none_is_named(tmp_path, result):
    ledger = Ledger(tmp_path)
    LedgeredTeacher(ScriptedTeacher(), ledger).generate([ask("a")], SAMPLING)
    (record,) = ledger
    other = Ledger(tmp_path / "other")
    other.append({**record, "result": result})
    teacher = LedgeredTeacher(ScriptedTeacher(), other)
    with pytest.raises(InputError, match=f"{record['key']} doesn't hold an answer: .*remove"):
        teacher.generate([ask("a")], SAMPLING)


def test_a_shared_teacher_stays_open(tmp_path):
    inner = ScriptedTeacher()
    with LedgeredTeacher(inner, Ledger(tmp_path), owns_teacher=False) as teacher:
        teacher.generate([ask("a")], SAMPLING)
    assert not inner.closed


def test_a_limit_holds_within_its_block_alone(tmp_path):
    teacher = LedgeredTeacher(ScriptedTeacher(tokens=5), Ledger(tmp_path), budget(tokens=60))
    sampling = Sampling(max_tokens=5)
    teacher.generate([ask("before")], sampling)
    with pytest.raises(BudgetExceeded), teacher.limited(15):
        # Of the whole run: what was used before counts.
        teacher.generate([ask(str(i)) for i in range(5)], sampling)
    assert teacher.used.completion_tokens == 15
    assert teacher.budget == budget(tokens=60)
    with teacher.limited(1000):
        assert teacher.budget.max_tokens == 60
    with teacher.limited(None):
        assert teacher.budget.max_tokens == 60
    priced = LedgeredTeacher(ScriptedTeacher(), Ledger(tmp_path), budget(60, 100), PRICES)
    with priced.limited(15):
        assert priced.budget == budget(15, 100)
    unlimited = LedgeredTeacher(ScriptedTeacher(), Ledger(tmp_path))
    with unlimited.limited(7):
        assert unlimited.budget.max_tokens == 7
    assert unlimited.budget.max_tokens is None
