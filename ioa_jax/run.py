"""What a run is: its values, which lie in its folder, and what is open while it lasts.

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
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.adapter.forms import FormChoice, choose_forms
from ioa_jax.adapter.novelty import Novelty
from ioa_jax.adapter.stage import StageMaterial
from ioa_jax.adapter.synthesize import Adapter
from ioa_jax.adapter.verification import Checkers
from ioa_jax.clock import Clock
from ioa_jax.config import MethodConfig
from ioa_jax.engine.training import StepMetrics
from ioa_jax.files import finished, read_value
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.identifier.measure import ModulePerformance
from ioa_jax.identifier.probes import ProbeGraders
from ioa_jax.journal import Journal
from ioa_jax.organizer.curriculum import Curriculum
from ioa_jax.organizer.mastery import GateResult
from ioa_jax.organizer.retention import ForgettingMatrix
from ioa_jax.organizer.stage_training import StageTrainer
from ioa_jax.rows import Count, StepRow
from ioa_jax.sandbox import Sandbox
from ioa_jax.seeds import SeedItem
from ioa_jax.student import Student
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.values import Value

# Takes a stage's name, a step's figures, and what gives the student as it is then.
OnStep = Callable[[str, StepMetrics, Callable[[], Student]], None]


@dataclasses.dataclass(frozen=True)
class Allotment(Value):
    """What a part of a run may use: totals of the run at its beginning and at its end.

    Attributes:
        student_from: Tokens trained on before it.
        student_to: By its end, at most, up to one batch.
        teacher_from: Tokens generated before it.
        teacher_to: By its end, at most; None is no limit.
    """

    student_from: Count
    student_to: Count
    teacher_from: Count
    teacher_to: Count | None


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
class Order:
    """Who is to learn what from whom; attributes as the arguments of `ioa_jax.distill`.

    Attributes:
        teacher: Behind its ledger.
    """

    student: Student
    teacher: LedgeredTeacher
    seeds: Sequence[SeedItem]
    config: MethodConfig
    directory: Path
    benchmarks: BenchmarkIndex | None
    on_step: OnStep | None
    graders: ProbeGraders | None


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
def open_run(order: Order, diagnosis: Diagnosis) -> Generator[Run]:
    """Begin a run after its diagnosis, or go on."""
    config, seeds = order.config, order.seeds
    measure = config.diagnose.measure
    kinds = {seed.kind for seed in seeds}
    with contextlib.ExitStack() as stack:
        graders = order.graders
        if graders is None:
            graders = stack.enter_context(ProbeGraders(measure.threads, measure.allow_weak_sandbox))
        sandbox = None
        if "code" in kinds:
            sandbox = stack.enter_context(Sandbox(allow_weak=measure.allow_weak_sandbox))
        trainers: list[StageTrainer] = []
        adapter = Adapter(
            order.teacher,
            config.adapter,
            # The probes among them: nothing that is measured with may be taught.
            Novelty(
                order.benchmarks or BenchmarkIndex({}),
                {seed.id: seed.prompt for seed in seeds},
                config.adapter.duplicate_similarity,
            ),
            Checkers({kind: graders.of(kind) for kind in sorted(kinds - {"code"})}, sandbox),
            scorer=lambda texts: nll(trainers[0].student if trainers else order.student, texts),
            seed=config.seed,
        )
        yield Run(
            config=config,
            directory=order.directory,
            diagnosis=diagnosis,
            before=order.student,
            teacher=order.teacher,
            teacher_tokens=order.teacher.budget.max_tokens,
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
            journal=stack.enter_context(
                Journal(order.directory / "train.jsonl", ("part", "step"), StepRow)
            ),
            clock=stack.enter_context(Clock(order.directory / "seconds.jsonl")),
            on_step=order.on_step,
            stack=stack,
            trainers=trainers,
        )


def decided(run: Run, name: str, step: Callable[[], State]) -> State:
    """The state after a step, which a resumed run finds as it was decided."""
    return finished(run.directory / f"states/{name}.json", State, step)


@dataclasses.dataclass(frozen=True)
class Measured(Value):
    """The student on the probes of some modules.

    Attributes:
        performances: In the order of the modules' ids.
    """

    performances: tuple[ModulePerformance, ...]
