import json
from typing import get_args

import pytest

from ioa_jax.adapter.answer import render_answer
from ioa_jax.adapter.dimensions import DimensionSettings, Template, matches_template, operands
from ioa_jax.adapter.schema import ExampleList
from ioa_jax.adapter.settings import AdapterSettings
from ioa_jax.graders.by_kind import Graders
from ioa_jax.identifier.decompose import Proposal
from ioa_jax.streams import stream
from suite.micro import lessons
from suite.micro.lessons import SKILLS, draw_problem, synthesis_task
from suite.micro.measure import score
from suite.micro.world import MODULES

SAMPLES = 4


def tasks(skill):
    for module in MODULES:
        for number in range(SAMPLES):
            yield SKILLS[skill](stream(number, skill, module), module, "train")


def test_examples_fit_the_schema_and_what_was_asked():
    settings = AdapterSettings()
    for task in tasks("synthesis"):
        prompt = task.messages[0]["content"]
        for example in ExampleList.model_validate_json(task.answer).examples:
            assert example.module == task.module
            assert f"Module: {example.module}\n" in prompt
            assert f"Level: {example.difficulty_tag}, stage {example.metadata.stage_id}" in prompt
            cap = [line for line in prompt.splitlines() if line.startswith("Numbers up to ")]
            if cap:
                assert max(operands(example.problem)) <= int(cap[0].split()[-1])
            cap = settings.step_caps[example.difficulty_tag]
            assert cap is None or len(example.solution.steps) <= cap
            for template in get_args(Template):
                if template == example.adapter_flags.format_template:
                    assert matches_template(example.solution.steps, template)


def test_examples_are_right():
    """By the check of the module: tests that the example brings, or the maths of its steps."""
    with Graders() as graders:
        for task in tasks("synthesis"):
            if MODULES[task.module].domain != "code":
                continue
            for example in ExampleList.model_validate_json(task.answer).examples:
                program = render_answer(example, "code")
                entry_point = example.solution.final_answer.split("(")[0].removeprefix("def ")
                problem = draw_problem(stream(0), task.module, "train")
                check = {
                    "kind": "code",
                    "entry_point": entry_point,
                    "tests": example.solution.verification,
                }
                problem.draft.check.update(check)
                assert score(graders, problem, program) == 1


def test_small_numbers_are_smaller():
    def mean(cognitive_load):
        settings = DimensionSettings(concretization=False, cognitive_load=cognitive_load)
        total = 0
        for number in range(40):
            rng = stream(number, "small")
            seed = draw_problem(rng, "arithmetic/addition", "train")
            problem = lessons._new_problem(rng, seed, "train", "advanced", settings, False)
            total += max(operands(problem.prompt))
        return total / 40

    assert mean(True) < 0.9 * mean(False)


def test_decomposed_solutions_begin_with_what_is_given():
    problem = draw_problem(stream(1), "algebra/linear-equation", "train")
    plain, decomposed = (
        lessons._steps(problem, DimensionSettings(decomposition=on)) for on in (False, True)
    )
    assert decomposed[1:] == plain
    assert decomposed[0].startswith("Given: ")


def test_proposals_are_read_by_the_identifier_and_name_the_batchs_modules():
    for task in tasks("proposal"):
        proposal = Proposal.model_validate_json(task.answer)
        assert proposal.modules[0].id == task.module
        assert all(entry.id in MODULES for entry in proposal.modules)
        assert not any(entry.prerequisites for entry in proposal.modules)


@pytest.mark.parametrize("skill", ["name", "choice", "prior"])
def test_modules_are_named_by_their_ids(skill):
    for task in tasks(skill):
        assert task.answer == task.module
        if skill == "choice":
            assert task.module in task.messages[0]["content"].splitlines()[0]


def test_harder_problems_are_other_ones():
    same = 0
    for task in tasks("harder"):
        ask, _, given = task.messages[0]["content"].partition("\n")
        assert ask == "Make this problem harder:"
        same += task.answer == given
    # Of the hardest there may be only an equal one.
    assert same <= len(MODULES) * SAMPLES // 50


def test_every_prompt_of_the_baselines_pack_is_taught():
    """A prompt that no skill teaches would be answered by chance."""
    from suite.methods import prompting

    known = {"Write a new problem like this:", "Make this problem harder:"}
    environment = prompting._environment()
    for name in environment.list_templates():
        if name.startswith("micro/"):
            template = environment.get_template(name)
            text = template.render(prompt="PROBLEM", examples=["PROBLEM"]).strip()
            first, _, rest = text.partition("\n")
            assert text == "PROBLEM" or (first in known and rest == "PROBLEM"), name


def test_a_task_is_a_function_of_its_stream():
    one, two = (synthesis_task(stream(5, "x"), "lists/map", "train") for _ in range(2))
    assert one == two
    assert json.loads(one.answer)
