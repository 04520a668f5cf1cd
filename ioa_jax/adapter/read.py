"""The examples in a teacher's answer, as JSON or as plain text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ioa_jax.adapter.plain_text import read_task, split_solution
from ioa_jax.adapter.render import SynthesisSpec, requested_fields
from ioa_jax.adapter.schema import Example, RawExamples
from ioa_jax.errors import first_fault
from ioa_jax.teachers.base import Completion
from ioa_jax.teachers.structured import Unfit, answer_text, parse_completion, whole_answer

# Of other kinds of check a solution without steps teaches nothing.
_WITH_STEPS = ("math", "number")
# The teacher's own words, where it wrote them.
_OWN = ("difficulty_tag", "cognitive_load")


@dataclasses.dataclass(frozen=True)
class WrittenExample:
    """One example of an answer.

    Attributes:
        raw: As written, with the teacher's thoughts.
        example: As read, or why it isn't one.
        solution: As it stands, without thoughts, where it was written as text; else None.
        repaired: It lacked keys that the request fixes and has them from there.
    """

    raw: str
    example: Example | Unfit
    solution: str | None = None
    repaired: bool = False


def read_examples(completion: Completion, spec: SynthesisSpec) -> list[WrittenExample]:
    """The examples of an answer in JSON, at least one.

    Problem, solution, load and level are the teacher's; all else is what was asked for, whatever it
    wrote. What only the teacher can know is never added.

    Args:
        completion: The answer.
        spec: What was asked.

    Raises:
        Unfit: There is none; of the kind `filtered`, `length`, `no_json` or `schema`.
    """
    rows, _ = parse_completion(completion, RawExamples)
    return [_read_row(row, spec) for row in rows.root]


def read_plain(completion: Completion, spec: SynthesisSpec) -> WrittenExample:
    """The example in an answer in plain text."""
    try:
        cut = completion.finish_reason != "stop"
        task = read_task(answer_text(completion), spec.check == "code", cut)
        example = _from_text(task.problem, task.solution, task.tests, spec)
    except Unfit as unfit:
        return WrittenExample(completion.text, unfit)
    return WrittenExample(completion.text, example, task.solution)


def read_problem(completion: Completion) -> str:
    """The problem in an answer that is a problem alone.

    Raises:
        Unfit: There is none; of the kind `filtered`, `length` or `unparsed`.
    """
    text = whole_answer(completion).strip()
    if not text:
        raise Unfit("unparsed", "no problem")
    return text


def read_answer(problem: str, completion: Completion, spec: SynthesisSpec) -> WrittenExample:
    """The example of a problem and the answer that the teacher gave to it."""
    raw = f"{problem}\n\n{completion.text}"
    try:
        solution = whole_answer(completion).strip("\n").rstrip()
        example = _from_text(problem, solution, "", spec)
    except Unfit as unfit:
        return WrittenExample(raw, unfit)
    return WrittenExample(raw, example, solution)


def _from_text(problem: str, solution: str, tests: str, spec: SynthesisSpec) -> Example:
    steps, final = split_solution(solution, spec.check, spec.seed_reference)
    task = {
        "problem": problem,
        "solution": {"steps": steps, "final_answer": final, "verification": tests},
    }
    example = _validated(requested_fields(spec) | task)
    if isinstance(example, Unfit):
        raise example
    return example


def _read_row(row: Mapping[str, Any], spec: SynthesisSpec) -> WrittenExample:
    # Half a surrogate pair, which JSON can spell, has no place in a file.
    raw = json.dumps(row, ensure_ascii=False).encode(errors="replace").decode()
    fixed = requested_fields(spec)
    example = _validated(_completed(row, fixed))
    if isinstance(example, Example) and not example.solution.steps and spec.check in _WITH_STEPS:
        example = Unfit("schema", "field 'solution.steps': there is no step")
    return WrittenExample(raw, example, repaired=_lacks(row, fixed))


def _completed(row: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """A row with what the request fixes, and the teacher's own words where it has them."""
    completed = {**row, **fixed}
    for key, value in fixed.items():
        own = row.get(key)
        if key in _OWN and own is not None:
            completed[key] = {**value, **own} if _are_mappings(own, value) else own
        elif _are_mappings(own, value):
            assert isinstance(own, dict)
            completed[key] = _completed({name: own[name] for name in own if name in value}, value)
    return completed


def _are_mappings(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def _lacks(row: Mapping[str, Any], fixed: Mapping[str, Any]) -> bool:
    """Whether a row lacks a key of `fixed`, also inside its objects."""
    return any(
        key not in row
        or (isinstance(value, dict) and _are_mappings(row[key]) and _lacks(row[key], value))
        for key, value in fixed.items()
    )


def _validated(row: Mapping[str, Any]) -> Example | Unfit:
    try:
        return Example.model_validate(row)
    except ValidationError as error:
        return Unfit("schema", first_fault(error, "example"))
