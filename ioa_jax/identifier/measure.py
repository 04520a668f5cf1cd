"""How well a model does on each module's probes, by log-probability (method 1.2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from ioa_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class ProbeScore:
    """What one model thinks of the reference answer of one probe.

    Attributes:
        module: Id of the probe's module.
        logprob: Log-probability of the whole answer given the prompt, in nats; at most 0.
        length: |y|, the number of units that `logprob` is spread over: tokens, or UTF-8 bytes where
            the models that are compared tokenise differently.
    """

    module: str
    logprob: float
    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise InputError(f"module {self.module!r}: an answer of length {self.length}")
        if not math.isfinite(self.logprob):
            raise InputError(f"module {self.module!r}: log-probability {self.logprob}")

    @property
    def logprob_per_unit(self) -> float:
        """Mean log-probability of a unit, in nats."""
        return self.logprob / self.length


def geometric_mean_probability(score: ProbeScore) -> float:
    """`exp((1/|y|) Σ_t log p(y_t | x, y_<t))`, in [0, 1]."""
    return math.exp(score.logprob_per_unit)


def performance_by_module(scores: Sequence[ProbeScore]) -> dict[str, float]:
    """P(k): the mean over a module's probes of `geometric_mean_probability`.

    Args:
        scores: One model's, over the probes of any number of modules.

    Returns:
        P(k) in [0, 1] by module id, in the order of the ids.
    """
    values: dict[str, list[float]] = {}
    for score in scores:
        values.setdefault(score.module, []).append(geometric_mean_probability(score))
    return {module: math.fsum(values[module]) / len(values[module]) for module in sorted(values)}
