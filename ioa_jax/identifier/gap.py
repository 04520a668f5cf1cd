"""How far a student is behind its teacher, module by module (method 1.3 and 1.4, Eq. 2 and 6)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from ioa_jax.bootstrap import BootstrapSettings, Interval, draw_counts, percentile_interval
from ioa_jax.errors import InputError
from ioa_jax.identifier.measure import ModulePerformance, ProbeScore, ScorerName
from ioa_jax.streams import stream
from ioa_jax.values import ROUNDING, Value

Unit = Literal["token", "byte"]


@dataclasses.dataclass(frozen=True)
class LogprobGap(Value):
    """g(k), the mean over Q_k of `(log p_T(y|x) - log p_S(y|x)) / |y|`.

    Attributes:
        module: Id.
        nats: g(k), in nats a unit; negative where the student is ahead.
        unit: What |y| counts: tokens, or UTF-8 bytes.
        interval: Of g(k); None with fewer than two probes.
    """

    module: str
    nats: float
    unit: Unit
    interval: Interval | None


@dataclasses.dataclass(frozen=True)
class ModuleGap(Value):
    """Teacher and student on one module.

    Attributes:
        module: Id.
        scorer: What `teacher` and `student` are means of.
        num_probes: Probes that were measured.
        teacher: P_T(k) in [0, 1].
        student: P_S(k) in [0, 1].
        relative: Δ(k) of Eq. 2, at most 1 and negative where the student is ahead; None where the
            teacher can't teach the module (see `relative_gap`).
        interval: Of Δ(k); None where Δ(k) is, and with fewer than two probes.
        logprob: g(k), in nats a unit; None where the log-probabilities were not measured.
        logprob_interval: Of g(k); None where g(k) is, and with fewer than two probes.
        unit: Of g(k).
    """

    module: str
    scorer: ScorerName
    num_probes: int
    teacher: float
    student: float
    relative: float | None
    interval: Interval | None
    logprob: float | None = None
    logprob_interval: Interval | None = None
    unit: Unit | None = None


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


def logprob_gaps(
    teacher: Sequence[ProbeScore],
    student: Sequence[ProbeScore],
    unit: Unit,
    bootstrap: BootstrapSettings | None = None,
) -> dict[str, LogprobGap]:
    """g(k) of every module that has probes (method 1.2).

    Args:
        teacher: Scores of the teacher, one a probe.
        student: Scores of the student on the same probes; the order doesn't matter.
        unit: What the scores' lengths count.
        bootstrap: Of the intervals; None is the default.

    Returns:
        By module id, in the order of the ids.

    Raises:
        InputError: The scores aren't about the same probes, or measure |y| differently.
    """
    bootstrap = bootstrap or BootstrapSettings()
    of_student = {(score.module, score.probe): score for score in student}
    of_teacher = {(score.module, score.probe): score for score in teacher}
    if len(of_student) != len(student) or len(of_teacher) != len(teacher):
        raise InputError("a probe was scored twice by one model")
    unpaired = of_student.keys() ^ of_teacher.keys()
    if unpaired:
        module, probe = min(unpaired)
        raise InputError(f"probe {probe!r} of module {module!r} was scored by one model only")
    differences: dict[str, list[float]] = {}
    for (module, probe), t in sorted(of_teacher.items()):
        s = of_student[module, probe]
        if t.length != s.length:
            raise InputError(
                f"probe {probe!r}: the teacher's answer has length {t.length}, the student's "
                f"{s.length}; models that tokenise differently are compared by UTF-8 bytes"
            )
        differences.setdefault(module, []).append(t.logprob_per_unit - s.logprob_per_unit)
    return {
        module: LogprobGap(
            module,
            math.fsum(values) / len(values),
            unit,
            percentile_interval(_resampled_means([values], module, bootstrap)[0], bootstrap.level)
            if len(values) > 1
            else None,
        )
        for module, values in differences.items()
    }


def module_gaps(
    teacher: Mapping[str, ModulePerformance],
    student: Mapping[str, ModulePerformance],
    logprob: Mapping[str, LogprobGap] | None = None,
    min_teacher_performance: float = 0.0,
    bootstrap: BootstrapSettings | None = None,
) -> tuple[ModuleGap, ...]:
    """Gaps of every module, with intervals over its probes.

    A resample draws probes, and takes the teacher's and the student's value of each, so that what
    makes a probe hard for both is not counted as noise of the gap.

    Args:
        teacher: P_T by module id.
        student: P_S by module id, by the same scorer over the same probes.
        logprob: g(k) by module id, where measured.
        min_teacher_performance: See `relative_gap`.
        bootstrap: Of the intervals; None is the default.

    Returns:
        One entry a module, in the order of the ids.

    Raises:
        InputError: The two are not about the same modules, probes or scorer.
    """
    bootstrap = bootstrap or BootstrapSettings()
    if teacher.keys() != student.keys():
        raise InputError(
            f"modules measured of one model only: {sorted(teacher.keys() ^ student.keys())}"
        )
    gaps: list[ModuleGap] = []
    for module in sorted(teacher):
        t, s = teacher[module], student[module]
        if (t.scorer, t.probes) != (s.scorer, s.probes):
            raise InputError(
                f"module {module!r}: teacher ({t.scorer}, {len(t.probes)} probes) and student "
                f"({s.scorer}, {len(s.probes)} probes) were not measured by one scorer on the same "
                "probes"
            )
        relative = relative_gap(t.mean, s.mean, min_teacher_performance)
        interval = None
        if relative is not None and len(t.probes) > 1:
            means = _resampled_means([t.values, s.values], module, bootstrap)
            # Where the teacher had no success in any drawn probe, the gap isn't defined.
            taught = np.where(means[0] > 0, means[0], np.nan)
            interval = percentile_interval((means[0] - means[1]) / taught, bootstrap.level)
        measured = None if logprob is None else logprob.get(module)
        gaps.append(
            ModuleGap(
                module=module,
                scorer=t.scorer,
                num_probes=len(t.probes),
                teacher=t.mean,
                student=s.mean,
                relative=relative,
                interval=interval,
                logprob=None if measured is None else measured.nats,
                logprob_interval=None if measured is None else measured.interval,
                unit=None if measured is None else measured.unit,
            )
        )
    return tuple(gaps)


def deficient_modules(
    gaps: Sequence[ModuleGap], tau_gap: float = 0.3, confident_gap: bool = False
) -> tuple[str, ...]:
    """Eq. 6: `K_def = { k : Δ(k) > τ_gap }`.

    Args:
        gaps: Of all modules. One that the teacher can't teach is not deficient.
        tau_gap: τ_gap.
        confident_gap: The lower end of the gap's interval has to pass τ_gap too [ours]; a module
            without an interval (a single probe) doesn't.

    Returns:
        Module ids, sorted.
    """
    return tuple(
        sorted(
            gap.module
            for gap in gaps
            if gap.relative is not None
            and gap.relative > tau_gap + ROUNDING
            and (
                not confident_gap
                or (gap.interval is not None and gap.interval.low > tau_gap + ROUNDING)
            )
        )
    )


def _resampled_means(
    values: Sequence[Sequence[float]], module: str, bootstrap: BootstrapSettings
) -> np.ndarray:
    """Means of each series over the same draws of probes: [series, resamples]."""
    table = np.asarray(values, np.float64)
    count = table.shape[1]
    generator = stream(bootstrap.seed, "gap bootstrap", module)
    return table @ draw_counts(generator, count, bootstrap.resamples).T / count
