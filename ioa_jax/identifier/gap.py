"""How far a student is behind its teacher, module by module (method 1.3 and 1.4, Eq. 2 and 6)."""

from __future__ import annotations

import dataclasses
import itertools
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

# P_T under which a module isn't taught, where answers are right or wrong [ours]: of a teacher that
# is right less often than in three answers of ten most lessons would be paid for and thrown away.
MIN_SHARE_RIGHT = 0.3
# τ_gap: a student that is under .72 of its teacher lacks the module [ours; the paper has .3].
TAU_GAP = 0.28


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
        num_probes: Probes that the student was measured on.
        teacher: P_T(k) in [0, 1].
        student: P_S(k) in [0, 1].
        relative: Δ(k) of Eq. 2, at most 1 and negative where the student is ahead; None where the
            teacher can't teach the module (see `relative_gap`).
        interval: Of Δ(k); None where Δ(k) is.
        logprob: g(k), in nats a unit; None where the log-probabilities were not measured.
        logprob_interval: Of g(k); None where g(k) is, and with fewer than two probes.
        unit: Of g(k).
        num_teacher_probes: Probes that the teacher was measured on; None: the same.
        teacher_interval: Of P_T(k).
        student_interval: Of P_S(k).
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
    num_teacher_probes: int | None = None
    teacher_interval: Interval | None = None
    student_interval: Interval | None = None


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
            percentile_interval(_resampled_means(values, module, bootstrap), bootstrap.level)
            if len(values) > 1
            else None,
        )
        for module, values in differences.items()
    }


def module_gaps(
    teacher: Mapping[str, ModulePerformance],
    student: Mapping[str, ModulePerformance],
    logprob: Mapping[str, LogprobGap] | None = None,
    min_teacher_performance: float | None = None,
    bootstrap: BootstrapSettings | None = None,
) -> tuple[ModuleGap, ...]:
    """Gaps of every module, with intervals.

    The intervals are of a posterior [ours], see `posterior_means`: with two probes they are wide,
    as they should be. Measured on the same probes, teacher and student are drawn in pairs, so that
    what makes a probe hard for both is not counted as noise of the gap; measured on different ones
    they are drawn apart.

    Args:
        teacher: P_T by module id.
        student: P_S by module id, by the same scorer; the probes may be others or more.
        logprob: g(k) by module id, where measured.
        min_teacher_performance: See `relative_gap`. None: `MIN_SHARE_RIGHT` for a module whose
            answers by the teacher are right or wrong, and 0 where they are graded in between
            (ROUGE, log-probabilities), which has no such scale.
        bootstrap: Number of draws and level of the intervals; None is the default.

    Returns:
        One entry a module, in the order of the ids.

    Raises:
        InputError: The two are not about the same modules or scorer.
    """
    bootstrap = bootstrap or BootstrapSettings()
    if teacher.keys() != student.keys():
        raise InputError(
            f"modules measured of one model only: {sorted(teacher.keys() ^ student.keys())}"
        )
    return tuple(
        _module_gap(
            module,
            (teacher[module], student[module]),
            None if logprob is None else logprob.get(module),
            min_teacher_performance,
            bootstrap,
        )
        for module in sorted(teacher)
    )


def _module_gap(
    module: str,
    performances: tuple[ModulePerformance, ModulePerformance],
    logprob: LogprobGap | None,
    minimum: float | None,
    bootstrap: BootstrapSettings,
) -> ModuleGap:
    """Of one module; `performances` are the teacher's and the student's."""
    t, s = performances
    if t.scorer != s.scorer:
        raise InputError(
            f"module {module!r}: the teacher was measured by {t.scorer}, the student by {s.scorer}"
        )
    if minimum is None:
        minimum = MIN_SHARE_RIGHT if {*t.values} <= {0.0, 1.0} else 0.0
    relative = relative_gap(t.mean, s.mean, minimum)
    of_teacher, of_student = _drawn_performances(t, s, bootstrap)
    interval = None
    if relative is not None:
        # As in `relative_gap`: under the minimum the gap isn't defined.
        defined = (of_teacher > 0) & (of_teacher >= minimum)
        taught = np.where(defined, of_teacher, np.nan)
        interval = _interval((of_teacher - of_student) / taught, relative, bootstrap)
    return ModuleGap(
        module=module,
        scorer=t.scorer,
        num_probes=len(s.probes),
        teacher=t.mean,
        student=s.mean,
        relative=relative,
        interval=interval,
        logprob=None if logprob is None else logprob.nats,
        logprob_interval=None if logprob is None else logprob.interval,
        unit=None if logprob is None else logprob.unit,
        num_teacher_probes=len(t.probes),
        teacher_interval=_interval(of_teacher, t.mean, bootstrap),
        student_interval=_interval(of_student, s.mean, bootstrap),
    )


def deficient_modules(
    gaps: Sequence[ModuleGap], tau_gap: float = TAU_GAP, confident_gap: bool = False
) -> tuple[str, ...]:
    """Eq. 6: `K_def = { k : Δ(k) > τ_gap }`.

    Args:
        gaps: Of all modules. One that the teacher can't teach is not deficient.
        tau_gap: τ_gap.
        confident_gap: The lower end of the gap's interval has to pass τ_gap too [ours]; a module
            without an interval doesn't.

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


def posterior_means(
    values: Sequence[Sequence[float]],
    draws: int,
    generator: np.random.Generator,
    unseen_weight: float = 1.0,
) -> np.ndarray:
    """Draws of what the means may be, given values in [0, 1] on a few probes [ours].

    The Bayesian bootstrap (Rubin 1981): each probe has a weight, and weights are drawn from a
    Dirichlet distribution. A further probe of weight 1 in all stands for what was not seen, 0 or 1
    for each series. For values that are right or wrong, this is the Beta(1/2, 1/2) prior of
    Jeffreys, and the draws are of Beta(right + 1/2, wrong + 1/2); with many probes it is the
    bootstrap. So two probes that agree don't give an interval without width.

    Args:
        values: Of each series on the same probes, [series, probes], each in [0, 1]; at least one.
        draws: Number of draws.
        generator: Where they come from.
        unseen_weight: Of the further probe, beside 1 of each that was measured.

    Returns:
        [series, draws].
    """
    table = np.asarray(values, np.float64)
    # Every combination of 0 and 1 is as likely as the others.
    unseen = np.asarray(list(itertools.product((0.0, 1.0), repeat=len(table)))).T
    count = unseen.shape[1]
    prior = np.concatenate([np.ones(table.shape[1]), np.full(count, unseen_weight / count)])
    return np.concatenate([table, unseen], axis=1) @ generator.dirichlet(prior, size=draws).T


def _drawn_performances(
    teacher: ModulePerformance, student: ModulePerformance, bootstrap: BootstrapSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Draws of P_T and P_S, [draws] each; in pairs where the probes are the same."""
    generator = stream(bootstrap.seed, "gap posterior", teacher.module)
    if teacher.probes == student.probes:
        drawn = posterior_means([teacher.values, student.values], bootstrap.resamples, generator)
        return drawn[0], drawn[1]
    (of_teacher,) = posterior_means([teacher.values], bootstrap.resamples, generator)
    (of_student,) = posterior_means([student.values], bootstrap.resamples, generator)
    return of_teacher, of_student


def _interval(drawn: np.ndarray, found: float, bootstrap: BootstrapSettings) -> Interval | None:
    """With equal tails, and wide enough to hold what was found; None where no draw is defined."""
    interval = percentile_interval(drawn, bootstrap.level)
    if interval is None:
        return None
    return dataclasses.replace(
        interval, low=min(interval.low, found), high=max(interval.high, found)
    )


def _resampled_means(
    values: Sequence[float], module: str, bootstrap: BootstrapSettings
) -> np.ndarray:
    """Means of the values over draws of probes: [resamples]."""
    table = np.asarray(values, np.float64)
    generator = stream(bootstrap.seed, "gap bootstrap", module)
    return draw_counts(generator, len(table), bootstrap.resamples) @ table / len(table)
