"""What to teach first (method 1.6 and 1.7, Eq. 4 and 5)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ioa_jax.errors import InputError
from ioa_jax.identifier.dependency import DependencyGraph, mean_dependency
from ioa_jax.identifier.gap import ModuleGap
from ioa_jax.values import Value


@dataclasses.dataclass(frozen=True)
class Severity(Value):
    """How much it matters that a module is lacking.

    Attributes:
        module: Id.
        gap: Δ(k).
        mean_dependency: Mean of Dep over the modules that need this one; 0 without any.
        value: Eq. 4.
    """

    module: str
    gap: float
    mean_dependency: float
    value: float


@dataclasses.dataclass(frozen=True)
class Targets(Value):
    """K_target of Eq. 5.

    Attributes:
        modules: At most `limit` ids, the most severe first.
        limit: m; the size of K_def where every deficient module is a target.
        severities: Of K_def, the most severe first.
    """

    modules: tuple[str, ...]
    limit: int
    severities: tuple[Severity, ...]


def severity(gap: float, mean_dependency: float, alpha: float = 0.7) -> float:
    """Eq. 4: `Severity(k) = alpha Δ(k) + (1 - alpha) · mean_{k' ∈ N(k)} Dep(k → k')`.

    Args:
        gap: Δ(k), at most 1.
        mean_dependency: The second term's mean, in [0, 1]; 0 where nothing depends on k.
        alpha: In [0, 1].

    Raises:
        InputError: alpha is outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha={alpha}: between 0 and 1")
    return alpha * gap + (1 - alpha) * mean_dependency


def severities(
    gaps: Sequence[ModuleGap], deficient: Sequence[str], graph: DependencyGraph, alpha: float = 0.7
) -> tuple[Severity, ...]:
    """Eq. 4 of every deficient module.

    Args:
        gaps: Of all modules.
        deficient: K_def.
        graph: N(k) are a module's dependents in it.
        alpha: Weight of the gap.

    Returns:
        The most severe first; ties by id, so that runs repeat.

    Raises:
        InputError: A deficient module has no gap or isn't in the graph.
    """
    relative: Mapping[str, float | None] = {gap.module: gap.relative for gap in gaps}
    found: list[Severity] = []
    for module in deficient:
        gap = relative.get(module)
        if gap is None:
            raise InputError(f"module {module!r} has no gap (Eq. 2), so it can't be deficient")
        mean = mean_dependency(graph, module)
        found.append(Severity(module, gap, mean, severity(gap, mean, alpha)))
    return tuple(sorted(found, key=lambda entry: (-entry.value, entry.module)))


def choose_targets(
    ranked: Sequence[Severity], num_modules: int, target_fraction: float | None = None
) -> Targets:
    """Eq. 5: the top m of K_def by severity.

    Args:
        ranked: Of K_def, from `severities`; the order doesn't matter.
        num_modules: |K|, all modules, deficient or not.
        target_fraction: `m = ceil(target_fraction · |K|)`, in (0, 1]. None: `m = |K_def|`, every
            deficient module is a target [ours], and severity is an order alone.

    Raises:
        InputError: The fraction is outside (0, 1], or more modules are deficient than there are.
    """
    if target_fraction is not None and not 0 < target_fraction <= 1:
        raise InputError(f"target_fraction={target_fraction}: above 0 and at most 1")
    if len(ranked) > num_modules:
        raise InputError(f"{len(ranked)} deficient modules of {num_modules}")
    limit = len(ranked)
    if target_fraction is not None:
        # 0.07 * 100 is 7.000000000000001 in floating point: no reason for an eighth target.
        limit = math.ceil(round(target_fraction * num_modules, 9))
    order = tuple(sorted(ranked, key=lambda entry: (-entry.value, entry.module)))
    return Targets(tuple(entry.module for entry in order[:limit]), limit, order)
