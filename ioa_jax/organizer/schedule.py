"""Which examples each optimiser step trains on: the two stage modes of method 4.

Both are pure functions of the stages, the seed and the step, so that a run that was stopped goes on
with the batches that it would have had.

- `sequential`, the paper read literally: each stage's examples alone, in epochs.
- `pooled` [ours]: the curriculum decides when material enters, and training always sees all of it.
  Each batch is half new material and half drawn from everything accepted before.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ioa_jax.errors import InputError
from ioa_jax.streams import stream
from ioa_jax.values import Value


@dataclasses.dataclass(frozen=True)
class StageData(Value):
    """What a stage brings to training. A round of remedial data is a stage too.

    Attributes:
        examples: Indices of the examples that were accepted for it.
        modules: Module id of each of them.
        steps: Optimiser steps of the stage; `pooled` alone needs it, since the epochs of
            `sequential` give it.
        raised: Modules whose share of the replay is raised during the stage: those that fell.
    """

    examples: tuple[int, ...]
    modules: tuple[str, ...]
    steps: int = 0
    raised: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.examples) != len(self.modules):
            raise InputError(
                f"stage: {len(self.examples)} examples and {len(self.modules)} modules of examples"
            )
        if self.steps < 0:
            raise InputError(f"stage: steps={self.steps}: at least 0")


@dataclasses.dataclass(frozen=True)
class PoolSettings(Value):
    """Of the mode `pooled`.

    Attributes:
        batch_size: Examples of a step.
        new_share: Share of a batch that is new material, above 0 and at most 1, rounded up to whole
            examples. Without anything older, all of it is new.
        raise_factor: How many times as likely as others an example of a raised module is drawn for
            replay, at least 1.
        seed: Of all draws.
    """

    batch_size: int = 128
    new_share: float = 0.5
    raise_factor: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_batch_size(self.batch_size)
        if not 0 < self.new_share <= 1:
            raise InputError(f"new_share={self.new_share}: above 0 and at most 1")
        if self.raise_factor < 1:
            raise InputError(f"raise_factor={self.raise_factor}: at least 1")


def pooled_step(
    stages: Sequence[StageData],
    step: int,
    settings: PoolSettings,
    mastered: StageData | None = None,
) -> tuple[int, ...]:
    """The examples of one step of the mode `pooled`.

    New material passes in epochs, each in its own order, so that every new example is used equally
    often, to within one. Replay is drawn anew for each step, without repetition while the pool has
    enough. The batch depends on the stages up to the step's own alone: later ones need not exist
    yet.

    Args:
        stages: In the order of teaching. One without examples replays only.
        step: From 0, over all stages.
        settings: Batch size, shares and seed.
        mastered: Examples of modules mastered before the first stage; replayed from the first stage
            on. Its `steps` and `raised` don't matter.

    Returns:
        `batch_size` example indices, new ones first.

    Raises:
        InputError: The stages have no such step, or neither new nor older examples for it.
    """
    number, offset = _locate([stage.steps for stage in stages], step)
    stage = stages[number]
    earlier = [*([] if mastered is None else [mastered]), *stages[:number]]
    pool = [index for other in earlier for index in other.examples]
    if not pool and not stage.examples:
        raise InputError(f"stage {number} (from 0) has no examples, nor has any before it")
    count = math.ceil(settings.batch_size * settings.new_share) if pool else settings.batch_size
    if not stage.examples:
        count = 0
    new = _epochs(stage.examples, count * offset, count, settings.seed, "pooled", number)
    weights = np.asarray(
        [
            settings.raise_factor if module in stage.raised else 1.0
            for other in earlier
            for module in other.modules
        ]
    )
    drawn = _draw(weights, settings.batch_size - count, settings.seed, step)
    return (*new, *(pool[i] for i in drawn))


def sequential_step(
    stages: Sequence[StageData], step: int, batch_size: int, epochs: int, seed: int
) -> tuple[int, ...]:
    """The examples of one step of the mode `sequential`.

    Args:
        stages: In the order of teaching; their `steps` and `raised` don't matter.
        step: From 0, over all stages.
        batch_size: Examples of a step; the last of an epoch may have fewer.
        epochs: Passes over a stage, each in an order of its own.
        seed: Of the orders.

    Raises:
        InputError: The stages have no such step, or a size isn't positive.
    """
    number, offset = _locate(sequential_steps(stages, batch_size, epochs), step)
    examples = stages[number].examples
    per_epoch = -(-len(examples) // batch_size)
    epoch, batch = divmod(offset, per_epoch)
    first = epoch * len(examples) + batch * batch_size
    count = min(batch_size, len(examples) - batch * batch_size)
    return _epochs(examples, first, count, seed, "sequential", number)


def sequential_steps(stages: Sequence[StageData], batch_size: int, epochs: int) -> tuple[int, ...]:
    """Steps of each stage in the mode `sequential`.

    Args:
        stages: In the order of teaching.
        batch_size: Examples of a step.
        epochs: Passes over a stage.

    Raises:
        InputError: A size isn't positive.
    """
    _check_batch_size(batch_size)
    if epochs < 1:
        raise InputError(f"epochs={epochs}: at least 1")
    return tuple(epochs * -(-len(stage.examples) // batch_size) for stage in stages)


def share_steps(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Divide a budget of steps among stages.

    Args:
        total: Steps in all, at least one for each stage.
        weights: A positive weight for each stage, such as its number of modules.

    Returns:
        Steps by stage: they sum to `total`, each is at least 1, and what is left after that follows
        the weights, by largest remainders.

    Raises:
        InputError: Too few steps, or a weight that isn't positive.
    """
    if total < len(weights) or not weights:
        raise InputError(f"{total} steps for {len(weights)} stages; each needs at least one")
    if not all(weight > 0 and math.isfinite(weight) for weight in weights):
        raise InputError(f"weights {list(weights)}: all have to be positive")
    spare = total - len(weights)
    exact = [spare * weight / math.fsum(weights) for weight in weights]
    steps = [math.floor(value) for value in exact]
    order = sorted(range(len(weights)), key=lambda i: (steps[i] - exact[i], i))
    for i in order[: spare - sum(steps)]:
        steps[i] += 1
    return tuple(1 + count for count in steps)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: at least 1")


def _locate(steps: Sequence[int], step: int) -> tuple[int, int]:
    """(stage, step within it), both from 0."""
    if step >= 0:
        first = 0
        for number, count in enumerate(steps):
            if step < first + count:
                return number, step - first
            first += count
    raise InputError(f"step {step} of {sum(steps)}")


def _epochs(
    examples: Sequence[int], first: int, count: int, seed: int, mode: str, stage: int
) -> tuple[int, ...]:
    """Places `first` to `first + count` of an endless row of shuffled epochs."""
    chosen: list[int] = []
    while len(chosen) < count:
        epoch, place = divmod(first + len(chosen), len(examples))
        order = stream(seed, mode, stage, epoch).permutation(len(examples))
        chosen += [examples[i] for i in order[place : place + count - len(chosen)]]
    return tuple(chosen)


def _draw(weights: np.ndarray, count: int, seed: int, step: int) -> list[int]:
    """Places drawn by weight; each at most once in every round through the whole pool."""
    chosen: list[int] = []
    random = stream(seed, "replay", step)
    while len(chosen) < count:
        size = min(count - len(chosen), len(weights))
        places = random.choice(len(weights), size, replace=False, p=weights / weights.sum())
        chosen += [int(place) for place in places]
    return chosen
