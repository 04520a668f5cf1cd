"""Intervals of means over items that may count several times."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its 95 % confidence interval.

    Attributes:
        mean: Of all values.
        low: Lower end.
        high: Upper end.
        values: Number of values.
        clusters: Number of independent items that they belong to.
        method: `wilson` (each item one value, 0 or 1) or `bootstrap` (percentiles over items).
    """

    mean: float
    low: float
    high: float
    values: int
    clusters: int
    method: str


def mean_interval(values: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Interval:
    """Mean and interval.

    Right-or-wrong items get Wilson's score interval (Wilson, 1927), which is sound near 0 and 1
    too, where resampling finds no spread; so do several values an item that are all right or all
    wrong, as one each. Anything else is resampled by whole clusters, since values of one item are
    not independent.

    Args:
        values: In any order.
        clusters: The item that each value belongs to.
        seed: Of the resampling.

    Raises:
        ValueError: No values, or another number of clusters.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values of {len(clusters)} items")
    x = np.asarray(values, np.float64)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    mean = float(x.mean())
    all_the_same = bool(np.isin(x, 0.0).all() or np.isin(x, 1.0).all())
    if all_the_same or (len(names) == len(x) and np.isin(x, (0.0, 1.0)).all()):
        from scipy.stats import binomtest

        found = binomtest(round(mean * len(names)), len(names)).proportion_ci(method="wilson")
        return Interval(mean, float(found.low), float(found.high), len(x), len(names), "wilson")
    sums = np.bincount(index, weights=x)
    counts = np.bincount(index)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(mean, float(low), float(high), len(x), len(names), "bootstrap")
