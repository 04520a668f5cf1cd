"""How far a student is behind its teacher, module by module (method 1.2 and 1.3, Eq. 2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from ioa_jax.errors import InputError
from ioa_jax.identifier.measure import ProbeScore, performance_by_module


@dataclasses.dataclass(frozen=True)
class ModuleGap:
    """Teacher and student on one module.

    Attributes:
        module: Id.
        num_probes: Probes that were measured.
        teacher: P_T(k) in [0, 1].
        student: P_S(k) in [0, 1].
        relative: Δ(k) of Eq. 2, at most 1 and negative where the student is ahead; None where the
            teacher can't teach the module (see `relative_gap`).
        logprob: g(k), nats a token (or a byte).
    """

    module: str
    num_probes: int
    teacher: float
    student: float
    relative: float | None
    logprob: float


def relative_gap(
    teacher: float, student: float, min_teacher_performance: float = 0.0
) -> float | None:
    """Eq. 2: `Δ(k) = (P_T(k) - P_S(k)) / P_T(k)`.

    Args:
        teacher: P_T(k) in [0, 1].
        student: P_S(k) in [0, 1].
        min_teacher_performance: Under this the teacher can't teach the module.

    Returns:
        The gap, or None where P_T(k) is 0 or under the minimum [ours]: such a module is set aside
        and reported, never divided by.

    Raises:
        InputError: A performance outside [0, 1].
    """
    for name, value in (("teacher", teacher), ("student", student)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} performance {value} is outside [0, 1]")
    if teacher == 0 or teacher < min_teacher_performance:
        return None
    return (teacher - student) / teacher


def module_gaps(
    teacher: Sequence[ProbeScore],
    student: Sequence[ProbeScore],
    min_teacher_performance: float = 0.0,
) -> list[ModuleGap]:
    """Gaps of every module that has probes.

    `g(k)` is the mean over the module's probes of `(log p_T(y|x) - log p_S(y|x)) / |y|`.

    Args:
        teacher: Scores of the teacher, one a probe.
        student: Scores of the student on the same probes in the same order.
        min_teacher_performance: See `relative_gap`.

    Returns:
        One entry a module, in the order of the ids.

    Raises:
        InputError: The two sequences aren't about the same probes, or measure |y| differently.
    """
    if len(teacher) != len(student):
        raise InputError(f"{len(teacher)} teacher scores and {len(student)} student scores")
    differences: dict[str, list[float]] = {}
    for i, (t, s) in enumerate(zip(teacher, student, strict=True)):
        if t.module != s.module:
            raise InputError(f"probe {i}: modules {t.module!r} and {s.module!r}")
        if t.length != s.length:
            raise InputError(
                f"probe {i}: the teacher's answer has length {t.length}, the student's {s.length}; "
                "models that tokenise differently are compared by UTF-8 bytes"
            )
        differences.setdefault(t.module, []).append(t.logprob_per_unit - s.logprob_per_unit)
    p_teacher, p_student = performance_by_module(teacher), performance_by_module(student)
    return [
        ModuleGap(
            module=module,
            num_probes=len(values),
            teacher=p_teacher[module],
            student=p_student[module],
            relative=relative_gap(p_teacher[module], p_student[module], min_teacher_performance),
            logprob=math.fsum(values) / len(values),
        )
        for module, values in sorted(differences.items())
    ]
