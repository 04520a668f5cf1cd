"""What a student lacks, and what to teach it first (method 1, Eq. 2 to 6)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ioa_jax.clock import timed
from ioa_jax.engine.batching import TokenPair
from ioa_jax.errors import InputError
from ioa_jax.files import finished, read_json, write_json, write_text
from ioa_jax.identifier.decomposers import Decomposition, decompose
from ioa_jax.identifier.dependency import (
    Dependency,
    DependencyGraph,
    Population,
    build_graph,
    estimate_dependencies,
)
from ioa_jax.identifier.gap import ModuleGap, deficient_modules, module_gaps
from ioa_jax.identifier.interventions import (
    InterventionProbe,
    InterventionResult,
    intervene,
    warm_up,
)
from ioa_jax.identifier.measure import masters, relative_mastery
from ioa_jax.identifier.probes import (
    GradedAnswer,
    Measurement,
    ProbeGraders,
    answer_length,
    measure,
    probe_pair,
)
from ioa_jax.identifier.seeds import Role
from ioa_jax.identifier.settings import DiagnoseSettings, EstimatorName
from ioa_jax.identifier.target import Targets, choose_targets, severities
from ioa_jax.jsonl import write_rows
from ioa_jax.models.text import template_date
from ioa_jax.seeds import SeedItem
from ioa_jax.student import Student
from ioa_jax.teachers.base import Teacher
from ioa_jax.values import Value

# Takes (what is being done, steps done, steps in all).
Progress = Callable[[str, int, int], None]

# Settings that come into play when the dependencies are known.
_AFTER_DEPENDENCIES = (
    "tau_gap",
    "confident_gap",
    "alpha",
    "target_fraction",
    "min_gate_probes",
    "gate_probe_share",
)

NO_DEPENDENCY = "no dependency found: stages begin with the best known modules"


@dataclasses.dataclass(frozen=True)
class DependencyEstimate(Value):
    """Which module needs which, and how that was found.

    Attributes:
        estimator: Where the population came from.
        population: Ω; None with `teacher_prior`.
        dependencies: Eq. 3 of every ordered pair; with `teacher_prior` what the teacher named.
        graph: Of those above τ_dep, without cycles.
        student_tokens: Tokens that adapters were trained on for the population.
        left_out: Seeds whose prompts were too long for that, sorted.
        reason: Why this estimator.
        note: `NO_DEPENDENCY` where the graph has no edge; else None.
    """

    estimator: EstimatorName
    population: Population | None
    dependencies: tuple[Dependency, ...]
    graph: DependencyGraph
    student_tokens: int
    left_out: tuple[str, ...] = ()
    reason: str = ""
    note: str | None = None


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
    parts = directory / "diagnosis"
    estimator, reason = settings.dependencies.choose(teacher.capabilities.score, student_tokens)
    about = _claim(parts, student, teacher, seeds, settings, seed, estimator)
    if graders is None:
        with ProbeGraders(settings.measure.threads, settings.measure.allow_weak_sandbox) as own:
            return diagnose(
                student,
                teacher,
                seeds,
                settings,
                directory,
                seed,
                graders=own,
                progress=progress,
                shared=shared,
                student_tokens=student_tokens,
            )
    wants_population = estimator != "teacher_prior"
    if wants_population and not teacher.capabilities.score:
        raise InputError(
            f"{teacher.fingerprint}: it gives no log-probabilities of texts, which the estimator "
            f"{estimator!r} needs; set dependencies.estimator to auto or teacher_prior"
        )
    _check_lengths(student, seeds)
    seconds = directory / "seconds.jsonl"
    with timed(seconds, "decomposition"):
        decomposition = finished(
            parts / "decomposition.json",
            Decomposition,
            lambda: decompose(
                teacher, seeds, settings.decompose, parts, settings.probe_fraction, seed
            ),
        )
    by_id = {item.id: item for item in seeds}
    modules = [module.id for module in decomposition.taxonomy.modules]
    items: dict[Role, dict[str, list[SeedItem]]] = {
        role: {m: [by_id[item] for item in decomposition.items(m, role)] for m in modules}
        for role in ("seed", "probe")
    }
    bootstrap = settings.bootstrap(seed)

    def measure_both() -> Measurement:
        measurement, answers = measure(
            student,
            teacher,
            items["probe"],
            settings.measure,
            graders,
            bootstrap,
            need_logprob=wants_population,
            seed=seed,
        )
        write_rows(parts / "answers.jsonl", _answer_rows(answers))
        return measurement

    with timed(seconds, "measurement"):
        measurement = finished(parts / "measurement.json", Measurement, measure_both)
    gaps = module_gaps(
        measurement.teacher[measurement.scorer],
        measurement.student[measurement.scorer],
        {gap.module: gap for gap in measurement.logprob} or None,
        settings.min_teacher_performance,
        bootstrap,
    )
    teachable = [gap.module for gap in gaps if gap.relative is not None]
    if not teachable:
        best = max(gaps, key=lambda gap: gap.teacher)
        raise InputError(
            f"the teacher can't do any of the {len(gaps)} modules (P_T is at most "
            f"{best.teacher:.2f}, in {best.module}, and under min_teacher_performance); look at "
            f"{parts / 'answers.jsonl'}, and take another teacher or easier seeds"
        )

    def estimate_here() -> DependencyEstimate:
        return _estimate(
            student,
            teachable,
            items,
            decomposition,
            measurement,
            settings,
            estimator,
            reason,
            seed,
            progress,
        )

    def estimate_once() -> DependencyEstimate:
        if shared is None:
            return estimate_here()
        name = f"dependencies-{_digest_without_thresholds(about)}.json"
        return finished(shared / name, DependencyEstimate, estimate_here)

    with timed(seconds, "dependencies"):
        estimate = finished(parts / "dependencies.json", DependencyEstimate, estimate_once)
    deficient = deficient_modules(gaps, settings.tau_gap, settings.confident_gap)
    ranked = severities(gaps, deficient, estimate.graph, settings.alpha)
    diagnosis = Diagnosis(
        seed=seed,
        tau_gap=settings.tau_gap,
        decomposition=decomposition,
        measurement=measurement,
        gaps=gaps,
        set_aside=tuple(gap.module for gap in gaps if gap.relative is None),
        deficient=deficient,
        dependencies=estimate,
        targets=choose_targets(ranked, len(gaps), settings.target_fraction),
    )
    write_text(directory / "diagnosis.json", diagnosis.to_json() + "\n")
    return diagnosis


def _estimate(
    student: Student,
    modules: Sequence[str],
    items: Mapping[Role, Mapping[str, Sequence[SeedItem]]],
    decomposition: Decomposition,
    measurement: Measurement,
    settings: DiagnoseSettings,
    estimator: EstimatorName,
    reason: str,
    seed: int,
    progress: Progress | None,
) -> DependencyEstimate:
    """Eq. 3 among the modules that the teacher can teach."""
    options = settings.dependencies
    prior = {
        pair: share
        for pair, share in decomposition.taxonomy.prior().items()
        if set(pair) <= set(modules)
    }
    population: Population | None = None
    tokens = 0
    left_out: tuple[str, ...] = ()
    if estimator == "teacher_prior":
        dependencies = tuple(Dependency(*pair, share, "prior") for pair, share in prior.items())
    else:
        result, left_out = _population(
            student, modules, items, measurement, settings, estimator, seed, progress
        )
        population, tokens = result.population, result.tokens
        dependencies = estimate_dependencies(population, prior, options.conditionals())
    graph = build_graph(modules, dependencies, options.tau_dep)
    return DependencyEstimate(
        estimator,
        population,
        dependencies,
        graph,
        tokens,
        left_out,
        reason,
        None if graph.edges else NO_DEPENDENCY,
    )


def _population(
    student: Student,
    modules: Sequence[str],
    items: Mapping[Role, Mapping[str, Sequence[SeedItem]]],
    measurement: Measurement,
    settings: DiagnoseSettings,
    estimator: EstimatorName,
    seed: int,
    progress: Progress | None,
) -> tuple[InterventionResult, tuple[str, ...]]:
    """The population, and the seeds that were too long to be lessons."""
    unit = measurement.unit
    # `diagnose` measured log-probabilities because a population was wanted.
    assert unit is not None
    options = settings.dependencies
    lessons: dict[str, list[TokenPair]] = {}
    left_out: list[str] = []
    for module in modules:
        own = [(x.id, student.answer_pair(x.messages, x.reference)) for x in items["seed"][module]]
        # A row has to hold the prompt and a part of the answer.
        lessons[module] = [pair for _, pair in own if len(pair.prompt) < options.row_length]
        left_out += [item for item, pair in own if len(pair.prompt) >= options.row_length]
        if not lessons[module]:
            raise InputError(
                f"module {module!r}: no seed's prompt is shorter than dependencies.row_length="
                f"{options.row_length}; raise it"
            )
    probes: dict[str, list[InterventionProbe]] = {}
    for module in modules:
        pairs = [(item, probe_pair(student, item)) for item in items["probe"][module]]
        probes[module] = [
            InterventionProbe(pair, answer_length(item, len(pair.completion), unit))
            for item, pair in pairs
        ]
    of_teacher = measurement.teacher["logprob"]
    teach = intervene if estimator == "interventions" else warm_up

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("dependencies", done, total)

    result = teach(
        student.model.decoder,
        lessons,
        probes,
        {module: of_teacher[module].mean for module in modules},
        options.training(estimator, seed),
        report,
    )
    return result, tuple(sorted(left_out))


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


def _claim(
    parts: Path,
    student: Student,
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    settings: DiagnoseSettings,
    seed: int,
    estimator: EstimatorName,
) -> dict[str, Any]:
    """Make the folder, or see that what it has is about the same; returns what it is about.

    Raises:
        InputError: It isn't; names what differs.
    """
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
    if date is not None:
        about["template_date"] = date
    path = parts / "settings.json"
    if path.exists():
        before = read_json(path)
        differing = [name for name, value in about.items() if before.get(name) != value]
        if differing:
            raise InputError(
                f"{parts} has a diagnosis with another {', '.join(differing)}; name a new directory"
            )
        return about
    write_json(path, about)
    return about


def _digest_without_thresholds(about: Mapping[str, Any]) -> str:
    """sha256 of all that the dependencies hang on."""
    settings = {
        name: value for name, value in about["settings"].items() if name not in _AFTER_DEPENDENCIES
    }
    text = json.dumps({**about, "settings": settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
