"""The page of a finished distillation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ioa_jax.adapter.schema import Lesson
from ioa_jax.files import read_json, read_value, read_values
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.organizer.curriculum import Curriculum
from ioa_jax.organizer.mastery import GateResult
from ioa_jax.organizer.retention import ForgettingMatrix
from ioa_jax.page.document import Section, render_page
from ioa_jax.page.sections import (
    curriculum_section,
    diagnosis_sections,
    example_section,
    forgetting_section,
    mastery_section,
    reject_section,
    spend_section,
)
from ioa_jax.seeds import SeedItem
from ioa_jax.teachers.spend import Spend, Usage


def run_page(directory: Path, seeds: Sequence[SeedItem], subtitle: str) -> str:
    """The page of a run of `ioa_jax.distill.distill`, as HTML.

    Args:
        directory: Of the run, which is finished.
        seeds: What it began with.
        subtitle: Under the page's title.

    Raises:
        InputError: A file of the run is missing or can't be read.
    """
    record = read_json(directory / "record.json")
    diagnosis = read_value(directory / "diagnosis.json", Diagnosis)
    gates = read_values(directory / "gates.jsonl", GateResult)
    spend = {
        purpose: Spend(called=Usage(**used)) for purpose, used in record["spend"]["teacher"].items()
    }
    texts = {seed.id: f"{seed.prompt}\n\n{seed.reference}" for seed in seeds}
    examples: dict[str, tuple[str, str]] = {}
    for lesson in read_values(directory / "lessons.jsonl", Lesson):
        pair = (texts[lesson.seed], f"{lesson.prompt}\n\n{lesson.answer}")
        examples.setdefault(lesson.module, pair)
    sections: list[Section] = [
        *diagnosis_sections(diagnosis),
        curriculum_section(read_value(directory / "rounds/1/curriculum-0.json", Curriculum)),
        mastery_section(gates, record["config"]["organizer"]["tau_mastery"]),
        forgetting_section(read_value(directory / "retention.json", ForgettingMatrix)),
        spend_section(spend),
        reject_section(record["rejects"]),
        example_section(examples),
    ]
    return render_page("What the student was taught", subtitle, sections)
