import pytest
from hypothesis import given
from hypothesis import strategies as st
from ioa_jax.adapter.lesson_text import LessonText, read_lesson, split_lessons, write_lesson

from ioa_jax.teachers.structured import Unfit

# Without what has a meaning of its own: label, fence, other line ends.
words = st.text("ab 12,.=x+*#-_\n", max_size=40).map(str.strip).filter(bool)
lines = words.map(lambda text: text.replace("\n", " "))
programs = st.text("ab 1()=:#\n", max_size=40).map(lambda text: text.strip("\n").rstrip())
programs = programs.filter(bool)

MATHS = "Problem: 2 + 3?\nStep 1: It is 5.\nAnswer: 5\n"
CODE = """Problem: One.
Program:
```python
def f():
    return 1
```
Tests:
```
assert f()
```"""


@given(words, st.lists(words, min_size=1, max_size=3), lines)
def test_maths_is_read_as_written(problem, steps, answer):
    lesson = LessonText(problem, tuple(steps), answer)
    assert read_lesson(write_lesson(lesson, "math"), "math") == lesson


@given(words, st.lists(words, max_size=2), programs, programs)
def test_programs_are_read_as_written(problem, steps, program, tests):
    lesson = LessonText(problem, tuple(steps), program, tests)
    text = write_lesson(lesson, "code")
    # A fence that is closed ends a program, whatever follows.
    for cut in (False, True):
        assert read_lesson(text + "\nmore", "code", cut) == lesson


@given(words, words)
def test_texts_are_read_as_written(problem, answer):
    lesson = LessonText(problem, (), answer)
    text = write_lesson(lesson, "instruction")
    assert split_lessons(f"Here is one:\n{text}\n{text}", "instruction") == [text, text]
    assert read_lesson(text, "instruction") == lesson


@pytest.mark.parametrize(
    "text",
    [
        "**Problem:** 2 + 3?\n\n**Step 1:** It is 5.\n\n**Final answer:** 5",
        "### Problem 1: 2 + 3?\n- step 1: It is 5.\n- ANSWER: 5\nAnswer: 6",
        "**Problem**: 2 + 3?\nStep: It is 5.\nAnswer:\n5\n\nI hope that this helps.",
    ],
)
def test_small_differences_of_form_are_read(text):
    (lesson,) = split_lessons(f"Sure!\n{text}", "math")
    assert read_lesson(lesson, "math") == LessonText("2 + 3?", ("It is 5.",), "5")


def test_a_fence_may_be_missing_or_open():
    expected = LessonText("One.", (), "def f():\n    return 1", "assert f()")
    assert read_lesson(CODE, "code") == expected
    assert read_lesson(CODE.removesuffix("```"), "code") == expected
    assert read_lesson(CODE.replace("```python\n", "").replace("```", ""), "code") == expected


def test_labels_of_other_domains_and_inside_a_fence_are_text():
    answer = "Step 1: boil it.\nProgram: none\nAnswer: no"
    text = f"Problem: Tea?\nAnswer: {answer}"
    assert read_lesson(text, "instruction") == LessonText("Tea?", (), answer)
    program = "# Problem: one\n# Tests: none"
    text = write_lesson(LessonText("One.", (), program, "assert f()"), "code")
    assert split_lessons(text, "code") == [text]
    assert read_lesson(text, "code").answer == program


@pytest.mark.parametrize(
    ("text", "domain", "missing"),
    [
        ("Problem:\nStep 1: It is 5.\nAnswer: 5", "math", "no problem"),
        ("Problem: 2 + 3?\nAnswer: 5", "math", "no step"),
        ("Problem: 2 + 3?\nStep 1:\nAnswer:", "math", "no step and no answer"),
        ("Problem: Tea?", "instruction", "no answer"),
        ("Problem: One.\n```\nx = 1\n```", "code", "no program and no tests"),
    ],
)
def test_nothing_is_invented(text, domain, missing):
    with pytest.raises(Unfit) as unfit:
        read_lesson(text, domain)
    assert (unfit.value.kind, str(unfit.value)) == ("unparsed", missing)


@pytest.mark.parametrize(
    ("text", "domain"),
    [(MATHS.strip(), "math"), ("Problem: Tea?\nAnswer: Boil\nit", "instruction")],
)
def test_what_may_lack_its_end_is_not_taken(text, domain):
    assert read_lesson(text, domain)
    with pytest.raises(Unfit) as unfit:
        read_lesson(text, domain, cut=True)
    assert unfit.value.kind == "length"


def test_of_tests_that_were_cut_off_the_whole_lines_are_taken():
    text = CODE.removesuffix("```") + "assert f("
    assert read_lesson(text, "code", cut=True).tests == "assert f()"
    with pytest.raises(Unfit, match="no tests"):
        read_lesson(CODE.removesuffix("\n```"), "code", cut=True)


def test_an_answer_with_a_line_after_it_is_whole():
    assert read_lesson(MATHS + "And so", "math", cut=True).answer == "5"
