"""Decomposers: by metadata, at random, as the teacher proposes, and by its hidden states."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ioa_jax.errors import InputError
from ioa_jax.identifier.assignment import assign_by_choice, assign_by_score, name_modules
from ioa_jax.identifier.decompose import (
    KnowledgeModule,
    Proposal,
    Taxonomy,
    decompose_by_metadata,
    merge_proposals,
)
from ioa_jax.identifier.proposals import propose
from ioa_jax.identifier.seeds import Role
from ioa_jax.identifier.settings import DecomposeSettings
from ioa_jax.seeds import SeedItem, module_id
from ioa_jax.streams import stream
from ioa_jax.teachers.base import Teacher


@dataclasses.dataclass(frozen=True)
class Found:
    """What a decomposer gives, before small modules are merged."""

    decomposer: str
    assignment: str
    taxonomy: Taxonomy
    modules: Mapping[str, str]
    # None: the teacher read nothing, so that the split can be stratified from the start.
    roles: Mapping[str, Role] | None = None
    margins: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])
    unassigned: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    proposals: int = 0
    valid_proposals: int = 0


@dataclasses.dataclass(frozen=True)
class DecomposeTask:
    """Among what modules are looked for, and how; attributes as the arguments of `decompose`."""

    teacher: Teacher
    seeds: Sequence[SeedItem]
    settings: DecomposeSettings
    directory: Path
    probe_fraction: float
    seed: int


def given_modules(seeds: Sequence[SeedItem]) -> tuple[Taxonomy, dict[str, str]]:
    """The modules that seeds name, and the module id by item id.

    Args:
        seeds: Each names its module.
    """
    modules: dict[str, str] = {}
    names: dict[str, tuple[str, str]] = {}
    levels: dict[str, list[float]] = {}
    for item in seeds:
        assert item.module is not None
        category, module = item.module.split("/")
        identity = module_id(category, module)
        modules[item.id] = identity
        names.setdefault(identity, (category, module))
        levels.setdefault(identity, []).append(1.0 if item.difficulty is None else item.difficulty)
    taxonomy = Taxonomy(
        tuple(
            KnowledgeModule(identity, *names[identity], float(statistics.median(own)), len(own))
            for identity, own in sorted(levels.items())
        )
    )
    return taxonomy, modules


def by_metadata(seeds: Sequence[SeedItem], settings: DecomposeSettings) -> Found:
    """The modules that fields of the seeds name."""
    fields: dict[str, dict[str, Any]] = {}
    for item in seeds:
        own = {"module": item.module, "domain": item.domain, "difficulty": item.difficulty}
        fields[item.id] = {name: value for name, value in own.items() if value is not None}
        fields[item.id] |= item.fields
    taxonomy, assignments = decompose_by_metadata(
        fields, settings.category_field, settings.module_field, settings.difficulty_field
    )
    return Found("metadata", "metadata", taxonomy, {one.seed: one.module for one in assignments})


def at_random(seeds: Sequence[SeedItem], settings: DecomposeSettings, seed: int) -> Found:
    """Parts of equal size that have nothing to do with what the items are about."""
    ids = sorted(item.id for item in seeds)
    order = stream(seed, "random modules").permutation(ids)
    modules: dict[str, str] = {}
    found: list[KnowledgeModule] = []
    for number, part in enumerate(np.array_split(order, settings.num_modules), start=1):
        name = f"part {number:02d}"
        if len(part):
            found.append(KnowledgeModule(module_id("random", name), "random", name, 1.0, len(part)))
            modules |= {str(item): found[-1].id for item in part}
    return Found("random", "random", Taxonomy(tuple(found)), modules)


def by_teacher(task: DecomposeTask, taken: Found, roles: Mapping[str, Role]) -> Found:
    """Modules that the teacher proposes, or names seed by seed, and its assignment of the items."""
    teacher, seeds, settings, seed = task.teacher, task.seeds, task.settings, task.seed
    taxonomy, valid = taken.taxonomy, 0
    batches = _batches_to_read(task, roles) if settings.max_batches else []
    shown = [item for batch in batches for item in batch]
    if settings.max_batches:
        proposals = propose(teacher, batches, settings, task.directory, seed)
        proposed = [proposal for proposal in proposals if proposal is not None]
        valid = len(proposed)
        taxonomy = join_taxonomies(taxonomy, merge_proposals(proposed, settings.min_votes))
    rule: str = settings.assignment
    if rule == "auto":
        rule = "score" if teacher.capabilities.score else "choice"
    modules = tuple(module.id for module in taxonomy.modules)
    margins: dict[str, float] = {}
    if rule == "name":
        named, assigned = name_modules(teacher, seeds, modules, settings, seed)
        taxonomy = join_taxonomies(taxonomy, named)
    elif rule == "score":
        found = assign_by_score(teacher, seeds, modules, settings.pack)
        assigned = {one.seed: one.module for one in found}
        margins = {one.seed: one.margin for one in found if one.margin is not None}
    else:
        found = assign_by_choice(teacher, seeds, modules, settings, seed)
        assigned = {one.seed: one.module for one in found}
    return Found(
        "teacher",
        rule,
        taxonomy,
        {**taken.modules, **assigned},
        roles if shown else None,
        margins,
        tuple(sorted(item.id for item in seeds if item.id not in assigned)),
        tuple(sorted(item.id for item in shown)),
        len(batches),
        valid,
    )


def _batches_to_read(task: DecomposeTask, roles: Mapping[str, Role]) -> list[Sequence[SeedItem]]:
    """Synthesis seeds that proposals read, drawn at random."""
    settings = task.settings
    readable = sorted((item for item in task.seeds if roles[item.id] == "seed"), key=lambda x: x.id)
    if not readable:
        raise InputError("no synthesis seeds that the teacher could read; give more seeds")
    order = stream(task.seed, "proposal order").permutation(len(readable))
    # What is read can't become a probe: of a small file a half stays unread, so that modules get
    # theirs.
    most = max(settings.batch_size, -(-len(readable) // 2))
    limit = min(settings.batch_size * settings.max_batches, most)
    shown = [readable[i] for i in order[:limit]]
    return [
        shown[start : start + settings.batch_size]
        for start in range(0, len(shown), settings.batch_size)
    ]


def join_taxonomies(first: Taxonomy, second: Taxonomy) -> Taxonomy:
    """Both taxonomies; of a module that both have, the first's entry."""
    known = {module.id: module for module in (*second.modules, *first.modules)}
    return Taxonomy(
        tuple(module for _, module in sorted(known.items())),
        (*first.prerequisites, *second.prerequisites),
        (*first.unresolved, *second.unresolved),
    )


def by_embedding(task: DecomposeTask, taken: Found, roles: Mapping[str, Role]) -> Found:
    """Clusters of the teacher's mean hidden states, named by the teacher.

    k-means (scipy) on the synthesis seeds' vectors, centred and of length 1; a probe belongs to the
    nearest centroid. A cluster's name is the first module that the teacher proposes for the seeds
    closest to its centroid; clusters with one name are one module.
    """
    from scipy.cluster.vq import kmeans, vq

    teacher, seeds, settings, seed = task.teacher, task.seeds, task.settings, task.seed
    if not teacher.capabilities.embed:
        raise InputError(
            f"{teacher.fingerprint}: it gives no hidden states; take another decomposer than "
            "embedding"
        )
    readable = [i for i, item in enumerate(seeds) if roles[item.id] == "seed"]
    if len(readable) < settings.num_modules:
        raise InputError(
            f"decompose.num_modules={settings.num_modules}: more clusters than the "
            f"{len(readable)} synthesis seeds"
        )
    vectors = teacher.embed([item.prompt for item in seeds]).astype(np.float64)
    vectors -= vectors[readable].mean(axis=0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    centroids, _ = kmeans(vectors[readable], settings.num_modules, rng=stream(seed, "clusters"))
    owners, distances = vq(vectors, centroids)
    clusters = sorted({int(owners[i]) for i in readable})
    batches: list[list[SeedItem]] = []
    for cluster in clusters:
        own = sorted((distances[i], seeds[i].id, i) for i in readable if owners[i] == cluster)
        batches.append([seeds[i] for _, _, i in own[: settings.batch_size]])
    # Every cluster needs a name.
    settings = settings.model_copy(update={"min_valid_batches": 1.0})
    named = propose(teacher, batches, settings, task.directory, seed)
    names = [proposal.modules[0] for proposal in named if proposal is not None]
    taxonomy = merge_proposals([Proposal(modules=(name,)) for name in names])
    by_cluster = {cluster: name.id for cluster, name in zip(clusters, names, strict=True)}
    # A centroid that no synthesis seed is nearest to has no name, and its probes no module.
    modules = {
        item.id: by_cluster[int(owner)]
        for item, owner in zip(seeds, owners, strict=True)
        if int(owner) in by_cluster
    }
    return Found(
        "embedding",
        "nearest",
        join_taxonomies(taken.taxonomy, taxonomy),
        {**taken.modules, **modules},
        roles,
        {},
        tuple(sorted(item.id for item in seeds if item.id not in modules)),
        tuple(sorted(item.id for batch in batches for item in batch)),
        len(batches),
        len(names),
    )
