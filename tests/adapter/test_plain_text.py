import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.adapter.plain_text import PlainTask, read_task, split_solution, write_task
from ioa_jax.teachers.structured import Unfit

# Without what has a meaning of its own: label, fence, other line ends.
words = st.text("ab 12,.=x+*#-_\n", max_size=40).map(str.strip).filter(bool)
programs = st.text("ab 1()=:#\n", max_size=40).map(lambda text: text.strip("\n").rstrip())
programs = programs.filter(lambda text: bool(text.strip()))

CODE = """Problem: One.
Solution:
```python
def f():
    return 1
```
Tests:
```
assert f()
assert f() == 1
```"""
PROGRAM = "def f():\n    return 1"


@given(words, words)
def test_tasks_are_read_as_written(problem, solution):
    task = PlainTask(problem, solution)
    assert read_task(write_task(task), with_tests=False) == task


@given(words, programs, programs)
def test_programs_are_read_as_written(problem, program, tests):
    task = PlainTask(problem, f"```python\n{program}\n```", tests)
    text = write_task(task)
    assert read_task(text, with_tests=True) == task
    # What comes after a second problem's label is another task.
    assert read_task(f"{text}\nProblem: another", with_tests=True) == task


@pytest.mark.parametrize(
    "text",
    [
        "**Problem:** 2 + 3?\n\n**Solution:** It is 5.",
        "### Problem 4: 2 + 3?\n- SOLUTION 4: It is 5.\nProblem 5: 6?\nSolution 5: 7",
        " 2 + 3?\n**Solution**:\nIt is 5.\n",
        "Here is one:\nProblem: 2 + 3?\nSolution: It is 5.",
    ],
)
def test_small_differences_of_form_are_read(text):
    assert read_task(text, with_tests=False) == PlainTask("2 + 3?", "It is 5.")


def test_a_label_in_a_fence_or_of_another_kind_is_text():
    text = "Problem: One.\nSolution:\n```\n# Problem: two\n```\nTests:\nassert f()"
    assert read_task(text, with_tests=True).solution == "```\n# Problem: two\n```"
    assert read_task("Problem: Tea?\nSolution: Boil\nTests: none", with_tests=False) == PlainTask(
        "Tea?", "Boil\nTests: none"
    )


@pytest.mark.parametrize(
    ("text", "with_tests", "missing"),
    [
        ("Problem:\nSolution: 5", False, "no problem"),
        ("Problem: 2 + 3?", False, "no solution"),
        ("", False, "no problem and no solution"),
        ("Problem: One.\nSolution:\n```\nx = 1\n```", True, "no tests"),
    ],
)
def test_nothing_is_invented(text, with_tests, missing):
    with pytest.raises(Unfit) as unfit:
        read_task(text, with_tests)
    assert (unfit.value.kind, str(unfit.value)) == ("unparsed", missing)


def test_what_may_lack_its_end_is_not_taken():
    with pytest.raises(Unfit) as unfit:
        read_task("Problem: 2 + 3?\nSolution: It is\n5", with_tests=False, cut=True)
    assert unfit.value.kind == "length"
    # Of tests the whole lines are taken.
    cut = CODE.removesuffix("\n```")
    assert read_task(cut, with_tests=True, cut=True).tests == "assert f()"


@pytest.mark.parametrize(
    ("text", "kind", "reference", "steps", "final"),
    [
        ("a = 2\nb = 3\n\\boxed{5}", "math", "\\boxed{1}", ("a = 2", "b = 3"), "5"),
        ("So it is \\boxed{5}.", "math", "", ("So it is \\boxed{5}.",), "5"),
        ("2 + 3 = 5\nThe answer is 5.", "math", "The answer is 1.", ("2 + 3 = 5",), "5"),
        ("2 + 3 = 5\nAnswer: $5", "math", "", ("2 + 3 = 5",), "$5"),
        ("2 + 3, so the answer is 5.", "math", "", ("2 + 3, so the answer is 5.",), "5"),
        ("2 + 3\n#### 5", "number", "1 + 1\n#### 2", ("2 + 3",), "5"),
        ("5", "math", "7", (), "5"),
        ("2 + 3\nx = 5", "math", "x = 7", ("2 + 3",), "x = 5"),
        ("two eggs\nand 3 make 5 eggs", "number", "", ("two eggs",), "5"),
        ("one\ntwo", "exact", "", (), "one\ntwo"),
        (f"Plan.\n```python\n{PROGRAM}\n```\nDone.", "code", "", ("Plan.",), PROGRAM),
        (PROGRAM, "code", "", (), PROGRAM),
        (f"```\npip\n```\n```\n{PROGRAM}\n```", "code", "", ("```", "pip", "```"), PROGRAM),
        (f"Plan.\n```python\n{PROGRAM}", "code", "", ("Plan.",), PROGRAM),
    ],
)
def test_steps_and_answer(text, kind, reference, steps, final):
    assert split_solution(text, kind, reference) == (steps, final)


@pytest.mark.parametrize(
    ("text", "kind", "reference"),
    [
        ("2 + 3 = 5", "math", "\\boxed{1}"),
        ("2 + 3 = 5", "math", "1 + 1\nThe answer is 2."),
        ("five", "number", "2"),
        (" ", "exact", ""),
        ("``` \n", "code", ""),
    ],
)
def test_without_an_answer_that_can_be_read_there_is_no_lesson(text, kind, reference):
    with pytest.raises(Unfit) as unfit:
        split_solution(text, kind, reference)
    assert unfit.value.kind == "unparsed"
