"""Which examples are asked for in which order: modules in turn, difficulties in their shares."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from ioa_jax.adapter.schema import LEVELS, Level
from ioa_jax.adapter.stage import StageSeed

LevelOrder = Literal["shares", "easy_first"]

# Of equally wanted levels the seed's own comes first.
_PREFERRED: tuple[Level, ...] = ("intermediate", "introductory", "advanced")


@dataclasses.dataclass
class Unit:
    """Examples of one seed that one call is asked for.

    Attributes:
        of: The seed.
        group: Which of its units, from 0.
        level: Difficulty.
        missing: Examples that are still wanted.
        attempt: The next one, from 1.
        complaint: Why one of the last was rejected.
    """

    of: StageSeed
    group: int
    level: Level
    missing: int
    attempt: int = 1
    complaint: str = ""


def by_module(seeds: Sequence[StageSeed]) -> dict[str, list[StageSeed]]:
    """Each module's seeds, modules in the order in which they first occur."""
    found: dict[str, list[StageSeed]] = {}
    for one in seeds:
        found.setdefault(one.module, []).append(one)
    return found


def equal_counts(seeds: Sequence[StageSeed], examples_per_seed: int) -> dict[str, int]:
    """Examples of each module: the same number, and in all what every seed's number comes to."""
    modules = by_module(seeds)
    return dict.fromkeys(modules, math.ceil(examples_per_seed * len(seeds) / len(modules)))


def deal_units(
    seeds: Sequence[StageSeed],
    counts: Mapping[str, int],
    size: int,
    shares: Mapping[Level, float],
    order: LevelOrder = "shares",
) -> list[Unit]:
    """Units in the order in which they should be asked for.

    Modules take turns, and in each of them its seeds. In the order `shares`, each unit gets the
    level that is furthest behind its share among all units so far, those of its module and those
    of its seed together, so that every prefix covers the range. In `easy_first`, each seed begins
    with its easiest level and goes on with the next one, as often as it is asked.

    Args:
        seeds: At least one.
        counts: Examples of each of their modules.
        size: Examples of one unit, at most.
        shares: Of the levels; they needn't add up to 1.
        order: Of the levels.
    """
    modules = by_module(seeds)
    total = sum(shares.values())
    wanted: dict[Level, float] = {
        level: shares.get(level, 0.0) / total for level in LEVELS if shares.get(level)
    }
    dealt: dict[object, collections.Counter[Level]] = collections.defaultdict(collections.Counter)
    left = {module: counts.get(module, 0) for module in modules}
    turns = dict.fromkeys(modules, 0)
    units: list[Unit] = []
    while any(left.values()):
        for module, own in modules.items():
            if not left[module]:
                continue
            group, place = divmod(turns[module], len(own))
            one = own[place]
            if order == "easy_first":
                level = list(wanted)[group % len(wanted)]
            else:
                scopes = (dealt["all"], dealt[("module", module)], dealt[("seed", one.seed.id)])
                level = _furthest_behind(wanted, scopes)
                for scope in scopes:
                    scope[level] += 1
            count = min(size, left[module])
            units.append(Unit(one, group, level, count))
            left[module] -= count
            turns[module] += 1
    return units


def _furthest_behind(
    wanted: Mapping[Level, float], scopes: Sequence[collections.Counter[Level]]
) -> Level:
    def behind(level: Level) -> float:
        return math.fsum(wanted[level] * (scope.total() + 1) - scope[level] for scope in scopes)

    # Sums that are equal on paper may differ in the last bit.
    return max(
        (level for level in _PREFERRED if level in wanted),
        key=lambda level: round(behind(level), 9),
    )


class UnitQueue:
    """Units that wait, modules in turn: next is always the one that has the fewest lessons."""

    def __init__(self, units: Sequence[Unit], wanted: Mapping[str, int]) -> None:
        """`wanted` are the lessons of each module beyond which it isn't asked for more."""
        self._waiting: dict[str, collections.deque[Unit]] = {
            module: collections.deque() for module in wanted
        }
        self._wanted = dict(wanted)
        self._got: collections.Counter[str] = collections.Counter()
        for unit in units:
            self._waiting[unit.of.module].append(unit)

    def take(self, count: int) -> list[Unit]:
        """The next units, at most so many, as if all examples of those before them passed."""
        got = self._got.copy()
        units: list[Unit] = []
        while len(units) < count:
            modules = [
                module
                for module, waiting in self._waiting.items()
                if waiting and got[module] < self._wanted[module]
            ]
            if not modules:
                break
            module = min(modules, key=lambda module: got[module])
            units.append(self._waiting[module].popleft())
            got[module] += units[-1].missing
        return units

    def give_back(self, unit: Unit) -> None:
        """A unit whose examples aren't all there; it waits behind its module's others."""
        self._waiting[unit.of.module].append(unit)

    def count(self, module: str, lessons: int = 1) -> None:
        """Lessons of a module were accepted."""
        self._got[module] += lessons

    def exclude(self, module: str) -> None:
        """A module's units are not asked any more."""
        self._waiting[module].clear()
