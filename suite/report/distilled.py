"""What IOA and its controls leave of a run, as far as the report shows it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ioa_jax.errors import InputError
from ioa_jax.files import is_there, read_json, read_value
from ioa_jax.identifier.dependency import DependencyGraph
from ioa_jax.identifier.gap import ModuleGap
from ioa_jax.identifier.target import Targets
from ioa_jax.jsonl import read_objects
from ioa_jax.organizer.curriculum import Stage
from ioa_jax.organizer.mastery import GateResult
from ioa_jax.organizer.retention import ForgettingMatrix
from suite.cells import ORACLE
from suite.results import CellResult, RunResult
from suite.schema import check, read_file


class _Part(BaseModel):
    """Fields of a larger file; the others aren't shown."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Dependencies(_Part):
    """Of diagnosis.json's part on Eq. 3."""

    graph: DependencyGraph


class Diagnosis(_Part):
    """Of diagnosis.json."""

    gaps: tuple[ModuleGap, ...]
    dependencies: Dependencies
    targets: Targets


class Plan(_Part):
    """Of an entry of curriculum.json: the stages that were ahead at some gate."""

    round: int
    stages: tuple[Stage, ...]


class Performance(_Part):
    """A module before and after."""

    teacher: float
    before: float
    after: float


class Spend(_Part):
    """Tokens that the student was trained on, by part of the curriculum in its order."""

    student_tokens_by_part: dict[str, int]


class Limits(_Part):
    """Of parts/PART/limits.json: the run's totals when the part began."""

    student_from: int
    teacher_from: int


class Gates(_Part):
    """Of record.json: gates by module and by stage; empty in runs of before they were recorded."""

    first_pass: dict[str, bool] = {}
    end: dict[str, bool] = {}
    stages_end: dict[str, bool] = {}


class OrganizerSettings(_Part):
    """Of record.json's settings; runs of before there was a first pass have no share of it."""

    stage_mode: str = ""
    first_pass_share: float | None = None


class Settings(_Part):
    """Of record.json's settings."""

    organizer: OrganizerSettings = OrganizerSettings()


class Record(_Part):
    """Of record.json."""

    config: Settings = Settings()
    spend: Spend
    performance: dict[str, Performance]
    parked: tuple[str, ...]
    rejects: dict[str, int]
    lessons: int
    lessons_by_level: dict[str, int] = {}
    probes_by_level: dict[str, int] = {}
    gates: Gates = Gates()


@dataclasses.dataclass(frozen=True)
class Distilled:
    """The method's own folder in a cell.

    Attributes:
        cell: Whose.
        diagnosis: Before teaching.
        plans: In the order in which they were made.
        gates: In their order.
        matrix: r(k) before, after each stage or after the first pass through all, and at the end.
        teacher_tokens: Generated for each part of the curriculum, by its name.
        record: What it came to.
    """

    cell: CellResult
    diagnosis: Diagnosis
    plans: tuple[Plan, ...]
    gates: tuple[GateResult, ...]
    matrix: ForgettingMatrix
    teacher_tokens: dict[str, int]
    record: Record

    @property
    def has_first_pass(self) -> bool:
        """Whether all stages were passed through before anything was measured on all modules."""
        organizer = self.record.config.organizer
        return organizer.stage_mode == "pooled" and organizer.first_pass_share is not None


def read_distilled(cell: CellResult) -> Distilled | None:
    """A finished cell's folder; None where its method has none.

    Raises:
        InputError: A file is missing or doesn't fit.
    """
    with cell.files.naming():
        return _read_distilled(cell) if cell.distill.is_dir() else None


def _read_distilled(cell: CellResult) -> Distilled:
    folder = cell.distill
    path, retention = folder / "curriculum.json", folder / "retention.json"
    plans = read_json(path)
    if not isinstance(plans, list):
        raise InputError(f"{path}: a list of plans is needed")
    return Distilled(
        cell,
        read_file(Diagnosis, folder / "diagnosis.json"),
        tuple(check(Plan, plan, f"{path}: plan {i}") for i, plan in enumerate(plans)),
        tuple(
            GateResult.from_json(json.dumps(value), f"{folder / 'gates.jsonl'}:{line}")
            for line, value in read_objects(folder / "gates.jsonl")
        ),
        read_value(retention, ForgettingMatrix),
        _teacher_tokens(folder, cell.file.spend.teacher_tokens),
        read_file(Record, folder / "record.json"),
    )


def oracle_gates(result: RunResult) -> dict[int | None, Gates]:
    """By seed, the gates that the oracle's students pass at the end; its cells have no course, and
    say it in their notes.
    """
    return {
        cell.file.seed: check(
            Gates,
            (cell.file.notes.model_extra or {}).get("gates", {}),
            result.files.named(f"{cell.folder / 'cell.json'}: notes.gates"),
        )
        for cell in result.cells_of(ORACLE)
    }


def distilled_of(result: RunResult, method: str) -> tuple[Distilled, ...]:
    """Of a method's finished cells, those that have such a folder."""
    found = (read_distilled(cell) for cell in result.cells_of(method))
    return tuple(one for one in found if one is not None)


def _teacher_tokens(folder: Path, total: int) -> dict[str, int]:
    """A part's tokens: from its beginning to that of the next, or to the end.

    Empty where nothing was taught in stages, as when the diagnosis found no gap.
    """
    begun = sorted(
        (
            (part.name, read_file(Limits, part / "limits.json"))
            for part in folder.glob("parts/*")
            if is_there(part / "limits.json")
        ),
        key=lambda part: (part[1].teacher_from, part[1].student_from),
    )
    if not begun:
        return {}
    ends = [limits.teacher_from for _, limits in begun[1:]] + [total]
    return {
        name: end - limits.teacher_from for (name, limits), end in zip(begun, ends, strict=True)
    }
