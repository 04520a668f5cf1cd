"""How large a step from stage to stage may be: the zone of proximal development (Eq. 8).

`P̄(s)`, the mean of P_S(k) over a stage's modules, tells how hard the student finds the stage now.
As the paper prints it, `P̄(s_{i+1}) - P̄(s_i) ≤ τ_ZPD · P̄(s_i)`, the bound can't fail where stages
get harder, so three readings are offered [ours]:

- `drop`: `P̄(s_i) - P̄(s_{i+1}) ≤ τ_ZPD · P̄(s_i)`, no stage is much harder than the one before;
- `absolute`: `|P̄(s_{i+1}) - P̄(s_i)| ≤ τ_ZPD · P̄(s_i)`, none is much harder or much easier;
- `printed`: as printed, none is much easier.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from ioa_jax.errors import InputError
from ioa_jax.values import ROUNDING, Value

Reading = Literal["drop", "absolute", "printed"]


@dataclasses.dataclass(frozen=True)
class ZoneSettings(Value):
    """Of Eq. 8.

    Attributes:
        tau_zpd: τ_ZPD in [0, 1].
        reading: Which change the bound is on.
        max_stage_modules: Modules of a stage at most [ours]: the more there are, the less likely is
            it that all pass a gate; None is no limit.
    """

    tau_zpd: float = 0.15
    reading: Reading = "drop"
    max_stage_modules: int | None = None

    def __post_init__(self) -> None:
        if self.max_stage_modules is not None and self.max_stage_modules < 1:
            raise InputError(f"max_stage_modules={self.max_stage_modules}: at least 1")
        if not 0 <= self.tau_zpd <= 1:
            raise InputError(f"tau_zpd={self.tau_zpd}: between 0 and 1")


@dataclasses.dataclass(frozen=True)
class Bounds(Value):
    """Where the student's performance may lie after a stage of known performance.

    Attributes:
        low: Smallest performance inside.
        high: Largest one.
    """

    low: float
    high: float

    def contain(self, performance: float) -> bool:
        """Whether a performance lies inside, the ends included."""
        return self.low - ROUNDING <= performance <= self.high + ROUNDING


@dataclasses.dataclass(frozen=True)
class Part(Value):
    """Modules that are taught together: a layer of Eq. 7, or a part of one.

    Attributes:
        layer: The layer's index, from 0.
        part: Index within the layer, from 0.
        modules: Ids, the best known first.
        performance: P̄.
    """

    layer: int
    part: int
    modules: tuple[str, ...]
    performance: float


@dataclasses.dataclass(frozen=True)
class Transition(Value):
    """A step from one part to the next, judged by Eq. 8.

    Attributes:
        stage: Number of the stage that is entered.
        before: P̄(s_i).
        after: P̄(s_{i+1}).
        bounds: Where `after` may lie.
        inside: Whether it does; a bridge is needed if not.
    """

    stage: int
    before: float
    after: float
    bounds: Bounds
    inside: bool


@dataclasses.dataclass(frozen=True)
class Split(Value):
    """A layer that was taken apart.

    Attributes:
        layer: Its index, from 0.
        parts: Modules by part, hardest last.
    """

    layer: int
    parts: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Bridge(Value):
    """Examples to be taught before a stage that is out of the zone even at its easiest.

    They are of the stage's own modules, at difficulty levels on which the student's success lies
    within the bounds (`bridge_levels`).

    Attributes:
        stage: Number of the stage that it leads to.
        modules: The stage's.
        bounds: Of the student's success on the bridge.
        direction: Levels to look among: `easier` where the stage is too hard, `harder` where it is
            too easy (`absolute` and `printed` alone bound that).
    """

    stage: int
    modules: tuple[str, ...]
    bounds: Bounds
    direction: Literal["easier", "harder"]


@dataclasses.dataclass(frozen=True)
class ZoneReport(Value):
    """What Eq. 8 did to a plan.

    Attributes:
        settings: τ_ZPD and the reading.
        transitions: One for each stage that has one before it.
        splits: Layers that were taken apart.
        bridges: One for each transition that isn't inside.
    """

    settings: ZoneSettings
    transitions: tuple[Transition, ...]
    splits: tuple[Split, ...]
    bridges: tuple[Bridge, ...]


def zone_bounds(before: float, settings: ZoneSettings) -> Bounds:
    """Eq. 8 as the bounds of `P̄(s_{i+1})`.

    Args:
        before: P̄(s_i) in [0, 1].
        settings: τ_ZPD and the reading.
    """
    lowest = before * (1 - settings.tau_zpd)
    highest = min(before * (1 + settings.tau_zpd), 1.0)
    match settings.reading:
        case "drop":
            return Bounds(lowest, 1.0)
        case "absolute":
            return Bounds(lowest, highest)
        case "printed":
            return Bounds(0.0, highest)


def mean_performance(modules: Sequence[str], performance: Mapping[str, float]) -> float:
    """`P̄(s) = mean_{k∈s} P_S(k)`, in [0, 1].

    Args:
        modules: s, at least one.
        performance: P_S by module id.

    Raises:
        InputError: No modules, or one that wasn't measured.
    """
    if not modules:
        raise InputError("a stage without modules has no performance")
    for module in modules:
        if module not in performance:
            raise InputError(f"module {module!r}: the student wasn't measured on it")
        if not 0 <= performance[module] <= 1:
            raise InputError(
                f"module {module!r}: student performance {performance[module]} is outside [0, 1]"
            )
    return math.fsum(performance[module] for module in modules) / len(modules)


def divide_layers(
    layers: Sequence[Sequence[str]],
    performance: Mapping[str, float],
    settings: ZoneSettings,
    before: float | None = None,
    first_stage: int = 1,
) -> tuple[tuple[Part, ...], ZoneReport]:
    """Take layers apart until each step keeps to Eq. 8, or needs a bridge.

    A layer that is out of the zone, or larger than a stage may be, is split by P_S, hardest last:
    as many of its easiest modules as are inside go first, and the rest is judged against them.
    Where not even the easiest module is inside, a bridge to it is needed; the modules after it are
    judged against what the bridge leads to, the easiest module.

    Args:
        layers: Module ids by layer (Eq. 7).
        performance: P_S by module id, measured now.
        settings: τ_ZPD and the reading.
        before: P̄ of the stage that was taught last; None at the start, when nothing bounds the
            first stage.
        first_stage: Number of the first part.

    Returns:
        The parts in order, one a stage, and the report.

    Raises:
        InputError: An empty layer, or a module that wasn't measured.
    """
    parts: list[Part] = []
    transitions: list[Transition] = []
    splits: list[Split] = []
    bridges: list[Bridge] = []
    for layer, modules in enumerate(layers):
        # Checks them too.
        mean_performance(modules, performance)
        rest = sorted(modules, key=lambda module: (-performance[module], module))
        of_layer: list[Part] = []
        while rest:
            stage = first_stage + len(parts) + len(of_layer)
            able = rest[: settings.max_stage_modules or len(rest)]
            count, bridged = _stage_size(able, performance, before, settings)
            chosen, rest = tuple(rest[:count]), rest[count:]
            after = mean_performance(chosen, performance)
            of_layer.append(Part(layer, len(of_layer), chosen, after))
            if before is not None:
                bounds = zone_bounds(before, settings)
                transitions.append(Transition(stage, before, after, bounds, not bridged))
                if bridged:
                    direction = "easier" if after < bounds.low else "harder"
                    bridges.append(Bridge(stage, chosen, bounds, direction))
            before = after
        if len(of_layer) > 1:
            splits.append(Split(layer, tuple(part.modules for part in of_layer)))
        parts += of_layer
    report = ZoneReport(settings, tuple(transitions), tuple(splits), tuple(bridges))
    return tuple(parts), report


def _stage_size(
    able: Sequence[str],
    performance: Mapping[str, float],
    before: float | None,
    settings: ZoneSettings,
) -> tuple[int, bool]:
    """How many of the first modules are the next stage, and whether it needs a bridge."""
    count = len(able)
    if before is not None:
        count = _largest_inside(able, performance, before, settings)
    if count:
        return count, False
    return _largest_inside(able, performance, performance[able[0]], settings), True


def _largest_inside(
    ordered: Sequence[str], performance: Mapping[str, float], before: float, settings: ZoneSettings
) -> int:
    """How many of the first modules are inside as one stage, at most; 0 if no number is."""
    bounds = zone_bounds(before, settings)
    for count in range(len(ordered), 0, -1):
        if bounds.contain(mean_performance(ordered[:count], performance)):
            return count
    return 0


def bridge_levels(success: Mapping[int, float], bounds: Bounds) -> tuple[int, ...]:
    """Difficulty levels that a bridge is made of.

    Args:
        success: The student's own success in [0, 1] by difficulty level, on the bridge's modules.
        bounds: The bridge's.

    Returns:
        Levels inside the bounds, sorted; empty where none is, so that no examples at hand can
        bridge the step.
    """
    return tuple(level for level in sorted(success) if bounds.contain(success[level]))
