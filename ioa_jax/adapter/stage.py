"""What the Adapter is asked for, and what it gives back."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

from ioa_jax.adapter.forms import Form
from ioa_jax.adapter.schema import (
    ExcludedModule,
    Lesson,
    Level,
    RejectedExample,
    StageKind,
)
from ioa_jax.errors import InputError
from ioa_jax.seeds import SeedItem
from ioa_jax.values import Value


@dataclasses.dataclass(frozen=True)
class StageSeed(Value):
    """A seed of a stage, with what the Identifier knows of its module.

    Attributes:
        seed: The real task.
        module: Id of its module.
        stage: Number of the stage that teaches the module.
        mastery: r(k); None if it wasn't measured.
        prerequisites: Ids of modules that the module needs.
    """

    seed: SeedItem
    module: str
    stage: int = 1
    mastery: float | None = None
    prerequisites: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class StageRequest(Value):
    """Material that is wanted, of one stage or of several.

    Attributes:
        kind: A stage's own material, a bridge to it, or remedial material.
        seeds: Of the modules that are to be taught, at least one, none twice. Every module gets the
            same number of examples: a seed's number times the mean number of a module's seeds.
        levels: Shares of the difficulties, in place of the settings'.
        round: Another number asks for other examples of the same seeds.
        examples_per_seed: In place of the settings'.
        forms: How a module's answers are written, by its id; the settings' template where it isn't
            there.
        tokens: Tokens of the teacher that there are for it. Batches are then no larger than these
            will pay for, so that no problem is written whose answer can't be. The limit itself is
            the teacher's budget; None, batches are as large as the settings say.

    Raises:
        InputError: No seeds, one twice, a share that is none, or no examples.
    """

    kind: StageKind
    seeds: tuple[StageSeed, ...]
    levels: dict[Level, float] | None = None
    round: int = 0
    examples_per_seed: int | None = None
    forms: dict[str, Form] = dataclasses.field(default_factory=dict[str, Form])
    tokens: int | None = None

    def __post_init__(self) -> None:
        where = f"request for {self.kind!r}"
        if not self.seeds:
            raise InputError(f"{where}: there are no seeds to write examples for")
        ids = collections.Counter(one.seed.id for one in self.seeds)
        for seed, count in ids.items():
            if count > 1:
                raise InputError(f"{where}: seed {seed!r} is there {count} times")
        if self.levels is not None:
            check_shares(self.levels, f"{where}: levels")
        if self.examples_per_seed is not None and self.examples_per_seed < 1:
            raise InputError(f"{where}: examples_per_seed={self.examples_per_seed}: at least 1")

    def modules_of(self, stage: int) -> tuple[str, ...]:
        """Ids of a stage's modules, sorted."""
        return tuple(sorted({one.module for one in self.seeds if one.stage == stage}))


@dataclasses.dataclass(frozen=True)
class StageMaterial(Value):
    """What came of a request.

    Attributes:
        lessons: In the order in which they were accepted.
        rejects: All others, raw.
        figures: `asked`, `accepted`, `unfilled` (asked for, and not there after all attempts),
            `calls` (of the teacher, for examples), `tokens` (that these and their verification
            took), `repaired` (examples that lacked keys which the request fixes and were completed
            from it), `level.LEVEL` (lessons of each difficulty), `rejected.REASON` by reason, and
            `mean.NAME` of the lessons' measures (`dimensions.measure`).
        exhausted: The budget ended before the request was filled.
        excluded: Modules that were given up.
    """

    lessons: tuple[Lesson, ...]
    rejects: tuple[RejectedExample, ...]
    figures: dict[str, float]
    exhausted: bool
    excluded: tuple[ExcludedModule, ...] = ()


def check_shares(shares: Mapping[Level, float], where: str) -> None:
    """Whether shares of difficulties can be realised; they needn't add up to 1.

    Raises:
        InputError: A share is negative, or all are 0.
    """
    for level, share in shares.items():
        if not 0 <= share < float("inf"):
            raise InputError(f"{where}: {level!r}: {share}: at least 0")
    if not any(shares.values()):
        raise InputError(f"{where}: no difficulty level has a share")
