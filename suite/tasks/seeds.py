"""The hand-written seed tasks, and the split of seed items into what teaches and what measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ioa_jax.errors import InputError
from ioa_jax.seeds import SeedItem, read_seeds
from ioa_jax.streams import stream

SEED_TASKS = Path(__file__).with_name("seed_tasks.jsonl")


@dataclasses.dataclass(frozen=True)
class SeedSplit:
    """Items that every method starts from, and items that are only measured; none is in both."""

    seeds: tuple[SeedItem, ...]
    probes: tuple[SeedItem, ...]


def load_seed_tasks() -> tuple[SeedItem, ...]:
    """Every task, in the order of the file."""
    return read_seeds(SEED_TASKS)


def split_seeds(
    items: Sequence[SeedItem],
    probe_fraction: float,
    seed: int,
    max_seeds_per_module: int | None = None,
    max_probes_per_module: int | None = None,
) -> SeedSplit:
    """Split stratified by module: each keeps about `probe_fraction` of its items as probes.

    A module's split depends on its own items and on `seed`, on nothing else, and not on the order
    of the items; items without a module are split together. The maxima cut after the split, so that
    a short run uses a part of what the full run uses, in the same roles.

    Raises:
        InputError: A module would have no seed or no probe.
    """
    if not 0 < probe_fraction < 1:
        raise InputError(f"probe_fraction={probe_fraction}: between 0 and 1")
    modules: dict[str, list[SeedItem]] = {}
    for item in sorted(items, key=lambda item: item.id):
        modules.setdefault(item.module or "", []).append(item)
    seeds: list[SeedItem] = []
    probes: list[SeedItem] = []
    for module, members in sorted(modules.items()):
        num_probes = round(len(members) * probe_fraction)
        if not 0 < num_probes < len(members):
            raise InputError(
                f"module {module!r} has {len(members)} tasks: with probe_fraction={probe_fraction} "
                f"{num_probes} of them are probes, and both parts need at least one"
            )
        order = stream(seed, "seed split", module).permutation(len(members))
        chosen = [members[i] for i in order]
        probes += chosen[:num_probes][:max_probes_per_module]
        seeds += chosen[num_probes:][:max_seeds_per_module]
    return SeedSplit(tuple(seeds), tuple(probes))
