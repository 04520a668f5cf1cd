"""IOA from end to end: Algorithm 1 of the paper.

seeds -> Identifier -> diagnosis -> Organizer -> curriculum
      -> for each stage: Adapter -> examples -> training -> mastery gate -> ... -> student

What a step takes and gives is a frozen value that lies in the run's folder (`ioa_jax.run` has the
values, `ioa_jax.steps` the steps); the weights alone are in the trainer's checkpoints.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.config import MethodConfig
from ioa_jax.errors import InputError
from ioa_jax.files import is_there, locked, read_object, write_json
from ioa_jax.identifier.diagnosis import diagnose
from ioa_jax.identifier.probes import ProbeGraders
from ioa_jax.run import DistillResult, OnStep, Order, Run, State, open_run
from ioa_jax.seeds import SeedItem
from ioa_jax.steps.finish import finish
from ioa_jax.steps.measure import measure_all
from ioa_jax.steps.organize import first_state, judge, judge_all, plan_stages, replan_stages
from ioa_jax.steps.train import consolidate, train_alone, train_stage
from ioa_jax.steps.write import (
    retain,
    write_bridge_examples,
    write_examples,
    write_late_examples,
    write_probes,
    write_remedial_examples,
    write_stage_examples,
)
from ioa_jax.student import Student
from ioa_jax.teachers.base import Teacher
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.replay import LedgeredTeacher


def distill(
    student: Student,
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    config: MethodConfig,
    directory: Path,
    *,
    benchmarks: BenchmarkIndex | None = None,
    baseline: bool = False,
    on_step: OnStep | None = None,
    shared: Path | None = None,
    graders: ProbeGraders | None = None,
) -> DistillResult:
    """Teach the student what it lacks, in an order that it can follow.

    Each step's value is on disk before the next begins. Called again with the same arguments after
    a kill, it goes on where it stopped and gives the same student as a run that was never stopped.

    Args:
        student: As it is before; it isn't changed.
        teacher: Its calls are recorded in the folder (ledger/, counted.jsonl), within the
            settings' budget; it isn't closed. A `LedgeredTeacher` comes with a ledger, a budget and
            prices of its own, and needs a file of counted calls, so that the budget holds over
            restarts.
        seeds: At least `ioa_jax.seeds.MIN_SEEDS`.
        config: Every option of the method.
        directory: The run's folder; one process works in it at a time.
        benchmarks: Test items that no example may overlap with.
        baseline: Train a second student on the seeds' references alone, with the same tokens, and
            report it.
        on_step: Called after each optimiser step, as `OnStep` says.
        shared: As `diagnose` takes it.
        graders: Likewise; runs that share them don't wait for each one's processes to start.

    Returns:
        The student and how it went: a run that has nothing to teach, or gets no usable example of
        its teacher, trains nothing and says so in `outcome`.

    Raises:
        InputError: Seeds, settings or models don't fit, or the folder is of a run with others.
        TeacherError: The teacher gives no usable answers. What was done is kept.
    """
    with locked(directory), _recorded(teacher, config, directory) as asked:
        _claim(directory, config)
        diagnosis = diagnose(  # Eq. 2 to 6
            student,
            asked,
            seeds,
            config.diagnose,
            directory,
            config.seed,
            graders=graders,
            shared=shared,
            student_tokens=config.budget.student_tokens,
        )
        order = Order(student, asked, seeds, config, directory, benchmarks, on_step, graders)
        with open_run(order, diagnosis) as run:
            pooled = config.organizer.stage_mode == "pooled"
            state = teach_from_pool(run) if pooled else teach_in_sequence(run)
            return finish(run, state, baseline)


def teach_from_pool(run: Run) -> State:
    """`pooled` [ours]: a first pass through the stages, and consolidation over everything.

    Most examples are there before training begins, since what comes late is trained on too little;
    the gates decide what the kept tokens are for.
    """
    state = plan_stages(run, first_state(run))  # Eq. 7, 8
    state = write_probes(run, state)
    retained = retain(run, state)
    examples = write_examples(run, state)  # Eq. 1
    if not examples.lessons:
        return state
    for stage in state.curriculum.stages:
        train_stage(run, state, stage, examples, retained)
        state = judge(run, state, stage)  # Eq. 9
    state = judge_all(run, measure_all(run, state, "first-pass"), 1)
    late = write_late_examples(run, state, examples)
    consolidate(run, state, (examples, late), retained)
    return judge_all(run, measure_all(run, state, "end"), 2)


def teach_in_sequence(run: Run) -> State:
    """`sequential`, the paper read literally: each stage alone, until its gate is passed."""
    state = plan_stages(run, first_state(run))  # Eq. 7, 8
    while state.curriculum.stages:
        stage = state.curriculum.stages[0]
        if stage.bridge is not None:
            train_alone(run, state, stage, write_bridge_examples(run, state, stage), "bridge")
        train_alone(run, state, stage, write_stage_examples(run, state, stage), "stage")  # Eq. 1
        state = judge(run, state, stage)  # Eq. 9
        while state.gates[-1].action == "remediate":
            train_alone(run, state, stage, write_remedial_examples(run, state, stage), "remedial")
            state = judge(run, state, stage)
        state = replan_stages(run, measure_all(run, state, f"stage-{stage.number:02d}"), stage)
    return measure_all(run, state, "end")


@contextlib.contextmanager
def _recorded(
    teacher: Teacher, config: MethodConfig, directory: Path
) -> Generator[LedgeredTeacher]:
    """A teacher behind the folder's ledger; one that has a ledger stays as it is."""
    if isinstance(teacher, LedgeredTeacher):
        yield teacher
        return
    with LedgeredTeacher(
        teacher,
        Ledger(directory / "ledger"),
        config.budget.teacher(),
        counted=directory / "counted.jsonl",
        owns_teacher=False,
    ) as recorded:
        yield recorded


def _claim(directory: Path, config: MethodConfig) -> None:
    """Write the run's settings, or see that the folder's are the same.

    Raises:
        InputError: They aren't; names those that differ.
    """
    path = directory / "settings.json"
    settings = config.model_dump(mode="json", include=set(MethodConfig.model_fields))
    if not is_there(path):
        write_json(path, settings)
    differing = _differing(settings, read_object(path))
    if differing:
        raise InputError(
            f"{directory} has a run with another {', '.join(differing)}; name a new directory"
        )


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Places at which settings differ, such as `organizer.late_share`."""
    places: list[str] = []
    for name in sorted(one.keys() | other.keys()):
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            places += [f"{name}.{place}" for place in _differing(a, b)]
        elif a != b:
            places.append(name)
    return places
