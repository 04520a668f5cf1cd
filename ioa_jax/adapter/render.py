"""Prompts for the teacher, from the templates of a prompt pack.

`paper` is for large instruct models: full instructions, with the schema. `micro` is for teachers
with a short context: a few words a dimension.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ioa_jax.adapter.answer import plain_program
from ioa_jax.adapter.dimensions import DimensionSettings
from ioa_jax.adapter.lesson_text import LessonText, write_lesson
from ioa_jax.adapter.schema import ExampleList, Level, StageKind
from ioa_jax.errors import InputError
from ioa_jax.graders.maths import last_boxed
from ioa_jax.teachers.structured import schema_instruction
from ioa_jax.values import Value

Pack = Literal["paper", "micro"]
AnswerForm = Literal["json", "text", "none"]

_FOLDER = Path(__file__).with_name("prompts")
_STATES_ANSWER = re.compile(r"####|(?:so |thus )?the (?:final )?answer is\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class SynthesisSpec(Value):
    """What a call asks the teacher to write.

    Attributes:
        domain: `math`, `code`, `instruction` or any other name.
        stage: Number of the stage.
        kind: `remedial` asks for smaller instances than the seed.
        module: Id of the module to write for.
        modules: Ids of all modules of the stage.
        prerequisites: Ids of modules that the module needs.
        mastery: r(k), the student's relative mastery of the module; None if it isn't known.
        count: Number of examples, at least 1.
        level: Difficulty of the examples.
        size_cap: Largest number that may occur; None for no limit.
        step_cap: Most steps of a solution; None for no limit.
        seed_id: Id of the seed item.
        seed_prompt: Its task.
        seed_reference: Its right answer, may be empty.
        seed_tests: Its tests, where it is a programming task.
        seed_answer: Its answer alone, where it is known apart from the reference.
        dimensions: Which of the five are asked for.
        complaint: Why an earlier answer was rejected; empty at the first attempt.

    Raises:
        InputError: `count` or a cap is less than 1.
    """

    domain: str
    stage: int
    kind: StageKind
    module: str
    modules: tuple[str, ...]
    prerequisites: tuple[str, ...]
    mastery: float | None
    count: int
    level: Level
    size_cap: int | None
    step_cap: int | None
    seed_id: str
    seed_prompt: str
    seed_reference: str
    seed_tests: str = ""
    seed_answer: str = ""
    dimensions: DimensionSettings = dataclasses.field(default_factory=DimensionSettings)
    complaint: str = ""

    def __post_init__(self) -> None:
        for name in ("count", "size_cap", "step_cap"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"module {self.module!r}: {name}={value}: at least 1")


def render_synthesis(
    pack: Pack, spec: SynthesisSpec, form: AnswerForm = "json"
) -> tuple[Mapping[str, str], ...]:
    """The messages that ask for examples (Eq. 1).

    Args:
        pack: Name of the prompt pack.
        spec: What to ask for.
        form: What the teacher is shown of the answer's form. `json`: in `paper` the schema; in
            `micro` the seed written in it, as the answer of an earlier turn, since a small model
            continues what it sees rather than following a description. `text`, of `micro` alone:
            the seed likewise, as text with labels (`lesson_text`). `none`: nothing, for a teacher
            that was trained on the JSON.

    Returns:
        One user turn; of `micro` where the seed is shown, user, assistant and user.

    Raises:
        InputError: The form `text` with another pack.
    """
    if form == "text":
        return _render_text(pack, spec)
    # Not asdict(): the template asks the settings what is switched on.
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    fields["form"] = form == "json"
    fields["schema"] = schema_instruction(ExampleList) if (form, pack) == ("json", "paper") else ""
    messages = _message(pack, "synthesis", fields)
    if (form, pack) == ("json", "micro"):
        return (*messages, {"role": "assistant", "content": _seed_as_example(spec)}, *messages)
    return messages


def render_solve(pack: Pack, problem: str, domain: str) -> tuple[Mapping[str, str], ...]:
    """The messages that ask for an independent solution of a problem, for its verification.

    Args:
        pack: Name of the prompt pack.
        problem: Text of the problem.
        domain: Its domain, which decides the form of the final answer.
    """
    return _message(pack, "solve", {"problem": problem, "domain": domain})


def _message(pack: Pack, name: str, values: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    text = _environment().get_template(f"{pack}/{name}.j2").render(values).strip()
    return ({"role": "user", "content": text},)


def _render_text(pack: Pack, spec: SynthesisSpec) -> tuple[Mapping[str, str], ...]:
    if pack != "micro":
        raise InputError(f"adapter.form 'text' is of the pack 'micro', and the pack is {pack!r}")
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    first, last = (_message(pack, "synthesis_text", fields | {"again": on}) for on in (False, True))
    return (*first, {"role": "assistant", "content": _seed_as_text(spec)}, *last)


def _seed_as_text(spec: SynthesisSpec) -> str:
    """The seed in the form that answers of the form `text` have."""
    steps, final = _seed_solution(spec)
    if spec.domain == "code":
        lesson = LessonText(spec.seed_prompt, (), plain_program(final), spec.seed_tests)
    else:
        lesson = LessonText(spec.seed_prompt, steps if spec.domain == "math" else (), final)
    return write_lesson(lesson, spec.domain)


def _seed_solution(spec: SynthesisSpec) -> tuple[tuple[str, ...], str]:
    """The steps of the seed's reference, none where it isn't mathematics, and its answer."""
    lines = [line.strip() for line in spec.seed_reference.splitlines() if line.strip()]
    if spec.domain != "math" or not lines:
        return (), spec.seed_reference.strip()
    # GSM8K marks its answers so; others put them into a box or a last sentence, or are no more.
    marked = lines[-1].removeprefix("####").strip()
    final = spec.seed_answer or last_boxed(spec.seed_reference) or marked
    return tuple(line for line in lines if not _STATES_ANSWER.match(line)) or tuple(lines), final


def requested_fields(spec: SynthesisSpec) -> dict[str, Any]:
    """The keys of an example that the request fixes: all but `problem` and `solution`."""
    on = spec.dimensions
    return {
        "module": spec.module,
        "prereq": list(spec.prerequisites),
        "difficulty_tag": spec.level,
        "adapter_flags": {
            "concretization": on.concretization,
            "decomposition": on.decomposition,
            "cognitive_load": {"scale": "small" if on.cognitive_load else "any", "notes": ""},
            "format_template": on.template if on.format else "none",
            "simplified_language": on.language,
        },
        "metadata": {"stage_id": str(spec.stage), "seed_style_ref": spec.seed_id},
    }


def _seed_as_example(spec: SynthesisSpec) -> str:
    """The seed in the form that examples have."""
    steps, final = _seed_solution(spec)
    solution = {
        "steps": steps or ["Write the answer."],
        "final_answer": final,
        "verification": spec.seed_tests or "Work it out again.",
    }
    fixed = requested_fields(spec)
    flags, metadata = fixed.pop("adapter_flags"), fixed.pop("metadata")
    task = {"problem": spec.seed_prompt, "solution": solution}
    example = {**fixed, **task, "adapter_flags": flags, "metadata": metadata}
    # With spaces, unlike `write_examples`: a small model that wasn't trained on it takes `":["` for
    # `":{"`, since they are one token each.
    return json.dumps([example], ensure_ascii=False)


@functools.cache
def _environment() -> Environment:
    # The prompts are plain text, so nothing is escaped.
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
