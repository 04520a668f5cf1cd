"""What the Adapter is asked for, and what it gives back."""

from __future__ import annotations

import collections
import dataclasses

from ioa_jax.adapter.schema import LEVELS, Lesson, Level, RejectedExample, StageKind
from ioa_jax.errors import InputError
from ioa_jax.seeds import SeedItem
from ioa_jax.values import Value


@dataclasses.dataclass(frozen=True)
class StageSeed(Value):
    """A seed of a stage, with what the Identifier knows of its module.

    Attributes:
        seed: The real task.
        module: Id of its module.
        mastery: r(k); None if it wasn't measured.
        prerequisites: Ids of modules that the module needs.
    """

    seed: SeedItem
    module: str
    mastery: float | None = None
    prerequisites: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class StageRequest(Value):
    """Material that is wanted.

    Attributes:
        stage: Number of the stage.
        kind: A stage's own material, a bridge to it, or remedial material (smaller instances).
        seeds: Of the modules that are to be taught, at least one, none twice.
        levels: Difficulties that are asked for in turn.
        round: Another number asks for other examples of the same seeds.
        examples_per_seed: In place of the settings'.
        calls_per_round: Likewise, such as fewer where a small budget has to pay for the
            verification of a batch too.

    Raises:
        InputError: No seeds, one twice, no levels, or no examples.
    """

    stage: int
    kind: StageKind
    seeds: tuple[StageSeed, ...]
    levels: tuple[Level, ...] = LEVELS
    round: int = 0
    examples_per_seed: int | None = None
    calls_per_round: int | None = None

    def __post_init__(self) -> None:
        where = f"stage {self.stage}"
        if not self.seeds:
            raise InputError(f"{where}: there are no seeds to write examples for")
        ids = collections.Counter(one.seed.id for one in self.seeds)
        for seed, count in ids.items():
            if count > 1:
                raise InputError(f"{where}: seed {seed!r} is there {count} times")
        if not self.levels:
            raise InputError(f"{where}: no difficulty level is asked for")
        for name in ("examples_per_seed", "calls_per_round"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{where}: {name}={value}: at least 1")

    @property
    def modules(self) -> tuple[str, ...]:
        """Ids of the modules, sorted."""
        return tuple(sorted({one.module for one in self.seeds}))


@dataclasses.dataclass(frozen=True)
class StageMaterial(Value):
    """What came of a request.

    Attributes:
        lessons: In the order in which they were accepted.
        rejects: All others, raw.
        figures: `asked`, `accepted`, `unfilled` (asked for, and not there after all attempts),
            `calls` (of the teacher, for examples), `repaired` (examples that lacked keys which the
            request fixes and were completed from it), `rejected.REASON` by reason, and `mean.NAME`
            of the lessons' measures (`dimensions.measure`).
        exhausted: The budget ended before the request was filled.
    """

    lessons: tuple[Lesson, ...]
    rejects: tuple[RejectedExample, ...]
    figures: dict[str, float]
    exhausted: bool
