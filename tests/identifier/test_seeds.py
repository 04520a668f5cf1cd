from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.errors import InputError
from ioa_jax.identifier.seeds import (
    MIXED,
    MergedModule,
    ModuleItems,
    Role,
    merge_small_modules,
    probe_count,
    split_seeds,
    stratify_roles,
)


def items(**counts):
    """`count` items of each module, such as `m__add=3` for m/add."""
    return {
        f"{name}-{i:02}": name.replace("__", "/")
        for name, count in counts.items()
        for i in range(count)
    }


def roles_of(modules, probes):
    """The first `probes[module]` items of each module are probes."""
    seen = Counter()
    roles = {}
    for item, module in sorted(modules.items()):
        roles[item] = "probe" if seen[module] < probes[module] else "seed"
        seen[module] += 1
    return roles


def probes_by_module(modules, roles):
    return Counter(modules[item] for item, role in roles.items() if role == "probe")


def test_a_fifth_of_each_module_are_probes():
    modules = items(a=10, b=25, c=13, d=2, e=1)
    roles = split_seeds(modules)
    # 2.6 of 13 is 3; two items are one of each; a single one is a seed.
    assert probes_by_module(modules, roles) == {"a": 2, "b": 5, "c": 3, "d": 1}
    assert list(roles) == sorted(modules)


def test_the_split_repeats_and_depends_on_the_seed_and_the_module_alone():
    modules = items(a=20, b=20)
    roles = split_seeds(modules)
    assert split_seeds(dict(reversed(modules.items()))) == roles
    alone = split_seeds(items(a=20))
    assert alone.items() <= roles.items()
    assert split_seeds(modules, seed=1) != roles


def test_a_module_has_min_probes_where_half_of_it_is_enough():
    modules = items(a=3, b=4, c=6, d=30)
    roles = split_seeds(modules, 0.2, min_probes=3)
    assert probes_by_module(modules, roles) == {"a": 1, "b": 2, "c": 3, "d": 6}
    assert [probe_count(n, 0.2, 2) for n in (0, 1, 2, 5, 20)] == [0, 0, 1, 2, 4]


def test_a_module_of_two_items_or_more_has_a_probe_and_a_seed():
    assert [probe_count(n, 0.1) for n in (2, 3, 4)] == [1, 1, 1]
    assert [probe_count(n, 0.9) for n in (2, 3, 5)] == [1, 2, 4]


def test_modules_are_drawn_apart():
    roles = split_seeds(items(a=40, b=40))
    places = [{item[1:] for item in roles if roles[item] == "probe" and item[0] == m} for m in "ab"]
    assert places[0] != places[1]


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_the_fraction_is_between_0_and_1(fraction):
    with pytest.raises(InputError, match="probe_fraction"):
        split_seeds({}, fraction)


def test_a_small_module_goes_to_the_sibling_of_nearest_difficulty():
    modules = items(m__a=2, m__b=9, m__c=9, n__d=9)
    roles = roles_of(modules, dict.fromkeys(["m/a", "m/b", "m/c", "n/d"], 1))
    difficulty = {"m/a": 3.0, "m/b": 1.0, "m/c": 4.0, "n/d": 3.0}
    found = merge_small_modules(modules, roles, difficulty, min_seeds=3)
    assert found.merged == (MergedModule("m/a", "m/c", 1, 1),)
    assert Counter(found.modules.values()) == {"m/b": 9, "m/c": 11, "n/d": 9}
    assert ModuleItems.from_json(found.to_json(), "items.json") == found


def test_among_equally_near_siblings_the_larger_takes_it_then_the_first():
    for counts, into in (
        ({"m__b": 5, "m__c": 9, "m__d": 7}, "m/c"),
        ({"m__d": 9, "m__c": 9, "m__b": 5}, "m/c"),
    ):
        modules = items(m__a=2, **counts)
        roles = roles_of(modules, dict.fromkeys(set(modules.values()), 1))
        # As far below as above.
        difficulty = {"m/a": 3.0, "m/b": 2.0, "m/c": 4.0, "m/d": 2.0}
        found = merge_small_modules(modules, roles, difficulty, min_seeds=3)
        assert found.merged == (MergedModule("m/a", into, 1, 1),)
    # The first module by its id, whatever its items are called.
    modules = items(m__a=2) | {f"{i}": "m/c" for i in range(9)} | {f"x{i}": "m/b" for i in range(9)}
    roles = roles_of(modules, dict.fromkeys(set(modules.values()), 1))
    difficulty = dict.fromkeys(set(modules.values()), 1.0)
    found = merge_small_modules(modules, roles, difficulty, min_seeds=3)
    assert found.merged == (MergedModule("m/a", "m/b", 1, 1),)


def test_too_few_probes_are_too_few():
    modules = items(m__a=5, m__b=4)
    roles = roles_of(modules, {"m/a": 0, "m/b": 2})
    found = merge_small_modules(modules, roles, {"m/a": 1.0, "m/b": 2.0}, min_seeds=2)
    assert found.merged == (MergedModule("m/a", "m/b", 5, 0),)
    assert set(found.modules.values()) == {"m/b"}


def test_small_modules_without_a_sibling_become_one_if_they_are_enough():
    modules = items(m__a=9, n__d=3, o__e=3)
    roles = roles_of(modules, dict.fromkeys(["m/a", "n/d", "o/e"], 1))
    difficulty = dict.fromkeys(modules.values(), 1.0)
    found = merge_small_modules(modules, roles, difficulty, min_seeds=4, min_probes=2)
    assert {m.module: m.into for m in found.merged} == {"m/a": MIXED, "n/d": MIXED, "o/e": MIXED}
    found = merge_small_modules(modules, roles, difficulty, min_seeds=4)
    assert {m.module: m.into for m in found.merged} == {"n/d": MIXED, "o/e": MIXED}
    assert Counter(found.modules.values()) == {"m/a": 9, MIXED: 6}
    found = merge_small_modules(modules, roles, difficulty, min_seeds=5)
    assert {m.module: m.into for m in found.merged} == {"n/d": None, "o/e": None}


def test_a_module_may_be_called_as_the_mixed_one_is():
    modules = items(mixed__rest=9, n__d=3, o__e=3)
    roles = roles_of(modules, dict.fromkeys(["mixed/rest", "n/d", "o/e"], 1))
    difficulty = dict.fromkeys(modules.values(), 1.0)
    found = merge_small_modules(modules, roles, difficulty, min_seeds=4)
    assert Counter(found.modules.values()) == {MIXED: 15}
    found = merge_small_modules(modules, roles, difficulty, min_seeds=9)
    assert Counter(found.modules.values()) == {MIXED: 15}
    assert {m.module for m in found.merged} == {"n/d", "o/e"}


def test_small_modules_may_grow_large_enough_together():
    # a (1) goes to b (2), which then has 3 of the 3 seeds that it needs.
    modules = items(m__a=2, m__b=3, m__c=9)
    roles = roles_of(modules, {"m/a": 1, "m/b": 1, "m/c": 1})
    difficulty = {"m/a": 1.0, "m/b": 1.0, "m/c": 5.0}
    found = merge_small_modules(modules, roles, difficulty, min_seeds=3)
    assert found.merged == (MergedModule("m/a", "m/b", 1, 1),)
    # With 4 needed, both end in c.
    found = merge_small_modules(modules, roles, difficulty, min_seeds=4)
    assert [(entry.module, entry.into) for entry in found.merged] == [
        ("m/a", "m/b"),
        ("m/b", "m/c"),
    ]


def test_a_module_without_siblings_is_set_aside_and_reported():
    modules = items(m__a=2, n__b=9)
    roles = roles_of(modules, {"m/a": 1, "n/b": 1})
    found = merge_small_modules(modules, roles, {"m/a": 1.0, "n/b": 1.0}, min_seeds=3)
    assert found.merged == (MergedModule("m/a", None, 1, 1),)
    assert set(found.modules.values()) == {"n/b"}


def test_items_have_a_role_and_modules_a_difficulty():
    with pytest.raises(InputError, match="item 'm__a-00'"):
        merge_small_modules(items(m__a=1), {}, {"m/a": 1.0}, 1)
    with pytest.raises(InputError, match="module 'm/a' has no difficulty"):
        merge_small_modules(items(m__a=1), {"m__a-00": "seed"}, {}, 1)


@given(
    st.dictionaries(
        st.sampled_from(["m__a", "m__b", "m__c", "n__d", "n__e"]), st.integers(1, 12), min_size=1
    ),
    st.integers(0, 6),
    st.integers(0, 3),
)
def test_every_module_left_is_large_enough_and_every_item_is_accounted_for(counts, seeds, probes):
    modules = items(**counts)
    roles = split_seeds(modules)
    found = merge_small_modules(modules, roles, dict.fromkeys(modules.values(), 1.0), seeds, probes)
    for module in set(found.modules.values()):
        members = Counter(roles[item] for item, of in found.modules.items() if of == module)
        assert members["seed"] >= seeds
        assert members["probe"] >= probes
    aside = sum(m.num_seeds + m.num_probes for m in found.merged if m.into is None)
    assert len(found.modules) + aside == len(modules)
    for item, module in found.modules.items():
        assert module == MIXED or module.split("/")[0] == modules[item].split("/")[0]


def test_stratify_makes_no_probe_of_what_was_read():
    modules = {f"{m}{n:02d}": m for m in "ab" for n in range(20)}
    # All probes are a's; of b, the teacher has read all but one.
    roles: dict[str, Role] = {
        item: "probe" if item.startswith("a") and item < "a08" else "seed" for item in modules
    }
    shown = [f"b{n:02d}" for n in range(19)]
    found = stratify_roles(modules, roles, shown, 0.2, seed=1)
    probes = [item for item, role in found.items() if role == "probe"]
    assert len([item for item in probes if item.startswith("a")]) == 4
    assert all(item < "a08" for item in probes if item.startswith("a"))
    assert [item for item in probes if item.startswith("b")] == ["b19"]
    assert stratify_roles(modules, roles, shown, 0.2, seed=1) == found
    # What is stratified already stays so.
    assert stratify_roles(modules, split_seeds(modules), (), 0.2) == split_seeds(modules)
    with pytest.raises(InputError, match="'a00' was shown"):
        stratify_roles(modules, roles, ["a00"])
