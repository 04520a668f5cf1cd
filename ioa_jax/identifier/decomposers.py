"""From seeds to modules (method 1.1): what was decided, and how items were split."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path

from ioa_jax.errors import InputError
from ioa_jax.identifier.decompose import KnowledgeModule, Taxonomy, merge_taxonomy
from ioa_jax.identifier.finders import (
    DecomposeTask,
    Found,
    at_random,
    by_embedding,
    by_metadata,
    by_teacher,
    given_modules,
    join_taxonomies,
)
from ioa_jax.identifier.proposals import DecompositionError
from ioa_jax.identifier.seeds import (
    MIXED,
    MergedModule,
    Role,
    merge_small_modules,
    split_seeds,
    stratify_roles,
)
from ioa_jax.identifier.settings import DecomposerName, DecomposeSettings
from ioa_jax.seeds import SeedItem
from ioa_jax.teachers.base import Teacher
from ioa_jax.values import Value


@dataclasses.dataclass(frozen=True)
class Decomposition(Value):
    """The modules, and which item belongs to which.

    Attributes:
        requested: The decomposer that the settings name.
        decomposer: The one that was used: the fallback, or `given` where every seed names its
            module.
        fallback_reason: Why the fallback was used; None where it wasn't.
        assignment: Rule by which items found their module: `given`, `metadata`, `random`, `score`
            (log-probabilities of the names), `choice` (the teacher was asked to choose), `name` (it
            was asked for the name) or `nearest` (centroid). With seeds that name their module among
            others, the others' rule.
        taxonomy: Modules that are left after small ones were merged.
        modules: Module id by item id; items that were set aside have none.
        roles: By item id, of all items that found a module, set aside or not.
        margins: By item id, nats between the module's name and the next one's, where names were
            scored.
        merged: Modules that were too small.
        unassigned: Items of which the teacher named no module, even after retries; sorted.
        shown: Items that proposals read, sorted; none is a probe.
        proposals: Asked for.
        valid_proposals: Of them, those with a valid answer.
    """

    requested: DecomposerName
    decomposer: str
    fallback_reason: str | None
    assignment: str
    taxonomy: Taxonomy
    modules: dict[str, str]
    roles: dict[str, Role]
    margins: dict[str, float]
    merged: tuple[MergedModule, ...]
    unassigned: tuple[str, ...]
    shown: tuple[str, ...]
    proposals: int
    valid_proposals: int

    def items(self, module: str, role: Role) -> tuple[str, ...]:
        """Ids of a module's seeds or probes, sorted."""
        return tuple(
            item
            for item, owner in sorted(self.modules.items())
            if owner == module and self.roles[item] == role
        )


def decompose(
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    settings: DecomposeSettings,
    directory: Path,
    probe_fraction: float = 0.2,
    seed: int = 0,
) -> Decomposition:
    """Find the modules, and split the items into synthesis seeds and probes.

    The split has to be stratified by module, and yet the teacher may read only synthesis seeds to
    find the modules. So where it is the teacher (or its hidden states) that finds them, items are
    split at random first, proposals read synthesis seeds alone, and the split is stratified
    afterwards as far as it can be without making a probe of what was read (`stratify_roles`), which
    is at most half of the synthesis seeds, or one batch [ours].
    Where modules are known beforehand, or named seed by seed without any proposal, the split is
    stratified from the start.

    Args:
        teacher: Asked by `teacher` and `embedding` alone.
        seeds: All items.
        settings: How.
        directory: Gets `decompose_rejects.jsonl`, the raw answers that were rejected.
        probe_fraction: Share of probes.
        seed: Of the draws.

    Raises:
        DecompositionError: The teacher's JSON stayed invalid, and no fallback is named.
        InputError: The metadata can't be read; no module has enough items; as the teacher raises.
    """
    task = DecomposeTask(teacher, seeds, settings, directory, probe_fraction, seed)
    reason: str | None = None
    try:
        found = _find(settings.decomposer, task)
    except DecompositionError as error:
        if settings.fallback is None:
            raise
        reason = str(error)
        found = _find(settings.fallback, task)
    return _decomposition(found, reason, settings, probe_fraction, seed)


def _decomposition(
    found: Found,
    fallback_reason: str | None,
    settings: DecomposeSettings,
    probe_fraction: float,
    seed: int,
) -> Decomposition:
    """What was found, split into seeds and probes, without modules that are too small."""
    if found.roles is None:
        roles = split_seeds(found.modules, probe_fraction, seed, settings.min_probes)
    else:
        roles = stratify_roles(
            found.modules, found.roles, found.shown, probe_fraction, seed, settings.min_probes
        )
    kept = merge_small_modules(
        found.modules,
        roles,
        found.taxonomy.difficulty(),
        settings.min_seeds,
        settings.min_probes,
    )
    if not kept.modules:
        raise InputError(
            f"{len(found.taxonomy.modules)} modules, and none has {settings.min_seeds} synthesis "
            f"seeds and {settings.min_probes} probes; give more seeds, or lower "
            "decompose.min_seeds and decompose.min_probes"
        )
    # Modules that no item belongs to have nothing to be merged.
    used = set(found.modules.values())
    unused = [
        MergedModule(module.id, None, 0, 0)
        for module in found.taxonomy.modules
        if module.id not in used
    ]
    merged = (*unused, *kept.merged)
    taxonomy = found.taxonomy
    if any(entry.into == MIXED for entry in merged):
        taxonomy = join_taxonomies(taxonomy, _mixed(taxonomy, merged))
    return Decomposition(
        requested=settings.decomposer,
        decomposer=found.decomposer,
        fallback_reason=fallback_reason,
        assignment=found.assignment,
        taxonomy=merge_taxonomy(taxonomy, merged),
        modules=kept.modules,
        roles=roles,
        margins=dict(found.margins),
        merged=merged,
        unassigned=found.unassigned,
        shown=found.shown,
        proposals=found.proposals,
        valid_proposals=found.valid_proposals,
    )


def _find(decomposer: DecomposerName, task: DecomposeTask) -> Found:
    seeds, settings = task.seeds, task.settings
    if decomposer == "metadata":
        return by_metadata(seeds, settings)
    if decomposer == "random":
        return at_random(seeds, settings, task.seed)
    given = [item for item in seeds if item.module is not None] if settings.use_given else []
    taken = Found("given", "given", *given_modules(given))
    if len(given) == len(seeds):
        return taken
    roles = split_seeds({item.id: "all" for item in seeds}, task.probe_fraction, task.seed)
    rest = [item for item in seeds if item.id not in taken.modules]
    find = by_teacher if decomposer == "teacher" else by_embedding
    return find(dataclasses.replace(task, seeds=rest), taken, roles)


def _mixed(taxonomy: Taxonomy, merged: Sequence[MergedModule]) -> Taxonomy:
    """The module of those without a sibling."""
    levels = taxonomy.difficulty()
    own = [levels[entry.module] for entry in merged if entry.into == MIXED]
    category, name = MIXED.split("/")
    module = KnowledgeModule(MIXED, category, name, float(statistics.median(own)), 0)
    return Taxonomy((module,))
