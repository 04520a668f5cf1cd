"""The split into synthesis seeds and probes, and modules too small for it (method 0 and 1.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Literal

from ioa_jax.errors import InputError
from ioa_jax.streams import stream
from ioa_jax.values import Value

Role = Literal["seed", "probe"]

# Module of items whose own modules are too small and have no sibling.
MIXED = "mixed/rest"


@dataclasses.dataclass(frozen=True)
class MergedModule(Value):
    """A module that had too few items.

    Attributes:
        module: Id of what was given up.
        into: The module that took its items: a sibling, or `MIXED` where its category has no other
            module; None where the items are set aside.
        num_seeds: Synthesis seeds that it had, with those of modules merged into it before.
        num_probes: Probes that it had, likewise.
    """

    module: str
    into: str | None
    num_seeds: int
    num_probes: int


@dataclasses.dataclass(frozen=True)
class ModuleItems(Value):
    """Which items belong to which module after small modules were merged.

    Attributes:
        modules: Module id by item id; items that were set aside have none.
        merged: What was merged or set aside, in the order in which it happened.
    """

    modules: dict[str, str]
    merged: tuple[MergedModule, ...]


def split_seeds(
    modules: Mapping[str, str],
    probe_fraction: float = 0.2,
    seed: int = 0,
    min_probes: int = 1,
) -> dict[str, Role]:
    """Which items are synthesis seeds and which are probes, stratified by module.

    A module's split depends on its own items and on `seed`, on nothing else. A module of two items
    or more has at least one of each; a single item is a seed.

    Args:
        modules: Module id by item id.
        probe_fraction: Share of each module's items that are probes, rounded to whole items.
        seed: Of the draws.
        min_probes: A module has as many, unless that is more than half of its items [ours].

    Returns:
        Role by item id, in the order of the ids.

    Raises:
        InputError: The fraction isn't between 0 and 1.
    """
    if not 0 < probe_fraction < 1:
        raise InputError(f"probe_fraction={probe_fraction}: between 0 and 1")
    members: dict[str, list[str]] = {}
    for item in sorted(modules):
        members.setdefault(modules[item], []).append(item)
    probes: set[str] = set()
    for module, items in members.items():
        if len(items) > 1:
            count = probe_count(len(items), probe_fraction, min_probes)
            order = stream(seed, "seed split", module).permutation(len(items))
            probes |= {items[i] for i in order[:count]}
    return {item: "probe" if item in probes else "seed" for item in sorted(modules)}


def probe_count(num_items: int, probe_fraction: float = 0.2, min_probes: int = 1) -> int:
    """How many of a module's items `split_seeds` makes probes."""
    least = min(max(min_probes, 1), num_items // 2)
    return max(0, min(max(int(num_items * probe_fraction + 0.5), least), num_items - 1))


def stratify_roles(
    modules: Mapping[str, str],
    roles: Mapping[str, Role],
    shown: Collection[str],
    probe_fraction: float = 0.2,
    seed: int = 0,
    min_probes: int = 1,
) -> dict[str, Role]:
    """Bring a split that knew no modules closer to one stratified by module [ours].

    A module with too many probes gives some to the seeds, and one with too few takes some of its
    seeds, drawn among those that the teacher hasn't read: what it has read is never a probe. So a
    module may keep fewer probes than `split_seeds` would give it.

    Args:
        modules: Module id by item id.
        roles: By item id.
        shown: Items whose text the teacher was given to propose modules.
        probe_fraction: As for `split_seeds`.
        seed: Of the draws.
        min_probes: As for `split_seeds`.

    Returns:
        Role by item id, in the order of the ids.

    Raises:
        InputError: The fraction isn't between 0 and 1, an item has no role, or a probe was shown.
    """
    wanted = split_seeds(modules, probe_fraction, seed, min_probes)
    members: dict[str, list[str]] = {}
    for item in wanted:
        if item not in roles:
            raise InputError(f"item {item!r} is neither a seed nor a probe")
        if roles[item] == "probe" and item in shown:
            raise InputError(f"probe {item!r} was shown to the teacher")
        members.setdefault(modules[item], []).append(item)
    found: dict[str, Role] = {item: roles[item] for item in wanted}
    for module, items in members.items():
        count = sum(wanted[item] == "probe" for item in items)
        probes = [item for item in items if roles[item] == "probe"]
        unread = [item for item in items if roles[item] == "seed" and item not in shown]
        order = stream(seed, "stratify", module)
        for item in order.permutation(probes)[: max(len(probes) - count, 0)]:
            found[str(item)] = "seed"
        for item in order.permutation(unread)[: max(count - len(probes), 0)]:
            found[str(item)] = "probe"
    return found


def merge_small_modules(
    modules: Mapping[str, str],
    roles: Mapping[str, Role],
    difficulty: Mapping[str, float],
    min_seeds: int,
    min_probes: int = 1,
) -> ModuleItems:
    """Merge modules with too few items into their nearest sibling (method 1.1).

    A sibling is a module of the same category. The nearest is the one whose difficulty is closest;
    among equals the one with more items, then the one with the smaller id [ours]. The smallest
    module is merged first, and looked at again together with what it took. Modules without a
    sibling become one, `MIXED`, if they have enough items together, and else are set aside [ours].
    Roles don't change: a probe stays a probe.

    Args:
        modules: Module id (`category/module`) by item id.
        roles: By item id, from `split_seeds`.
        difficulty: By module id, on any one scale.
        min_seeds: Synthesis seeds that a module needs.
        min_probes: Probes that it needs.

    Raises:
        InputError: An item has no role, or a module no difficulty.
    """
    members = _members(modules, roles, difficulty)

    def count(items: list[str]) -> tuple[int, int]:
        found = [roles[item] for item in items]
        return found.count("seed"), found.count("probe")

    def is_small(counts: tuple[int, int]) -> bool:
        return counts[0] < min_seeds or counts[1] < min_probes

    merged: list[MergedModule] = []
    alone: list[str] = []
    while True:
        counts = {module: count(items) for module, items in members.items()}
        small = [(sum(counts[module]), module) for module in members if is_small(counts[module])]
        if not small:
            break
        module = min(small)[1]
        items = members.pop(module)
        into = _nearest_sibling(module, members, difficulty)
        if into is not None:
            members[into] += items
        else:
            alone += items
        merged.append(MergedModule(module, into, *counts[module]))
    if alone and not is_small(count(alone)):
        members[MIXED] = [*members.get(MIXED, ()), *alone]
        # Seeds may name a module so.
        own = [entry for entry in merged if entry.module != MIXED]
        merged = [dataclasses.replace(entry, into=entry.into or MIXED) for entry in own]
    return ModuleItems(
        {item: module for module, items in sorted(members.items()) for item in sorted(items)},
        tuple(merged),
    )


def _members(
    modules: Mapping[str, str], roles: Mapping[str, Role], difficulty: Mapping[str, float]
) -> dict[str, list[str]]:
    """Items by module, each with a role, and each module with a difficulty."""
    members: dict[str, list[str]] = {}
    for item, module in sorted(modules.items()):
        if item not in roles:
            raise InputError(f"item {item!r} is neither a seed nor a probe")
        if module not in difficulty:
            raise InputError(f"module {module!r} has no difficulty")
        members.setdefault(module, []).append(item)
    return members


def _nearest_sibling(
    module: str, members: Mapping[str, list[str]], difficulty: Mapping[str, float]
) -> str | None:
    return min(
        (other for other in members if _category(other) == _category(module)),
        key=lambda other: (
            abs(difficulty[other] - difficulty[module]),
            -len(members[other]),
            other,
        ),
        default=None,
    )


def _category(module: str) -> str:
    return module.split("/", 1)[0]
