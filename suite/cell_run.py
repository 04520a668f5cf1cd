"""One cell of a run: its method trains a student, and the tasks measure it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ioa_jax.clock import Clock, read_seconds
from ioa_jax.errors import InputError
from ioa_jax.journal import Journal, read_journal
from ioa_jax.rows import StepRow
from suite.cells import FURTHER, TEACHER, Cell, tokens_by_part
from suite.methods.registry import load_method
from suite.profile import Profile
from suite.schema import read_file
from suite.schema.models import CellFile

if TYPE_CHECKING:
    from ioa_jax.adapter.duplicates import BenchmarkIndex
    from ioa_jax.engine.training import StepMetrics
    from ioa_jax.identifier.probes import ProbeGraders
    from ioa_jax.models.load import LanguageModel
    from ioa_jax.student import Student
    from ioa_jax.teachers.base import Teacher
    from ioa_jax.teachers.ledger import Ledger
    from ioa_jax.teachers.replay import LedgeredTeacher
    from suite.evaluate import Evaluation
    from suite.methods.base import MethodContext
    from suite.tasks.seeds import SeedSplit

log = logging.getLogger(__name__)


def is_complete(directory: Path, cell: Cell) -> bool:
    """Whether a cell was done to its end."""
    path = directory / "cells" / cell.name / "cell.json"
    return path.is_file() and read_file(CellFile, path).status == "complete"


@dataclasses.dataclass(frozen=True)
class CellRun:
    """A cell on its way.

    Attributes:
        directory: Of the run.
        profile: Of the run.
        cell: Which.
        work: What all cells of the process share.
    """

    directory: Path
    profile: Profile
    cell: Cell
    work: Work

    @property
    def folder(self) -> Path:
        return self.directory / "cells" / self.cell.name

    def run(self) -> dict[str, Any]:
        """Spend and notes of the cell, once it ran to its end."""
        cell, folder, work = self.cell, self.folder, self.work
        if cell.method == TEACHER:
            local = local_model(work.teacher)
            assert local is not None
            with Clock(folder / "seconds.jsonl") as clock, clock.timed("evaluation"):
                work.evaluation.run(local, folder)
            return {"spend": spend_of(folder, None), "notes": {}}
        from ioa_jax.teachers.replay import LedgeredTeacher
        from ioa_jax.teachers.spend import Budget

        with (
            LedgeredTeacher(
                work.teacher,
                work.ledger,
                Budget(max_tokens=self.profile.budgets.teacher_tokens),
                counted=folder / "teacher.jsonl",
                owns_teacher=False,
            ) as teacher,
            Clock(folder / "seconds.jsonl") as clock,
            Steps(folder, cell.name, self.profile, work.evaluation, teacher, clock) as steps,
        ):
            context = self.context(teacher, steps)
            with clock.timed("method"):
                result = load_method(cell.method).run(context)
            with clock.timed("evaluation"):
                work.evaluation.run(result.student.generator.model, folder)
            spend = spend_of(folder, teacher)
            if result.further_student_tokens:
                spend["student_tokens"] += result.further_student_tokens
                spend["student_tokens_by_part"][FURTHER] = result.further_student_tokens
            if result.teacher_of is not None:
                spend["teacher_of"] = result.teacher_of
                folder_of_other = context.cell_of(result.teacher_of)
                assert folder_of_other is not None
                other = read_file(CellFile, folder_of_other / "cell.json").spend.model_dump()
                for name in ("teacher_tokens", "teacher_requests", "by_purpose"):
                    spend[name] = other[name]
            self._check_budget(spend)
            return {"spend": spend, "notes": result.notes}

    def context(self, teacher: LedgeredTeacher, steps: Steps) -> MethodContext:
        """What the cell's method gets."""
        from ioa_jax.teachers.base import Sampling
        from suite.methods.base import MethodContext

        cell, work = self.cell, self.work

        def cell_of(method: str) -> Path | None:
            if method not in self.profile.methods:
                return None
            other = self.directory / "cells" / Cell(method, cell.seed).name
            if not is_complete(self.directory, Cell(method, cell.seed)):
                raise InputError(f"cell {cell.name} needs {other.name}, which isn't complete")
            return other

        return MethodContext(
            student=work.student,
            teacher=teacher,
            seeds=work.split.seeds,
            budgets=self.profile.budgets,
            train=self.profile.train_of(cell.method),
            sampling=Sampling(**self.profile.sampling.model_dump(exclude={"answer_temperature"})),
            answer_temperature=self.profile.sampling.answer_temperature,
            pack=self.profile.pack,
            sandbox=self.profile.sandbox,
            graders=work.graders,
            seed=self.profile.seeds[0] if cell.seed is None else cell.seed,
            directory=self.folder,
            on_step=steps.add,
            cell_of=cell_of,
            options=self.profile.options,
            benchmarks=work.benchmarks,
            shared=self.directory / "shared",
        )

    def _check_budget(self, spend: dict[str, Any]) -> None:
        for name, allowed in self.profile.budgets.model_dump().items():
            if spend[name] > allowed:
                raise InputError(
                    f"method {self.cell.method!r} used {spend[name]} of {allowed} {name}: its "
                    "figures can't stand beside those of others"
                )


@dataclasses.dataclass(frozen=True)
class Work:
    """What all cells of a process share."""

    teacher: Teacher
    student: Student
    ledger: Ledger
    evaluation: Evaluation
    split: SeedSplit
    benchmarks: Callable[[], BenchmarkIndex]
    graders: ProbeGraders


class Steps:
    """A cell's train.jsonl, and the points of its curve."""

    def __init__(
        self,
        folder: Path,
        name: str,
        profile: Profile,
        evaluation: Evaluation,
        teacher: LedgeredTeacher,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._name = name
        self._profile = profile
        self._evaluation = evaluation
        self._teacher = teacher
        self._clock = clock
        self._journal = Journal(folder / "train.jsonl", ("part", "step"), StepRow)
        self._after: dict[tuple[str, int], int] = {}
        self.tokens = 0
        for line in self._journal:
            self._count(line["part"], line["step"], line["tokens"])

    def __enter__(self) -> Steps:
        self._journal.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._journal.__exit__(*error)

    def add(self, part: str, metrics: StepMetrics, student: Callable[[], Student]) -> None:
        """Record a step, once; measure a point where the step reached one."""
        key = (part, metrics.step)
        if key not in self._journal:
            self._journal.append({"part": part, **dataclasses.asdict(metrics)})
            self._count(part, metrics.step, metrics.tokens)
        after = self._after[key]
        if metrics.step % 10 == 0:
            log.info(
                "%s, %s: step %d, %d of %d tokens, loss %.3f",
                self._name,
                part,
                metrics.step,
                after,
                self._profile.budgets.student_tokens,
                metrics.loss,
            )
        points = self._profile.curve.points
        if points:
            every = self._profile.budgets.student_tokens / (points + 1)
            if after // every > (after - metrics.tokens) // every:
                with self._clock.timed("curve"):
                    self._evaluation.measure_point(
                        student().generator.model,
                        self._folder,
                        after,
                        self._teacher.used.completion_tokens,
                    )

    def _count(self, part: str, step: int, tokens: int) -> None:
        self.tokens += tokens
        self._after[part, step] = self.tokens


def spend_of(folder: Path, teacher: LedgeredTeacher | None) -> dict[str, Any]:
    """What a cell took; of the teacher, each distinct call once, replayed or made."""
    steps = read_journal(folder / "train.jsonl", StepRow)
    by_part = tokens_by_part(steps)
    seconds = {
        # What IOA and its controls say of their own steps.
        **read_seconds(folder / "distill" / "seconds.jsonl"),
        "training": sum(step["seconds"] for step in steps),
        **read_seconds(folder / "seconds.jsonl"),
    }
    by_purpose = {} if teacher is None else teacher.spend
    used = [spend.used for spend in by_purpose.values()]
    return {
        "teacher_tokens": sum(one.completion_tokens for one in used),
        "teacher_requests": sum(one.calls for one in used),
        "by_purpose": {
            purpose: {
                "calls": spend.used.calls,
                "prompt_tokens": spend.used.prompt_tokens,
                "completion_tokens": spend.used.completion_tokens,
            }
            for purpose, spend in sorted(by_purpose.items())
        },
        "student_tokens": sum(by_part.values()),
        "student_tokens_by_part": by_part,
        "steps": len(steps),
        "seconds": seconds,
    }


def local_model(teacher: Teacher) -> LanguageModel | None:
    """The teacher's model where this project's engine runs it."""
    from ioa_jax.teachers.local import LocalTeacher

    return teacher.model if isinstance(teacher, LocalTeacher) else None
