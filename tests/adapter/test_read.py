"""What a teacher thinks before its answer is no part of an example."""

import dataclasses

import pytest

from ioa_jax.adapter.program_checks import solution_program
from ioa_jax.adapter.read import read_answer, read_plain, read_problem
from ioa_jax.adapter.schema import Example
from ioa_jax.teachers.base import Completion, FinishReason
from ioa_jax.teachers.structured import Unfit
from tests.adapter.test_render import SPEC

DRAFT = "<think>Problem: 1 + 1?\nSolution: \\boxed{2}\n</think>\n\n"
TASK = "Problem: 3 + 4?\nSolution: 3 + 4 = 7\n\\boxed{7}"


def completion(text: str, reason: FinishReason = "stop") -> Completion:
    return Completion(text, 5, 9, reason)


def test_plain_text_is_read_behind_the_thoughts():
    written = read_plain(completion(DRAFT + TASK), SPEC)
    assert isinstance(written.example, Example)
    assert (written.example.problem, written.example.solution.final_answer) == ("3 + 4?", "7")
    assert "think" not in (written.solution or "")
    # The record has what was written.
    assert written.raw == DRAFT + TASK


def test_a_problem_and_an_answer_are_what_follows_the_thoughts():
    assert read_problem(completion(DRAFT + "What is 3 + 4?")) == "What is 3 + 4?"
    written = read_answer("3 + 4?", completion(DRAFT + "So \\boxed{7}"), SPEC)
    assert isinstance(written.example, Example)
    assert (written.example.solution.final_answer, written.solution) == ("7", "So \\boxed{7}")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("stop", "a thought that never ended"),
        ("length", "the thoughts used all 9 tokens; raise max_tokens"),
        ("unknown", "doesn't say that the answer is whole"),
    ],
)
def test_an_unfinished_thought_is_no_answer(reason, said):
    cut = completion(f"<think>{TASK}", reason)
    with pytest.raises(Unfit, match=said) as caught:
        read_problem(cut)
    assert caught.value.kind == "length"
    for written in (read_plain(cut, SPEC), read_answer("3 + 4?", cut, SPEC)):
        assert isinstance(written.example, Unfit)
        assert (written.example.kind, said in str(written.example)) == ("length", True)


def test_a_program_is_read_behind_the_thoughts():
    draft = "<think>\n```python\ndef f(x):\n    return 0\n```\n</think>\n"
    program = "```python\ndef f(x):\n    return x\n```"
    whole = completion(draft + program)
    assert solution_program(whole, "f") == ("def f(x):\n    return x", "f")
    unfinished = dataclasses.replace(whole, text=draft.replace("</think>", ""))
    assert solution_program(unfinished, "f") is None
