import json

import pytest
from pydantic import ValidationError

from ioa_jax.adapter.schema import Example, ExampleList, Lesson, RawExamples, write_examples
from tests.adapter.examples import example


def test_examples_survive_json():
    written = write_examples([Example.model_validate(example())])
    assert "\n" not in written
    assert len(written) == len(json.dumps([example()], separators=(",", ":")))
    assert ExampleList.model_validate_json(written).examples[0].module == "algebra/linear"


def paths(value, place=()):
    for key, part in value.items():
        yield (*place, key)
        if isinstance(part, dict):
            yield from paths(part, (*place, key))


@pytest.mark.parametrize("path", list(paths(example())))
def test_every_key_is_required_and_no_other_allowed(path):
    row = json.loads(json.dumps(example()))
    part = row
    for key in path[:-1]:
        part = part[key]
    value = part.pop(path[-1])
    with pytest.raises(ValidationError):
        Example.model_validate(row)
    part[path[-1]] = value
    part["more"] = 1
    with pytest.raises(ValidationError):
        Example.model_validate(row)


@pytest.mark.parametrize(
    "change",
    [
        {"problem": " \n"},
        {"difficulty_tag": "hard"},
        {"solution": {"steps": [""], "final_answer": "1", "verification": ""}},
        {"solution": {"steps": ["a"], "final_answer": "", "verification": ""}},
    ],
)
def test_what_is_empty_or_unknown_is_refused(change):
    with pytest.raises(ValidationError):
        Example.model_validate(example(**change))


def test_numbers_are_taken_as_texts():
    row = example(solution={"steps": ["1 + 1 = 2"], "final_answer": 2, "verification": ""})
    row["metadata"]["stage_id"] = 3
    read = Example.model_validate(row)
    assert (read.solution.final_answer, read.metadata.stage_id) == ("2", "3")


def test_a_single_object_is_an_array_of_one():
    assert RawExamples.model_validate({"a": 1}).root == ({"a": 1},)
    with pytest.raises(ValidationError):
        RawExamples.model_validate([])


def test_a_lesson_is_read_back_as_it_was():
    lesson = Lesson(
        "l", "s", "algebra/linear", 1, "stage", "p", "a", example(), None, {"steps": 2.0}, "test"
    )
    assert Lesson.from_json(lesson.to_json(), "lessons.jsonl") == lesson
    assert lesson.messages == ({"role": "user", "content": "p"},)
