"""Prompts for the teacher, from the templates of a prompt pack.

`paper` is for large instruct models: full instructions, with the schema. `micro` is for teachers
with a short context: a few words a dimension.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ioa_jax.adapter.dimensions import DimensionSettings
from ioa_jax.adapter.schema import ExampleList, Level, StageKind
from ioa_jax.errors import InputError
from ioa_jax.graders.maths import last_boxed
from ioa_jax.teachers.structured import schema_instruction
from ioa_jax.values import Value

Pack = Literal["paper", "micro"]

_FOLDER = Path(__file__).with_name("prompts")


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
    dimensions: DimensionSettings = dataclasses.field(default_factory=DimensionSettings)
    complaint: str = ""

    def __post_init__(self) -> None:
        for name in ("count", "size_cap", "step_cap"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"module {self.module!r}: {name}={value}: at least 1")


def render_synthesis(
    pack: Pack, spec: SynthesisSpec, form: bool = True
) -> tuple[Mapping[str, str], ...]:
    """The messages that ask for examples (Eq. 1).

    Args:
        pack: Name of the prompt pack.
        spec: What to ask for.
        form: Show what the JSON looks like: `paper` by its schema; `micro` by the seed written in
            it, as the answer of an earlier turn, since a small model continues what it sees rather
            than following a description. A teacher that was trained on the format needs neither.

    Returns:
        One user turn; of `micro` with the form, user, assistant and user.
    """
    # Not asdict(): the template asks the settings what is switched on.
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    fields["form"] = form
    fields["schema"] = schema_instruction(ExampleList) if form and pack == "paper" else ""
    messages = _message(pack, "synthesis", fields)
    if form and pack == "micro":
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


def _seed_as_example(spec: SynthesisSpec) -> str:
    """The seed in the form that examples have."""
    lines = [line.strip() for line in spec.seed_reference.splitlines() if line.strip()]
    final, steps = spec.seed_reference.strip(), ["Write the answer."]
    if spec.domain == "math" and lines:
        # GSM8K marks its answers so; others put them into a box, or are nothing else.
        final = last_boxed(spec.seed_reference) or lines[-1].removeprefix("####").strip()
        steps = [line for line in lines if not line.startswith("####")] or lines
    on, verification = spec.dimensions, spec.seed_tests or "Work it out again."
    example = {
        "module": spec.module,
        "prereq": list(spec.prerequisites),
        "difficulty_tag": spec.level,
        "problem": spec.seed_prompt,
        "solution": {"steps": steps, "final_answer": final, "verification": verification},
        "adapter_flags": {
            "concretization": on.concretization,
            "decomposition": on.decomposition,
            "cognitive_load": {"scale": "small" if on.cognitive_load else "any", "notes": ""},
            "format_template": on.template if on.format else "none",
            "simplified_language": on.language,
        },
        "metadata": {"stage_id": str(spec.stage), "seed_style_ref": "seed"},
    }
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
