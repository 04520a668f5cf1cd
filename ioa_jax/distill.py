"""IOA from end to end: Algorithm 1 of the paper.

seeds -> Identifier -> diagnosis -> Organizer -> curriculum
      -> for each stage: Adapter -> lessons -> training -> mastery gate -> ... -> student
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.config import MethodConfig
from ioa_jax.engine.training import StepMetrics
from ioa_jax.files import locked
from ioa_jax.identifier.diagnosis import Diagnosis, diagnose
from ioa_jax.identifier.probes import ProbeGraders
from ioa_jax.run import open_run
from ioa_jax.seeds import SeedItem
from ioa_jax.student import Student
from ioa_jax.teachers.replay import LedgeredTeacher


@dataclasses.dataclass(frozen=True)
class DistillResult:
    """A distilled student, and the record of why it was taught what.

    Attributes:
        student: Trained.
        diagnosis: What it lacked before.
        directory: The run's folder; `record.json` in it has every decision.
    """

    student: Student
    diagnosis: Diagnosis
    directory: Path


def distill(
    student: Student,
    teacher: LedgeredTeacher,
    seeds: Sequence[SeedItem],
    config: MethodConfig,
    directory: Path,
    *,
    benchmarks: BenchmarkIndex | None = None,
    on_step: Callable[[str, StepMetrics, Callable[[], Student]], None] | None = None,
    shared: Path | None = None,
    graders: ProbeGraders | None = None,
) -> DistillResult:
    """Teach the student what it lacks, in an order that it can follow.

    Each step's value is on disk before the next begins. Called again with the same arguments after
    a kill, it goes on where it stopped and gives the same student as a run that was never stopped.

    Args:
        student: As it is before; it isn't changed.
        teacher: Behind a ledger, with the run's budget and its file of counted calls, so that the
            budget holds over restarts.
        seeds: At least `ioa_jax.seeds.MIN_SEEDS`.
        config: Every option of the method.
        directory: The run's folder; one process works in it at a time.
        benchmarks: Test items that no lesson may overlap with.
        on_step: Called after each optimiser step with the part's name, the step's figures and what
            gives the student as it is then.
        shared: As `diagnose` takes it.
        graders: Likewise; runs that share them don't wait for each one's processes to start.

    Raises:
        InputError: Seeds, settings or models don't fit, or the folder is of another run.
        TeacherError: The teacher gives no usable answers. What was done is kept.
    """
    with locked(directory):
        diagnosis = diagnose(  # Eq. 2 to 6
            student,
            teacher,
            seeds,
            config.diagnose,
            directory,
            config.seed,
            graders=graders,
            shared=shared,
        )
        with open_run(
            student, teacher, seeds, diagnosis, config, directory, benchmarks, on_step, graders
        ) as run:
            for number in range(1, config.organizer.rounds + 1):
                targets = run.choose_targets(number)  # none, if nothing is lacking or left to spend
                curriculum = run.plan(number, targets)  # Eq. 7, 8
                while curriculum.stages:
                    stage = curriculum.stages[0]
                    run.teach(stage)  # Eq. 1
                    gate = run.judge(stage)  # Eq. 9
                    while gate.action == "remediate":
                        run.remediate(stage, gate)
                        gate = run.judge(stage)
                    run.close_stage(stage, gate)
                    curriculum = run.replan(curriculum, stage)
            run.consolidate()
            return DistillResult(run.finish(), diagnosis, directory)
