"""The page of a finished distillation."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path

from ioa_jax.adapter.schema import Lesson
from ioa_jax.files import is_there, read_json, read_value, read_values
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.organizer.mastery import GateResult
from ioa_jax.organizer.retention import ForgettingMatrix
from ioa_jax.page.document import Section, render_page
from ioa_jax.page.sections import (
    curriculum_section,
    diagnosis_sections,
    example_section,
    excluded_section,
    forgetting_section,
    form_section,
    gate_section,
    lesson_section,
    mastery_section,
    outcome_section,
    reject_section,
    retention_section,
    spend_section,
    training_section,
)
from ioa_jax.run import Forms, State
from ioa_jax.seeds import SeedItem
from ioa_jax.teachers.spend import Spend, Usage

# Gates of a stage that is trained first, then with all others, and then measured at the end.
POOLED_GATES = ("stage", "pass", "end")


def run_page(directory: Path, seeds: Sequence[SeedItem], subtitle: str) -> str:
    """The page of a run of `ioa_jax.distill`, as HTML.

    Args:
        directory: Of the run, which is finished.
        seeds: What it began with.
        subtitle: Under the page's title.

    Raises:
        InputError: A file of the run is missing or can't be read.
    """
    record = read_json(directory / "record.json")
    pooled = record["config"]["organizer"]["stage_mode"] == "pooled"
    diagnosis = read_value(directory / "diagnosis.json", Diagnosis)
    gates = read_values(directory / "gates.jsonl", GateResult)
    lessons = read_values(directory / "lessons.jsonl", Lesson)
    spend = {
        purpose: Spend(called=Usage(**used)) for purpose, used in record["spend"]["teacher"].items()
    }
    texts = {seed.id: f"{seed.prompt}\n\n{seed.reference}" for seed in seeds}
    examples: dict[str, tuple[str, str]] = {}
    for lesson in lessons:
        pair = (texts[lesson.seed], f"{lesson.prompt}\n\n{lesson.answer}")
        examples.setdefault(lesson.module, pair)
    forms = directory / "forms.json"
    matrix = read_value(directory / "retention.json", ForgettingMatrix)
    tau_mastery = record["config"]["organizer"]["tau_mastery"]
    sections: list[Section] = [
        outcome_section(record),
        *diagnosis_sections(diagnosis),
        curriculum_section(
            read_value(directory / "states/plan.json", State).curriculum, record["order"]
        ),
        lesson_section(record, difficulties(diagnosis, lessons, seeds)),
        form_section(read_value(forms, Forms).choices if is_there(forms) else {}),
        excluded_section(record["excluded"]),
        gate_section(gates, pooled),
        mastery_section(gates, tau_mastery, POOLED_GATES if pooled else ()),
        retention_section(record),
        forgetting_section(matrix, pooled),
        spend_section(spend),
        training_section(record["spend"]),
        reject_section(record["rejects"]),
        example_section(examples),
    ]
    return render_page("What the student was taught", subtitle, sections)


def difficulties(
    diagnosis: Diagnosis, lessons: Sequence[Lesson], seeds: Sequence[SeedItem]
) -> dict[str, tuple[float, float]]:
    """(Share of the lessons, share of the probes) by the seeds' own difficulty.

    Empty where a seed has none. Probes are those of the modules that lessons are of.
    """
    own = {seed.id: seed.difficulty for seed in seeds if seed.difficulty is not None}
    if len(own) < len(seeds) or not lessons:
        return {}
    modules = {lesson.module for lesson in lessons}
    probes = [item for m in modules for item in diagnosis.decomposition.items(m, "probe")]
    of_lessons = collections.Counter(own[lesson.seed] for lesson in lessons)
    of_probes = collections.Counter(own[probe] for probe in probes)
    return {
        f"{level:g}": (of_lessons[level] / len(lessons), of_probes[level] / len(probes))
        for level in sorted(of_lessons.keys() | of_probes.keys())
    }
