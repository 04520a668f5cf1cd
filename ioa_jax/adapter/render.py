"""Prompts for the teacher, from the templates of a prompt pack.

`paper` is for large instruct models: full instructions. `micro` is for teachers with a short
context: in JSON a few words a dimension, else a problem alone and then its answer alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ioa_jax.adapter.dimensions import DimensionSettings
from ioa_jax.adapter.forms import Form
from ioa_jax.adapter.plain_text import PlainTask, write_task
from ioa_jax.adapter.schema import ExampleList, Level, StageKind
from ioa_jax.errors import InputError
from ioa_jax.graders.maths import last_boxed
from ioa_jax.seeds import SeedItem
from ioa_jax.teachers.structured import schema_instruction
from ioa_jax.values import Value

Pack = Literal["paper", "micro"]
AnswerForm = Literal["json", "none"]
Messages = tuple[Mapping[str, str], ...]

_FOLDER = Path(__file__).with_name("prompts")
# Levels are relative to the seed's own difficulty.
_DIFFICULTY: dict[Level, str] = {
    "introductory": "a little easier than it: a step less or smaller values",
    "intermediate": "as difficult as it",
    "advanced": "a little harder than it: a step more or larger values",
}
_HINT: dict[Level, str] = {
    "introductory": ", a little easier than the last one,",
    "intermediate": "",
    "advanced": ", a little harder than the last one,",
}
_STATES_ANSWER = re.compile(r"####|(?:so |thus )?the (?:final )?answer is\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class SynthesisSpec(Value):
    """What a call asks the teacher to write.

    Attributes:
        domain: What it is about, in any words; what an answer looks like follows `check`.
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
        check: Kind of its check, which decides what an answer looks like.
        seed_tests: Its tests, where it is a programming task.
        seed_answer: Its answer alone, where it is known apart from the reference.
        form: How the student's answers are written.
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
    check: str
    seed_tests: str = ""
    seed_answer: str = ""
    form: Form = "lines"
    dimensions: DimensionSettings = dataclasses.field(default_factory=DimensionSettings)
    complaint: str = ""

    def __post_init__(self) -> None:
        for name in ("count", "size_cap", "step_cap"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"module {self.module!r}: {name}={value}: at least 1")


def render_synthesis(pack: Pack, spec: SynthesisSpec, form: AnswerForm = "json") -> Messages:
    """The messages that ask for examples as JSON (Eq. 1).

    Args:
        pack: Name of the prompt pack.
        spec: What to ask for.
        form: What the teacher is shown of the answer's form. `json`: in `paper` the schema; in
            `micro` the seed written in it, as the answer of an earlier turn, since a small model
            continues what it sees rather than following a description. `none`: nothing, for a
            teacher that was trained on the JSON.

    Returns:
        One user turn; of `micro` where the seed is shown, user, assistant and user.
    """
    fields = _fields(spec)
    fields["form"] = form == "json"
    fields["schema"] = schema_instruction(ExampleList) if (form, pack) == ("json", "paper") else ""
    messages = _message(pack, "synthesis", fields)
    if (form, pack) == ("json", "micro"):
        return (*messages, {"role": "assistant", "content": _seed_as_example(spec)}, *messages)
    return messages


def render_lean(spec: SynthesisSpec) -> Messages:
    """The message that asks for a problem and its solution as plain text (pack `paper`)."""
    task = PlainTask(spec.seed_prompt, spec.seed_reference, spec.seed_tests)
    labels = ["Problem:", "Solution:"] + ["Tests:"] * (spec.check == "code")
    fields = _fields(spec) | {"shown": write_task(task), "labels": ", ".join(labels)}
    return _message("paper", "lean", fields | {"difficulty": _DIFFICULTY[spec.level]})


def render_problem(pack: Pack, seed_prompt: str, level: Level) -> Messages:
    """The message that asks for a problem alone.

    Args:
        pack: Name of the prompt pack; `micro` knows a similar problem and a harder one.
        seed_prompt: The task that it is to be like.
        level: Relative to that task.
    """
    fields = {"seed_prompt": seed_prompt, "level": level, "difficulty": _DIFFICULTY[level]}
    return _message(pack, "problem", fields)


def render_few_shot(
    seeds: Sequence[SeedItem], module: str, level: Level, with_solutions: bool = True
) -> tuple[Messages, tuple[str, ...]]:
    """Tasks as plain text, to be continued with another one.

    Each is the answer of a turn of its own: a model that was trained on chats answers the last of
    several tasks in one message, rather than going on with a further one.

    Args:
        seeds: Tasks to show; the last one is what the new one should be most like.
        module: Id of their module.
        level: Of the new task, relative to the last.
        with_solutions: Else problems alone.

    Returns:
        The messages, and the texts at which an answer ends.
    """
    topic = module.split("/")[-1].replace("-", " ")
    tests = " and tests" if with_solutions and seeds[-1].kind == "code" else ""
    rest = f" with its solution{tests}" if with_solutions else ""
    turns: list[Mapping[str, str]] = []
    for seed in seeds:
        solution = seed.reference if with_solutions else ""
        shown = PlainTask(seed.prompt, solution, str(seed.check.get("tests", "")) if tests else "")
        turns += (
            {"role": "user", "content": f"Write a new problem on {topic}{rest}."},
            {"role": "assistant", "content": write_task(shown)},
        )
    last = f"Write a new problem on {topic}{_HINT[level]}{rest}."
    messages = (*turns, {"role": "user", "content": last})
    return messages, ("\nProblem",) if with_solutions else ("\nProblem", "\nSolution")


def render_solve(pack: Pack, problem: str, domain: str) -> Messages:
    """The messages that ask for an independent solution of a problem, for its verification.

    Args:
        pack: Name of the prompt pack.
        problem: Text of the problem.
        domain: Its domain, which decides the form of the final answer.
    """
    return _message(pack, "solve", {"problem": problem, "domain": domain})


def _message(pack: Pack, name: str, values: Mapping[str, Any]) -> Messages:
    text = _environment().get_template(f"{pack}/{name}.j2").render(values).strip()
    return ({"role": "user", "content": text},)


def _fields(spec: SynthesisSpec) -> dict[str, Any]:
    # Not asdict(): the templates ask the settings what is switched on.
    return {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}


def _seed_solution(spec: SynthesisSpec) -> tuple[tuple[str, ...], str]:
    """The steps of the seed's reference, none where its check reads the whole, and its answer."""
    lines = [line.strip() for line in spec.seed_reference.splitlines() if line.strip()]
    if spec.check not in ("math", "number") or not lines:
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
