"""Examples in epochs, as batches that fill the packed rows of a step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from ioa_jax.engine.batching import RowPacker, TokenPair, cut_pair
from ioa_jax.engine.train_config import TrainConfig
from ioa_jax.errors import InputError
from ioa_jax.streams import stream


@dataclasses.dataclass(frozen=True)
class Batch:
    """Examples of an optimiser step.

    Attributes:
        examples: Learnt by cross-entropy.
        retained: On these the student is kept near what it was before training.
    """

    examples: tuple[TokenPair, ...]
    retained: tuple[TokenPair, ...] = ()


def endless_batches(
    examples: Sequence[TokenPair],
    config: TrainConfig,
    *purpose: str | int,
    retained: Sequence[TokenPair] = (),
) -> Iterator[Batch]:
    """Batches that fill `config.batch_rows` packed rows each, without end.

    Examples pass in epochs, each in an order of its own; so do retained ones, in rows of their own
    whose share is `config.retained_share`. A function of the arguments alone: a run that is resumed
    passes over the batches that it has had.

    Args:
        examples: At least one.
        config: Rows, their length, seed, shuffle and share.
        purpose: Other words give another order.
        retained: None are taken where this is empty.

    Raises:
        InputError: No examples, or one that fits no row.
    """
    if not examples:
        raise InputError("no examples to train on")
    own = _Epochs(examples, config, *purpose)
    kept = _Epochs(retained, config, *purpose, "retained") if retained else None
    number = 0
    while True:
        # Whole rows whose sum over steps follows the share: 0.3 of 8 rows is 2, 2, 3, 2, 3 …
        rows = 0
        if kept is not None:
            exact = config.retained_share * config.batch_rows
            rows = math.floor((number + 1) * exact) - math.floor(number * exact)
            rows = min(rows, config.retained_rows)
        yield Batch(
            own.fill(config.batch_rows - rows),
            kept.fill(rows) if kept is not None and rows else (),
        )
        number += 1


class _Epochs:
    """Examples in shuffled passes without end."""

    def __init__(
        self, pairs: Sequence[TokenPair], config: TrainConfig, *purpose: str | int
    ) -> None:
        self._pairs = [
            cut_pair(pair, config.row_length, f"example {i}") for i, pair in enumerate(pairs)
        ]
        self._config = config
        self._purpose = purpose
        self._epoch = 0
        self._order: list[int] = []

    def fill(self, rows: int) -> tuple[TokenPair, ...]:
        """The next examples that fit into so many rows, within an epoch."""
        # Over open rows only, as `pack_batch` will: what fits here fits there.
        packer = RowPacker(self._config.row_length, rows)
        chosen: list[TokenPair] = []
        if not self._order:
            self._order = self._next_order()
        while self._order and packer.add(len(self._pairs[self._order[-1]])):
            chosen.append(self._pairs[self._order.pop()])
        return tuple(chosen)

    def _next_order(self) -> list[int]:
        order = np.arange(len(self._pairs))
        if self._config.shuffle:
            draws = stream(self._config.seed, "order", *self._purpose, self._epoch)
            order = draws.permutation(order)
        self._epoch += 1
        # Reversed, for `fill` takes from the end.
        return [int(i) for i in order[::-1]]
