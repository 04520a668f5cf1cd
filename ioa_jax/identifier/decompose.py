"""From seeds to knowledge modules (method 1.1): the parts that ask no model.

A decomposer gives a `Taxonomy` and says which module each seed belongs to. Asking the teacher for
proposals, and scoring the names of the modules, is the caller's work.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ioa_jax.errors import InputError
from ioa_jax.identifier.seeds import MergedModule
from ioa_jax.seeds import module_id, slug
from ioa_jax.values import Value

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120)]


class ProposedModule(BaseModel):
    """One module of a teacher's proposal.

    Attributes:
        category: Name of the upper level.
        module: Name of the lower level.
        difficulty: 1 to 5.
        prerequisites: Modules needed first, each as `category/module` or, where that is clear, by
            the module's name alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    category: Name
    module: Name
    difficulty: Annotated[int, Field(ge=1, le=5)]
    prerequisites: tuple[Name, ...] = ()

    @property
    def id(self) -> str:
        """`category/module`."""
        return module_id(self.category, self.module)


class Proposal(BaseModel):
    """What the teacher proposes after reading one batch of seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    modules: Annotated[tuple[ProposedModule, ...], Field(min_length=1)]


@dataclasses.dataclass(frozen=True)
class KnowledgeModule(Value):
    """A module of the taxonomy.

    Attributes:
        id: `category/module`.
        category: Name, as first proposed.
        name: Likewise.
        difficulty: Median of the proposals, 1 to 5.
        votes: Proposals that have it.
    """

    id: str
    category: str
    name: str
    difficulty: float
    votes: int


@dataclasses.dataclass(frozen=True)
class NamedPrerequisite(Value):
    """A prerequisite that the teacher named.

    Attributes:
        prerequisite: Module id.
        dependent: Module id.
        share: Share of the proposals with the dependent that name it, above 0 and at most 1.
    """

    prerequisite: str
    dependent: str
    share: float


@dataclasses.dataclass(frozen=True)
class Taxonomy(Value):
    """The modules, and what the teacher says about their order.

    Attributes:
        modules: By id.
        prerequisites: Sorted by prerequisite and dependent.
        unresolved: (dependent's id, name) of prerequisites that name no module, or several.
    """

    modules: tuple[KnowledgeModule, ...]
    prerequisites: tuple[NamedPrerequisite, ...] = ()
    unresolved: tuple[tuple[str, str], ...] = ()

    def prior(self) -> dict[tuple[str, str], float]:
        """Shares by (prerequisite, dependent), as `estimate_dependencies` takes them."""
        return {(edge.prerequisite, edge.dependent): edge.share for edge in self.prerequisites}

    def difficulty(self) -> dict[str, float]:
        """Difficulty by module id."""
        return {module.id: module.difficulty for module in self.modules}


@dataclasses.dataclass(frozen=True)
class Assignment(Value):
    """The module of one seed.

    Attributes:
        seed: Id.
        module: Id.
        margin: How much more likely the module's name is than the next one's, prior removed, in
            nats; None where there is one module alone.
    """

    seed: str
    module: str
    margin: float | None


def merge_proposals(proposals: Sequence[Proposal], min_votes: int = 1) -> Taxonomy:
    """One taxonomy from the proposals of several batches.

    Modules with one id are one module. A prerequisite is looked up by its id, and else by its
    module's name, first in the category of the module that needs it and then in all.

    Args:
        proposals: At least one.
        min_votes: Proposals that a module has to be in.

    Raises:
        InputError: No proposals, or no module with enough votes.
    """
    if not proposals:
        raise InputError("no proposals to merge")
    entries: dict[str, list[ProposedModule]] = {}
    for proposal in proposals:
        # A module that a proposal has twice has one vote.
        for identity, entry in {entry.id: entry for entry in proposal.modules}.items():
            entries.setdefault(identity, []).append(entry)
    entries = {key: found for key, found in sorted(entries.items()) if len(found) >= min_votes}
    if not entries:
        raise InputError(f"no module is in {min_votes} of {len(proposals)} proposals")
    by_name: dict[str, list[str]] = {}
    for identity in entries:
        by_name.setdefault(identity.split("/")[1], []).append(identity)
    named: dict[tuple[str, str], int] = {}
    unresolved: set[tuple[str, str]] = set()
    for dependent, found in entries.items():
        for entry in found:
            resolved: set[str] = set()
            for name in entry.prerequisites:
                prerequisite = _resolve(name, dependent, by_name)
                if prerequisite is None:
                    unresolved.add((dependent, name))
                else:
                    resolved.add(prerequisite)
            for prerequisite in resolved - {dependent}:
                named[prerequisite, dependent] = named.get((prerequisite, dependent), 0) + 1
    return Taxonomy(
        tuple(
            KnowledgeModule(
                identity,
                found[0].category,
                found[0].module,
                float(statistics.median(entry.difficulty for entry in found)),
                len(found),
            )
            for identity, found in entries.items()
        ),
        tuple(
            NamedPrerequisite(prerequisite, dependent, count / len(entries[dependent]))
            for (prerequisite, dependent), count in sorted(named.items())
        ),
        tuple(sorted(unresolved)),
    )


def _resolve(name: str, dependent: str, by_name: Mapping[str, Sequence[str]]) -> str | None:
    """The id that a prerequisite's name stands for, or None."""
    *category, module = (slug(part) for part in name.split("/", 1))
    candidates = by_name.get(module, ())
    if category:
        candidates = [c for c in candidates if c.split("/")[0] == category[0]]
    elif len(candidates) > 1:
        candidates = [c for c in candidates if c.split("/")[0] == dependent.split("/")[0]]
    return candidates[0] if len(candidates) == 1 else None


def merge_taxonomy(taxonomy: Taxonomy, merged: Sequence[MergedModule]) -> Taxonomy:
    """The taxonomy after small modules were merged (`seeds.merge_small_modules`).

    What needed a merged module, or was needed by it, now stands for the module that took its items;
    of several shares the largest counts. Modules that were set aside go with their prerequisites.

    Args:
        taxonomy: Before.
        merged: In the order in which it happened.

    Raises:
        InputError: A module isn't in the taxonomy.
    """
    stands_for: dict[str, str | None] = {module.id: module.id for module in taxonomy.modules}
    for entry in merged:
        if entry.module not in stands_for or (entry.into or entry.module) not in stands_for:
            raise InputError(f"module {entry.module!r} or {entry.into!r} isn't in the taxonomy")
        # Modules merged into this one before go on with it.
        stands_for = {
            module: entry.into if now == entry.module else now for module, now in stands_for.items()
        }
    shares: dict[tuple[str, str], float] = {}
    for edge in taxonomy.prerequisites:
        prerequisite, dependent = stands_for[edge.prerequisite], stands_for[edge.dependent]
        if prerequisite is not None and dependent is not None and prerequisite != dependent:
            pair = (prerequisite, dependent)
            shares[pair] = max(shares.get(pair, 0.0), edge.share)
    return Taxonomy(
        tuple(module for module in taxonomy.modules if stands_for[module.id] == module.id),
        tuple(NamedPrerequisite(*pair, share) for pair, share in sorted(shares.items())),
        taxonomy.unresolved,
    )


def assign_seeds(
    seeds: Sequence[str],
    modules: Sequence[str],
    logprobs: Any,
    prior: Any,
) -> tuple[Assignment, ...]:
    """The module whose name the teacher finds most likely given each seed, prior removed [ours].

    `argmax_k log p_T(name_k | seed) - log p_T(name_k | empty seed)`.

    Args:
        seeds: Ids, the rows.
        modules: Ids, the columns.
        logprobs: log p_T(name_k | seed), [seeds, modules], nats.
        prior: log p_T(name_k | empty seed), [modules], nats.

    Returns:
        One entry a seed, in the order of `seeds`; ties go to the smaller id.

    Raises:
        InputError: Shapes that don't fit, no modules, or a value that isn't finite.
    """
    table = np.asarray(logprobs, np.float64)
    base = np.asarray(prior, np.float64)
    if not modules or table.shape != (len(seeds), len(modules)) or base.shape != (len(modules),):
        raise InputError(
            f"log-probabilities of shape {table.shape} and a prior of shape {base.shape} for "
            f"{len(seeds)} seeds and {len(modules)} modules"
        )
    if not np.isfinite(base).all():
        raise InputError(f"module {modules[int(np.argmin(np.isfinite(base)))]!r}: prior not finite")
    columns = sorted(range(len(modules)), key=lambda k: modules[k])
    assignments: list[Assignment] = []
    for seed, row in zip(seeds, table - base, strict=True):
        if not np.isfinite(row).all():
            raise InputError(f"seed {seed!r}: a log-probability that isn't finite")
        # Python's sort is stable, so that the smaller id comes first among equals.
        order = sorted(columns, key=lambda k: -row[k])
        margin = float(row[order[0]] - row[order[1]]) if len(order) > 1 else None
        assignments.append(Assignment(seed, modules[order[0]], margin))
    return tuple(assignments)


def decompose_by_metadata(
    fields: Mapping[str, Mapping[str, Any]],
    category_field: str,
    module_field: str,
    difficulty_field: str | None = None,
) -> tuple[Taxonomy, tuple[Assignment, ...]]:
    """Modules from fields that the seeds have, such as MATH's subject and level.

    Args:
        fields: Each seed's fields by its id.
        category_field: Field with the category's name.
        module_field: Field with the module's name.
        difficulty_field: Field with a number, or a text that ends in one (`Level 3`); a module has
            its seeds' median. None: all modules have difficulty 1.

    Returns:
        The taxonomy (votes are seeds; no prerequisites, which metadata doesn't tell) and one
        assignment a seed, in the order of the ids.

    Raises:
        InputError: No seeds, or a field that is absent or can't be read; names the seed.
    """
    if not fields:
        raise InputError("no seeds to decompose")
    names: dict[str, tuple[str, str]] = {}
    levels: dict[str, list[float]] = {}
    assignments: list[Assignment] = []
    for seed in sorted(fields):
        category = _field(seed, fields[seed], category_field)
        module = _field(seed, fields[seed], module_field)
        identity = module_id(category, module)
        names.setdefault(identity, (category, module))
        level = 1.0
        if difficulty_field is not None:
            level = _number(seed, fields[seed], difficulty_field)
        levels.setdefault(identity, []).append(level)
        assignments.append(Assignment(seed, identity, None))
    return (
        Taxonomy(
            tuple(
                KnowledgeModule(
                    identity, *names[identity], float(statistics.median(values)), len(values)
                )
                for identity, values in sorted(levels.items())
            )
        ),
        tuple(assignments),
    )


def _field(seed: str, fields: Mapping[str, Any], name: str) -> str:
    if name not in fields or not str(fields[name]).strip():
        raise InputError(f"seed {seed!r}: field {name!r} is absent or empty")
    return str(fields[name])


def _number(seed: str, fields: Mapping[str, Any], name: str) -> float:
    text = _field(seed, fields, name)
    match = re.search(r"\d+(\.\d+)?\s*$", text)
    if match is None or not math.isfinite(float(match.group())):
        raise InputError(f"seed {seed!r}: field {name!r}: no number at the end of {text!r}")
    return float(match.group())
