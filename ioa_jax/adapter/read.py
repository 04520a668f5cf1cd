"""The examples in a teacher's answer, as JSON or as text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ioa_jax.adapter.lesson_text import read_lesson, split_lessons
from ioa_jax.adapter.render import AnswerForm, SynthesisSpec, requested_fields
from ioa_jax.adapter.schema import Example, RawExamples
from ioa_jax.errors import first_fault
from ioa_jax.teachers.base import Completion
from ioa_jax.teachers.structured import Unfit, parse_completion

# Of other domains a solution without steps teaches nothing.
_WITHOUT_STEPS = ("code", "instruction")


@dataclasses.dataclass(frozen=True)
class WrittenExample:
    """One example of an answer.

    Attributes:
        raw: As written.
        example: As read, or why it isn't one.
        repaired: It lacked keys that the request fixes and has them from there.
    """

    raw: str
    example: Example | Unfit
    repaired: bool = False


def read_examples(
    completion: Completion, spec: SynthesisSpec, form: AnswerForm
) -> list[WrittenExample]:
    """The examples of an answer, at least one.

    Of a text, problem, steps, answer and tests are the teacher's; all else is what was asked for.
    JSON that lacks such keys is completed likewise. What only the teacher can know is never added.

    Args:
        completion: The answer.
        spec: What was asked.
        form: What it was asked to be written in.

    Raises:
        Unfit: There is none; of the kind `filtered`, `length`, `no_json`, `schema` or `unparsed`.
    """
    if form == "text":
        return _read_texts(completion, spec)
    rows, _ = parse_completion(completion, RawExamples)
    return [_read_row(row, spec) for row in rows.root]


def _read_texts(completion: Completion, spec: SynthesisSpec) -> list[WrittenExample]:
    if completion.finish_reason == "filtered":
        raise Unfit("filtered", "the teacher's server refused to answer")
    cut = completion.finish_reason != "stop"
    texts = split_lessons(completion.text, spec.domain)
    if not texts:
        raise Unfit("length" if cut else "unparsed", "no problem")
    return [
        WrittenExample(text, _read_text(text, spec, cut and text is texts[-1])) for text in texts
    ]


def _read_text(text: str, spec: SynthesisSpec, cut: bool) -> Example | Unfit:
    try:
        lesson = read_lesson(text, spec.domain, cut)
    except Unfit as unfit:
        return unfit
    solution = {
        "steps": lesson.steps,
        "final_answer": lesson.answer,
        "verification": lesson.tests,
    }
    task = {"problem": lesson.problem, "solution": solution}
    return _validated(requested_fields(spec) | task, spec.domain)


def _read_row(row: Mapping[str, Any], spec: SynthesisSpec) -> WrittenExample:
    # Half a surrogate pair, which JSON can spell, has no place in a file.
    raw = json.dumps(row, ensure_ascii=False).encode(errors="replace").decode()
    completed = _completed(row, requested_fields(spec))
    return WrittenExample(raw, _validated(completed, spec.domain), completed != row)


def _completed(row: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the keys of `fixed` that it lacks, also inside its objects."""
    completed = dict(row)
    for key, value in fixed.items():
        own = completed.setdefault(key, value)
        if isinstance(own, dict) and isinstance(value, dict):
            completed[key] = _completed(own, value)
    return completed


def _validated(row: Mapping[str, Any], domain: str) -> Example | Unfit:
    try:
        example = Example.model_validate(row)
    except ValidationError as error:
        return Unfit("schema", first_fault(error, "example"))
    if not example.solution.steps and domain not in _WITHOUT_STEPS:
        return Unfit("schema", "field 'solution.steps': there is no step")
    return example
