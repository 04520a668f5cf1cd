"""The steps of `distill`, each with its value in the run's folder.

diagnosis.json and its parts     see `identifier.diagnosis`
rounds/ROUND/allotment.json      what a round may spend
rounds/ROUND/targets.json        Eq. 4 to 6, measured again
rounds/ROUND/curriculum-N.json   the plan after stage N
stages/STAGE.json                what a stage may spend
parts/PART/limits.json           what a part (stage, bridge, remedial round) of it may spend
parts/PART/material.json         its lessons, and what was rejected
training/parts/PART.json         what training on it took
measured/NAME.json               the student on probes
gates/NAME.json                  what a gate found
train.jsonl                      a line per optimiser step
seconds.jsonl                    what every step but training took, the diagnosis' among them
curriculum.json, gates.jsonl, lessons.jsonl, rejects.jsonl, retention.json, record.json
                                 all of it together, when the run is done
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.adapter.schema import LEVELS, Lesson, RejectedExample, StageKind
from ioa_jax.adapter.stage import StageMaterial, StageRequest, StageSeed
from ioa_jax.adapter.synthesize import Adapter
from ioa_jax.clock import Clock, read_seconds
from ioa_jax.config import MethodConfig
from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.training import StepMetrics
from ioa_jax.files import finished, write_json, write_values
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.identifier.gap import deficient_modules, module_gaps
from ioa_jax.identifier.measure import ModulePerformance
from ioa_jax.identifier.probes import ProbeGraders, measure_student
from ioa_jax.identifier.target import Targets, choose_targets, severities
from ioa_jax.journal import Journal
from ioa_jax.organizer.curriculum import Curriculum, Stage, plan_curriculum, replan
from ioa_jax.organizer.mastery import (
    GateResult,
    GateSettings,
    flag_dependents,
    judge_stage,
    masters,
)
from ioa_jax.organizer.retention import ForgettingMatrix, RetentionState, update_retention
from ioa_jax.organizer.schedule import PoolSettings
from ioa_jax.organizer.zone import bridge_levels
from ioa_jax.record import environment
from ioa_jax.sandbox import Sandbox
from ioa_jax.seeds import SeedItem
from ioa_jax.student import Student
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.spend import Budget
from ioa_jax.teaching import Material, PooledTeaching, SequentialTeaching, Teaching
from ioa_jax.values import Value

log = logging.getLogger(__name__)

OnStep = Callable[[str, StepMetrics, Callable[[], Student]], None]


@dataclasses.dataclass(frozen=True)
class Allotment(Value):
    """What a round, a stage or a part may spend: totals of the run at its beginning and at its end.

    Attributes:
        student_from: Tokens trained on before it.
        student_to: By its end, at most, up to one batch.
        teacher_from: Tokens generated before it.
        teacher_to: By its end, at most; None is no limit.
    """

    student_from: int
    student_to: int
    teacher_from: int
    teacher_to: int | None

    @property
    def student_tokens(self) -> int:
        """To be trained on."""
        return max(0, self.student_to - self.student_from)

    @property
    def teacher_tokens(self) -> int | None:
        """To be generated; None is no limit."""
        return None if self.teacher_to is None else max(0, self.teacher_to - self.teacher_from)


@dataclasses.dataclass(frozen=True)
class Measured(Value):
    """The student on the probes of some modules.

    Attributes:
        performances: In the order of the modules' ids.
    """

    performances: tuple[ModulePerformance, ...]


@contextlib.contextmanager
def open_run(
    student: Student,
    teacher: LedgeredTeacher,
    seeds: Sequence[SeedItem],
    diagnosis: Diagnosis,
    config: MethodConfig,
    directory: Path,
    benchmarks: BenchmarkIndex | None,
    on_step: OnStep | None,
    graders: ProbeGraders | None,
) -> Generator[Run]:
    """Begin a run after its diagnosis, or go on; arguments as of `distill`."""
    with contextlib.ExitStack() as stack:
        if graders is None:
            measure = config.diagnose.measure
            graders = stack.enter_context(ProbeGraders(measure.threads, measure.allow_weak_sandbox))
        yield Run(
            stack,
            student,
            teacher,
            seeds,
            diagnosis,
            config,
            directory,
            benchmarks,
            on_step,
            graders,
        )


class Run:
    """One process's work on a run, from the diagnosis on."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        student: Student,
        teacher: LedgeredTeacher,
        seeds: Sequence[SeedItem],
        diagnosis: Diagnosis,
        config: MethodConfig,
        directory: Path,
        benchmarks: BenchmarkIndex | None,
        on_step: OnStep | None,
        graders: ProbeGraders,
    ) -> None:
        """As `open_run`; what has to be closed goes on the stack."""
        self.config = config
        self.directory = directory
        self._diagnosis = diagnosis
        self._before = student
        self._seeds = diagnosis.select(seeds, "seed")
        self._probes = diagnosis.select(seeds, "probe")
        self._teacher_performance = diagnosis.teacher_performance()
        measured = diagnosis.measurement.student[diagnosis.measurement.scorer]
        self._performance = {module: measured[module] for module in self._teacher_performance}
        self._whole_budget = teacher.budget
        self._on_step = on_step
        self._teacher = teacher
        self._curricula: list[tuple[int, Curriculum]] = []
        self._gates: list[GateResult] = []
        self._lessons: list[Lesson] = []
        self._rejects: list[RejectedExample] = []
        self._parked: set[str] = set()
        self._too_long = 0
        self._last_stage = 0
        self._remedial_round = 0
        self._round_number = 0
        self._waiting = 0
        self._found_anything = True
        self._forgetting = ForgettingMatrix(tuple(sorted(self._teacher_performance))).with_stage(
            0, self._ratios()
        )
        mastered = tuple(sorted(self._mastered_now())) if config.organizer.retention else ()
        self._retention = RetentionState(mastered)
        self._graders = graders
        self._journal = stack.enter_context(Journal(directory / "train.jsonl", ("part", "step")))
        self._clock = stack.enter_context(Clock(directory / "seconds.jsonl"))
        self._teaching = stack.enter_context(self._open_teaching(student))
        self._student = self._teaching.student
        self._adapter = self._open_adapter(stack, seeds, benchmarks)

    # -- Identifier --------------------------------------------------------------------------------

    def choose_targets(self, number: int) -> Targets:
        """K_target of a round (Eq. 4 to 6): the diagnosis' own, then what is lacking by now."""
        folder = self.directory / f"rounds/{number}"
        share = 1 / (self.config.organizer.rounds - number + 1)
        self._round = finished(
            folder / "allotment.json",
            Allotment,
            lambda: self._allot(self._teaching.left * share, self._teacher_left, share),
        )
        if number == 1:
            return self._diagnosis.targets
        with self._clock.timed("organizing"):
            return finished(folder / "targets.json", Targets, self._retarget)

    def _retarget(self) -> Targets:
        settings = self.config.diagnose
        measurement = self._diagnosis.measurement
        teacher = measurement.teacher[measurement.scorer]
        gaps = module_gaps(
            {module: teacher[module] for module in self._performance},
            self._performance,
            min_teacher_performance=settings.min_teacher_performance,
            bootstrap=settings.bootstrap(self.config.seed),
        )
        deficient = [
            module
            for module in deficient_modules(gaps, settings.tau_gap, settings.confident_gap)
            # What was given up stays so in this run, and others get a turn [ours].
            if module not in self._parked
        ]
        # Without a budget there is nothing to teach with.
        deficient = [] if self._budget_is_spent else deficient
        ranked = severities(gaps, deficient, self._diagnosis.graph, settings.alpha)
        return choose_targets(ranked, len(self._diagnosis.gaps), settings.target_fraction)

    # -- Organizer ---------------------------------------------------------------------------------

    def plan(self, number: int, targets: Targets) -> Curriculum:
        """Stages of the targets (Eq. 7 and 8), numbered on from earlier rounds."""
        modules = set(targets.modules) - self._parked

        def plan() -> Curriculum:
            return plan_curriculum(
                modules,
                self._diagnosis.graph,
                self._means(),
                self._mastered_now() - modules,
                self.config.organizer.zone_settings(),
                parked=self._parked,
                first_stage=self._last_stage + 1,
            )

        self._round_number = number
        return self._keep(plan)

    def replan(self, curriculum: Curriculum, stage: Stage) -> Curriculum:
        """The stages after a gate, with what was measured there (method 2.5)."""
        return self._keep(
            lambda: replan(
                curriculum,
                stage.number,
                self._diagnosis.graph,
                self._means(),
                self._mastered_now(),
                parked=self._parked,
            )
        )

    def _keep(self, plan: Callable[[], Curriculum]) -> Curriculum:
        path = self.directory / f"rounds/{self._round_number}/curriculum-{self._last_stage}.json"
        with self._clock.timed("organizing"):
            curriculum = finished(path, Curriculum, plan)
        self._curricula.append((self._round_number, curriculum))
        self._waiting = sum(len(stage.modules) for stage in curriculum.stages)
        return curriculum

    # -- Adapter and training ----------------------------------------------------------------------

    def teach(self, stage: Stage) -> None:
        """Write the stage's lessons (Eq. 1) and train on them, after its bridge if it needs one."""
        self._remedial_round = 0
        share = len(stage.modules) / self._waiting
        self._stage = finished(
            self.directory / f"stages/{stage.number}.json",
            Allotment,
            lambda: self._allot_stage(share),
        )
        name = f"stage-{stage.number:02d}"
        main = 1 - self.config.organizer.remedial_share
        if stage.bridge is not None:
            # A quarter for what leads to the stage [ours].
            self._part(f"{name}-bridge", "bridge", stage, stage.modules, main / 4)
            main *= 3 / 4
        self._part(name, "stage", stage, stage.modules, main)

    def remediate(self, stage: Stage, gate: GateResult) -> None:
        """Smaller instances for the weak modules alone, and training on them."""
        self._remedial_round += 1
        organizer = self.config.organizer
        self._part(
            f"stage-{stage.number:02d}-remedial-{self._remedial_round}",
            "remedial",
            stage,
            gate.weak,
            organizer.remedial_share / organizer.max_remedial_rounds,
        )

    def _part(
        self, name: str, kind: StageKind, stage: Stage, modules: Sequence[str], share: float
    ) -> None:
        folder = self.directory / "parts" / name
        limits = finished(
            folder / "limits.json",
            Allotment,
            lambda: self._allot(
                self._stage.student_tokens * share, self._stage.teacher_tokens, share
            ),
        )

        def synthesize() -> StageMaterial:
            request = self._request(kind, stage, modules, limits.teacher_tokens)
            with self._teacher_limit(limits.teacher_to):
                material = self._adapter.synthesize(request, self._lessons)
            if kind != "bridge":
                return material
            return dataclasses.replace(material, lessons=self._inside(material.lessons, stage))

        with self._clock.timed("synthesis"):
            material = finished(folder / "material.json", StageMaterial, synthesize)
        lessons = material.lessons
        self._lessons += lessons
        self._rejects += material.rejects
        self._found_anything = bool(lessons)
        taught = self._material(lessons)
        # Within its share, a part's own lessons are seen at most as often as `epochs` says.
        size = sum(len(pair) for pair in taught.pairs)
        most = round(self.config.train.epochs * size / self._new_share)
        part = self._teaching.teach(
            name, taught, min(limits.student_tokens, most), self._retention.fallen
        )
        self._student = self._teaching.student
        log.info(
            "%s: %d lessons, %d rejected; trained %d steps on %d tokens",
            name,
            len(lessons),
            len(material.rejects),
            part.steps,
            part.tokens,
        )

    def _request(
        self, kind: StageKind, stage: Stage, modules: Sequence[str], tokens: int | None
    ) -> StageRequest:
        ratios = self._ratios()
        levels = LEVELS
        if kind == "remedial":
            levels = LEVELS[:2]
        elif kind == "bridge" and stage.bridge is not None:
            levels = LEVELS[:2] if stage.bridge.direction == "easier" else LEVELS[1:]
        adapter = self.config.adapter
        calls = adapter.calls_per_round
        if tokens is not None:
            # What a batch brings has to be verified out of the same budget.
            solutions = adapter.verification.num_solutions if adapter.verification.on else 0
            most = adapter.max_tokens + solutions * adapter.verification.max_tokens
            calls = max(1, min(calls, tokens // most))
        return StageRequest(
            stage=stage.number,
            kind=kind,
            seeds=tuple(
                StageSeed(
                    seed, module, ratios[module], self._diagnosis.graph.all_prerequisites(module)
                )
                for module in modules
                for seed in self._seeds[module]
            ),
            levels=levels,
            round=self._remedial_round,
            calls_per_round=calls,
        )

    def _inside(self, lessons: Sequence[Lesson], stage: Stage) -> tuple[Lesson, ...]:
        """A bridge's lessons of the difficulties at which the student's success is in the bounds.

        Its success on a lesson is the geometric-mean probability that it gives the answer's tokens
        [ours]. Where no difficulty is inside, the easiest stands for them all.
        """
        assert stage.bridge is not None
        levels: dict[int, list[Lesson]] = collections.defaultdict(list)
        for lesson in lessons:
            levels[_level(lesson)].append(lesson)
        success = {
            level: math.fsum(math.exp(-nll) for nll in self._student_nll(own)) / len(own)
            for level, own in levels.items()
        }
        chosen = bridge_levels(success, stage.bridge.bounds) or tuple(sorted(levels))[:1]
        return tuple(lesson for lesson in lessons if _level(lesson) in chosen)

    # -- the gate ----------------------------------------------------------------------------------

    def judge(self, stage: Stage) -> GateResult:
        """Eq. 9 with what the student can do now."""
        organizer = self.config.organizer
        name = f"stage-{stage.number:02d}-{self._remedial_round}"
        with self._clock.timed("gates"):
            self._measure(name, stage.modules)

        def judge() -> GateResult:
            # Without anything left to remediate with, another round would be the same.
            rounds = organizer.max_remedial_rounds
            if self._budget_is_spent or (self._remedial_round and not self._found_anything):
                rounds = self._remedial_round
            gate = judge_stage(
                stage.number,
                stage.modules,
                self._means(),
                self._teacher_performance,
                self._remedial_round,
                GateSettings(organizer.tau_mastery, rounds),
            )
            return gate if organizer.gate else dataclasses.replace(gate, action="advance")

        gate = finished(self.directory / f"gates/{name}.json", GateResult, judge)
        self._gates.append(gate)
        log.info("%s: least r(k) %.2f, %s", name, gate.minimum, gate.action)
        return gate

    def close_stage(self, stage: Stage, gate: GateResult) -> None:
        """Measure everything else after a stage's last gate, and see what fell (method 2.4)."""
        self._last_stage = stage.number
        others = sorted(self._teacher_performance.keys() - set(stage.modules))
        with self._clock.timed("retention"):
            self._measure(f"stage-{stage.number:02d}-others", others)
        ratios = self._ratios()
        self._forgetting = self._forgetting.with_stage(stage.number, ratios)
        organizer = self.config.organizer
        if organizer.gate:
            self._parked |= set(gate.parked)
        if organizer.retention:
            passed = [entry.module for entry in gate.modules if entry.mastered]
            self._retention = update_retention(
                self._retention, ratios, passed, organizer.tau_mastery, organizer.delta
            )

    def consolidate(self) -> None:
        """Spend what is left of the student's budget on everything accepted so far [ours].

        `sequential` has no pool, and leaves the rest unspent.
        """
        if self._teaching.has_pool and self._teaching.left > 0:
            self._teaching.teach(
                "consolidation", Material(), self._teaching.left, self._retention.fallen
            )
            self._student = self._teaching.student
        with self._clock.timed("retention"):
            self._measure("end", sorted(self._teacher_performance))
        self._forgetting = self._forgetting.with_stage(self._last_stage + 1, self._ratios())

    def finish(self) -> Student:
        """Write the whole run's record."""
        folder = self.directory
        write_json(
            folder / "curriculum.json",
            [
                {"round": number, **dataclasses.asdict(curriculum)}
                for number, curriculum in self._curricula
            ],
        )
        write_values(folder / "gates.jsonl", self._gates)
        write_values(folder / "lessons.jsonl", self._lessons)
        write_values(folder / "rejects.jsonl", self._rejects)
        write_json(folder / "retention.json", dataclasses.asdict(self._forgetting))
        write_json(folder / "record.json", self._record())
        return self._student

    def _record(self) -> dict[str, Any]:
        model = self._before.model
        before = self._diagnosis.student_performance()
        first = [gate for gate in self._gates if gate.remedial_round == 0]
        return {
            "scorer": self._diagnosis.measurement.scorer,
            "config": self.config.model_dump(mode="json"),
            "environment": environment(),
            "student": {
                "spec": model.spec,
                "fingerprint": model.fingerprint,
                "parameters": model.decoder.config.parameter_count(),
            },
            "teacher": self._teacher.fingerprint,
            "spend": {
                "teacher": {
                    purpose: dataclasses.asdict(spend.used)
                    for purpose, spend in sorted(self._teacher.spend.items())
                },
                "student_tokens": self._teaching.tokens,
                "student_tokens_of_interventions": self._diagnosis.dependencies.student_tokens,
                "student_tokens_by_part": {part.part: part.tokens for part in self._teaching.parts},
                # Training by its steps alone, without what `on_step` does between them.
                "seconds": {
                    **read_seconds(self.directory / "seconds.jsonl"),
                    "training": math.fsum(step["seconds"] for step in self._journal),
                },
            },
            "gates": {
                "stages": len(first),
                "passed_at_once": sum(gate.passed for gate in first),
                "passed_after_remediation": sum(
                    gate.passed for gate in self._gates if gate.remedial_round > 0
                ),
                "remedial_rounds": sum(gate.remedial_round > 0 for gate in self._gates),
            },
            "parked": sorted(self._parked),
            "flagged": flag_dependents(self._parked, self._diagnosis.graph),
            "rejects": dict(collections.Counter(reject.reason for reject in self._rejects)),
            "lessons": len(self._lessons),
            "lessons_too_long": self._too_long,
            "forgetting": self._forgetting.forgetting(),
            "performance": {
                module: {
                    "teacher": self._teacher_performance[module],
                    "before": before[module],
                    "after": self._performance[module].mean,
                }
                for module in sorted(self._teacher_performance)
            },
        }

    # -- budgets -----------------------------------------------------------------------------------

    @property
    def _budget_is_spent(self) -> bool:
        """No tokens are left to train on, or to have the teacher write."""
        return self._teaching.left <= 0 or self._teacher_left == 0

    @property
    def _teacher_left(self) -> int | None:
        limit = self._whole_budget.max_tokens
        if limit is None:
            return None
        return max(0, limit - self._teacher.used.completion_tokens)

    def _allot_stage(self, share: float) -> Allotment:
        """A share of what the round has left: what a stage doesn't use, later ones get."""
        student = self._round.student_to - self._teaching.tokens
        teacher = None
        if self._round.teacher_to is not None:
            teacher = max(0, self._round.teacher_to - self._teacher.used.completion_tokens)
        return self._allot(max(0, student) * share, teacher, share)

    def _allot(self, student: float, teacher: int | None, share: float) -> Allotment:
        """From now on: student tokens, and a share of teacher tokens."""
        used = self._teacher.used.completion_tokens
        return Allotment(
            self._teaching.tokens,
            self._teaching.tokens + round(student),
            used,
            None if teacher is None else used + int(teacher * share),
        )

    @contextlib.contextmanager
    def _teacher_limit(self, limit: int | None) -> Generator[None]:
        """Within it, the teacher's budget ends at a part's limit."""
        whole = self._whole_budget
        if limit is not None:
            self._teacher.budget = Budget(max_tokens=limit, max_cost=whole.max_cost)
        try:
            yield
        finally:
            self._teacher.budget = whole

    # -- measuring ---------------------------------------------------------------------------------

    def _measure(self, name: str, modules: Sequence[str]) -> None:
        """Measure the student as it is now on the probes of some modules."""

        def measure() -> Measured:
            measured = measure_student(
                self._student,
                {module: self._probes[module] for module in modules},
                self._diagnosis.measurement.scorer,
                graders=self._graders,
                max_tokens=self.config.diagnose.measure.max_tokens,
                unit=self._diagnosis.measurement.unit or "token",
            )
            return Measured(tuple(measured[module] for module in sorted(modules)))

        if modules:
            path = self.directory / f"measured/{name}.json"
            for performance in finished(path, Measured, measure).performances:
                self._performance[performance.module] = performance

    def _means(self) -> dict[str, float]:
        return {module: performance.mean for module, performance in self._performance.items()}

    def _ratios(self) -> dict[str, float]:
        """r(k) as last measured."""
        return {
            module: performance.mean / self._teacher_performance[module]
            for module, performance in self._performance.items()
        }

    def _mastered_now(self) -> set[str]:
        threshold = self.config.organizer.tau_mastery
        return {module for module, ratio in self._ratios().items() if masters(ratio, threshold)}

    def _student_nll(self, lessons: Sequence[Lesson]) -> list[float]:
        """Mean negative log-likelihood of each lesson's answer, nats a token."""
        scores = self._student.score([self._pair(lesson) for lesson in lessons])
        return [-score.logprob / len(score.token_logprobs) for score in scores]

    def _open_adapter(
        self,
        stack: contextlib.ExitStack,
        seeds: Sequence[SeedItem],
        benchmarks: BenchmarkIndex | None,
    ) -> Adapter:
        """The Adapter with the graders and the sandbox that these seeds need."""
        kinds = {seed.kind for seed in seeds}
        weak = self.config.diagnose.measure.allow_weak_sandbox
        return Adapter(
            self._teacher,
            self.config.adapter,
            benchmark=benchmarks or BenchmarkIndex({}),
            # The probes among them: nothing that is measured with may be taught.
            known={seed.id: seed.prompt for seed in seeds},
            graders={kind: self._graders.of(kind) for kind in sorted(kinds - {"code"})},
            sandbox=(stack.enter_context(Sandbox(allow_weak=weak)) if "code" in kinds else None),
            scorer=self._student_nll,
            seed=self.config.seed,
        )

    # -- training ----------------------------------------------------------------------------------

    @property
    def _pooled(self) -> bool:
        return self.config.organizer.stage_mode == "pooled"

    def _open_teaching(self, student: Student) -> Teaching:
        config = self.config
        budget = config.budget.student_tokens
        if config.budget.count_interventions:
            budget = max(1, budget - self._diagnosis.dependencies.student_tokens)
        train = config.train.train_config(config.seed)
        folder = self.directory / "training"
        if not self._pooled:
            return SequentialTeaching(
                student, train, config.train.batch_size, budget, folder, self._after_step
            )
        organizer = config.organizer
        pool = PoolSettings(
            config.train.batch_size, self._new_share, organizer.raise_factor, config.seed
        )
        mastered = self._mastered_material() if organizer.retention else None
        return PooledTeaching(student, train, pool, budget, folder, mastered, self._after_step)

    @property
    def _new_share(self) -> float:
        """Of a part's lessons among what is trained on: all of it where nothing is replayed."""
        organizer = self.config.organizer
        return organizer.new_share if self._pooled and organizer.retention else 1.0

    def _mastered_material(self) -> Material:
        """The references of what the student can do already, to be replayed from the start."""
        modules = sorted(self._mastered_now())
        return self._fitting(
            [
                (self._before.answer_pair(seed.messages, seed.reference), module)
                for module in modules
                for seed in self._seeds[module]
            ]
        )

    def _material(self, lessons: Sequence[Lesson]) -> Material:
        return self._fitting([(self._pair(lesson), lesson.module) for lesson in lessons])

    def _fitting(self, pairs: Sequence[tuple[TokenPair, str]]) -> Material:
        """Without those whose prompt alone fills a row."""
        length = self.config.train.row_length
        kept = [(pair, module) for pair, module in pairs if len(pair.prompt) < length]
        self._too_long += len(pairs) - len(kept)
        return Material(tuple(pair for pair, _ in kept), tuple(module for _, module in kept))

    def _pair(self, lesson: Lesson) -> TokenPair:
        return self._before.answer_pair(
            ({"role": "user", "content": lesson.prompt},), lesson.answer
        )

    def _after_step(self, part: str, metrics: StepMetrics) -> None:
        if (part, metrics.step) not in self._journal:
            self._journal.append({"part": part, **dataclasses.asdict(metrics)})
        if self._on_step is not None:
            self._on_step(part, metrics, lambda: self._teaching.student)


def _level(lesson: Lesson) -> int:
    """Difficulty from 0, the easiest."""
    return LEVELS.index(lesson.example["difficulty_tag"])
