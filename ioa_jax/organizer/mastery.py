"""Whether a stage is done (method 2.3, Eq. 9)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from scipy.stats import beta

from ioa_jax.errors import InputError
from ioa_jax.identifier.dependency import DependencyGraph
from ioa_jax.identifier.measure import ModulePerformance, masters, relative_mastery
from ioa_jax.values import Value

GateName = Literal["posterior", "literal", "off"]


@dataclasses.dataclass(frozen=True)
class GateSettings(Value):
    """Of Eq. 9.

    Attributes:
        tau_mastery: τ_mastery, above 0.
        max_remedial_rounds: Rounds of remedial data that a stage may have [ours; the paper has no
            bound].
        gate: `literal`: a module passes where r(k) as measured reaches τ_mastery; `posterior`
            [ours]: where that is at least as likely as not, since r(k) is measured on few probes
            (`probability_of_mastery`); `off`: every module passes.
        prior: a and b of the Beta prior of P_S(k), for `posterior`.
    """

    tau_mastery: float = 0.9
    max_remedial_rounds: int = 5
    gate: GateName = "posterior"
    prior: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if self.tau_mastery <= 0:
            raise InputError(f"tau_mastery={self.tau_mastery}: above 0")
        if self.max_remedial_rounds < 0:
            raise InputError(f"max_remedial_rounds={self.max_remedial_rounds}: at least 0")
        if min(self.prior) <= 0:
            raise InputError(f"prior={self.prior}: both above 0")


@dataclasses.dataclass(frozen=True)
class ModuleMastery(Value):
    """One module at a gate.

    Attributes:
        module: Id.
        ratio: r(k).
        mastered: Whether it passes.
        probability: Of r(k) ≥ τ_mastery given the probes, with the gate `posterior`; else None.
    """

    module: str
    ratio: float
    mastered: bool
    probability: float | None = None


@dataclasses.dataclass(frozen=True)
class GateResult(Value):
    """What a stage's gate found, and what follows.

    Attributes:
        stage: Number of the stage.
        remedial_round: Remedial rounds that the stage had before; 0 at its first gate.
        modules: The stage's, by id.
        minimum: `min_{k∈s} r(k)`, to be compared with τ_mastery.
        passed: Eq. 9: every module passes.
        weak: Modules that don't, sorted.
        parked: The weak modules, where no remedial round is left: the run goes on without them, and
            what depends on them is flagged.
        action: `advance`, `remediate` (data for the weak modules alone, then another gate), or
            `park`.
    """

    stage: int
    remedial_round: int
    modules: tuple[ModuleMastery, ...]
    minimum: float
    passed: bool
    weak: tuple[str, ...]
    parked: tuple[str, ...]
    action: Literal["advance", "remediate", "park"]


def probability_of_mastery(
    values: Sequence[float], teacher: float, threshold: float, prior: tuple[float, float]
) -> float:
    """Posterior probability that r(k) reaches a threshold [ours].

    P_S(k) has the prior Beta(a, b) and is measured by independent probes, so that it is
    Beta(a + sum, b + count - sum) afterwards; P_T(k) is taken as known. Scores between 0 and 1,
    such as ROUGE, count as that share of a right answer.

    Args:
        values: The student's scores on the module's probes, each in [0, 1].
        teacher: P_T(k), above 0.
        threshold: Of r(k).
        prior: a and b.
    """
    total = math.fsum(values)
    goal = min(threshold * teacher, 1.0)
    return float(beta.sf(goal, prior[0] + total, prior[1] + len(values) - total))


def judge_stage(
    stage: int,
    modules: Sequence[str],
    student: Mapping[str, ModulePerformance],
    teacher: Mapping[str, float],
    remedial_round: int,
    settings: GateSettings | None = None,
) -> GateResult:
    """Eq. 9: advance if and only if `min_{k∈s} r(k) ≥ τ_mastery`, as `settings.gate` reads it.

    Args:
        stage: Number of the stage.
        modules: s, at least one.
        student: P_S by module id, measured after training on the stage.
        teacher: P_T by module id.
        remedial_round: Remedial rounds that the stage had.
        settings: None is the default.

    Raises:
        InputError: No modules, one that wasn't measured, or a performance out of range.
    """
    settings = settings or GateSettings()
    if not modules:
        raise InputError(f"stage {stage} has no modules")
    if not 0 <= remedial_round <= settings.max_remedial_rounds:
        raise InputError(
            f"stage {stage}: remedial round {remedial_round} of {settings.max_remedial_rounds}"
        )
    found: list[ModuleMastery] = []
    for module in sorted(modules):
        if module not in student or module not in teacher:
            raise InputError(f"module {module!r}: student and teacher have to be measured on it")
        found.append(_judge_module(module, student[module], teacher[module], settings))
    weak = tuple(entry.module for entry in found if not entry.mastered)
    last = remedial_round == settings.max_remedial_rounds
    return GateResult(
        stage=stage,
        remedial_round=remedial_round,
        modules=tuple(found),
        minimum=min(entry.ratio for entry in found),
        passed=not weak,
        weak=weak,
        parked=weak if last else (),
        action="advance" if not weak else "park" if last else "remediate",
    )


def _judge_module(
    module: str, student: ModulePerformance, teacher: float, settings: GateSettings
) -> ModuleMastery:
    try:
        ratio = relative_mastery(student.mean, teacher)
    except InputError as error:
        raise InputError(f"module {module!r}: {error}") from None
    if settings.gate == "posterior":
        probability = probability_of_mastery(
            student.values, teacher, settings.tau_mastery, settings.prior
        )
        return ModuleMastery(module, ratio, probability >= 0.5, probability)
    passes = settings.gate == "off" or masters(ratio, settings.tau_mastery)
    return ModuleMastery(module, ratio, passes)


def flag_dependents(parked: Collection[str], graph: DependencyGraph) -> dict[str, tuple[str, ...]]:
    """Parked modules that each module needs, directly or through others.

    Args:
        parked: Modules given up.
        graph: Of all modules.

    Returns:
        Sorted parked modules by the id of what needs them; modules that need none are left out.

    Raises:
        InputError: A parked module isn't in the graph.
    """
    for module in parked:
        if module not in graph.modules:
            raise InputError(f"parked module {module!r} isn't in the dependency graph")
    flags = {
        module: tuple(other for other in graph.all_prerequisites(module) if other in parked)
        for module in graph.modules
    }
    return {module: others for module, others in flags.items() if others}
