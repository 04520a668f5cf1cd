"""How well a model does on each module's probes (method 1.2).

Two scorers give the same kind of value: `accuracy`, the mean of what a grader gave, and `logprob`,
the mean geometric-mean probability of the reference answers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from ioa_jax.errors import InputError
from ioa_jax.values import ROUNDING, Value

ScorerName = Literal["accuracy", "logprob"]

_ROUNDING = 1e-3  # nats a unit


@dataclasses.dataclass(frozen=True)
class ProbeScore:
    """What one model thinks of the reference answer of one probe.

    Attributes:
        probe: Id, unique among the probes.
        module: Id of the probe's module.
        logprob: Log-probability of the whole answer given the prompt, in nats; at most 0.
        length: |y|, the number of units that `logprob` is spread over: tokens, or UTF-8 bytes where
            the models that are compared tokenise differently.
    """

    probe: str
    module: str
    logprob: float
    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise InputError(f"probe {self.probe!r}: an answer of length {self.length}")
        # A certain token may come out a rounding error above 0.
        if not (math.isfinite(self.logprob) and self.logprob <= _ROUNDING * self.length):
            raise InputError(
                f"probe {self.probe!r}: log-probability {self.logprob}; it is finite and at most 0"
            )

    @property
    def logprob_per_unit(self) -> float:
        """Mean log-probability of a unit, in nats."""
        return self.logprob / self.length


@dataclasses.dataclass(frozen=True)
class ProbeGrade:
    """What a grader gave to one model's answer to one probe.

    Attributes:
        probe: Id, unique among the probes.
        module: Id of the probe's module.
        score: In [0, 1].
    """

    probe: str
    module: str
    score: float


@dataclasses.dataclass(frozen=True)
class ModulePerformance(Value):
    """P(k) of one model, with the probes that it is the mean of.

    Attributes:
        module: Id.
        scorer: What `values` are.
        probes: Ids, sorted.
        values: One a probe, each in [0, 1].
    """

    module: str
    scorer: ScorerName
    probes: tuple[str, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.probes) != len(self.values) or not self.probes:
            raise InputError(
                f"module {self.module!r}: {len(self.probes)} probes and {len(self.values)} values; "
                "each probe has one value, and there is at least one"
            )
        for probe, value in zip(self.probes, self.values, strict=True):
            if not 0 <= value <= 1:
                raise InputError(f"probe {probe!r}: a performance of {value} is outside [0, 1]")
        for before, after in zip(self.probes, self.probes[1:], strict=False):
            if before >= after:
                raise InputError(
                    f"module {self.module!r}: probe {after!r} occurs twice or out of order"
                )

    @property
    def mean(self) -> float:
        """P(k) in [0, 1]."""
        return math.fsum(self.values) / len(self.values)


def geometric_mean_probability(score: ProbeScore) -> float:
    """`exp((1/|y|) Σ_t log p(y_t | x, y_<t))`, in [0, 1]."""
    return math.exp(min(score.logprob_per_unit, 0.0))


def logprob_performance(scores: Sequence[ProbeScore]) -> dict[str, ModulePerformance]:
    """P(k) as the mean over a module's probes of `geometric_mean_probability`.

    Args:
        scores: One model's, over the probes of any number of modules, in any order.

    Returns:
        By module id, in the order of the ids.

    Raises:
        InputError: A probe occurs twice in a module.
    """
    return _by_module(
        [(score.module, score.probe, geometric_mean_probability(score)) for score in scores],
        "logprob",
    )


def accuracy_performance(grades: Sequence[ProbeGrade]) -> dict[str, ModulePerformance]:
    """P(k) as the mean over a module's probes of the grader's score.

    Args:
        grades: One model's, over the probes of any number of modules, in any order.

    Returns:
        By module id, in the order of the ids.

    Raises:
        InputError: A probe occurs twice in a module, or a score is outside [0, 1].
    """
    return _by_module([(grade.module, grade.probe, grade.score) for grade in grades], "accuracy")


def _by_module(
    values: Sequence[tuple[str, str, float]], scorer: ScorerName
) -> dict[str, ModulePerformance]:
    members: dict[str, list[tuple[str, float]]] = {}
    for module, probe, value in sorted(values):
        members.setdefault(module, []).append((probe, value))
    return {
        module: ModulePerformance(
            module,
            scorer,
            tuple(probe for probe, _ in pairs),
            tuple(value for _, value in pairs),
        )
        for module, pairs in members.items()
    }


def rank_correlation(a: Mapping[str, float], b: Mapping[str, float]) -> float | None:
    """Spearman's rank correlation of two measures of the same modules.

    Args:
        a: One measure by module id, such as P_S(k) by accuracy.
        b: The other, of the same modules.

    Returns:
        In [-1, 1], tied values having their mean rank; None where it isn't defined: fewer than two
        modules, or a measure that is the same for all.

    Raises:
        InputError: The modules differ.
    """
    if a.keys() != b.keys():
        raise InputError(f"modules measured only once: {sorted(a.keys() ^ b.keys())}")
    ranks = np.stack([_mean_ranks([measure[module] for module in sorted(a)]) for measure in (a, b)])
    if len(a) < 2 or np.any(np.ptp(ranks, axis=1) == 0):
        return None
    return float(np.corrcoef(ranks)[0, 1])


def _mean_ranks(values: Sequence[float]) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[inverse]


def relative_mastery(student: float, teacher: float) -> float:
    """`r(k) = P_S(k) / P_T(k)`; above 1 where the student is ahead.

    Args:
        student: P_S(k) in [0, 1].
        teacher: P_T(k), above 0 and at most 1.

    Raises:
        InputError: A performance is outside its range; a module that the teacher can't teach is set
            aside, never divided by.
    """
    if not 0 <= student <= 1:
        raise InputError(f"student performance {student} is outside [0, 1]")
    if not 0 < teacher <= 1:
        raise InputError(f"teacher performance {teacher}; what the teacher can't do has no mastery")
    return student / teacher


def masters(ratio: float, threshold: float) -> bool:
    """Whether r(k) reaches a threshold, up to rounding."""
    return ratio >= threshold - ROUNDING
