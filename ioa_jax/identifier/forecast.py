"""What a seed file will give, before any model is asked: modules, synthesis seeds and probes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ioa_jax.identifier.finders import given_modules
from ioa_jax.identifier.seeds import (
    MIXED,
    MergedModule,
    Role,
    merge_small_modules,
    probe_count,
    split_seeds,
)
from ioa_jax.identifier.settings import DiagnoseSettings
from ioa_jax.seeds import SeedItem

# With fewer probes a module's performance is known within ± .28 at best.
ENOUGH_PROBES = 10


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What comes of the seeds that name their module, and how many don't.

    Attributes:
        unnamed: Seeds whose module the Identifier has to find.
        modules: (synthesis seeds, probes) by module id, of those that are large enough.
        merged: Those that aren't.
        to_add: Seeds that each of those lacks to stay a module of its own.
        num_seeds: Synthesis seeds of all modules together.
        num_probes: Probes likewise.
    """

    unnamed: int
    modules: Mapping[str, tuple[int, int]]
    merged: tuple[MergedModule, ...]
    to_add: Mapping[str, int]
    num_seeds: int
    num_probes: int


def forecast(seeds: Sequence[SeedItem], settings: DiagnoseSettings) -> Forecast:
    """What a diagnosis with these settings will make of the modules that seeds name.

    It holds where the decomposer keeps named modules, and all seeds have one: modules that the
    Identifier finds take part in the merging too.

    Args:
        seeds: All of a file.
        settings: Of the diagnosis.
    """
    named = [item for item in seeds if item.module is not None]
    taxonomy, modules = given_modules(named)
    options = settings.decompose
    roles = split_seeds(modules, settings.probe_fraction, min_probes=options.min_probes)
    kept = merge_small_modules(
        modules, roles, taxonomy.difficulty(), options.min_seeds, options.min_probes
    )

    def count(module: str, role: Role) -> int:
        return sum(of == module and roles[item] == role for item, of in kept.modules.items())

    counts = {
        module: (count(module, "seed"), count(module, "probe"))
        for module in sorted({*kept.modules.values()})
    }
    sizes = {module.id: module.votes for module in taxonomy.modules}
    least = least_items(settings)
    return Forecast(
        len(seeds) - len(named),
        counts,
        kept.merged,
        {entry.module: max(1, least - sizes[entry.module]) for entry in kept.merged},
        sum(own for own, _ in counts.values()),
        sum(own for _, own in counts.values()),
    )


def least_items(settings: DiagnoseSettings) -> int:
    """Items with which a module is large enough, split as the settings say."""
    options = settings.decompose
    items = options.min_seeds + options.min_probes
    while True:
        probes = probe_count(items, settings.probe_fraction, options.min_probes)
        if probes >= options.min_probes and items - probes >= options.min_seeds:
            return items
        items += 1


def uncertainty(num_probes: int) -> float:
    """Half the width of P's 95 % interval with so many right or wrong answers, at its widest."""
    return 1.96 * 0.5 / math.sqrt(num_probes + 2)


def forecast_lines(seeds: Sequence[SeedItem], settings: DiagnoseSettings) -> list[str]:
    """The forecast in words, and what to add to the file."""
    found, options = forecast(seeds, settings), settings.decompose
    keeps = options.use_given and options.decomposer in ("teacher", "embedding")
    if not keeps or found.unnamed == len(seeds):
        return _lines_without_names(len(seeds), settings)
    lines = [
        f"with probe_fraction={settings.probe_fraction:g}: "
        f"{_many(found.num_seeds, 'synthesis seed')} and {_many(found.num_probes, 'probe')} in "
        f"{_many(len(found.modules), 'module')}"
    ]
    lines += [
        f"  {module}: {_many(own, 'synthesis seed')}, {_many(probes, 'probe')}"
        for module, (own, probes) in found.modules.items()
    ]
    if found.unnamed:
        lines.append(
            f"not counted: {_many(found.unnamed, 'seed')} without a module; the decomposer "
            f"{options.decomposer} finds theirs, which may be among those above"
        )
    for into in dict.fromkeys(entry.into for entry in found.merged):
        small = ", ".join(
            f"{entry.module} ({entry.num_seeds} and {entry.num_probes})"
            for entry in found.merged
            if entry.into == into
        )
        fate = {
            None: "set aside, neither measured nor taught: no other module of the category",
            MIXED: f"taken together as {MIXED}: no other module of their categories",
        }.get(into, f"merged into {into}")
        lines.append(
            f"under {_many(options.min_seeds, 'synthesis seed')} or "
            f"{_many(options.min_probes, 'probe')}: {small}; {fate}"
        )
    if found.to_add:
        parts = ", ".join(f"{count} of {module}" for module, count in found.to_add.items())
        lines.append(f"add seeds, so that each stays a module of its own: {parts}")
    if not found.modules:
        lines.append(
            f"no module is large enough, and `ioa diagnose` would refuse the file: each needs "
            f"{_many(least_items(settings), 'seed')}"
        )
        return lines
    fewest = min(probes for _, probes in found.modules.values())
    if fewest < ENOUGH_PROBES:
        few = sum(probes < ENOUGH_PROBES for _, probes in found.modules.values())
        lines.append(
            f"uncertain: {_many(few, 'module')} with fewer than {ENOUGH_PROBES} probes; from "
            f"{fewest} a share of right answers is known within ± {uncertainty(fewest):.2f}. "
            f"{_items_for(ENOUGH_PROBES, settings)} seeds of a module would give "
            f"{ENOUGH_PROBES}; or raise probe_fraction"
        )
    return [*lines, *_gate_lines(fewest, settings)]


def _gate_lines(fewest: int, settings: DiagnoseSettings) -> list[str]:
    """Of the module with the fewest probes."""
    if settings.gate_probe_share == 0:
        return ["gates: measured on these probes alone, since gate_probe_share is 0"]
    if fewest >= settings.min_gate_probes:
        return []
    return [
        f"gates: measured on {settings.min_gate_probes} probes of a module. The teacher writes "
        f"those that are missing, {settings.min_gate_probes - fewest} at most, for at most "
        f"{settings.gate_probe_share:.0%} of its tokens"
    ]


def _lines_without_names(total: int, settings: DiagnoseSettings) -> list[str]:
    least, probes = least_items(settings), round(total * settings.probe_fraction)
    lines = [
        f"with probe_fraction={settings.probe_fraction:g}: about "
        f"{_many(total - probes, 'synthesis seed')} and {_many(probes, 'probe')}",
        f"modules: found by the decomposer {settings.decompose.decomposer}, "
        f"{total // least} at most, as each needs {_many(least, 'seed')}",
    ]
    if total < 5 * least:
        lines.append(
            f"add {5 * least - total} seeds or more: with fewer than five modules there is little "
            "to choose from"
        )
    return lines


def _many(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _items_for(probes: int, settings: DiagnoseSettings) -> int:
    """Items of a module that give so many probes."""
    items = probes
    while probe_count(items, settings.probe_fraction, settings.decompose.min_probes) < probes:
        items += 1
    return items
