import pytest

from ioa_jax.adapter.answer import plain_answer, plain_program, render_answer
from ioa_jax.adapter.schema import Example
from ioa_jax.graders.code import find_program
from tests.adapter.examples import example


def written(final, kind, **options):
    solution = {"steps": ["First a.", " Then b.\n"], "final_answer": final, "verification": ""}
    return render_answer(Example.model_validate(example(solution=solution)), kind, **options)


def test_maths_ends_in_a_box():
    assert written("$5$", "math") == "1. First a.\n2. Then b.\n\\boxed{5}"
    assert written("5", "math", template="lines") == "First a.\nThen b.\n\\boxed{5}"
    assert written(r"\boxed{\frac{1}{2}}", "math", steps=False) == r"\boxed{\frac{1}{2}}"


def test_a_program_is_fenced_once_and_found_by_the_grader():
    program = "def f(x):\n    return x"
    for final in (program, f"```python\n{program}\n```", f"\n{program}\n"):
        answer = written(final, "code")
        assert answer == f"1. First a.\n2. Then b.\n```python\n{program}\n```"
        assert find_program(answer, "f").code.strip() == program


@pytest.mark.parametrize("kind", ["instruction", "exact", "rouge"])
def test_a_text_that_is_judged_as_a_whole_stands_alone(kind):
    assert written(" all lower case ", kind) == "all lower case"


def test_a_number_is_the_last_thing():
    assert written("12 apples", "number") == "1. First a.\n2. Then b.\n12"


def test_steps_without_a_label_get_one():
    solution = {
        "steps": ["Extract: a = 1", "2a = 2", "Note: b"],
        "final_answer": "2",
        "verification": "",
    }
    read = Example.model_validate(example(solution=solution))
    assert render_answer(read, "math", "labelled") == (
        "Extract: a = 1\nSolve: 2a = 2\nSolve: Note: b\n\\boxed{2}"
    )


@pytest.mark.parametrize(
    ("final", "plain"),
    [
        ("5", "5"),
        (" $ x + 1 $ ", "x + 1"),
        ("$$7$$", "7"),
        (r"\(3\)", "3"),
        (r"the answer is \boxed{3}", "3"),
        ("$3$ or $4$", "$3$ or $4$"),
        ("$", "$"),
        ("$5", "$5"),
    ],
)
def test_plain_answers(final, plain):
    assert plain_answer(final) == plain


def test_a_fence_in_the_middle_is_no_fence_around():
    text = "x = 1\n```\ny\n```"
    assert plain_program(text) == text
