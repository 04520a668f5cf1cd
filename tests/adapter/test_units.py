import collections

import pytest

from ioa_jax.adapter.schema import LEVELS, Level
from ioa_jax.adapter.stage import StageSeed
from ioa_jax.adapter.units import UnitQueue, deal_units, equal_counts
from ioa_jax.seeds import SeedItem

SHARES: dict[Level, float] = {"introductory": 0.25, "intermediate": 0.5, "advanced": 0.25}


def seeds(**counts):
    """So many seeds of each module."""
    return [
        StageSeed(SeedItem(f"{module}{number}", "p", "r", {"kind": "exact"}, "math"), module)
        for module, count in counts.items()
        for number in range(count)
    ]


def test_every_module_gets_the_same_number_and_modules_take_turns():
    own = seeds(a=5, b=2, c=2)
    counts = equal_counts(own, 4)
    assert counts == {"a": 12, "b": 12, "c": 12}
    units = deal_units(own, counts, 1, SHARES)
    for end in range(1, len(units) + 1):
        asked = collections.Counter(unit.of.module for unit in units[:end])
        assert max(asked.values()) - min(asked[module] for module in "abc") <= 1
    # Within a module its seeds take turns too.
    of_b = [unit.of.seed.id for unit in units if unit.of.module == "b"]
    assert of_b == ["b0", "b1"] * 6
    assert len({(unit.of.seed.id, unit.group) for unit in units}) == len(units)


@pytest.mark.parametrize("size", [1, 3, 4, 8])
def test_every_prefix_covers_the_range_also_of_a_module_and_of_a_seed(size):
    units = deal_units(seeds(a=size, b=3), {"a": 48, "b": 48}, 1, SHARES)

    def check(part, slack):
        for end in range(1, len(part) + 1):
            levels = collections.Counter(unit.level for unit in part[:end])
            for level in LEVELS:
                assert abs(levels[level] - SHARES[level] * end) < slack

    check(units, 2)
    for module in "ab":
        check([unit for unit in units if unit.of.module == module], 2)
    # No seed is always asked for the same level.
    by_seed = collections.defaultdict(set)
    for unit in units:
        by_seed[unit.of.seed.id].add(unit.level)
    assert all(len(levels) == 3 for levels in by_seed.values())


def test_easy_first_is_each_seeds_easiest_before_any_seeds_next():
    units = deal_units(seeds(a=2), {"a": 8}, 1, SHARES, "easy_first")
    levels = [unit.level for unit in units]
    assert (
        levels
        == [*["introductory"] * 2, *["intermediate"] * 2, *["advanced"] * 2] + ["introductory"] * 2
    )


def test_a_level_without_a_share_is_not_asked_for():
    units = deal_units(seeds(a=2), {"a": 8}, 1, {"introductory": 1.0, "intermediate": 3.0})
    assert collections.Counter(unit.level for unit in units) == {
        "introductory": 2,
        "intermediate": 6,
    }


def test_units_of_several_examples():
    units = deal_units(seeds(a=1), {"a": 5}, 2, SHARES)
    assert [unit.missing for unit in units] == [2, 2, 1]


def test_next_is_the_module_with_the_fewest_lessons():
    own = seeds(a=1, b=1)
    queue = UnitQueue(deal_units(own, {"a": 9, "b": 9}, 1, SHARES), {"a": 9, "b": 4})
    taken = [unit.of.module for unit in queue.take(4)]
    assert taken == ["a", "b", "a", "b"]
    # All of a's passed, none of b's.
    queue.count("a", 2)
    taken = queue.take(3)
    assert [unit.of.module for unit in taken] == ["b", "b", "a"]
    queue.count("b", 3)
    queue.give_back(taken[0])
    # b wants but one more, although others wait.
    assert [unit.of.module for unit in queue.take(9)].count("b") == 1
    queue.exclude("a")
    queue.count("b")
    assert queue.take(9) == []
