"""Parts of a run by name, and what each may cost."""

from __future__ import annotations

from ioa_jax.adapter.schema import StageKind
from ioa_jax.files import finished
from ioa_jax.organizer.curriculum import Stage
from ioa_jax.run import Allotment, Run, State
from ioa_jax.steps.trainer import open_trainer


def part_name(state: State, stage: Stage, kind: StageKind) -> str:
    """Of a stage's own part, its bridge, or the remedial round after its newest gate."""
    number = sum(gate.stage == stage.number for gate in state.gates)
    suffix = {"stage": "", "bridge": "-bridge", "remedial": f"-remedial-{number}"}[kind]
    return f"stage-{stage.number:02d}{suffix}"


def limits_of(
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


def stage_limits(run: Run, state: State, stage: Stage) -> Allotment:
    """`sequential`: a stage's part of what is left, by its number of modules."""

    def allot() -> Allotment:
        waiting = sum(len(one.modules) for one in state.curriculum.stages)
        share = len(stage.modules) / waiting
        used = run.teacher.used.completion_tokens
        whole = run.teacher_tokens
        trainer = open_trainer(run, 0)
        return Allotment(
            trainer.tokens,
            trainer.tokens + round(trainer.left * share),
            used,
            None if whole is None else used + int(max(0, whole - used) * share),
        )

    return finished(run.directory / f"limits/stage-{stage.number:02d}.json", Allotment, allot)
