"""What the teacher writes and what becomes of it (method 3)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    model_validator,
)

from ioa_jax.values import Value

Level = Literal["introductory", "intermediate", "advanced"]
StageKind = Literal["stage", "bridge", "remedial"]
RejectReason = Literal[
    "no_json",
    "unparsed",
    "schema",
    "length",
    "filtered",
    "off_request",
    "too_large",
    "duplicate",
    "contaminated",
    "check_failed",
    "vacuous_tests",
    "unverified",
    "too_easy",
    "too_hard",
    "not_chosen",
    "surplus",
]

# The easiest first.
LEVELS: tuple[Level, ...] = get_args(Level)


def _whole(text: str) -> str:
    # It stands where a teacher wrote half of a character.
    if "\ufffd" in text:
        raise ValueError("half of a character")
    return text


Text = Annotated[str, StringConstraints(pattern=r"\S"), AfterValidator(_whole)]


class _Part(BaseModel):
    """A part of an example. A number where a text belongs is taken as its text."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Solution(_Part):
    """How the problem is solved."""

    steps: tuple[Text, ...] = Field(
        description="the steps in order; only programs and texts may go without"
    )
    final_answer: Text = Field(
        description="the answer alone; of a programming problem the whole program"
    )
    verification: str = Field(
        description="how the answer is checked; of a programming problem Python asserts"
    )


class CognitiveLoad(_Part):
    """How large the instance is."""

    scale: str = Field(description="how large the numbers or the input are")
    notes: str = Field(description="how the load was kept low; may be empty")


class AdapterFlags(_Part):
    """What was asked of the teacher, and of `cognitive_load` what it says that it did."""

    concretization: bool = Field(description="the problem begins with something from everyday life")
    decomposition: bool = Field(description="the steps are small and explicit")
    cognitive_load: CognitiveLoad
    format_template: str = Field(description="name of the template that the steps follow")
    simplified_language: bool = Field(description="short sentences, plain words")


class Metadata(_Part):
    """Where the example belongs."""

    stage_id: str = Field(description="number of the stage")
    seed_style_ref: str = Field(description="name of the seed task")


class Example(_Part):
    """A synthetic problem with its solution. Every key is required.

    Problem, solution and load are the teacher's; what the request fixes is filled in.

    With a check of the kind `code`, `final_answer` is the program and `verification` a Python test
    that raises if it is wrong; where the whole text is judged, `final_answer` is that text.
    """

    module: Text
    prereq: tuple[str, ...]
    difficulty_tag: Level
    problem: Text
    solution: Solution
    adapter_flags: AdapterFlags
    metadata: Metadata


class ExampleList(RootModel[Annotated[tuple[Example, ...], Field(min_length=1)]]):
    """What one call of the teacher has to answer: a JSON array of examples."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The examples, at least one."""
        return self.root


class RawExamples(RootModel[Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]]):
    """An answer's array before its examples are looked at one by one.

    A single object counts as an array of one.
    """

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value


def write_examples(examples: Sequence[Example]) -> str:
    """The compact JSON array that a teacher should answer with."""
    rows = [example.model_dump(mode="json") for example in examples]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


@dataclasses.dataclass(frozen=True)
class Lesson(Value):
    """An accepted example: what the student is taught.

    Attributes:
        id: Unique within a run.
        seed: Id of the seed item.
        module: The seed's module.
        stage: Number of the stage.
        kind: What the stage's material is for.
        prompt: Text of the problem.
        answer: What the student is trained to write.
        example: The `Example`: as the teacher wrote it, but for what the request fixes.
        nll: Mean negative log-likelihood of the answer under the student, in nats per token, when
            it was chosen; None where nothing was scored.
        measures: Figures of the five dimensions by name (`dimensions.measure`).
        verified_by: How the answer was verified.
    """

    id: str
    seed: str
    module: str
    stage: int
    kind: StageKind
    prompt: str
    answer: str
    example: dict[str, Any]
    nll: float | None
    measures: dict[str, float]
    verified_by: str

    @property
    def messages(self) -> tuple[dict[str, str], ...]:
        """The student's prompt as one user turn."""
        return ({"role": "user", "content": self.prompt},)


@dataclasses.dataclass(frozen=True)
class RejectedExample(Value):
    """An answer, or one example of it, that isn't taught.

    Attributes:
        seed: Id of the seed item.
        module: The seed's module.
        stage: Number of the stage.
        attempt: From 1.
        reason: `no_json`, `unparsed` (a text that lacks its problem, tests or an answer that can be
            read), `schema`, `length` (cut off at the token limit), `filtered` (the server refused),
            `off_request` (another level than asked for), `too_large` (over a cap),
            `duplicate`, `contaminated` (overlaps with a benchmark's test item), `check_failed`,
            `vacuous_tests` (a program without content passes them), `unverified` (nothing could
            decide, as when the independent solutions have no answer), `too_easy` and `too_hard`
            (outside the student's zone), `not_chosen` (another rewrite was), `surplus` (more
            examples than asked for).
        detail: In words.
        raw: The example as JSON, or the whole answer where no example was found in it.
    """

    seed: str
    module: str
    stage: int
    attempt: int
    reason: RejectReason
    detail: str
    raw: str


@dataclasses.dataclass(frozen=True)
class ExcludedModule(Value):
    """A module that a request gave up, since nothing that the teacher wrote for it passed.

    Attributes:
        module: Id.
        reason: The most frequent one of its rejections.
        example: What the teacher wrote in one of these, shortened.
        calls: Calls of the teacher for its examples that brought nothing since the last lesson.
    """

    module: str
    reason: RejectReason
    example: str
    calls: int


@dataclasses.dataclass(frozen=True)
class WrittenProblem(Value):
    """A new problem alone, which nobody has answered yet.

    Attributes:
        id: Unique within a run.
        seed: Id of the seed item that it is like.
        module: The seed's module.
        prompt: Its text.
    """

    id: str
    seed: str
    module: str
    prompt: str

    @property
    def messages(self) -> tuple[dict[str, str], ...]:
        """The problem as one user turn."""
        return ({"role": "user", "content": self.prompt},)
