"""What a student lacks, and what to teach it first (method 1, Eq. 2 to 6)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ioa_jax.clock import timed
from ioa_jax.errors import InputError
from ioa_jax.files import finished, read_object, write_json, write_text
from ioa_jax.identifier.decomposers import Decomposition, decompose
from ioa_jax.identifier.dependency import DependencyGraph
from ioa_jax.identifier.estimate import DependencyEstimate, DependencyTask, Progress, estimate
from ioa_jax.identifier.gap import ModuleGap, deficient_modules, module_gaps
from ioa_jax.identifier.measure import masters, relative_mastery
from ioa_jax.identifier.probes import GradedAnswer, Measurement, ProbeGraders, measure
from ioa_jax.identifier.seeds import Role
from ioa_jax.identifier.settings import DiagnoseSettings, EstimatorName
from ioa_jax.identifier.target import Targets, choose_targets, severities
from ioa_jax.jsonl import write_rows
from ioa_jax.models.text import template_date
from ioa_jax.seeds import SeedItem
from ioa_jax.student import Student
from ioa_jax.teachers.base import Teacher
from ioa_jax.values import Value

# Settings that come into play when the dependencies are known.
_AFTER_DEPENDENCIES = (
    "tau_gap",
    "confident_gap",
    "alpha",
    "target_fraction",
    "min_gate_probes",
    "gate_probe_share",
)


@dataclasses.dataclass(frozen=True)
class Diagnosis(Value):
    """Everything that the Identifier found.

    Attributes:
        seed: Of all draws.
        tau_gap: τ_gap of Eq. 6.
        decomposition: Modules, items and their roles; what was merged, and which fallback was used.
        measurement: P_T and P_S by every scorer, with their rank correlation.
        gaps: Eq. 2 of every module, with intervals.
        set_aside: Modules that the teacher can't teach, sorted: they are excluded from teaching,
            and no gap is defined.
        deficient: K_def of Eq. 6, sorted.
        dependencies: Eq. 3, and the graph of the modules that aren't set aside.
        targets: K_target of Eq. 5, with the severities of Eq. 4.
    """

    seed: int
    tau_gap: float
    decomposition: Decomposition
    measurement: Measurement
    gaps: tuple[ModuleGap, ...]
    set_aside: tuple[str, ...]
    deficient: tuple[str, ...]
    dependencies: DependencyEstimate
    targets: Targets

    @property
    def modules(self) -> tuple[str, ...]:
        """All modules of the decomposition, sorted, those set aside among them."""
        return tuple(sorted(module.id for module in self.decomposition.taxonomy.modules))

    @property
    def uncertain(self) -> tuple[str, ...]:
        """Modules whose gap's interval holds τ_gap, sorted: more probes could decide otherwise."""
        return tuple(
            gap.module
            for gap in self.gaps
            if gap.interval is not None and gap.interval.low <= self.tau_gap < gap.interval.high
        )

    @property
    def graph(self) -> DependencyGraph:
        """Of the modules that aren't set aside."""
        return self.dependencies.graph

    def teacher_performance(self) -> dict[str, float]:
        """P_T by id of the modules that aren't set aside."""
        return {gap.module: gap.teacher for gap in self.gaps if gap.relative is not None}

    def student_performance(self) -> dict[str, float]:
        """P_S by id of the modules that aren't set aside."""
        return {gap.module: gap.student for gap in self.gaps if gap.relative is not None}

    def mastered(self, tau_mastery: float = 0.9) -> tuple[str, ...]:
        """Modules whose r(k) reaches τ_mastery, sorted."""
        return tuple(
            gap.module
            for gap in self.gaps
            if gap.relative is not None
            and masters(relative_mastery(gap.student, gap.teacher), tau_mastery)
        )

    def select(
        self, seeds: Sequence[SeedItem], role: Role, *, all_modules: bool = False
    ) -> dict[str, tuple[SeedItem, ...]]:
        """Items of a role by module id, of the modules that aren't set aside.

        Args:
            seeds: Those that were diagnosed.
            role: `seed` or `probe`.
            all_modules: Of the modules that are set aside too: what isn't taught is to be retained.

        Raises:
            InputError: An item of the diagnosis is missing among the seeds.
        """
        by_id = {item.id: item for item in seeds}
        found: dict[str, tuple[SeedItem, ...]] = {}
        for module in self.modules if all_modules else sorted(self.teacher_performance()):
            ids = self.decomposition.items(module, role)
            for item in ids:
                if item not in by_id:
                    raise InputError(f"item {item!r} of the diagnosis isn't among the seeds")
            found[module] = tuple(by_id[item] for item in ids)
        return found


def diagnose(
    student: Student,
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    settings: DiagnoseSettings,
    directory: Path,
    seed: int = 0,
    *,
    graders: ProbeGraders | None = None,
    progress: Progress | None = None,
    shared: Path | None = None,
    student_tokens: int | None = None,
) -> Diagnosis:
    """Find the modules, measure both models on them, and choose what to teach (method 1).

    Each part is on disk before the next begins, and is read back when the call is repeated:
    `diagnosis/decomposition.json`, `measurement.json` and `dependencies.json`, then
    `diagnosis.json`. `diagnosis/answers.jsonl` has the graded answers, `seconds.jsonl` what each
    part took.

    Args:
        student: The student; it isn't changed.
        teacher: The teacher; behind a ledger, if its calls should be kept.
        seeds: Seed items, from `read_seeds`.
        settings: How.
        directory: Of this diagnosis; made if it is missing.
        seed: Of all draws.
        graders: To use and not to close; None makes some.
        progress: Called while adapters are trained.
        shared: Folder of dependencies, the dearest part, that diagnoses have in common: those whose
            settings differ in thresholds alone estimate them once. None keeps none.
        student_tokens: The student's budget in the whole run, by which the estimator `auto`
            chooses; None where it isn't known.

    Raises:
        InputError: The folder has a diagnosis of something else; an item is longer than the
            student's context; or as the parts raise.
        TeacherError: As the teacher raises; `DecompositionError` where its JSON stays invalid.
    """
    estimator, reason = settings.dependencies.choose(teacher.capabilities.score, student_tokens)
    about = _about(student, teacher, seeds, settings, seed, estimator)
    _claim(directory / "diagnosis", about)
    if estimator != "teacher_prior" and not teacher.capabilities.score:
        raise InputError(
            f"{teacher.fingerprint}: it gives no log-probabilities of texts, which the estimator "
            f"{estimator!r} needs; set dependencies.estimator to auto or teacher_prior"
        )
    _check_lengths(student, seeds)
    inquiry = _Inquiry(
        student, teacher, seeds, settings, directory, seed, estimator, reason, progress
    )
    kept = None if shared is None else shared / _name_without_thresholds(about)
    diagnosis = inquiry.diagnosis(graders, kept)
    write_text(directory / "diagnosis.json", diagnosis.to_json() + "\n")
    return diagnosis


@dataclasses.dataclass(frozen=True)
class _Inquiry:
    """Who is diagnosed on what, and how.

    Attributes:
        estimator: Where the population comes from.
        reason: Why from there.
        others: As the arguments of `diagnose`.
    """

    student: Student
    teacher: Teacher
    seeds: Sequence[SeedItem]
    settings: DiagnoseSettings
    directory: Path
    seed: int
    estimator: EstimatorName
    reason: str
    progress: Progress | None

    @property
    def parts(self) -> Path:
        """Folder of the diagnosis' parts."""
        return self.directory / "diagnosis"

    def diagnosis(self, graders: ProbeGraders | None, kept: Path | None) -> Diagnosis:
        """Every part in turn; `kept` is the dependencies' file that diagnoses share."""
        seconds = self.directory / "seconds.jsonl"
        with timed(seconds, "decomposition"):
            decomposition = self.decomposition()
        items = self.items(decomposition)
        with timed(seconds, "measurement"), self.open_graders(graders) as used:
            measurement = self.measurement(items["probe"], used)
        gaps = self.gaps(measurement)
        task = DependencyTask(
            self.student,
            [gap.module for gap in gaps if gap.relative is not None],
            items,
            decomposition.taxonomy,
            measurement,
            self.settings.dependencies,
            self.estimator,
            self.reason,
            self.seed,
        )
        with timed(seconds, "dependencies"):
            dependencies = self.dependencies(task, kept)
        return self.conclude(decomposition, measurement, gaps, dependencies)

    def dependencies(self, task: DependencyTask, kept: Path | None) -> DependencyEstimate:
        """Eq. 3, estimated here or by a diagnosis that agrees on all that it hangs on."""

        def estimate_here() -> DependencyEstimate:
            return estimate(task, self.progress)

        def estimate_once() -> DependencyEstimate:
            return (
                estimate_here()
                if kept is None
                else finished(kept, DependencyEstimate, estimate_here)
            )

        return finished(self.parts / "dependencies.json", DependencyEstimate, estimate_once)

    def decomposition(self) -> Decomposition:
        """Modules, and whose items are whose."""
        settings = self.settings
        return finished(
            self.parts / "decomposition.json",
            Decomposition,
            lambda: decompose(
                self.teacher,
                self.seeds,
                settings.decompose,
                self.parts,
                settings.probe_fraction,
                self.seed,
            ),
        )

    def items(self, decomposition: Decomposition) -> dict[Role, dict[str, list[SeedItem]]]:
        """Seed items by role and module."""
        by_id = {item.id: item for item in self.seeds}
        modules = [module.id for module in decomposition.taxonomy.modules]
        return {
            role: {m: [by_id[item] for item in decomposition.items(m, role)] for m in modules}
            for role in ("seed", "probe")
        }

    def open_graders(
        self, graders: ProbeGraders | None
    ) -> contextlib.AbstractContextManager[ProbeGraders]:
        """The caller's, which stay open, or own ones."""
        if graders is not None:
            return contextlib.nullcontext(graders)
        measure_settings = self.settings.measure
        return ProbeGraders(measure_settings.threads, measure_settings.allow_weak_sandbox)

    def measurement(
        self,
        probes: Mapping[str, Sequence[SeedItem]],
        graders: ProbeGraders,
    ) -> Measurement:
        """Both models on the probes; log-probabilities too where a population needs them."""
        settings = self.settings.measure
        if self.estimator != "teacher_prior":
            settings = settings.model_copy(update={"report_logprob": True})

        def measure_both() -> Measurement:
            measurement, answers = measure(
                self.student,
                self.teacher,
                probes,
                settings,
                graders,
                self.settings.bootstrap(self.seed),
            )
            write_rows(self.parts / "answers.jsonl", _answer_rows(answers))
            return measurement

        return finished(self.parts / "measurement.json", Measurement, measure_both)

    def gaps(self, measurement: Measurement) -> tuple[ModuleGap, ...]:
        """Eq. 2 of every module.

        Raises:
            InputError: The teacher can do none of them.
        """
        gaps = module_gaps(
            measurement.teacher[measurement.scorer],
            measurement.student[measurement.scorer],
            {gap.module: gap for gap in measurement.logprob} or None,
            self.settings.min_teacher_performance,
            self.settings.bootstrap(self.seed),
        )
        if all(gap.relative is None for gap in gaps):
            best = max(gaps, key=lambda gap: gap.teacher)
            raise InputError(
                f"the teacher can't do any of the {len(gaps)} modules (P_T is at most "
                f"{best.teacher:.2f}, in {best.module}, and under min_teacher_performance); look "
                f"at {self.parts / 'answers.jsonl'}, and take another teacher or easier seeds"
            )
        return gaps

    def conclude(
        self,
        decomposition: Decomposition,
        measurement: Measurement,
        gaps: tuple[ModuleGap, ...],
        dependencies: DependencyEstimate,
    ) -> Diagnosis:
        """What to teach (Eq. 4 to 6)."""
        settings = self.settings
        deficient = deficient_modules(gaps, settings.tau_gap, settings.confident_gap)
        ranked = severities(gaps, deficient, dependencies.graph, settings.alpha)
        return Diagnosis(
            seed=self.seed,
            tau_gap=settings.tau_gap,
            decomposition=decomposition,
            measurement=measurement,
            gaps=gaps,
            set_aside=tuple(gap.module for gap in gaps if gap.relative is None),
            deficient=deficient,
            dependencies=dependencies,
            targets=choose_targets(ranked, len(gaps), settings.target_fraction),
        )


def _check_lengths(student: Student, seeds: Sequence[SeedItem]) -> None:
    """Before the teacher is paid for anything.

    Raises:
        InputError: An item doesn't fit into the student's context; names it.
    """
    context = student.model.decoder.config.max_position
    for item in seeds:
        length = len(student.answer_pair(item.messages, item.reference))
        if length > context:
            raise InputError(
                f"seed {item.id!r}: prompt and reference have {length} tokens, more than the "
                f"student's context ({context}); leave it out or shorten it"
            )


def _answer_rows(answers: Mapping[str, Sequence[GradedAnswer]]) -> list[dict[str, object]]:
    return [
        {
            "model": model,
            "id": answer.seed.id,
            "module": answer.module,
            "text": answer.text,
            "score": answer.verdict.score,
            "extracted": answer.verdict.extracted,
            "rule": answer.verdict.rule,
            "detail": answer.verdict.detail,
        }
        for model, found in answers.items()
        for answer in found
    ]


def _about(
    student: Student,
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    settings: DiagnoseSettings,
    seed: int,
    estimator: EstimatorName,
) -> dict[str, Any]:
    """What a diagnosis is about, as it lies on disk."""
    content = json.dumps([json.loads(item.to_json()) for item in seeds], sort_keys=True)
    about: dict[str, Any] = {
        "teacher": teacher.fingerprint,
        "student": student.model.fingerprint,
        "seeds_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "estimator": estimator,
    }
    date = template_date(student.model.tokenizer)
    return about if date is None else {**about, "template_date": date}


def _claim(parts: Path, about: Mapping[str, Any]) -> None:
    """Make the folder, or see that what it has is about the same.

    Raises:
        InputError: It isn't; names what differs.
    """
    path = parts / "settings.json"
    if not path.exists():
        write_json(path, about)
        return
    before = read_object(path)
    differing = [name for name, value in about.items() if before.get(name) != value]
    if differing:
        raise InputError(
            f"{parts} has a diagnosis with another {', '.join(differing)}; name a new directory"
        )


def _name_without_thresholds(about: Mapping[str, Any]) -> str:
    """File of dependencies, by all that these hang on."""
    settings = {
        name: value for name, value in about["settings"].items() if name not in _AFTER_DEPENDENCIES
    }
    text = json.dumps({**about, "settings": settings}, sort_keys=True)
    return f"dependencies-{hashlib.sha256(text.encode()).hexdigest()}.json"
