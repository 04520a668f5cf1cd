import dataclasses
import json
import re

import pytest

from ioa_jax.adapter.dimensions import PLAIN, DimensionSettings
from ioa_jax.adapter.plain_text import PlainTask, read_task, write_task
from ioa_jax.adapter.render import (
    AnswerForm,
    Pack,
    SynthesisSpec,
    render_few_shot,
    render_lean,
    render_problem,
    render_solve,
    render_synthesis,
)
from ioa_jax.adapter.schema import LEVELS, Example, ExampleList, write_examples
from ioa_jax.errors import InputError
from ioa_jax.seeds import SeedItem
from suite.methods.prompting import render
from tests.adapter.examples import example

SPEC = SynthesisSpec(
    domain="math",
    stage=2,
    kind="stage",
    module="algebra/linear",
    modules=("algebra/linear", "algebra/powers"),
    prerequisites=("arithmetic/subtraction",),
    mastery=0.412,
    count=1,
    level="introductory",
    size_cap=100,
    step_cap=6,
    seed_id="m-12",
    seed_prompt="Solve 3x + {{ 4 }} = 19 < 20.",
    seed_reference="5",
    check="math",
)
SWITCHES = ("concretization", "decomposition", "cognitive_load", "format", "language")


def text(pack: Pack, form: AnswerForm = "json", **changes: object) -> str:
    messages = render_synthesis(pack, dataclasses.replace(SPEC, **changes), form)
    shown = form != "none" and pack == "micro"
    roles = ["user", "assistant", "user"] if shown else ["user"]
    assert [message["role"] for message in messages] == roles
    return "\n".join(message["content"] for message in messages)


@pytest.mark.parametrize("pack", ["paper", "micro"])
def test_a_prompt_carries_what_was_asked(pack):
    prompt = text(pack)
    for part in ("math", "algebra/linear", "arithmetic/subtraction", "0.4", "introductory"):
        assert part in prompt
    # As it stands: neither a template of its own nor escaped.
    assert "Solve 3x + {{ 4 }} = 19 < 20." in prompt
    assert "up to 100" in prompt or "larger than 100" in prompt
    assert "up to 6" in prompt or "6 steps" in prompt


@pytest.mark.parametrize("pack", ["paper", "micro"])
@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_changes_the_prompt_alone(pack, switch):
    prompts = {text(pack, form="none"), text(pack, form="none", dimensions=PLAIN)}
    prompts.add(
        text(pack, form="none", dimensions=DimensionSettings().model_copy(update={switch: False}))
    )
    prompts.add(
        text(pack, form="none", dimensions=PLAIN.model_copy(update={switch: True})),
    )
    assert len(prompts) == 4


@pytest.mark.parametrize("pack", ["paper", "micro"])
def test_what_is_unknown_is_not_mentioned(pack):
    prompt = text(
        pack, mastery=None, size_cap=None, step_cap=None, prerequisites=(), seed_reference=""
    )
    assert "None" not in prompt
    assert "\n\n\n" not in prompt
    assert "100" not in prompt


@pytest.mark.parametrize("pack", ["paper", "micro"])
def test_remedial_material_is_smaller(pack):
    assert "maller" not in text(pack)
    assert "maller" in text(pack, kind="remedial")


def shown(**changes):
    """The seed as an example."""
    messages = render_synthesis("micro", dataclasses.replace(SPEC, **changes))
    assert messages[0] == messages[2]
    # The seed is in the example and needn't be told again.
    assert SPEC.seed_prompt not in messages[0]["content"]
    (read,) = ExampleList.model_validate_json(messages[1]["content"]).examples
    return read


def test_micro_shows_the_seed_as_an_example_of_the_schema():
    read = shown()
    assert (read.module, read.problem) == ("algebra/linear", SPEC.seed_prompt)
    assert (read.solution.steps, read.solution.final_answer) == (("5",), "5")
    read = shown(seed_reference="3x = 15\n\nx = 5\n#### 5")
    assert (read.solution.steps, read.solution.final_answer) == (("3x = 15", "x = 5"), "5")
    read = shown(seed_reference="3x = 15\nso \\boxed{5}.", dimensions=PLAIN)
    assert read.solution.final_answer == "5"
    assert not read.adapter_flags.concretization
    code = "def f(x):\n    return x"
    read = shown(check="code", seed_reference=code, seed_tests="assert f(1) == 1")
    assert read.solution.final_answer == code
    assert read.solution.verification == "assert f(1) == 1"
    assert len(text("micro", form="none")) < 300


@pytest.mark.parametrize(
    ("check", "asked"),
    [("math", "in LaTeX"), ("number", "in LaTeX"), ("code", "whole program")]
    + [(kind, "the complete text") for kind in ("exact", "rouge", "instruction")],
)
@pytest.mark.parametrize("domain", ["kitchen", "math"])
def test_the_form_of_an_answer_follows_the_check_and_no_domain(check, asked, domain):
    prompt = text("paper", check=check, domain=domain)
    assert asked in prompt
    solution = shown(check=check, domain=domain, seed_reference="1\n2").solution
    worked = ("1", "2"), "2"
    whole = ("Write the answer.",), "1\n2"
    expected = worked if check in ("math", "number") else whole
    assert (solution.steps, solution.final_answer) == expected


def test_the_schema_is_in_the_paper_prompt_and_the_last_complaint_too():
    prompt = text("paper", count=3, complaint="the answer was wrong")
    schema = json.loads(prompt[prompt.index('{"$defs"') :])
    assert schema["type"] == "array"
    assert "the answer was wrong" in prompt
    assert "3 new examples" in prompt


@pytest.mark.parametrize("pack", ["paper", "micro"])
def test_solutions_are_asked_for_by_domain(pack):
    prompts = [render_solve(pack, "What is 2 + 2?", d)[0]["content"] for d in ("math", "code")]
    assert "\\boxed{}" in prompts[0]
    assert "Python" in prompts[1]
    assert all("What is 2 + 2?" in prompt for prompt in prompts)


def test_caps_are_positive():
    with pytest.raises(InputError, match="module 'algebra/linear': size_cap=0"):
        text("micro", size_cap=0)


@pytest.mark.parametrize(
    ("level", "name"),
    [("introductory", "similar"), ("intermediate", "similar"), ("advanced", "deepen")],
)
def test_micro_asks_for_problems_as_its_teacher_was_taught(level, name):
    prompt = "Solve {{ x }}.\n  y"
    assert render_problem("micro", prompt, level) == render("micro", name, prompt=prompt)


def test_paper_asks_for_a_problem_alone_by_its_level():
    texts = {render_problem("paper", "Two?", level)[0]["content"] for level in LEVELS}
    assert len(texts) == 3
    assert all("Two?" in text and "without its answer" in text for text in texts)


def lean(**changes):
    (message,) = render_lean(dataclasses.replace(SPEC, check="math", **changes))
    return message["content"]


def test_a_lean_prompt_carries_what_was_asked():
    prompt = lean()
    for part in ("math", "algebra/linear", "arithmetic/subtraction", "a little easier", "6 steps"):
        assert part in prompt
    assert "Problem: Solve 3x + {{ 4 }} = 19 < 20.\nSolution: 5" in prompt
    assert "JSON" not in prompt
    assert "rejected: wrong" in lean(complaint="wrong")
    assert "None" not in lean(step_cap=None, prerequisites=())
    assert "\n\n\n" not in lean(step_cap=None, dimensions=PLAIN)


@pytest.mark.parametrize("switch", ["concretization", "language", "decomposition"])
def test_each_switch_changes_a_lean_prompt(switch):
    on = lean(step_cap=None, dimensions=PLAIN.model_copy(update={switch: True}))
    assert on != lean(step_cap=None, dimensions=PLAIN)


def test_lean_answers_are_asked_for_by_form_and_by_kind_of_check():
    assert len({lean(form=form) for form in ("as_written", "lines", "labelled")}) == 3
    code = dataclasses.replace(SPEC, check="code", seed_tests="assert f(1) == 1")
    (message,) = render_lean(code)
    assert "Tests:\nassert f(1) == 1" in message["content"]
    assert "labels Problem:, Solution:, Tests:" in message["content"]


def shots(kind="math", **check):
    return [
        SeedItem(f"s{i}", f"Task {i}?", f"Work {i}", {"kind": kind} | check, "math")
        for i in range(3)
    ]


def test_few_shot_shows_tasks_in_the_form_that_is_read():
    messages, stop = render_few_shot(shots(), "algebra/linear", "advanced")
    assert [message["role"] for message in messages] == ["user", "assistant"] * 3 + ["user"]
    for number, message in enumerate(messages[1::2]):
        task = read_task(message["content"], with_tests=False)
        assert (task.problem, task.solution) == (f"Task {number}?", f"Work {number}")
        assert not any(text in message["content"] for text in stop)
    assert "a little harder" in messages[-1]["content"]
    messages, _ = render_few_shot(
        shots("code", tests="assert f(2) == 1"), "lists/sum", "intermediate"
    )
    assert read_task(messages[1]["content"], with_tests=True).tests == "assert f(2) == 1"
    messages, stop = render_few_shot(shots(), "a/b", "intermediate", with_solutions=False)
    assert messages[1]["content"] == "Problem: Task 0?"
    assert "\nSolution" in stop


def test_a_lean_lesson_takes_two_thirds_of_the_full_records_tokens_at_most():
    problem = "Tom has 3 boxes of 12 eggs and eats 4 eggs. How many eggs are left?"
    steps = ("3 x 12 = 36", "36 - 4 = 32")
    plain = write_task(PlainTask(problem, "\n".join([*steps, "Answer: 32"])))
    record = example(
        problem=problem,
        solution={"steps": steps, "final_answer": "32", "verification": "32 + 4 = 36"},
    )
    full = write_examples([Example.model_validate(record)])
    tokens = [len(re.findall(r"\w+|[^\w\s]", text)) for text in (plain, full)]
    assert tokens[0] <= 2 / 3 * tokens[1]


def test_the_prompt_without_a_form_stays_as_it_is():
    # The embedded teacher was trained on it, word for word.
    assert text("micro", "none") == (
        "Write 1 math example as JSON.\n"
        "Module: algebra/linear\n"
        "Level: introductory, stage 2\n"
        "Needs: arithmetic/subtraction\n"
        "Mastery: 0.4\n"
        "Numbers up to 100\n"
        "Steps up to 6\n"
        "Style: concrete, small steps, small numbers, numbered, simple words\n"
        "Seed: Solve 3x + {{ 4 }} = 19 < 20.\n"
        "Answer: 5"
    )
