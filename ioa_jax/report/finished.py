"""A finished run's folder, read: what pages and figures are made of."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from pydantic import AliasPath, BaseModel, ConfigDict, Field, ValidationError

from ioa_jax.adapter.forms import FormChoice
from ioa_jax.errors import InputError, first_fault
from ioa_jax.files import is_there, read_json, read_value, read_values
from ioa_jax.identifier.dependency import edge_ends
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.organizer.curriculum import Curriculum
from ioa_jax.organizer.mastery import GateResult
from ioa_jax.organizer.retention import ForgettingMatrix
from ioa_jax.run import Allotment, Forms
from ioa_jax.teachers.spend import Usage

_ORGANIZER = ("config", "organizer")


class _Part(BaseModel):
    """Fields of record.json; those that a default stands for came after the first runs."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class Performance(_Part):
    """P of a module's probes: the teacher's, and the student's before and after."""

    teacher: float
    before: float
    after: float


class Baseline(_Part):
    """Plain fine-tuning on the seeds."""

    performance: dict[str, float]


class Retained(_Part):
    """What was kept as the student was."""

    modules: tuple[str, ...] = ()
    examples: int = 0
    written: int = 0


class Excluded(_Part):
    """A module that was given up while examples were written."""

    module: str
    reason: str
    calls: int
    example: str


class RunSpend(_Part):
    """Calls by purpose, tokens trained on by part of the curriculum in its order, and seconds."""

    teacher: dict[str, Usage] = {}
    student_tokens_by_part: dict[str, int]
    seconds: dict[str, float] = {}


class Gates(_Part):
    """Whether gates were passed, by module and by stage."""

    first_pass: dict[str, bool] = {}
    end: dict[str, bool] = {}
    stages_first_pass: dict[str, bool] = {}
    stages_end: dict[str, bool] = {}


class Record(_Part):
    """record.json, as far as it is shown."""

    conclusion: str = ""
    scorer: str
    stage_mode: str = Field("", validation_alias=AliasPath(*_ORGANIZER, "stage_mode"))
    first_pass_share: float | None = Field(
        None, validation_alias=AliasPath(*_ORGANIZER, "first_pass_share")
    )
    tau_mastery: float = Field(0.9, validation_alias=AliasPath(*_ORGANIZER, "tau_mastery"))
    retention: str = Field("none", validation_alias=AliasPath(*_ORGANIZER, "retention", "kind"))
    order: str = ""
    performance: dict[str, Performance]
    baseline: Baseline | None = None
    taught: tuple[str, ...] = ()
    parked: tuple[str, ...] = ()
    retained: Retained = Retained()
    excluded: tuple[Excluded, ...] = ()
    lessons: int
    references: int = 0
    lessons_by_level: dict[str, int] = {}
    levels_asked: dict[str, float] = {}
    probes_by_level: dict[str, int] = {}
    rejects: dict[str, int]
    spend: RunSpend
    gates: Gates = Gates()


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What `distill` leaves.

    Attributes:
        name: What figures call it.
        diagnosis: Before teaching.
        plans: In the order in which they were made.
        gates: In their order.
        forgetting: r(k) before, after each stage or after the first pass through all, and at the
            end.
        record: What it came to.
        parts: Totals of the run when a part of its material began, by the part's name.
    """

    name: str
    diagnosis: Diagnosis
    plans: tuple[Curriculum, ...]
    gates: tuple[GateResult, ...]
    forgetting: ForgettingMatrix
    record: Record
    parts: dict[str, Allotment]

    @property
    def has_first_pass(self) -> bool:
        """Whether all stages were passed through before anything was measured on all modules."""
        return self.record.stage_mode == "pooled" and self.record.first_pass_share is not None

    @property
    def taught(self) -> frozenset[str]:
        """Modules of any plan."""
        return frozenset(m for plan in self.plans for stage in plan.stages for m in stage.modules)

    @property
    def edges(self) -> frozenset[tuple[str, str]]:
        """(prerequisite, dependent) of the graph that was found."""
        return frozenset(map(edge_ends, self.diagnosis.graph.edges))

    def teacher_tokens(self, total: int) -> dict[str, int]:
        """Generated for each part of the material: from its beginning to that of the next.

        Empty where nothing was taught, as when the diagnosis found no gap.

        Args:
            total: At the end of the run.
        """
        begun = sorted(
            self.parts.items(), key=lambda part: (part[1].teacher_from, part[1].student_from)
        )
        ends = [part.teacher_from for _, part in begun[1:]] + [total]
        return {
            name: end - part.teacher_from for (name, part), end in zip(begun, ends, strict=False)
        }


def read_finished(directory: Path, name: str = "this run") -> FinishedRun:
    """Read a finished run.

    Args:
        directory: The run's.
        name: What figures are to call it.

    Raises:
        InputError: A file is missing or doesn't fit.
    """
    return FinishedRun(
        name,
        read_value(directory / "diagnosis.json", Diagnosis),
        _read_plans(directory / "curriculum.json"),
        read_values(directory / "gates.jsonl", GateResult),
        read_value(directory / "retention.json", ForgettingMatrix),
        _read_record(directory / "record.json"),
        {
            part.name: read_value(part / "limits.json", Allotment)
            for part in directory.glob("parts/*")
            if is_there(part / "limits.json")
        },
    )


def read_forms(directory: Path) -> dict[str, FormChoice]:
    """The forms of answers, by module; empty where the student chose none.

    Raises:
        InputError: The file doesn't fit.
    """
    path = directory / "forms.json"
    return read_value(path, Forms).choices if is_there(path) else {}


def _read_record(path: Path) -> Record:
    try:
        return Record.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path}: {first_fault(error, 'record')}") from None


def _read_plans(path: Path) -> tuple[Curriculum, ...]:
    plans = read_json(path)
    if not isinstance(plans, list) or not all(isinstance(plan, dict) for plan in plans):
        raise InputError(f"{path}: a list of plans is needed")
    return tuple(
        Curriculum.from_json(
            json.dumps({name: value for name, value in plan.items() if name != "round"}),
            f"{path}: plan {number}",
        )
        for number, plan in enumerate(plans)
    )
