"""When to teach which module (method 2.1, 2.2 and 2.5, Eq. 7 and 8)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Literal

from ioa_jax.errors import InputError
from ioa_jax.identifier.dependency import DependencyGraph
from ioa_jax.organizer.zone import Bridge, ZoneReport, ZoneSettings, divide_layers
from ioa_jax.values import Value


@dataclasses.dataclass(frozen=True)
class Stage(Value):
    """Modules that are taught together.

    Attributes:
        number: From 1.
        modules: Ids, the best known first.
        performance: P̄(s), when the plan was made.
        bridge: To be taught before the stage; None where Eq. 8 needs none.
    """

    number: int
    modules: tuple[str, ...]
    performance: float
    bridge: Bridge | None = None


@dataclasses.dataclass(frozen=True)
class Placement(Value):
    """Why a module stands where it does.

    Attributes:
        module: Id.
        stage: Number of its stage.
        reason: `start`, it needs no other target; `prerequisites`, its stage is the first after
            theirs; `zone`, others of its layer, which the student knows better, come before it.
        performance: P_S(k), when the plan was made.
        prerequisites: Other targets that it needs, directly or through any modules, sorted.
        unmet: Modules outside the targets that it needs so and the student hasn't mastered.
        parked: Modules that it needs so and that were given up (Eq. 9).
    """

    module: str
    stage: int
    reason: Literal["start", "prerequisites", "zone"]
    performance: float
    prerequisites: tuple[str, ...]
    unmet: tuple[str, ...]
    parked: tuple[str, ...]

    def sentence(self) -> str:
        """In words, for a report."""
        match self.reason:
            case "start":
                why = "it needs no other target"
            case "prerequisites":
                why = f"it needs {', '.join(self.prerequisites)}"
            case "zone":
                why = f"the student's {self.performance:.2f} is too far below what comes before"
        text = f"{self.module} is in stage {self.stage}: {why}."
        if self.unmet:
            text += f" Not mastered and not a target: {', '.join(self.unmet)}."
        if self.parked:
            text += f" Given up before: {', '.join(self.parked)}."
        return text


@dataclasses.dataclass(frozen=True)
class Curriculum(Value):
    """A plan.

    Attributes:
        stages: In the order of teaching.
        placements: One a module, by stage and id.
        zone: What Eq. 8 did.
    """

    stages: tuple[Stage, ...]
    placements: tuple[Placement, ...]
    zone: ZoneReport


def layer_targets(targets: Collection[str], graph: DependencyGraph) -> tuple[tuple[str, ...], ...]:
    """Eq. 7: every prerequisite of a module that is itself a target lies in an earlier layer.

    Prerequisites reached only through modules outside the targets count too. Each module stands in
    the first layer that this allows.

    Args:
        targets: K_target.
        graph: Prerequisites, without cycles.

    Returns:
        Module ids by layer, sorted within each.

    Raises:
        InputError: A target isn't in the graph.
    """
    needed = {module: set(graph.all_prerequisites(module)) & set(targets) for module in targets}
    layers: list[tuple[str, ...]] = []
    while needed:
        ready = tuple(sorted(module for module, others in needed.items() if not others))
        layers.append(ready)
        needed = {
            module: others - set(ready) for module, others in needed.items() if module not in ready
        }
    return tuple(layers)


@dataclasses.dataclass(frozen=True)
class Past:
    """What was taught before a plan is made.

    Attributes:
        stages: Number of the stage taught last.
        performance: P̄ on it as it is now; None at the start.
        parked: Modules that were given up; what needs them is flagged.
    """

    stages: int = 0
    performance: float | None = None
    parked: Collection[str] = ()


def plan_curriculum(
    targets: Collection[str],
    graph: DependencyGraph,
    performance: Mapping[str, float],
    mastered: Collection[str],
    zone: ZoneSettings | None = None,
    past: Past | None = None,
) -> Curriculum:
    """Layers of prerequisites (Eq. 7), divided by the zone of proximal development (Eq. 8).

    Args:
        targets: K_target.
        graph: Of all modules.
        performance: P_S by module id, measured now; of the targets at least.
        mastered: Modules outside the targets that the student can do.
        zone: None is the default.
        past: What was taught before; None is nothing.

    Raises:
        InputError: A target isn't in the graph, wasn't measured, or is parked.
    """
    past = past or Past()
    parked = past.parked
    for module in sorted(set(targets) & set(parked)):
        raise InputError(f"module {module!r} is parked, so it can't be a target")
    layers = layer_targets(targets, graph)
    parts, report = divide_layers(
        layers, performance, zone or ZoneSettings(), past.performance, past.stages + 1
    )
    bridges = {bridge.stage: bridge for bridge in report.bridges}
    stages: list[Stage] = []
    placements: list[Placement] = []
    for number, part in enumerate(parts, start=past.stages + 1):
        stages.append(Stage(number, part.modules, part.performance, bridges.get(number)))
        for module in sorted(part.modules):
            needed = graph.all_prerequisites(module)
            reason = "prerequisites" if part.layer else "start"
            placements.append(
                Placement(
                    module=module,
                    stage=number,
                    reason="zone" if part.part else reason,
                    performance=performance[module],
                    prerequisites=tuple(other for other in needed if other in targets),
                    unmet=tuple(
                        other
                        for other in needed
                        if other not in targets and other not in mastered and other not in parked
                    ),
                    parked=tuple(other for other in needed if other in parked),
                )
            )
    return Curriculum(tuple(stages), tuple(placements), report)


def replan(
    curriculum: Curriculum,
    finished: int,
    graph: DependencyGraph,
    performance: Mapping[str, float],
    mastered: Collection[str],
    *,
    parked: Collection[str] = (),
) -> Curriculum:
    """Plan the stages after a gate again, with what was measured there (method 2.5).

    Args:
        curriculum: The plan until now.
        finished: Number of the stage whose gate was passed or given up; Eq. 8 bounds the next stage
            by the student's performance on it as it is now.
        graph: As for the first plan.
        performance: P_S by module id, measured now; of the finished stage and of all after it.
        mastered: Modules that the student can do now, those of finished stages among them.
        parked: Modules given up until now.

    Returns:
        The stages after `finished`, numbered on. Without any left, a curriculum without stages.

    Raises:
        InputError: The plan has no such stage, or a module wasn't measured.
    """
    last = next((stage for stage in curriculum.stages if stage.number == finished), None)
    if last is None:
        numbers = [stage.number for stage in curriculum.stages]
        raise InputError(f"no stage {finished} in a curriculum of stages {numbers}")
    for module in last.modules:
        if module not in performance:
            raise InputError(f"module {module!r}: the student wasn't measured on it")
    remaining = {
        module for stage in curriculum.stages if stage.number > finished for module in stage.modules
    }
    return plan_curriculum(
        remaining - set(parked),
        graph,
        performance,
        mastered,
        curriculum.zone.settings,
        Past(
            finished,
            math.fsum(performance[module] for module in last.modules) / len(last.modules),
            parked,
        ),
    )
