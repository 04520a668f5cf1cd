"""The pages of a diagnosis and of a finished distillation."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path

from ioa_jax.adapter.schema import Lesson
from ioa_jax.files import read_values
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.report import sections
from ioa_jax.report.finished import read_finished, read_forms
from ioa_jax.report.page import render_page
from ioa_jax.seeds import SeedItem

# Gates of a stage that is trained first, then with all others, and then measured at the end.
POOLED_GATES = ("stage", "pass", "end")


def diagnosis_page(diagnosis: Diagnosis, subtitle: str) -> str:
    """The page of a diagnosis, as HTML.

    Args:
        diagnosis: What was found.
        subtitle: Under the page's title.
    """
    return render_page("What the student lacks", [subtitle], sections.diagnosis_sections(diagnosis))


def run_page(directory: Path, seeds: Sequence[SeedItem], subtitle: str) -> str:
    """The page of a run of `ioa_jax.distill`, as HTML.

    Args:
        directory: Of the run, which is finished.
        seeds: What it began with.
        subtitle: Under the page's title.

    Raises:
        InputError: A file of the run is missing or can't be read.
    """
    run = read_finished(directory)
    record, pooled = run.record, run.has_first_pass
    lessons = read_values(directory / "lessons.jsonl", Lesson)
    texts = {seed.id: f"{seed.prompt}\n\n{seed.reference}" for seed in seeds}
    examples: dict[str, tuple[str, str]] = {}
    for lesson in lessons:
        pair = (texts[lesson.seed], f"{lesson.prompt}\n\n{lesson.answer}")
        examples.setdefault(lesson.module, pair)
    shown = [
        sections.outcome_section(record),
        *sections.diagnosis_sections(run.diagnosis),
        sections.curriculum_section(run.plans[0], record.order),
        sections.lesson_section(record, difficulties(run.diagnosis, lessons, seeds)),
        sections.form_section(read_forms(directory)),
        sections.excluded_section(record.excluded),
        sections.gate_section(run.gates, pooled),
        sections.mastery_section(run.gates, record.tau_mastery, POOLED_GATES if pooled else ()),
        sections.retention_section(record),
        sections.forgetting_section(run.forgetting, pooled),
        sections.spend_section(record.spend.teacher),
        sections.training_section(record.spend),
        sections.reject_section(record.rejects),
        sections.example_section(examples),
    ]
    return render_page("What the student was taught", [subtitle], shown)


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
