"""The student on the probes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from ioa_jax.files import finished
from ioa_jax.identifier.probes import measure_student
from ioa_jax.run import Measured, Run, State, decided
from ioa_jax.student import Student


def measure_all(run: Run, state: State, name: str) -> State:
    """The student on the probes of every module; a row of the forgetting matrix."""
    with run.clock.timed("retention"):
        state = with_measured(run, state, name, sorted(run.probes))
    row = state.forgetting.stages[-1] + 1
    forgetting = state.forgetting.with_stage(row, run.ratios(state.performance))
    return decided(run, name, lambda: dataclasses.replace(state, forgetting=forgetting))


def with_measured(run: Run, state: State, name: str, modules: Collection[str]) -> State:
    """The state with P_S of some modules as it is now; measured once under a name."""
    if not modules:
        return state
    path = run.directory / f"measured/{name}.json"
    found = finished(path, Measured, lambda: measure(run, run.student, modules)).performances
    return dataclasses.replace(
        state, performance=state.performance | {one.module: one for one in found}
    )


def measure(run: Run, student: Student, modules: Collection[str]) -> Measured:
    """A student on the probes of some modules."""
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
