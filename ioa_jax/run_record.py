"""The files that a finished run leaves for readers, all of it together."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ioa_jax.adapter.schema import LEVELS, RejectedExample
from ioa_jax.clock import read_seconds
from ioa_jax.conclusion import SHOWN_CHARACTERS, conclusion
from ioa_jax.files import is_there, read_value, write_json, write_values
from ioa_jax.models.text import template_date
from ioa_jax.organizer.mastery import flag_dependents
from ioa_jax.organizer.retention import Retained
from ioa_jax.record import environment

if TYPE_CHECKING:
    from ioa_jax.identifier.measure import ModulePerformance
    from ioa_jax.run import Baseline, Outcome, Run, State


def write_record(run: Run, state: State, outcome: Outcome, baseline: Baseline | None) -> None:
    """curriculum.json, gates.jsonl, lessons.jsonl, rejects.jsonl, retention.json, record.json."""
    folder = run.directory
    parts = [material for _, material in run.materials()]
    lessons = [lesson for material in parts for lesson in material.lessons]
    rejects = [reject for material in parts for reject in material.rejects]
    write_json(
        folder / "curriculum.json",
        [{"round": 1, **dataclasses.asdict(plan)} for plan in state.plans],
    )
    write_values(folder / "gates.jsonl", state.gates)
    write_values(folder / "lessons.jsonl", lessons)
    write_values(folder / "rejects.jsonl", rejects)
    write_json(folder / "retention.json", dataclasses.asdict(state.forgetting))
    model = run.before.model
    diagnosis = run.diagnosis
    levels = collections.Counter(lesson.example["difficulty_tag"] for lesson in lessons)
    taught = diagnosis.targets.modules
    record: dict[str, Any] = {
        "scorer": diagnosis.measurement.scorer,
        "config": run.config.model_dump(mode="json"),
        "environment": environment(),
        "student": {
            "spec": model.spec,
            "fingerprint": model.fingerprint,
            "parameters": model.decoder.config.parameter_count(),
            "template_date": template_date(model.tokenizer),
        },
        "teacher": run.teacher.fingerprint,
        "outcome": dataclasses.asdict(outcome) | {"is_worse": outcome.is_worse},
        "order": "dependencies" if diagnosis.graph.edges else "performance",
        "spend": _spend(run),
        "taught": sorted({lesson.module for lesson in lessons}),
        "set_aside": list(diagnosis.set_aside),
        "gates": _gates(state, run.config.organizer.stage_mode == "pooled"),
        "parked": list(state.parked),
        "flagged": flag_dependents(state.parked, diagnosis.graph),
        "excluded": [dataclasses.asdict(one) for material in parts for one in material.excluded],
        "rejects": dict(collections.Counter(reject.reason for reject in rejects)),
        "most_rejected": _most_rejected(rejects),
        "lessons": len(lessons),
        "lessons_by_level": {level: levels[level] for level in LEVELS},
        # Levels are relative to a seed's own difficulty, and probes are seeds.
        "probes_by_level": {
            level: sum(len(run.probes[m]) for m in taught) * (level == "intermediate")
            for level in LEVELS
        },
        "levels_asked": run.config.adapter.levels,
        "references": sum(len(run.seeds[module]) for module in taught)
        if run.config.organizer.references and outcome.verdict == "taught"
        else 0,
        "retained": _retained(run),
        "forgetting": state.forgetting.forgetting(),
        "performance": _performance(run, state.performance),
        "baseline": None if baseline is None else _baseline(run, baseline),
    }
    record["conclusion"] = conclusion(record)
    write_json(folder / "record.json", record)


def _spend(run: Run) -> dict[str, Any]:
    trained = run.trainers[0].trained if run.trainers else []
    return {
        "teacher": {
            purpose: dataclasses.asdict(spend.used)
            for purpose, spend in sorted(run.teacher.spend.items())
        },
        "student_tokens": sum(stage.tokens for stage in trained),
        "student_tokens_of_interventions": run.diagnosis.dependencies.student_tokens,
        "student_tokens_by_part": {stage.name: stage.tokens for stage in trained},
        # Training by its steps alone, without what `on_step` does between them.
        "seconds": {
            **read_seconds(run.directory / "seconds.jsonl"),
            "training": math.fsum(step["seconds"] for step in run.journal),
        },
    }


def _gates(state: State, pooled: bool) -> dict[str, Any]:
    """Gates by module and stage: after the first pass or the stage's own, and at the end."""
    first = [gate for gate in state.gates if gate.remedial_round == 0]
    newest = {gate.stage: gate for gate in state.gates}
    # `pooled` judges a stage when it was trained first, and all when the pass has ended.
    middle = [gate for gate in state.gates if gate.remedial_round == int(pooled)]
    return {
        "stages": len(first),
        "passed_at_once": sum(gate.passed for gate in first),
        "passed_after_remediation": sum(
            gate.passed for gate in newest.values() if gate.remedial_round > 0
        ),
        # The further gates of `pooled` are no rounds of remedial data.
        "remedial_rounds": sum(gate.remedial_round > 0 for gate in state.gates) * (not pooled),
        "first_pass": {one.module: one.mastered for gate in middle for one in gate.modules},
        "end": {one.module: one.mastered for gate in newest.values() for one in gate.modules},
        "stages_first_pass": {str(gate.stage): gate.passed for gate in middle},
        "stages_end": {str(stage): gate.passed for stage, gate in sorted(newest.items())},
    }


def _most_rejected(rejects: Sequence[RejectedExample]) -> dict[str, Any] | None:
    """The most frequent reason of rejection, with the last example of it."""
    if not rejects:
        return None
    reasons = collections.Counter(reject.reason for reject in rejects)
    reason, count = reasons.most_common(1)[0]
    last = [reject for reject in rejects if reject.reason == reason][-1]
    return {
        "reason": reason,
        "count": count,
        "module": last.module,
        "detail": last.detail,
        "example": last.raw.strip()[:SHOWN_CHARACTERS],
    }


def _retained(run: Run) -> dict[str, Any]:
    path = run.directory / "retained.json"
    if not is_there(path):
        return {"modules": [], "examples": 0, "written": 0}
    retained = read_value(path, Retained)
    return {
        "modules": list(retained.modules),
        "examples": len(retained.examples),
        "written": sum(one.written for one in retained.examples),
    }


def _performance(run: Run, after: Mapping[str, ModulePerformance]) -> dict[str, Any]:
    before = run.performance_before(after)
    return {
        module: {
            "teacher": run.teacher_performance.get(module, 0.0),
            "before": before[module].mean,
            "after": measured.mean,
            "probes": len(measured.probes),
        }
        for module, measured in sorted(after.items())
    }


def _baseline(run: Run, baseline: Baseline) -> dict[str, Any]:
    means = {module: measured.mean for module, measured in baseline.performance.items()}
    return {
        "method": "supervised fine-tuning on the seeds' references",
        "student_tokens": baseline.tokens,
        "mean": math.fsum(means.values()) / len(means),
        "performance": dict(sorted(means.items())),
    }
