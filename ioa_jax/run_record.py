"""The files that a finished run leaves for readers, all of it together."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ioa_jax.adapter.schema import LEVELS, ExcludedModule, Level, RejectedExample, RejectReason
from ioa_jax.clock import read_seconds
from ioa_jax.conclusion import SHOWN_CHARACTERS, conclusion
from ioa_jax.files import is_there, read_value, write_json, write_values
from ioa_jax.models.text import template_date
from ioa_jax.organizer.mastery import flag_dependents
from ioa_jax.organizer.retention import Retained
from ioa_jax.record import environment
from ioa_jax.teachers.spend import Usage

if TYPE_CHECKING:
    from ioa_jax.identifier.measure import ModulePerformance
    from ioa_jax.run import Baseline, Outcome, Run, State


@dataclasses.dataclass(frozen=True)
class StudentModel:
    """The student as it was.

    Attributes:
        spec: As it was named.
        fingerprint: Of its weights.
        parameters: Number of them.
        template_date: The day that its chat template writes as today's; None if it writes none.
    """

    spec: str
    fingerprint: str
    parameters: int
    template_date: str | None


@dataclasses.dataclass(frozen=True)
class Spending:
    """What a run took.

    Attributes:
        teacher: By purpose of the calls.
        student_tokens: Trained on.
        student_tokens_of_interventions: By the dependencies' adapters, beside these.
        student_tokens_by_part: By stage of training.
        seconds: By step; training by its steps alone, without what `on_step` does between them.
    """

    teacher: dict[str, Usage]
    student_tokens: int
    student_tokens_of_interventions: int
    student_tokens_by_part: dict[str, int]
    seconds: dict[str, float]


@dataclasses.dataclass(frozen=True)
class GateSummary:
    """Gates by module and stage: after the first pass or the stage's own, and at the end.

    Attributes:
        stages: That had a gate.
        passed_at_once: Of them, at their first gate.
        passed_after_remediation: Of them, at a later one.
        remedial_rounds: With data of their own; the further gates of `pooled` are none.
        first_pass: Whether each module was mastered after the first pass.
        end: Likewise in the end.
        stages_first_pass: Whether each stage passed after the first pass.
        stages_end: Likewise in the end.
    """

    stages: int
    passed_at_once: int
    passed_after_remediation: int
    remedial_rounds: int
    first_pass: dict[str, bool]
    end: dict[str, bool]
    stages_first_pass: dict[str, bool]
    stages_end: dict[str, bool]


@dataclasses.dataclass(frozen=True)
class MostRejected:
    """The most frequent reason of rejection, with the last example of it.

    Attributes:
        reason: Why.
        count: Of its rejections.
        module: Of the example.
        detail: In words.
        example: What the teacher wrote, shortened.
    """

    reason: RejectReason
    count: int
    module: str
    detail: str
    example: str


@dataclasses.dataclass(frozen=True)
class RetainedSummary:
    """What was kept as the student was.

    Attributes:
        modules: That aren't taught.
        examples: Of them.
        written: Of these, problems that the teacher wrote.
    """

    modules: tuple[str, ...]
    examples: int
    written: int


@dataclasses.dataclass(frozen=True)
class ModuleFigures:
    """A module before and after.

    Attributes:
        teacher: P_T; 0 where the teacher can't do it.
        before: P_S.
        after: Of the student that is given back.
        probes: That it was measured on.
    """

    teacher: float
    before: float
    after: float
    probes: int


@dataclasses.dataclass(frozen=True)
class BaselineSummary:
    """The student that was trained on the seeds' references alone.

    Attributes:
        method: In words.
        student_tokens: Trained on.
        mean: Over modules.
        performance: P_S by module.
    """

    method: str
    student_tokens: int
    mean: float
    performance: dict[str, float]


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """record.json: every figure of a run, and its conclusion.

    Attributes:
        scorer: What performances are made of.
        config: Every setting.
        environment: As `ioa_jax.record.environment` has it.
        student: As it was.
        teacher: Its fingerprint.
        outcome: The fields of `Outcome`, and `is_worse`.
        order: What the stages' order follows.
        spend: What it took.
        taught: Modules that have examples.
        set_aside: Modules that the teacher can't teach.
        gates: How they went.
        parked: Modules that were given up.
        flagged: Parked modules that each module needs.
        excluded: Modules that were given up while examples were written, since batches in a row
            had no lesson of them.
        rejects: Examples by the reason of their rejection.
        most_rejected: None where nothing was rejected.
        lessons: Accepted examples.
        lessons_by_level: Of them.
        probes_by_level: Of the modules that are taught.
        levels_asked: Shares of the levels in the settings.
        references: Of the seeds, that were trained on too.
        retained: What was kept.
        forgetting: How far each module is under its best.
        performance: By module.
        baseline: None where there is none.
        conclusion: In words.
    """

    scorer: str
    config: dict[str, Any]
    environment: dict[str, Any]
    student: StudentModel
    teacher: str
    outcome: dict[str, Any]
    order: Literal["dependencies", "performance"]
    spend: Spending
    taught: tuple[str, ...]
    set_aside: tuple[str, ...]
    gates: GateSummary
    parked: tuple[str, ...]
    flagged: dict[str, tuple[str, ...]]
    excluded: tuple[ExcludedModule, ...]
    rejects: dict[RejectReason, int]
    most_rejected: MostRejected | None
    lessons: int
    lessons_by_level: dict[Level, int]
    probes_by_level: dict[Level, int]
    levels_asked: dict[Level, float]
    references: int
    retained: RetainedSummary
    forgetting: dict[str, float]
    performance: dict[str, ModuleFigures]
    baseline: BaselineSummary | None
    conclusion: str = ""


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
    record = _run_record(run, state, outcome, baseline)
    record = dataclasses.replace(record, conclusion=conclusion(dataclasses.asdict(record)))
    write_json(folder / "record.json", dataclasses.asdict(record))


def _run_record(run: Run, state: State, outcome: Outcome, baseline: Baseline | None) -> RunRecord:
    """All but the conclusion."""
    model, diagnosis = run.before.model, run.diagnosis
    parts = [material for _, material in run.materials()]
    lessons = [lesson for material in parts for lesson in material.lessons]
    rejects = [reject for material in parts for reject in material.rejects]
    levels = collections.Counter(lesson.example["difficulty_tag"] for lesson in lessons)
    taught = diagnosis.targets.modules
    used_references = run.config.organizer.references and outcome.verdict == "taught"
    return RunRecord(
        scorer=diagnosis.measurement.scorer,
        config=run.config.model_dump(mode="json"),
        environment=environment(),
        student=StudentModel(
            model.spec,
            model.fingerprint,
            model.decoder.config.parameter_count(),
            template_date(model.tokenizer),
        ),
        teacher=run.teacher.fingerprint,
        outcome=dataclasses.asdict(outcome) | {"is_worse": outcome.is_worse},
        order="dependencies" if diagnosis.graph.edges else "performance",
        spend=_spend(run),
        taught=tuple(sorted({lesson.module for lesson in lessons})),
        set_aside=diagnosis.set_aside,
        gates=_gates(state, run.config.organizer.stage_mode == "pooled"),
        parked=state.parked,
        flagged=flag_dependents(state.parked, diagnosis.graph),
        excluded=tuple(one for material in parts for one in material.excluded),
        rejects=dict(collections.Counter(reject.reason for reject in rejects)),
        most_rejected=_most_rejected(rejects),
        lessons=len(lessons),
        lessons_by_level={level: levels[level] for level in LEVELS},
        # Levels are relative to a seed's own difficulty, and probes are seeds.
        probes_by_level={
            level: sum(len(run.probes[m]) for m in taught) * (level == "intermediate")
            for level in LEVELS
        },
        levels_asked=run.config.adapter.levels,
        references=sum(len(run.seeds[module]) for module in taught) if used_references else 0,
        retained=_retained(run),
        forgetting=state.forgetting.forgetting(),
        performance=_performance(run, state.performance),
        baseline=None if baseline is None else _baseline(baseline),
    )


def _spend(run: Run) -> Spending:
    trained = run.trainers[0].trained if run.trainers else []
    return Spending(
        teacher={purpose: spend.used for purpose, spend in sorted(run.teacher.spend.items())},
        student_tokens=sum(stage.tokens for stage in trained),
        student_tokens_of_interventions=run.diagnosis.dependencies.student_tokens,
        student_tokens_by_part={stage.name: stage.tokens for stage in trained},
        seconds={
            **read_seconds(run.directory / "seconds.jsonl"),
            "training": math.fsum(step["seconds"] for step in run.journal),
        },
    )


def _gates(state: State, pooled: bool) -> GateSummary:
    first = [gate for gate in state.gates if gate.remedial_round == 0]
    newest = {gate.stage: gate for gate in state.gates}
    # `pooled` judges a stage when it was trained first, and all when the pass has ended.
    middle = [gate for gate in state.gates if gate.remedial_round == int(pooled)]
    return GateSummary(
        stages=len(first),
        passed_at_once=sum(gate.passed for gate in first),
        passed_after_remediation=sum(
            gate.passed for gate in newest.values() if gate.remedial_round > 0
        ),
        remedial_rounds=sum(gate.remedial_round > 0 for gate in state.gates) * (not pooled),
        first_pass={one.module: one.mastered for gate in middle for one in gate.modules},
        end={one.module: one.mastered for gate in newest.values() for one in gate.modules},
        stages_first_pass={str(gate.stage): gate.passed for gate in middle},
        stages_end={str(stage): gate.passed for stage, gate in sorted(newest.items())},
    )


def _most_rejected(rejects: Sequence[RejectedExample]) -> MostRejected | None:
    if not rejects:
        return None
    reasons: collections.Counter[RejectReason] = collections.Counter(
        reject.reason for reject in rejects
    )
    reason, count = reasons.most_common(1)[0]
    last = [reject for reject in rejects if reject.reason == reason][-1]
    shown = last.raw.strip()[:SHOWN_CHARACTERS]
    return MostRejected(reason, count, last.module, last.detail, shown)


def _retained(run: Run) -> RetainedSummary:
    path = run.directory / "retained.json"
    if not is_there(path):
        return RetainedSummary((), 0, 0)
    retained = read_value(path, Retained)
    written = sum(one.written for one in retained.examples)
    return RetainedSummary(retained.modules, len(retained.examples), written)


def _performance(run: Run, after: Mapping[str, ModulePerformance]) -> dict[str, ModuleFigures]:
    before = run.performance_before(after)
    return {
        module: ModuleFigures(
            run.teacher_performance.get(module, 0.0),
            before[module].mean,
            measured.mean,
            len(measured.probes),
        )
        for module, measured in sorted(after.items())
    }


def _baseline(baseline: Baseline) -> BaselineSummary:
    means = {module: measured.mean for module, measured in baseline.performance.items()}
    return BaselineSummary(
        "supervised fine-tuning on the seeds' references",
        baseline.tokens,
        math.fsum(means.values()) / len(means),
        dict(sorted(means.items())),
    )
