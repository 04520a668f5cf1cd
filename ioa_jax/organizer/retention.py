"""Whether what was mastered stays mastered (method 2.4).

All of it is [ours]: the paper leaves forgetting open.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from ioa_jax.errors import InputError
from ioa_jax.organizer.mastery import masters
from ioa_jax.values import Value


@dataclasses.dataclass(frozen=True)
class RetentionState(Value):
    """Modules that were mastered at some gate.

    Attributes:
        mastered: Ids, sorted; measured again at every gate.
        fallen: Those of them that were under `τ_mastery - δ` at the last gate, sorted; their data
            is replayed more in the next stage.
    """

    mastered: tuple[str, ...] = ()
    fallen: tuple[str, ...] = ()

    @property
    def held(self) -> tuple[str, ...]:
        """Modules that are mastered still, sorted."""
        return tuple(module for module in self.mastered if module not in self.fallen)


@dataclasses.dataclass(frozen=True)
class ForgettingMatrix(Value):
    """r(k) after each stage.

    Attributes:
        modules: Ids, the columns.
        stages: Stage numbers, the rows; 0 is before the first.
        ratios: [stages, modules]; None where a module wasn't measured.
    """

    modules: tuple[str, ...]
    stages: tuple[int, ...] = ()
    ratios: tuple[tuple[float | None, ...], ...] = ()

    def __post_init__(self) -> None:
        if len(self.stages) != len(self.ratios):
            raise InputError(
                f"forgetting matrix: {len(self.stages)} stages and {len(self.ratios)} rows"
            )
        for stage, row in zip(self.stages, self.ratios, strict=True):
            if len(row) != len(self.modules):
                raise InputError(
                    f"forgetting matrix: stage {stage} has {len(row)} values for "
                    f"{len(self.modules)} modules"
                )

    def with_stage(self, stage: int, ratios: Mapping[str, float]) -> ForgettingMatrix:
        """The matrix with one more row.

        Args:
            stage: Number of the stage that was just taught; larger than those before.
            ratios: r(k) by module id, of the modules that were measured.

        Raises:
            InputError: The stage isn't later than the last, or a module has no column.
        """
        if self.stages and stage <= self.stages[-1]:
            raise InputError(f"forgetting matrix: stage {stage} after stage {self.stages[-1]}")
        unknown = sorted(ratios.keys() - set(self.modules))
        if unknown:
            raise InputError(f"forgetting matrix: no column for {unknown}")
        row = tuple(ratios.get(module) for module in self.modules)
        return ForgettingMatrix(self.modules, (*self.stages, stage), (*self.ratios, row))

    def forgetting(self) -> dict[str, float]:
        """How far each module is under its best, at its last measurement.

        Returns:
            `max_{i<n} r_i(k) - r_n(k)` by module id, over the stages i at which k was measured, n
            the last of them; negative where the last is the best. Modules measured less than twice
            are left out. The measure is that of Chaudhry et al. 2018 (arXiv 1801.10112, Eq. 3).
        """
        found: dict[str, float] = {}
        for column, module in enumerate(self.modules):
            values = [row[column] for row in self.ratios]
            *earlier, last = [None, *(value for value in values if value is not None)]
            best = [value for value in earlier if value is not None]
            if last is not None and best:
                found[module] = max(best) - last
        return found


def update_retention(
    state: RetentionState,
    ratios: Mapping[str, float],
    newly_mastered: Collection[str],
    tau_mastery: float = 0.9,
    delta: float = 0.05,
) -> RetentionState:
    """Look at a gate's measurements of what was mastered before.

    Args:
        state: After the gate before.
        ratios: r(k) by module id, measured now; of every module mastered before.
        newly_mastered: Modules that passed Eq. 9 at this gate.
        tau_mastery: τ_mastery.
        delta: δ: how far a module may fall before its data is replayed more.

    Raises:
        InputError: A module mastered before wasn't measured, or δ is negative.
    """
    if delta < 0:
        raise InputError(f"delta={delta}: at least 0")
    for module in state.mastered:
        if module not in ratios:
            raise InputError(
                f"module {module!r} was mastered before, but not measured at this gate"
            )
    return RetentionState(
        tuple(sorted({*state.mastered, *newly_mastered})),
        tuple(
            module for module in state.mastered if not masters(ratios[module], tau_mastery - delta)
        ),
    )
