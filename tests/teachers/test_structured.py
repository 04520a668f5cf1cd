import json
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, RootModel

from ioa_jax.adapter.schema import RawExamples
from ioa_jax.errors import InputError
from ioa_jax.teachers.base import Completion, FinishReason, Sampling
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.structured import Rules, Unfit, generate_structured, parse_completion
from tests.teachers.recorded import ScriptedTeacher, ask


class Problem(BaseModel):
    model_config = ConfigDict(extra="forbid")
    problem: str
    steps: list[str]


GOOD = '{"problem": "p", "steps": ["a", "b"]}'
EXPECTED = Problem(problem="p", steps=["a", "b"])
SAMPLING = Sampling()


def once(text, **options):
    """The result of one attempt that is answered with `text`."""
    teacher = ScriptedTeacher(lambda request, number: text)
    return generate_structured(teacher, [ask("x")], SAMPLING, Problem, Rules(0, **options))


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"Sure! Here it is:\n```json\n{GOOD}\n```\nI hope that [this] helps.",
        f"First {{a plan}}, as in [1], then\n{GOOD}",
        f'{{"problem": 3}} was wrong. {GOOD}',
        '{"problem": "p",\n "steps": [\n"a", "b"]\n}',
    ],
)
def test_json_is_found_in_prose(text):
    (accepted,) = once(text).accepted
    assert accepted is not None
    assert accepted.value == EXPECTED
    assert not accepted.repaired
    assert accepted.completion.text == text


@pytest.mark.parametrize(
    "text",
    [
        '{"problem": "p", "steps": ["a", "b",],}',
        "{'problem': 'p', 'steps': ['a', 'b']}",
        '```json\n{"problem": "p", // the text\n"steps": ["a" "b"]}\n``` Done.',
        '{problem: "p", steps: ["a", "b"]}',
        '{"problem": "p", "steps": ["a", "b"]',
    ],
)
def test_small_faults_are_repaired_if_that_is_wanted(text):
    (accepted,) = once(text).accepted
    assert accepted is not None
    assert accepted.value == EXPECTED
    assert accepted.repaired
    result = once(text, repair=False)
    assert result.accepted == (None,)
    assert result.rejects[0].completion.text == text


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("I can't.", "no_json", "no JSON"),
        ("", "no_json", "no JSON"),
        ('{"problem": "p"}', "schema", "field 'steps': Field required"),
        (f'{{"problem": "p"}} {GOOD[:-1]}, "more": 1}}', "schema", "field 'more'"),
        ("[1, 2]", "schema", "valid dictionary or instance of Problem"),
        ("{'problem': 'p'}", "schema", "field 'steps'"),
        ("{" * 5_000, "no_json", "no JSON"),
        ("[" * 200_000, "no_json", "no JSON"),
    ],
)
def test_rejects_keep_text_and_reason(text, kind, reason):
    result = once(text)
    assert result.accepted == (None,)
    (reject,) = result.rejects
    assert (reject.request, reject.attempt, reject.kind) == (0, 1, kind)
    assert reason in reject.reason
    assert reject.completion.text == text


def test_infinity_is_no_json():
    teacher = ScriptedTeacher(lambda request, number: "[NaN]")
    numbers = RootModel[list[float]]
    result = generate_structured(teacher, [ask("x")], SAMPLING, numbers, Rules(0, repair=False))
    assert result.rejects[0].kind == "no_json"


class Cut(ScriptedTeacher):
    """Answers end at the token limit or are filtered."""

    def __init__(self, text, reason):
        super().__init__()
        self.text, self.reason = text, reason

    def generate(self, requests, sampling, on_completion=None):
        return [Completion(self.text, 1, 7, self.reason) for _ in requests]


def test_a_cut_answer_is_not_repaired():
    cut = '{"problem": "p", "steps": ["a", "b"'
    result = generate_structured(Cut(cut, "length"), [ask("x")], SAMPLING, Problem, Rules(0))
    assert result.rejects[0].kind == "length"
    assert "after 7 tokens" in result.rejects[0].reason
    # A complete object before the cut is one all the same.
    result = generate_structured(
        Cut(GOOD + "\nAnd", "length"), [ask("x")], SAMPLING, Problem, Rules(0)
    )
    assert result.accepted[0] is not None
    result = generate_structured(Cut(GOOD, "filtered"), [ask("x")], SAMPLING, Problem, Rules(0))
    assert result.rejects[0].kind == "filtered"


def test_only_rejected_requests_are_asked_again_with_the_reason_and_another_seed():
    def script(request, number):
        text = request.messages[-1]["content"]
        return GOOD if text.startswith("good") or "rejected" in text else '{"problem": "p"}'

    teacher = ScriptedTeacher(script)
    requests = [ask("bad", seed=4), ask("good"), ask("bad 2")]
    result = generate_structured(teacher, requests, SAMPLING, Problem, Rules(2))
    assert [a.value for a in result.accepted if a] == [EXPECTED] * 3
    assert [a.attempts for a in result.accepted if a] == [2, 1, 2]
    assert [(r.request, r.attempt) for r in result.rejects] == [(0, 1), (2, 1)]
    assert teacher.batches == [3, 2]
    first, *_, again, _ = teacher.asked
    prompt = first.messages[-1]["content"]
    assert prompt.startswith("bad\n\n")
    assert '"steps"' in prompt
    assert again.messages[-1]["content"].startswith(prompt)
    assert "field 'steps': Field required" in again.messages[-1]["content"]
    assert (first.seed, again.purpose) == (4, "synthesis")
    assert again.seed != 4


def test_attempts_are_bounded_and_all_kept():
    teacher = ScriptedTeacher(lambda request, number: f"no {number}")
    result = generate_structured(teacher, [ask("x")], SAMPLING, Problem, Rules(2))
    assert result.accepted == (None,)
    assert [r.completion.text for r in result.rejects] == ["no 0", "no 1", "no 2"]
    assert len({request.seed for request in teacher.asked}) == 3
    with pytest.raises(InputError, match="max_retries"):
        Rules(-1)


def test_a_check_rejects_what_fits_the_schema():
    teacher = ScriptedTeacher(lambda request, number: f"[{number}]")
    result = generate_structured(
        teacher,
        [ask("x")],
        SAMPLING,
        RootModel[list[int]],
        check=lambda index, value: None if value.root == [2] else f"{value.root} is not [2]",
    )
    assert result.accepted[0] is not None
    assert result.accepted[0].value.root == [2]
    assert [(r.kind, r.reason) for r in result.rejects] == [
        ("check", "[0] is not [2]"),
        ("check", "[1] is not [2]"),
    ]


def test_attempts_replay_from_the_ledger(tmp_path):
    inner = ScriptedTeacher(lambda request, number: GOOD if number else "no")
    teacher = LedgeredTeacher(inner, Ledger(tmp_path))
    result = generate_structured(teacher, [ask("x")], SAMPLING, Problem)
    replay = LedgeredTeacher(None, Ledger(tmp_path))
    assert generate_structured(replay, [ask("x")], SAMPLING, Problem) == result
    assert len(result.rejects) == 1


def test_requests_can_be_asked_as_they_stand():
    """A small teacher knows its prompts as it was taught them; another seed is all that changes."""
    teacher = ScriptedTeacher(lambda request, number: GOOD if number else "no")
    result = generate_structured(teacher, [ask("x")], SAMPLING, Problem, Rules(describe=False))
    assert result.accepted[0] is not None
    assert [request.messages for request in teacher.asked] == [ask("x").messages] * 2
    assert teacher.asked[0].seed == 0
    assert teacher.asked[1].seed != 0


def read(text: str, reason: FinishReason = "stop", repair: bool = True) -> Any:
    """The examples of an answer, or why there are none."""
    try:
        return list(parse_completion(Completion(text, 1, 9, reason), RawExamples, repair)[0].root)
    except Unfit as unfit:
        return f"{unfit.kind}: {unfit}"


ONE, TWO = {"problem": "one"}, {"problem": "two"}
A, B = json.dumps(ONE), json.dumps(TWO)


@pytest.mark.parametrize(
    ("text", "examples"),
    [
        (f"{A}\n{B}", [ONE, TWO]),
        (f"{A}, {B}", [ONE, TWO]),
        (f"**Problem 1**\n```json\n{A}\n```\n**Problem 2**\n```json\n{B}\n```", [ONE, TWO]),
        (f"```json\n[{A}]\n```\n```json\n[{B}]\n```", [ONE, TWO]),
        (f'{{"examples": [{A}, {B}]}}', [ONE, TWO]),
        (f'{{"count": 2, "examples": [{A}, {B}]}}', [ONE, TWO]),
        (f'{{"example": {A}}}', [ONE]),
        (f"[{A}] is a draft; better:\n[{B}]", [TWO]),
        (f"As in [1] or [], a dict {{}}:\n[{A}, {B}]\nI hope that [this] helps [2].", [ONE, TWO]),
        (f'[{A}]\nI set {{"difficulty": 3}} for it.', [ONE]),
        ('{"problem": "p", "solution": {"steps": ["a"]}}',
         [{"problem": "p", "solution": {"steps": ["a"]}}]),
    ],
)  # fmt: skip
def test_an_array_may_come_in_pieces_or_in_a_wrapper(text, examples):
    assert read(text) == examples


def test_of_several_objects_the_last_is_the_revised_one():
    better = GOOD.replace('"p"', '"better"')
    (accepted,) = once(f"{GOOD}\nNo, this is better:\n{better}\nas in [1].").accepted
    assert accepted is not None
    assert accepted.value.problem == "better"
    (accepted,) = once(f'{{"answer": {GOOD}}}').accepted
    assert accepted is not None
    assert accepted.value == EXPECTED


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"Simplify \frac{6}{8} \times 2", r"Simplify \frac{6}{8} \times 2"),
        (r"\dfrac{6}{8} \times \beta", r"\dfrac{6}{8} \times \beta"),
        (r"\theta \neq \rho, \tau > 0 and \nu", r"\theta \neq \rho, \tau > 0 and \nu"),
        (r"3\text{ cm}\$ and \{1\_000\}", r"3\text{ cm}\$ and \{1\_000\}"),
        (r"\underline{x} \u12", r"\underline{x} \u12"),
        (r"\sqrt{2}\nSo \(x\)", "\\sqrt{2}\nSo \\(x\\)"),
        # What is escaped already, and what JSON's escapes are meant for.
        (r"\\frac{1}{2}\ttab \\times \u00e9 \"q\"", "\\frac{1}{2}\ttab \\times é \"q\""),
        (r"one\nless than\ni = 3\ne = 2\nu = 1", "one\nless than\ni = 3\ne = 2\nu = 1"),
        (r"def f(p):\n\treturn p\n\text = 3\n\tan = 4\r\n",
         "def f(p):\n\treturn p\n\text = 3\n\tan = 4\r\n"),
    ],
)  # fmt: skip
def test_latex_never_turns_into_control_characters(written, meant):
    text = f'[{{"problem": "{written}"}}]'
    assert read(text) == [{"problem": meant}]


def test_latex_is_not_repaired_where_that_is_not_wanted():
    text = r'[{"problem": "\frac{1}{2}"}]'
    assert read(text, repair=False).startswith("no_json: LaTeX with single backslashes")
    assert read(text.replace("\\", "\\\\"), repair=False) == [{"problem": r"\frac{1}{2}"}]


def test_an_answer_without_an_end_says_what_to_raise():
    assert "all 9 tokens went by without an answer" in read("", reason="length")
    assert "raise max_tokens" in read("  ", reason="length")
    assert "cut off after 9 tokens" in read(f"[{A}"[:-1], reason="length")
    assert read(f"[{A}, {A[:8]}", reason="length") == [ONE]
    assert "doesn't say that the answer is whole" in read(f"[{A}"[:-1], reason="unknown")
    assert read(f"[{A}, {B}", reason="stop") == [ONE, TWO]


@pytest.mark.parametrize(
    "text",
    [
        f"<think>maybe [{A}] no</think>\n[{B}]",
        f"maybe [{A}] no\n</think>\n[{B}]",  # the template wrote the opening tag
        f"<think>a dict like {{}} or []</think>[{B}]",
    ],
)
def test_what_stands_in_a_thought_is_no_answer(text):
    assert read(text) == [TWO]


def test_a_thought_that_never_ended_is_no_answer():
    assert read(f"<think>[{A}]") == "length: a thought that never ended, and no answer"
    assert "the thoughts used all 9 tokens; raise" in read(f"<think>[{A}]", reason="length")
