"""Means, differences and shares with what can be said of them: intervals, tests, corrections.

Scores are arrays of [seeds, items]: the same items for every method, the same seeds where methods
are paired. Items and seeds are crossed, and a resample draws both, each with replacement (Owen,
2007, "The pigeonhole bootstrap"), so that an interval says what other items and other training
seeds would have given. With S seeds the seeds' part of the variance comes out (S - 1) / S of what
it is: a few seeds give intervals that are somewhat too narrow.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ioa_jax.bootstrap import Interval, draw_counts, percentile_interval
from ioa_jax.streams import stream

RESAMPLES = 10_000
LEVEL = 0.95
# Rows that are multiplied at once: 10,000 resamples of MATH's 5,000 items would be 400 MB.
CHUNK = 500


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % confidence interval.

    Attributes:
        mean: Of all values.
        low: Lower end.
        high: Upper end.
        values: Number of values.
        clusters: Number of independent items that they belong to.
        method: `wilson` (each item one value, 0 or 1), or `bootstrap` (percentiles over items, and
            over seeds where there are several).
    """

    mean: float
    low: float
    high: float
    values: int
    clusters: int
    method: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """A paired difference, with two tests of whether it is 0.

    Attributes:
        mean: Over the pairs (seed, item).
        low: Lower end of its 95 % interval.
        high: Upper end.
        pairs: Number of pairs.
        seeds: Number of seeds that both have.
        p_bootstrap: Two-sided, of the resampled differences.
        p_mcnemar: Of right and wrong answers; None where scores aren't only 0 and 1, or are of
            several seeds.
        wins: Pairs in which the first is right and the second wrong; None where scores aren't only
            0 and 1.
        losses: Pairs in which it is the other way round.
    """

    mean: float
    low: float
    high: float
    pairs: int
    seeds: int
    p_bootstrap: float
    p_mcnemar: float | None
    wins: int | None
    losses: int | None


@dataclasses.dataclass(frozen=True)
class Share:
    """A ratio of two means with its 95 % interval; None where it isn't defined.

    Attributes:
        value: The ratio.
        low: Lower end.
        high: Upper end.
        undefined: Share of the resamples in which the divisor was 0; the ends are of the others.
    """

    value: float | None
    low: float | None
    high: float | None
    undefined: float


def mean_interval(values: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Estimate:
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
    if all_the_same or (len(names) == len(x) and is_binary(x)):
        low, high = _wilson(mean, len(names))
        return Estimate(mean, low, high, len(x), len(names), "wilson")
    sums, counts = np.bincount(index, weights=x), np.bincount(index)
    draws = _Draws(len(names), seed, "clusters")
    interval = _interval(draws.dot(sums) / draws.dot(counts))
    return Estimate(mean, interval.low, interval.high, len(x), len(names), "bootstrap")


class Resampled(Protocol):
    """A mean of scores, and what it is in each resample of their items and seeds."""

    def mean(self, scores: np.ndarray) -> float:
        """Of [seeds, items]."""
        ...

    def means(self, scores: np.ndarray) -> np.ndarray:
        """Of [seeds, items] in each resample, [resamples]."""
        ...


class Bootstrap:
    """Draws of a task's items and of seeds, the same for everything that is compared on them."""

    def __init__(self, items: int, task: str, seed: int = 0, resamples: int = RESAMPLES) -> None:
        """Draw the items.

        Args:
            items: Number of items.
            task: Whose; each task has its own draws of items. Those of seeds are the same for all
                tasks, since a seed is one trained model.
            seed: Of the draws.
            resamples: How many.
        """
        self.items = items
        self._seed = seed
        self._resamples = resamples
        self._item_draws = _Draws(items, seed, "items", task, resamples=resamples)

    def mean(self, scores: np.ndarray) -> float:
        """The mean over items and seeds."""
        return float(scores.mean())

    def means(self, scores: np.ndarray) -> np.ndarray:
        """The mean of [seeds, items] in each resample, [resamples]."""
        return self.many(scores[None])[:, 0]

    def many(self, scores: np.ndarray) -> np.ndarray:
        """The means of several data sets, [sets, seeds, items], as [resamples, sets]."""
        sets, seeds, items = scores.shape
        by_seed = self._item_draws.dot(scores.reshape(sets * seeds, items).T) / items
        if seeds == 1:
            return by_seed
        drawn = _seed_counts(self._seed, seeds, self._resamples)
        by_seed = by_seed.reshape(-1, sets, seeds)
        return np.einsum("rns,rs->rn", by_seed, drawn) / seeds


class GroupBootstrap:
    """Draws of items within groups, for a mean of the groups' means with equal weights.

    The groups stay as they are: what other items of the same groups would have given.
    """

    def __init__(
        self, groups: Mapping[str, np.ndarray], seed: int = 0, resamples: int = RESAMPLES
    ) -> None:
        """Draw the items of each group; those of seeds are the same for all.

        Args:
            groups: By name, the places of its items.
            seed: Of the draws.
            resamples: How many.
        """
        self.groups = groups
        self._draws = {
            name: Bootstrap(len(places), f"group {name}", seed, resamples)
            for name, places in groups.items()
        }

    def only(self, names: Sequence[str]) -> GroupBootstrap:
        """Some of the groups with the same draws, for scores of `places(names)` alone."""
        chosen = copy.copy(self)
        ends = np.cumsum([len(self.groups[name]) for name in names])
        chosen.groups = dict(zip(names, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
        return chosen

    def places(self, names: Sequence[str]) -> np.ndarray:
        """Places of the items of some groups, one group after the other."""
        return np.concatenate([self.groups[name] for name in names])

    def by_group(self, scores: np.ndarray) -> dict[str, float]:
        """Each group's mean over its items and the seeds."""
        return {name: float(scores[:, places].mean()) for name, places in self.groups.items()}

    def mean(self, scores: np.ndarray) -> float:
        """The mean of the groups' means."""
        return float(np.mean(list(self.by_group(scores).values())))

    def means(self, scores: np.ndarray) -> np.ndarray:
        """The same in each resample, [resamples]."""
        return np.mean(
            [self._draws[name].means(scores[:, places]) for name, places in self.groups.items()],
            axis=0,
        )


def estimate(scores: np.ndarray, bootstrap: Resampled) -> Estimate:
    """Mean of [seeds, items] with its interval over both.

    One seed's right-or-wrong items get Wilson's interval, as in `mean_interval`, unless they are
    weighed by their groups, and so do scores that are all 0 or all 1, with as many items as there
    are.
    """
    seeds, items = scores.shape
    mean = bootstrap.mean(scores)
    alike = seeds == 1 and isinstance(bootstrap, Bootstrap)
    if is_binary(scores) and (alike or mean in (0.0, 1.0)):
        low, high = _wilson(mean, items)
        return Estimate(mean, low, high, scores.size, items, "wilson")
    interval = _interval(bootstrap.means(scores))
    return Estimate(mean, interval.low, interval.high, scores.size, items, "bootstrap")


def difference(first: np.ndarray, second: np.ndarray, bootstrap: Resampled) -> Difference:
    """First minus second, paired by seed and item.

    McNemar's test counts every item alike and knows of no seeds, so that it is left out where there
    are several, or where `bootstrap` weighs the items.

    Args:
        first: [seeds, items].
        second: The same shape; or [1, items] for a model that is the same for every seed.
        bootstrap: Of the items.
    """
    differences = first - second
    resampled = bootstrap.means(differences)
    interval = _interval(resampled)
    p = float(p_of(resampled)) if differences.any() else 1.0
    wins = losses = p_mcnemar = None
    if is_binary(first) and is_binary(second):
        wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
        if len(differences) == 1 and isinstance(bootstrap, Bootstrap):
            p_mcnemar = mcnemar(wins, losses)
    return Difference(
        bootstrap.mean(differences),
        interval.low,
        interval.high,
        differences.size,
        len(differences),
        p,
        p_mcnemar,
        wins,
        losses,
    )


def p_of(resampled: np.ndarray) -> np.ndarray:
    """Two-sided p of differences that are 0: twice the smaller share of resamples on one side.

    Args:
        resampled: [resamples, ...].
    """
    # In what order a machine adds up makes 0 or 1e-17 of a difference that is 0.
    resampled = resampled.round(12)
    below, above = (resampled <= 0).sum(axis=0), (resampled >= 0).sum(axis=0)
    # One more than counted, so that no finite number of resamples gives a p of 0.
    return np.minimum(1.0, 2 * (np.minimum(below, above) + 1) / (len(resampled) + 1))


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided p of as many wins as losses: McNemar's exact test, of one seed's pairs.

    Over several seeds it has no form here that keeps its level: with the answers of an item as a
    cluster (Durkalski et al., 2003) it takes seeds for fixed, and finds a difference in 10 to 30 %
    of runs that have none (`suite.power` shows what the bootstrap does).
    """
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm, 1979): adjusted p in the order of the given ones."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def share(part: np.ndarray, whole: np.ndarray, bootstrap: Bootstrap) -> Share:
    """`mean(part) / mean(whole)`, both on the same drawn items and seeds.

    Args:
        part: [seeds, items].
        whole: [seeds or 1, items].
        bootstrap: Of the items.
    """
    return share_of_means(
        float(part.mean()), float(whole.mean()), bootstrap.means(part), bootstrap.means(whole)
    )


def share_of_means(part: float, whole: float, parts: np.ndarray, wholes: np.ndarray) -> Share:
    """A ratio whose two means have been resampled together, [resamples] each."""
    interval = percentile_interval(parts / np.where(wholes > 0, wholes, np.nan), LEVEL)
    if whole <= 0 or interval is None:
        return Share(None, None, None, float((wholes <= 0).mean()))
    return Share(part / whole, interval.low, interval.high, interval.undefined)


def lost_share(before: np.ndarray, after: np.ndarray, bootstrap: Bootstrap) -> Share:
    """Forgetting: of what the student scored before, how much it has lost item by item.

    `sum(max(before - after, 0)) / sum(before)`: of right-or-wrong items, the share of the right
    answers that became wrong. Answers that are right by luck count as forgotten too, so that even a
    student that learnt nothing may have some.

    Args:
        before: [1, items], of the undistilled student.
        after: [seeds, items].
        bootstrap: Of the items.
    """
    before = np.broadcast_to(before, after.shape)
    return share(np.maximum(before - after, 0), before, bootstrap)


def is_binary(scores: np.ndarray) -> bool:
    """Whether every score is 0 or 1."""
    return bool(np.isin(scores, (0.0, 1.0)).all())


class _Draws:
    """Counts of drawn items, [resamples, items], in the smallest type that holds them."""

    def __init__(
        self, items: int, seed: int, *purpose: str | int, resamples: int = RESAMPLES
    ) -> None:
        generator = stream(seed, "suite bootstrap", *purpose, items)
        self._chunks = [
            draw_counts(generator, items, min(CHUNK, resamples - start)).astype(np.uint16)
            for start in range(0, resamples, CHUNK)
        ]

    def dot(self, values: np.ndarray) -> np.ndarray:
        """Sums over the drawn items: [items, ...] to [resamples, ...]."""
        return np.concatenate([chunk.astype(np.float64) @ values for chunk in self._chunks])


@functools.cache
def _seed_counts(seed: int, seeds: int, resamples: int) -> np.ndarray:
    return draw_counts(stream(seed, "suite bootstrap", "seeds", seeds), seeds, resamples)


def _interval(figures: np.ndarray) -> Interval:
    interval = percentile_interval(figures, LEVEL)
    assert interval is not None
    return interval


def _wilson(mean: float, count: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    found = binomtest(round(mean * count), count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
