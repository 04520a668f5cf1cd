import dataclasses
import json

import pytest
from ioa_jax.adapter.lesson_text import LessonText, read_lesson

from ioa_jax.adapter.dimensions import PLAIN, DimensionSettings
from ioa_jax.adapter.render import AnswerForm, Pack, SynthesisSpec, render_solve, render_synthesis
from ioa_jax.adapter.schema import ExampleList
from ioa_jax.errors import InputError

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
    read = shown(domain="code", seed_reference=code, seed_tests="assert f(1) == 1")
    assert read.solution.final_answer == code
    assert read.solution.verification == "assert f(1) == 1"
    assert len(text("micro", form="none")) < 300


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


def test_text_shows_the_seed_in_the_form_that_is_read():
    messages = render_synthesis("micro", SPEC, "text")
    assert messages[0] != messages[2]
    shown = read_lesson(messages[1]["content"], "math")
    assert shown == LessonText(SPEC.seed_prompt, ("5",), "5")
    assert "JSON" not in "".join(message["content"] for message in messages)
    worked = dataclasses.replace(
        SPEC, seed_reference="Share by 3: x = 5.\nThe answer is 5.", seed_answer="5"
    )
    shown = read_lesson(render_synthesis("micro", worked, "text")[1]["content"], "math")
    assert (shown.steps, shown.answer) == (("Share by 3: x = 5.",), "5")
    program = "def f(x):\n    return x"
    code = dataclasses.replace(
        SPEC, domain="code", seed_reference=f"```python\n{program}\n```", seed_tests="assert f(1)"
    )
    shown = read_lesson(render_synthesis("micro", code, "text")[1]["content"], "code")
    assert shown == LessonText(SPEC.seed_prompt, (), program, "assert f(1)")


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_changes_the_prompt_for_text(switch):
    on = text("micro", "text", dimensions=PLAIN.model_copy(update={switch: True}))
    assert on != text("micro", "text", dimensions=PLAIN)


def test_text_is_of_the_pack_micro():
    with pytest.raises(InputError, match="form 'text' is of the pack 'micro'"):
        render_synthesis("paper", SPEC, "text")


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
