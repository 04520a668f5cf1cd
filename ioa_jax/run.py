"""The steps of `distill`: each takes the run and its state, and gives the next state.

diagnosis.json and its parts     see `identifier.diagnosis`
forms.json                       the form of answers by module, chosen by the student
probes.json                      further probes that the teacher wrote
retained.json                    what is kept as the student was
parts/PART/limits.json           what a part's examples may cost the teacher
parts/PART/material.json         its examples, and what was rejected
training/stages/STAGE.json       what training on a stage took
states/STEP.json                 the state after a step: plan, performances, gates
train.jsonl                      a line per optimiser step
seconds.jsonl                    what every step but training took, the diagnosis' among them
curriculum.json, gates.jsonl, lessons.jsonl, rejects.jsonl, retention.json, record.json
                                 all of it together, when the run is done
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.adapter.forms import FormChoice, choose_forms
from ioa_jax.adapter.novelty import Novelty
from ioa_jax.adapter.schema import LEVELS, Lesson, Level, StageKind
from ioa_jax.adapter.stage import StageMaterial, StageRequest, StageSeed
from ioa_jax.adapter.synthesize import Adapter
from ioa_jax.adapter.verification import Checkers
from ioa_jax.bootstrap import draw_counts, percentile_interval
from ioa_jax.clock import Clock
from ioa_jax.config import MethodConfig
from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.engine.training import StepMetrics
from ioa_jax.files import finished, read_value
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.identifier.measure import ModulePerformance, masters
from ioa_jax.identifier.probes import ProbeGraders, measure_student
from ioa_jax.journal import Journal
from ioa_jax.organizer.curriculum import Curriculum, Stage, plan_curriculum, replan
from ioa_jax.organizer.mastery import GateResult, judge_stage
from ioa_jax.organizer.retention import ForgettingMatrix, Retained, RetainedExample, prompt_variants
from ioa_jax.organizer.stage_training import PooledTrainer, SequentialTrainer, StageTrainer
from ioa_jax.organizer.zone import bridge_levels
from ioa_jax.run_record import write_record
from ioa_jax.sandbox import Sandbox
from ioa_jax.seeds import SeedItem
from ioa_jax.streams import stream
from ioa_jax.student import Student
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.thoughts import cut_thoughts
from ioa_jax.values import Value

log = logging.getLogger(__name__)

OnStep = Callable[[str, StepMetrics, Callable[[], Student]], None]

# Levels of what a module that failed its gate gets, and of what leads on after one that passed: at
# most a notch below and above the seed's own.
REMEDIAL_LEVELS: dict[Level, float] = {"introductory": 0.5, "intermediate": 0.5}
BRIDGE_LEVELS: dict[Level, float] = {"intermediate": 0.5, "advanced": 0.5}
# That the teacher writes for retention, at most.
PROBLEMS_PER_SEED = 4
RESAMPLES = 2000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Allotment(Value):
    """What a part of a run may use: totals of the run at its beginning and at its end.

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


@dataclasses.dataclass(frozen=True)
class Forms(Value):
    """How answers are written, as the student chose.

    Attributes:
        choices: By module id.
    """

    choices: dict[str, FormChoice]


@dataclasses.dataclass(frozen=True)
class WrittenProbes(Value):
    """Probes that the teacher wrote beside the seeds' own.

    Attributes:
        probes: By module id.
    """

    probes: dict[str, tuple[SeedItem, ...]]


@dataclasses.dataclass(frozen=True)
class State(Value):
    """Where a run stands after a step. The weights are in the trainer's checkpoints.

    Attributes:
        curriculum: The stages that are ahead.
        plans: Every plan, in the order in which they were made.
        performance: P_S of every module, as last measured.
        gates: In their order.
        forgetting: r(k) of every module after each measurement.
        parked: Modules that were given up, sorted.
    """

    curriculum: Curriculum
    plans: tuple[Curriculum, ...]
    performance: dict[str, ModulePerformance]
    gates: tuple[GateResult, ...]
    forgetting: ForgettingMatrix
    parked: tuple[str, ...] = ()

    def means(self) -> dict[str, float]:
        """P_S by module id."""
        return {module: measured.mean for module, measured in self.performance.items()}


Verdict = Literal["taught", "nothing_to_teach", "no_examples"]


@dataclasses.dataclass(frozen=True)
class Outcome(Value):
    """How a run ended.

    Attributes:
        verdict: `taught`; `nothing_to_teach`: no module is deficient; `no_examples`: the teacher
            gave no usable one. Where it isn't `taught`, nothing was trained.
        before: Mean of P_S over all modules, on the probes, before.
        after: Of the student that is given back.
        trained: Of the student as trained, whichever is given back.
        low: Lower end of the 95 % interval of `trained - before`, over probes.
        high: Upper end.
        share: s of the weights that are given back, before + s · (after - before); 0 is the student
            as it was.
    """

    verdict: Verdict
    before: float
    after: float
    trained: float
    low: float
    high: float
    share: float

    @property
    def is_worse(self) -> bool:
        """The trained student is below where it began, beyond the interval."""
        return self.high < 0


@dataclasses.dataclass(frozen=True)
class Baseline(Value):
    """A student trained on the seeds' references alone, with the same tokens.

    Attributes:
        tokens: Student tokens.
        performance: P_S of every module.
    """

    tokens: int
    performance: dict[str, ModulePerformance]


@dataclasses.dataclass(frozen=True)
class DistillResult:
    """A distilled student, and the record of why it was taught what.

    Attributes:
        student: Trained, or as it was (`outcome` says which).
        diagnosis: What it lacked before.
        outcome: How it went.
        directory: The run's folder; `record.json` in it has every decision.
    """

    student: Student
    diagnosis: Diagnosis
    outcome: Outcome
    directory: Path


@dataclasses.dataclass(frozen=True)
class Run:
    """What doesn't change during a run: models, data, settings, and the tools that are open.

    Attributes:
        config: Settings.
        directory: The run's folder.
        diagnosis: What the Identifier found.
        before: The student before training.
        teacher: Behind its ledger.
        teacher_tokens: Its budget; None is no limit.
        seeds: Synthesis seeds by module, of all modules.
        teacher_performance: P_T of the modules that the teacher can do at all.
        adapter: Writes examples.
        graders: Of probes.
        probes: Probes by module, those that the teacher wrote among them once they are.
        journal: train.jsonl.
        clock: seconds.jsonl.
        on_step: The caller's.
        stack: Closes what is opened.
        trainers: The stage trainer, once it is open.
    """

    config: MethodConfig
    directory: Path
    diagnosis: Diagnosis
    before: Student
    teacher: LedgeredTeacher
    teacher_tokens: int | None
    seeds: dict[str, tuple[SeedItem, ...]]
    teacher_performance: dict[str, float]
    adapter: Adapter
    graders: ProbeGraders
    probes: dict[str, tuple[SeedItem, ...]]
    journal: Journal
    clock: Clock
    on_step: OnStep | None
    stack: contextlib.ExitStack
    trainers: list[StageTrainer] = dataclasses.field(default_factory=list[StageTrainer])

    @property
    def trainer(self) -> StageTrainer:
        """Of the stages; opened with the first."""
        return self.trainers[0]

    @property
    def student(self) -> Student:
        """As trained so far."""
        return self.trainer.student if self.trainers else self.before

    @functools.cached_property
    def forms(self) -> Forms:
        """How answers are written in each module."""
        path = self.directory / "forms.json"
        taught = {module: self.seeds[module] for module in self.diagnosis.targets.modules}
        return finished(
            path, Forms, lambda: Forms(choose_forms(taught, functools.partial(nll, self.before)))
        )

    def materials(self) -> list[tuple[str, StageMaterial]]:
        """Every part that was written, by name, in the order in which they were begun."""
        begun = [
            (read_value(path.with_name("limits.json"), Allotment), path)
            for path in self.directory.glob("parts/*/material.json")
        ]
        begun.sort(key=lambda part: (part[0].teacher_from, part[0].student_from, part[1]))
        return [(path.parent.name, read_value(path, StageMaterial)) for _, path in begun]

    def performance_before(self, modules: Iterable[str]) -> dict[str, ModulePerformance]:
        """P_S of modules before training, on the very probes that they are measured with later."""
        first = self.diagnosis.measurement.student[self.diagnosis.measurement.scorer]
        before = {module: first[module] for module in modules}
        path = self.directory / "measured/start.json"
        if path.is_file():
            before |= {one.module: one for one in read_value(path, Measured).performances}
        return before

    def ratios(self, performance: Mapping[str, ModulePerformance]) -> dict[str, float]:
        """r(k) of the modules among these that have one."""
        return {
            module: measured.mean / self.teacher_performance[module]
            for module, measured in performance.items()
            if module in self.teacher_performance
        }


def nll(student: Student, texts: Sequence[tuple[str, str]]) -> list[float]:
    """Mean negative log-likelihood of (prompt, answer) each under a student, nats per token."""
    pairs = [student.answer_pair(as_chat(prompt), answer) for prompt, answer in texts]
    scores = student.score(pairs)
    return [-score.logprob / len(score.token_logprobs) for score in scores]


def as_chat(prompt: str) -> tuple[dict[str, str], ...]:
    """A problem as a chat of one turn."""
    return ({"role": "user", "content": prompt},)


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
    measure = config.diagnose.measure
    kinds = {seed.kind for seed in seeds}
    with contextlib.ExitStack() as stack:
        if graders is None:
            graders = stack.enter_context(ProbeGraders(measure.threads, measure.allow_weak_sandbox))
        sandbox = None
        if "code" in kinds:
            sandbox = stack.enter_context(Sandbox(allow_weak=measure.allow_weak_sandbox))
        trainers: list[StageTrainer] = []
        adapter = Adapter(
            teacher,
            config.adapter,
            # The probes among them: nothing that is measured with may be taught.
            Novelty(
                benchmarks or BenchmarkIndex({}),
                {seed.id: seed.prompt for seed in seeds},
                config.adapter.duplicate_similarity,
            ),
            Checkers({kind: graders.of(kind) for kind in sorted(kinds - {"code"})}, sandbox),
            scorer=lambda texts: nll(trainers[0].student if trainers else student, texts),
            seed=config.seed,
        )
        yield Run(
            config=config,
            directory=directory,
            diagnosis=diagnosis,
            before=student,
            teacher=teacher,
            teacher_tokens=teacher.budget.max_tokens,
            seeds=diagnosis.select(seeds, "seed", all_modules=True),
            teacher_performance={
                module: measured.mean
                for module, measured in diagnosis.measurement.teacher[
                    diagnosis.measurement.scorer
                ].items()
                if measured.mean > 0
            },
            adapter=adapter,
            graders=graders,
            probes=diagnosis.select(seeds, "probe", all_modules=True),
            journal=stack.enter_context(Journal(directory / "train.jsonl", ("part", "step"))),
            clock=stack.enter_context(Clock(directory / "seconds.jsonl")),
            on_step=on_step,
            stack=stack,
            trainers=trainers,
        )


# -- Organizer -------------------------------------------------------------------------------------


def first_state(run: Run) -> State:
    """Before anything is taught."""
    measured = run.diagnosis.measurement.student[run.diagnosis.measurement.scorer]
    performance = {module: measured[module] for module in sorted(run.seeds)}
    modules = tuple(sorted(run.teacher_performance.keys() & performance.keys()))
    matrix = ForgettingMatrix(modules).with_stage(0, run.ratios(performance))
    nothing = plan_curriculum((), run.diagnosis.graph, {}, ())
    return State(nothing, (), performance, (), matrix)


def plan_stages(run: Run, state: State) -> State:
    """Stages of the targets (Eq. 7 and 8)."""
    modules = run.diagnosis.targets.modules

    def plan() -> State:
        planned = plan_curriculum(
            modules,
            run.diagnosis.graph,
            state.means(),
            mastered(run, state) - set(modules),
            run.config.organizer.zone_settings(),
        )
        return dataclasses.replace(state, curriculum=planned, plans=(planned,))

    with run.clock.timed("organizing"):
        return _state(run, "plan", plan)


def replan_stages(run: Run, state: State, stage: Stage) -> State:
    """The stages after a gate, with what was measured there (method 2.5)."""
    gate = state.gates[-1]
    parked = tuple(sorted({*state.parked, *gate.parked}))

    def plan() -> State:
        planned = replan(
            state.curriculum,
            stage.number,
            run.diagnosis.graph,
            state.means(),
            mastered(run, state),
            parked=parked,
        )
        plans = (*state.plans, planned)
        return dataclasses.replace(state, curriculum=planned, plans=plans, parked=parked)

    with run.clock.timed("organizing"):
        return _state(run, f"plan-{stage.number:02d}", plan)


def _state(run: Run, name: str, step: Callable[[], State]) -> State:
    """The state after a step, which a resumed run finds as it was decided."""
    return finished(run.directory / f"states/{name}.json", State, step)


def mastered(run: Run, state: State) -> set[str]:
    """Modules whose r(k) reaches τ_mastery, as last measured."""
    threshold = run.config.organizer.tau_mastery
    return {m for m, ratio in run.ratios(state.performance).items() if masters(ratio, threshold)}


# -- what the teacher writes -----------------------------------------------------------------------


def write_probes(run: Run, state: State) -> State:
    """Probes of the targets where the seeds give few, and the student measured on all of them."""
    settings = run.config.diagnose
    targets = run.diagnosis.targets.modules
    missing = {
        module: settings.min_gate_probes - len(run.probes[module])
        for module in targets
        if len(run.probes[module]) < settings.min_gate_probes
    }
    if not missing or settings.gate_probe_share == 0:
        return state
    limit = _limits(run, "probes", settings.gate_probe_share)

    def write() -> WrittenProbes:
        with run.teacher.limited(limit.teacher_to):
            return WrittenProbes(run.adapter.write_probes(_seeds(run, state, targets), missing))

    with run.clock.timed("probes"):
        written = finished(run.directory / "probes.json", WrittenProbes, write).probes
    for module, probes in written.items():
        run.probes[module] = (*run.probes[module], *probes)
        run.adapter.novelty.know({probe.id: probe.prompt for probe in probes})
    return _measured(run, state, "start", [m for m, probes in sorted(written.items()) if probes])


def retain(run: Run, state: State) -> Retained:
    """Problems of every module that isn't taught, answered by the student as it is [ours]."""
    settings = run.config.organizer.retention
    modules = tuple(sorted(run.seeds.keys() - set(run.diagnosis.targets.modules)))
    if settings.kind == "off" or not modules or not state.curriculum.stages:
        return Retained()
    limit = _limits(run, "retention", settings.teacher_share)

    def collect() -> Retained:
        prompts = [(module, seed.prompt, False) for module in modules for seed in run.seeds[module]]
        if settings.kind == "replay":
            return Retained(
                modules,
                tuple(
                    RetainedExample(module, seed.prompt, seed.reference)
                    for module in modules
                    for seed in run.seeds[module]
                ),
            )
        if limit.teacher_to is not None and settings.teacher_share > 0:
            with run.teacher.limited(limit.teacher_to):
                written = run.adapter.write_problems(
                    _seeds(run, state, modules), len(prompts) * PROBLEMS_PER_SEED, "retention"
                )
            prompts += [(one.module, one.prompt, True) for one in written]
        probes = {probe.prompt for own in run.probes.values() for probe in own}
        for module in modules:
            rng = stream(run.config.seed, "retained variants", module)
            own = [seed.prompt for seed in run.seeds[module]]
            prompts += [
                (module, prompt, False)
                for prompt in prompt_variants(own, settings.variants, rng)
                if prompt not in probes and run.adapter.novelty.is_clean(prompt)
            ]
        answers = run.before.generate(
            [as_chat(prompt) for _, prompt, _ in prompts],
            SamplingParams(max_tokens=run.config.diagnose.measure.max_tokens),
        )
        examples = tuple(
            RetainedExample(module, prompt, text, written)
            for (module, prompt, written), answer in zip(prompts, answers, strict=True)
            # An answer without an end would be retained without one.
            if answer.finish_reason == "stop"
            and (text := cut_thoughts(answer.text).answer or "").strip()
        )
        return Retained(modules, examples, len(prompts) - len(examples))

    with run.clock.timed("retention"):
        return finished(run.directory / "retained.json", Retained, collect)


def write_examples(run: Run, state: State) -> StageMaterial:
    """Eq. 1 for all stages before training, but for the tokens that are kept for later."""
    modules = [module for stage in state.curriculum.stages for module in stage.modules]
    share = 1 - run.config.organizer.late_share
    return _synthesize(run, state, "examples", "stage", modules, share)


def write_late_examples(run: Run, state: State, examples: StageMaterial) -> StageMaterial:
    """With what was kept: for what failed its gate, or to lead on where everything passed."""
    if run.config.organizer.late_share == 0:
        return StageMaterial((), (), {}, False)
    failed = [module for gate in last_gates(state) for module in gate.weak]
    taught = [module for gate in last_gates(state) for module in _modules(gate)]
    excluded = {one.module for one in examples.excluded}
    chosen = [module for module in failed or taught if module not in excluded]
    gated = run.config.organizer.gate != "off"
    return _synthesize(
        run,
        state,
        "late",
        "remedial" if failed else "bridge",
        chosen if gated else [module for module in taught if module not in excluded],
        1.0,
        levels=None if not gated else REMEDIAL_LEVELS if failed else BRIDGE_LEVELS,
        before=examples.lessons,
        round_=1,
    )


def write_bridge_examples(run: Run, state: State, stage: Stage) -> StageMaterial:
    """`sequential`: what leads to a stage out of the zone (Eq. 8), for a quarter of its tokens.

    Of the levels in the bridge's direction those are taken at which the student's own success is in
    the bounds: the geometric-mean probability that it gives the answers' tokens [ours]. Where it is
    in none, the easiest stands for them all.
    """
    assert stage.bridge is not None
    easier = stage.bridge.direction == "easier"
    written = _synthesize(
        run,
        state,
        _part_name(state, stage, "bridge"),
        "bridge",
        stage.modules,
        (1 - run.config.organizer.remedial_share) / 4,
        levels=REMEDIAL_LEVELS if easier else BRIDGE_LEVELS,
        before=_written(run),
        until=_stage_limits(run, state, stage).teacher_to,
    )
    by_level: dict[int, list[Lesson]] = {}
    for lesson in written.lessons:
        by_level.setdefault(LEVELS.index(lesson.example["difficulty_tag"]), []).append(lesson)
    success = {
        level: math.fsum(
            math.exp(-value) for value in nll(run.student, [(x.prompt, x.answer) for x in own])
        )
        / len(own)
        for level, own in by_level.items()
    }
    chosen = bridge_levels(success, stage.bridge.bounds) or tuple(sorted(by_level))[:1]
    inside = [lesson for level in chosen for lesson in by_level[level]]
    return dataclasses.replace(written, lessons=tuple(inside))


def write_stage_examples(run: Run, state: State, stage: Stage) -> StageMaterial:
    """`sequential`: Eq. 1 for one stage."""
    return _synthesize(
        run,
        state,
        _part_name(state, stage, "stage"),
        "stage",
        stage.modules,
        1 - run.config.organizer.remedial_share,
        before=_written(run),
        until=_stage_limits(run, state, stage).teacher_to,
    )


def write_remedial_examples(run: Run, state: State, stage: Stage) -> StageMaterial:
    """`sequential`: for the weak modules alone, smaller instances."""
    gate = state.gates[-1]
    return _synthesize(
        run,
        state,
        _part_name(state, stage, "remedial"),
        "remedial",
        gate.weak,
        1 / (run.config.organizer.max_remedial_rounds - gate.remedial_round),
        levels=REMEDIAL_LEVELS,
        before=_written(run),
        until=_stage_limits(run, state, stage).teacher_to,
        round_=gate.remedial_round + 1,
    )


def _part_name(state: State, stage: Stage, kind: StageKind) -> str:
    """Of a stage's own part, its bridge, or the remedial round after its newest gate."""
    number = sum(gate.stage == stage.number for gate in state.gates)
    suffix = {"stage": "", "bridge": "-bridge", "remedial": f"-remedial-{number}"}[kind]
    return f"stage-{stage.number:02d}{suffix}"


def _written(run: Run) -> tuple[Lesson, ...]:
    """Every example that was accepted so far."""
    return tuple(lesson for _, material in run.materials() for lesson in material.lessons)


def _synthesize(
    run: Run,
    state: State,
    name: str,
    kind: StageKind,
    modules: Collection[str],
    share: float,
    *,
    levels: dict[Level, float] | None = None,
    before: Sequence[Lesson] = (),
    until: int | None = None,
    round_: int = 0,
) -> StageMaterial:
    """A part's examples, for a share of the teacher's tokens that are left until a total."""
    if not modules:
        return StageMaterial((), (), {}, False)
    limits = _limits(run, f"parts/{name}", share, until, of_left=True)
    request = StageRequest(
        kind=kind,
        seeds=_seeds(run, state, modules),
        levels=levels,
        round=round_,
        forms={module: run.forms.choices[module].form for module in modules}
        if run.config.adapter.form_by_student
        else {},
        tokens=None
        if limits.teacher_to is None
        else max(0, limits.teacher_to - limits.teacher_from),
    )

    def write() -> StageMaterial:
        with run.teacher.limited(limits.teacher_to):
            return run.adapter.synthesize(request, before)

    with run.clock.timed("synthesis"):
        material = finished(run.directory / "parts" / name / "material.json", StageMaterial, write)
    log.info("%s: %d examples, %d rejected", name, len(material.lessons), len(material.rejects))
    return material


def _seeds(run: Run, state: State, modules: Collection[str]) -> tuple[StageSeed, ...]:
    """Synthesis seeds of modules with what is known of these, in the stages' order."""
    stage_of = {
        module: stage.number
        for plan in state.plans
        for stage in plan.stages
        for module in stage.modules
    }
    ratios = run.ratios(state.performance)
    graph = run.diagnosis.graph
    return tuple(
        StageSeed(
            seed,
            module,
            stage_of.get(module, 1),
            ratios.get(module),
            graph.all_prerequisites(module) if module in graph.modules else (),
        )
        for module in modules
        for seed in run.seeds[module]
    )


def _limits(
    run: Run, name: str, share: float, until: int | None = None, *, of_left: bool = False
) -> Allotment:
    """What a part may cost the teacher; on disk, so that a resumed run has the same.

    Args:
        run: The run.
        name: Folder of the part.
        share: Of the whole budget, or of what is left of it until `until`.
        until: Total at which what is left ends; None is the whole budget.
        of_left: Which of the two.
    """

    def allot() -> Allotment:
        used = run.teacher.used.completion_tokens
        trained = run.trainer.tokens if run.trainers else 0
        budget = run.config.budget.student_tokens
        whole = run.teacher_tokens
        if whole is None:
            return Allotment(trained, budget, used, None)
        end = whole if until is None else min(until, whole)
        granted = share * (max(0, end - used) if of_left else whole)
        return Allotment(trained, budget, used, min(used + int(granted), whole))

    return finished(run.directory / name / "limits.json", Allotment, allot)


def _stage_limits(run: Run, state: State, stage: Stage) -> Allotment:
    """`sequential`: a stage's part of what is left, by its number of modules."""

    def allot() -> Allotment:
        waiting = sum(len(one.modules) for one in state.curriculum.stages)
        share = len(stage.modules) / waiting
        used = run.teacher.used.completion_tokens
        whole = run.teacher_tokens
        trainer = _open_trainer(run, 0)
        return Allotment(
            trainer.tokens,
            trainer.tokens + round(trainer.left * share),
            used,
            None if whole is None else used + int(max(0, whole - used) * share),
        )

    return finished(run.directory / f"limits/stage-{stage.number:02d}.json", Allotment, allot)


# -- training --------------------------------------------------------------------------------------


def train_stage(
    run: Run, state: State, stage: Stage, examples: StageMaterial, retained: Retained
) -> None:
    """`pooled`: the first pass, with what came before, for the stage's share of the tokens."""
    stages = state.curriculum.stages
    so_far = [m for one in stages if one.number <= stage.number for m in one.modules]
    pool = _pairs(run, examples.lessons, so_far)
    whole = _pairs(run, examples.lessons, [m for one in stages for m in one.modules])
    first = run.config.organizer.first_pass_share
    trainer = _open_trainer(run, len(retained.modules))
    goal = round(trainer.budget_tokens * first * _size(pool) / max(_size(whole), 1))
    if first > 0 and pool:
        trainer.train(
            f"stage-{stage.number:02d}", pool, _retained_pairs(run, retained), until_tokens=goal
        )


def consolidate(
    run: Run, state: State, materials: Sequence[StageMaterial], retained: Retained
) -> None:
    """`pooled` [ours]: everything that there is, for the rest of the student's tokens."""
    modules = [module for stage in state.curriculum.stages for module in stage.modules]
    lessons = [lesson for material in materials for lesson in material.lessons]
    trainer = _open_trainer(run, len(retained.modules))
    trainer.train("consolidation", _pairs(run, lessons, modules), _retained_pairs(run, retained))


def train_alone(
    run: Run, state: State, stage: Stage, examples: StageMaterial, kind: StageKind
) -> None:
    """`sequential`: a part's examples alone, in epochs, within the stage's share of the tokens."""
    if not examples.lessons:
        return
    pairs = _pairs(run, examples.lessons, stage.modules if kind == "stage" else ())
    if pairs:
        limits = _stage_limits(run, state, stage)
        name = _part_name(state, stage, kind)
        _open_trainer(run, 0).train(name, pairs, until_tokens=limits.student_to)


def _open_trainer(run: Run, num_retained: int) -> StageTrainer:
    """The run's trainer; the share of retained rows follows what there is to retain [ours]."""
    if run.trainers:
        return run.trainer
    config = run.config
    retention = config.organizer.retention
    train = config.train.train_config(config.seed)
    if num_retained:
        train = dataclasses.replace(
            train,
            retained_share=retention.share * num_retained / len(run.seeds),
            retention="replay" if retention.kind == "replay" else "divergence",
            retention_weight=retention.weight,
        )
    budget = config.budget.student_tokens
    if config.budget.count_interventions:
        budget = max(1, budget - run.diagnosis.dependencies.student_tokens)
    kind = PooledTrainer if config.organizer.stage_mode == "pooled" else SequentialTrainer

    def after_step(stage: str, metrics: StepMetrics) -> None:
        if (stage, metrics.step) not in run.journal:
            run.journal.append({"part": stage, **dataclasses.asdict(metrics)})
        if run.on_step is not None:
            run.on_step(stage, metrics, lambda: run.student)

    trainer = kind(run.before, train, budget, run.directory / "training", after_step)
    run.trainers.append(run.stack.enter_context(trainer))
    return trainer


def _pairs(run: Run, lessons: Iterable[Lesson], modules: Collection[str]) -> list[TokenPair]:
    """Examples of modules as tokens, with the references of these modules' seeds."""
    texts = [(one.prompt, one.answer) for one in lessons if not modules or one.module in modules]
    if run.config.organizer.references:
        texts += [(seed.prompt, seed.reference) for m in modules for seed in run.seeds[m]]
    return _fitting(run, texts)


def _retained_pairs(run: Run, retained: Retained) -> list[TokenPair]:
    return _fitting(run, [(one.prompt, one.answer) for one in retained.examples])


def _fitting(run: Run, texts: Iterable[tuple[str, str]]) -> list[TokenPair]:
    """As tokens, without those whose prompt alone fills a row."""
    pairs = [run.before.answer_pair(as_chat(prompt), answer) for prompt, answer in texts]
    length = run.config.train.row_length
    return [pair for pair in pairs if pair.completion and len(pair.prompt) < length]


def _size(pairs: Sequence[TokenPair]) -> int:
    return sum(map(len, pairs))


# -- gates -----------------------------------------------------------------------------------------


def judge(run: Run, state: State, stage: Stage) -> State:
    """Eq. 9 with what the student can do now."""
    number = sum(gate.stage == stage.number for gate in state.gates)
    name = f"gate-{stage.number:02d}-{number}"
    with run.clock.timed("gates"):
        state = _measured(run, state, name, stage.modules)
    return _judged(run, state, stage, number)


def judge_all(run: Run, state: State, number: int) -> State:
    """Eq. 9 of every stage with what was measured last."""
    for stage in state.curriculum.stages:
        state = _judged(run, state, stage, number)
    return state


def _judged(run: Run, state: State, stage: Stage, number: int) -> State:
    # On disk, since what is left of the budgets decides too, and is less when a run is resumed.
    return _state(
        run,
        f"gate-{stage.number:02d}-{number}",
        lambda: dataclasses.replace(state, gates=(*state.gates, _gate(run, state, stage, number))),
    )


def _gate(run: Run, state: State, stage: Stage, number: int) -> GateResult:
    settings = run.config.organizer.gate_settings()
    sequential = run.config.organizer.stage_mode == "sequential"
    spent = sequential and (
        run.trainer.left <= 0 or _teacher_left(run) == 0 if run.trainers else True
    )
    if spent:
        # Without anything left to remediate with, another round would be the same.
        settings = dataclasses.replace(settings, max_remedial_rounds=number)
    gate = judge_stage(
        stage.number,
        stage.modules,
        state.performance,
        run.teacher_performance,
        number,
        settings,
    )
    log.info(
        "stage %d, gate %d: lowest r(k) %.2f, %s", stage.number, number, gate.minimum, gate.action
    )
    return gate


def last_gates(state: State) -> list[GateResult]:
    """The newest gate of each stage, by stage."""
    newest = {gate.stage: gate for gate in state.gates}
    return [newest[stage] for stage in sorted(newest)]


def _modules(gate: GateResult) -> list[str]:
    return [entry.module for entry in gate.modules]


def _teacher_left(run: Run) -> int | None:
    if run.teacher_tokens is None:
        return None
    return max(0, run.teacher_tokens - run.teacher.used.completion_tokens)


# -- measuring -------------------------------------------------------------------------------------


def measure_all(run: Run, state: State, name: str) -> State:
    """The student on the probes of every module; a row of the forgetting matrix."""
    with run.clock.timed("retention"):
        state = _measured(run, state, name, sorted(run.probes))
    row = state.forgetting.stages[-1] + 1
    forgetting = state.forgetting.with_stage(row, run.ratios(state.performance))
    return _state(run, name, lambda: dataclasses.replace(state, forgetting=forgetting))


@dataclasses.dataclass(frozen=True)
class Measured(Value):
    """The student on the probes of some modules.

    Attributes:
        performances: In the order of the modules' ids.
    """

    performances: tuple[ModulePerformance, ...]


def _measured(run: Run, state: State, name: str, modules: Collection[str]) -> State:
    if not modules:
        return state
    path = run.directory / f"measured/{name}.json"
    found = finished(path, Measured, lambda: _measure(run, run.student, modules)).performances
    return dataclasses.replace(
        state, performance=state.performance | {one.module: one for one in found}
    )


def _measure(run: Run, student: Student, modules: Collection[str]) -> Measured:
    measurement = run.diagnosis.measurement
    found = measure_student(
        student,
        {module: run.probes[module] for module in sorted(modules)},
        measurement.scorer,
        graders=run.graders,
        max_tokens=run.config.diagnose.measure.max_tokens,
        unit=measurement.unit or "token",
    )
    return Measured(tuple(found[module] for module in sorted(modules)))


# -- the end ---------------------------------------------------------------------------------------


def finish(run: Run, state: State, baseline: bool) -> DistillResult:
    """Choose the weights that are given back, and write the whole run's record."""
    student, state, outcome = _choose(run, state)
    trained_sft = _sft_baseline(run) if baseline and outcome.verdict == "taught" else None
    write_record(run, state, outcome, trained_sft)
    return DistillResult(student, run.diagnosis, outcome, run.directory)


def _choose(run: Run, state: State) -> tuple[Student, State, Outcome]:
    before = run.performance_before(state.performance)
    mean_before = _mean(before)
    if not run.trainers or run.trainer.tokens == 0:
        nothing = not run.diagnosis.targets.modules
        verdict: Verdict = "nothing_to_teach" if nothing else "no_examples"
        return (
            run.before,
            state,
            Outcome(verdict, mean_before, mean_before, mean_before, 0.0, 0.0, 0.0),
        )
    organizer = run.config.organizer
    found: dict[float, dict[str, ModulePerformance]] = {}
    for share in sorted(organizer.average, reverse=True):
        found[share] = state.performance
        if share != 1.0:
            student = averaged(run.before, run.student, share)
            path = run.directory / f"measured/average-{share:g}.json"
            measured = finished(
                path, Measured, functools.partial(_measure, run, student, sorted(run.probes))
            )
            found[share] = {one.module: one for one in measured.performances}
    best = max(found, key=lambda share: (_mean(found[share]), share))
    trained = found[best]
    low, high = _interval_of_change(before, trained, run.config.seed)
    share = best
    if organizer.keep == "best" and _mean(trained) < mean_before:
        share = 0.0
    after = before if share == 0 else trained
    outcome = Outcome("taught", mean_before, _mean(after), _mean(trained), low, high, share)
    student = run.before if share == 0 else averaged(run.before, run.student, share)
    return student, dataclasses.replace(state, performance=dict(after)), outcome


def averaged(before: Student, after: Student, share: float) -> Student:
    """before + share · (after - before) of every weight (Wortsman et al. 2022, 2109.01903)."""
    if share == 1:
        return after
    decoder = jax.tree.map(
        lambda a, b: (a + share * (b - a)).astype(a.dtype),
        before.model.decoder,
        after.model.decoder,
    )
    return before.with_decoder(decoder)


def _mean(performance: Mapping[str, ModulePerformance]) -> float:
    return math.fsum(one.mean for one in performance.values()) / len(performance)


def _interval_of_change(
    before: Mapping[str, ModulePerformance], after: Mapping[str, ModulePerformance], seed: int
) -> tuple[float, float]:
    """95 % of the change of the mean over modules, by a paired bootstrap of each one's probes."""
    means: list[np.ndarray] = []
    for module in sorted(before):
        old = dict(zip(before[module].probes, before[module].values, strict=True))
        new = dict(zip(after[module].probes, after[module].values, strict=True))
        changes = np.asarray([new[probe] - old[probe] for probe in sorted(old)])
        counts = draw_counts(stream(seed, "outcome", module), len(changes), RESAMPLES)
        means.append(counts @ changes / len(changes))
    interval = percentile_interval(np.mean(means, axis=0), LEVEL)
    assert interval is not None
    return interval.low, interval.high


def _sft_baseline(run: Run) -> Baseline:
    """What the seeds alone give: their references, for as many student tokens."""

    def train() -> Baseline:
        config = run.config.train.train_config(run.config.seed)
        texts = [
            (seed.prompt, seed.reference) for module in run.seeds for seed in run.seeds[module]
        ]
        folder = run.directory / "baseline"
        with PooledTrainer(run.before, config, run.trainer.budget_tokens, folder) as trainer:
            trained = trainer.train("sft", _fitting(run, texts))
            measured = _measure(run, trainer.student, sorted(run.probes))
        return Baseline(trained.tokens, {one.module: one for one in measured.performances})

    with run.clock.timed("baseline"):
        return finished(run.directory / "baseline.json", Baseline, train)
