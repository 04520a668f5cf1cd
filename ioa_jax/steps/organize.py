"""The Organizer's steps: what is taught in which order, and whether it was learnt."""

from __future__ import annotations

import dataclasses
import logging

from ioa_jax.identifier.measure import masters
from ioa_jax.organizer.curriculum import Stage, plan_curriculum, replan
from ioa_jax.organizer.mastery import GateResult, judge_stage
from ioa_jax.organizer.retention import ForgettingMatrix
from ioa_jax.run import Run, State, decided
from ioa_jax.steps.measure import with_measured

log = logging.getLogger(__name__)


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
        return decided(run, "plan", plan)


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
        return decided(run, f"plan-{stage.number:02d}", plan)


def mastered(run: Run, state: State) -> set[str]:
    """Modules whose r(k) reaches τ_mastery, as last measured."""
    threshold = run.config.organizer.tau_mastery
    return {m for m, ratio in run.ratios(state.performance).items() if masters(ratio, threshold)}


def judge(run: Run, state: State, stage: Stage) -> State:
    """Eq. 9 with what the student can do now."""
    number = sum(gate.stage == stage.number for gate in state.gates)
    name = f"gate-{stage.number:02d}-{number}"
    with run.clock.timed("gates"):
        state = with_measured(run, state, name, stage.modules)
    return _judged(run, state, stage, number)


def judge_all(run: Run, state: State, number: int) -> State:
    """Eq. 9 of every stage with what was measured last."""
    for stage in state.curriculum.stages:
        state = _judged(run, state, stage, number)
    return state


def _judged(run: Run, state: State, stage: Stage, number: int) -> State:
    # On disk, since what is left of the budgets decides too, and is less when a run is resumed.
    return decided(
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


def _teacher_left(run: Run) -> int | None:
    if run.teacher_tokens is None:
        return None
    return max(0, run.teacher_tokens - run.teacher.used.completion_tokens)
