"""Intervals from draws: percentile bootstrap for the tables of the suite, and its parts."""

from __future__ import annotations

import dataclasses

import numpy as np

from ioa_jax.errors import InputError
from ioa_jax.values import Value


@dataclasses.dataclass(frozen=True)
class BootstrapSettings(Value):
    """How intervals are made.

    Attributes:
        resamples: Draws of the items with replacement, at least 1.
        level: Coverage in (0, 1); the interval has equal tails.
        seed: Of the draws; what is drawn for has its own stream.
    """

    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise InputError(f"resamples={self.resamples}: at least 1")
        if not 0 < self.level < 1:
            raise InputError(f"level={self.level}: between 0 and 1")


@dataclasses.dataclass(frozen=True)
class Interval(Value):
    """What lies between the tails of a figure's draws.

    Of bootstrap draws of few items it is too narrow, and where all items agree it has no width; the
    Identifier's gaps have posterior draws instead.

    Attributes:
        low: Lower end.
        high: Upper end.
        undefined: Share of the resamples in which the figure isn't defined (a ratio to something
            that was 0 on every drawn item); the ends are of the others.
    """

    low: float
    high: float
    undefined: float = 0.0


def draw_counts(generator: np.random.Generator, items: int, resamples: int) -> np.ndarray:
    """How often each item is drawn in each resample, [resamples, items]; rows add up to `items`.

    A resample's mean of `values` is `counts @ values / items`.

    Args:
        generator: Where the draws come from.
        items: Number of items, at least 1.
        resamples: Number of resamples.
    """
    return generator.multinomial(items, np.full(items, 1 / items), size=resamples)


def percentile_interval(figures: np.ndarray, level: float = 0.95) -> Interval | None:
    """The interval with equal tails of a figure's resampled values.

    Args:
        figures: [resamples]; NaN where the figure isn't defined.
        level: Coverage in (0, 1).

    Returns:
        None if the figure is defined in no resample.
    """
    defined = figures[~np.isnan(figures)]
    if not defined.size:
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high), 1 - defined.size / figures.size)
