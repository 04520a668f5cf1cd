"""From seeds to modules with a teacher's help (method 1.1): who is asked, and what was decided."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ioa_jax.errors import InputError
from ioa_jax.identifier.decompose import (
    Assignment,
    KnowledgeModule,
    Proposal,
    Taxonomy,
    assign_seeds,
    decompose_by_metadata,
    merge_proposals,
    merge_taxonomy,
    slug,
)
from ioa_jax.identifier.rendering import (
    Messages,
    render_module_choice,
    render_module_name,
    render_proposal,
)
from ioa_jax.identifier.seeds import (
    MIXED,
    MergedModule,
    Role,
    merge_small_modules,
    split_seeds,
    stratify_roles,
)
from ioa_jax.identifier.settings import DecomposerName, DecomposeSettings
from ioa_jax.jsonl import write_rows
from ioa_jax.seeds import SeedItem, module_id
from ioa_jax.streams import stream
from ioa_jax.teachers.base import ChatRequest, Sampling, Teacher, TeacherError, TokenScores
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.structured import StructuredResult, generate_structured
from ioa_jax.values import Value

PURPOSE = "decompose"
CHOICE_TOKENS = 64

# category/module, alone in a line (words may be several), and among other words (one word each).
_LINE = re.compile(r"^\W*(\w[\w -]{0,59}?)\s*/\s*(\w[\w -]{0,59}?)\W*$", re.MULTILINE)
_WORDS = re.compile(r"([\w-]+)/([\w-]+)")

Answer = TypeVar("Answer")


class DecompositionError(TeacherError):
    """The teacher's proposals stayed invalid; the message names the file with the raw texts."""


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


@dataclasses.dataclass(frozen=True)
class _Found:
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
    arguments = (teacher, seeds, settings, directory, probe_fraction, seed)
    reason: str | None = None
    try:
        found = _find(settings.decomposer, *arguments)
    except DecompositionError as error:
        if settings.fallback is None:
            raise
        reason = str(error)
        found = _find(settings.fallback, *arguments)
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
        taxonomy = _joined(taxonomy, _mixed(taxonomy, merged))
    return Decomposition(
        requested=settings.decomposer,
        decomposer=found.decomposer,
        fallback_reason=reason,
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


def _find(
    decomposer: DecomposerName,
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    settings: DecomposeSettings,
    directory: Path,
    probe_fraction: float,
    seed: int,
) -> _Found:
    if decomposer == "metadata":
        return _by_metadata(seeds, settings)
    if decomposer == "random":
        return _at_random(seeds, settings, seed)
    given = [item for item in seeds if item.module is not None] if settings.use_given else []
    taken = _Found("given", "given", *given_modules(given))
    if len(given) == len(seeds):
        return taken
    roles = split_seeds({item.id: "all" for item in seeds}, probe_fraction, seed)
    rest = [item for item in seeds if item.id not in taken.modules]
    find = _by_teacher if decomposer == "teacher" else _by_embedding
    return find(teacher, rest, taken, roles, settings, directory, seed)


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


def _by_metadata(seeds: Sequence[SeedItem], settings: DecomposeSettings) -> _Found:
    fields: dict[str, dict[str, Any]] = {}
    for item in seeds:
        own = {"module": item.module, "domain": item.domain, "difficulty": item.difficulty}
        fields[item.id] = {name: value for name, value in own.items() if value is not None}
        fields[item.id] |= item.fields
    taxonomy, assignments = decompose_by_metadata(
        fields, settings.category_field, settings.module_field, settings.difficulty_field
    )
    return _Found("metadata", "metadata", taxonomy, {one.seed: one.module for one in assignments})


def _at_random(seeds: Sequence[SeedItem], settings: DecomposeSettings, seed: int) -> _Found:
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
    return _Found("random", "random", Taxonomy(tuple(found)), modules)


def _by_teacher(
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    taken: _Found,
    roles: Mapping[str, Role],
    settings: DecomposeSettings,
    directory: Path,
    seed: int,
) -> _Found:
    taxonomy, shown, valid = taken.taxonomy, (), 0
    batches: list[Sequence[SeedItem]] = []
    if settings.max_batches:
        readable = sorted((item for item in seeds if roles[item.id] == "seed"), key=lambda x: x.id)
        if not readable:
            raise InputError("no synthesis seeds that the teacher could read; give more seeds")
        order = stream(seed, "proposal order").permutation(len(readable))
        # What is read can't become a probe: of a small file a half stays unread, so that modules
        # get theirs.
        most = max(settings.batch_size, -(-len(readable) // 2))
        limit = min(settings.batch_size * settings.max_batches, most)
        shown = tuple(readable[i] for i in order[:limit])
        batches = [
            shown[start : start + settings.batch_size]
            for start in range(0, len(shown), settings.batch_size)
        ]
        proposals = _propose(teacher, batches, settings, directory, seed)
        proposed = [proposal for proposal in proposals if proposal is not None]
        valid = len(proposed)
        taxonomy = _joined(taxonomy, merge_proposals(proposed, settings.min_votes))
    rule: str = settings.assignment
    if rule == "auto":
        rule = "score" if teacher.capabilities.score else "choice"
    modules = tuple(module.id for module in taxonomy.modules)
    margins: dict[str, float] = {}
    if rule == "name":
        named, assigned = name_modules(teacher, seeds, modules, settings, seed)
        taxonomy = _joined(taxonomy, named)
    elif rule == "score":
        found = assign_by_score(teacher, seeds, modules, settings.pack)
        assigned = {one.seed: one.module for one in found}
        margins = {one.seed: one.margin for one in found if one.margin is not None}
    else:
        found = assign_by_choice(teacher, seeds, modules, settings, seed)
        assigned = {one.seed: one.module for one in found}
    return _Found(
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


def name_modules(
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    known: Sequence[str],
    settings: DecomposeSettings,
    seed: int = 0,
) -> tuple[Taxonomy, dict[str, str]]:
    """Ask a teacher that was taught the modules' names for the one of each seed [ours].

    A name counts whether or not a proposal had it, so that proposals may be few or none; what they
    alone give is prerequisites.

    Args:
        teacher: Any.
        seeds: Items to assign.
        known: Ids of modules that were proposed or given.
        settings: Pack, retries and temperature; a module that isn't known needs `min_votes` seeds.
        seed: Of further attempts.

    Returns:
        All modules that seeds were named to be of, and the module id by item id; items without a
        usable name have none.

    Raises:
        DecompositionError: No seed was given a name that can be used.
    """
    named = _ask_each(
        teacher,
        seeds,
        lambda item: render_module_name(settings.pack, item.prompt),
        read_name,
        settings,
        seed,
    )
    members: dict[str, list[SeedItem]] = {}
    for item in seeds:
        if item.id in named:
            members.setdefault(module_id(*named[item.id]), []).append(item)
    members = {
        module: own
        for module, own in sorted(members.items())
        if module in known or len(own) >= settings.min_votes
    }
    if not members:
        raise DecompositionError(
            f"the teacher was asked for the module of {len(seeds)} seeds, and named none as "
            "category/module (decompose.assignment=name is for a teacher that was taught the "
            "names); set decompose.assignment to auto"
        )
    taxonomy = Taxonomy(
        tuple(
            KnowledgeModule(
                module,
                *named[own[0].id],
                float(statistics.median(x.difficulty or 1.0 for x in own)),
                len(own),
            )
            for module, own in members.items()
        )
    )
    return taxonomy, {item.id: module for module, own in members.items() for item in own}


def read_name(text: str) -> tuple[str, str] | None:
    """Category and module in an answer; None if it has no such name."""
    match = _LINE.search(text) or _WORDS.search(text)
    if match is None or not (slug(match[1]) and slug(match[2])):
        return None
    return match[1], match[2]


def _mixed(taxonomy: Taxonomy, merged: Sequence[MergedModule]) -> Taxonomy:
    """The module of those without a sibling."""
    levels = taxonomy.difficulty()
    own = [levels[entry.module] for entry in merged if entry.into == MIXED]
    category, name = MIXED.split("/")
    module = KnowledgeModule(MIXED, category, name, float(statistics.median(own)), 0)
    return Taxonomy((module,))


def _joined(first: Taxonomy, second: Taxonomy) -> Taxonomy:
    """Both taxonomies; of a module that both have, the first's entry."""
    known = {module.id: module for module in (*second.modules, *first.modules)}
    return Taxonomy(
        tuple(module for _, module in sorted(known.items())),
        (*first.prerequisites, *second.prerequisites),
        (*first.unresolved, *second.unresolved),
    )


def _propose(
    teacher: Teacher,
    batches: Sequence[Sequence[SeedItem]],
    settings: DecomposeSettings,
    directory: Path,
    seed: int,
) -> list[Proposal | None]:
    """A proposal for each batch; None where every attempt was rejected.

    Raises:
        DecompositionError: Fewer are valid than the settings ask for.
    """
    requests = [
        ChatRequest(
            render_proposal(
                settings.pack, [item.prompt[: settings.seed_characters] for item in batch]
            ),
            PURPOSE,
            int(stream(seed, "proposal", number).integers(2**31)),
        )
        for number, batch in enumerate(batches)
    ]
    result = generate_structured(
        teacher,
        requests,
        Sampling(settings.max_tokens, settings.temperature),
        Proposal,
        settings.max_retries,
        settings.repair,
        check=lambda _, proposal: _wrong_name(proposal),
        # Small teachers were taught the prompt as it stands.
        describe=settings.pack != "micro",
    )
    path = directory / "decompose_rejects.jsonl"
    _write_rejects(path, result)
    valid = sum(one is not None for one in result.accepted)
    if valid < settings.min_valid_batches * len(requests):
        last = result.rejects[-1]
        raise DecompositionError(
            f"{len(requests) - valid} of {len(requests)} proposals of modules stayed invalid after "
            f"{settings.max_retries} retries, the last because of: {last.reason}. The raw answers "
            f"are in {path}. Raise decompose.max_retries or decompose.max_tokens, or name a "
            "fallback in decompose.fallback"
        )
    return [None if one is None else one.value for one in result.accepted]


def _wrong_name(proposal: Proposal) -> str | None:
    for i, entry in enumerate(proposal.modules):
        try:
            _ = entry.id
        except InputError as error:
            return f"field 'modules.{i}': {error}"
    return None


def _write_rejects(path: Path, result: StructuredResult[Proposal]) -> None:
    write_rows(
        path,
        [
            {
                "request": reject.request,
                "attempt": reject.attempt,
                "kind": reject.kind,
                "reason": reject.reason,
                "text": reject.completion.text,
            }
            for reject in result.rejects
        ],
    )


def assign_by_score(
    teacher: Teacher, seeds: Sequence[SeedItem], modules: Sequence[str], pack: str
) -> tuple[Assignment, ...]:
    """`assign_seeds` with the teacher's log-probabilities of the modules' ids.

    Args:
        teacher: Can score.
        seeds: Items to assign.
        modules: Ids.
        pack: Of the prompt.

    Raises:
        InputError: No modules, or a prompt is longer than the teacher's context.
    """
    prompts = [teacher.render(render_module_name(pack, item.prompt)) for item in seeds]
    prompts.append(teacher.render(render_module_name(pack, "")))
    pairs = [(prompt, module) for prompt in prompts for module in modules]
    scores = score_pairs(teacher, pairs, PURPOSE)
    table = np.asarray([sum(score.logprobs) for score in scores], np.float64)
    table = table.reshape(len(prompts), len(modules))
    return assign_seeds([item.id for item in seeds], modules, table[:-1], table[-1])


def score_pairs(
    teacher: Teacher, pairs: Sequence[tuple[str, str]], purpose: str
) -> list[TokenScores]:
    """`Teacher.score`, counted by purpose where the teacher has a ledger."""
    if isinstance(teacher, LedgeredTeacher):
        return teacher.score(pairs, purpose=purpose)
    return teacher.score(pairs)


def assign_by_choice(
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    modules: Sequence[str],
    settings: DecomposeSettings,
    seed: int = 0,
) -> tuple[Assignment, ...]:
    """Ask which of the modules each seed belongs to [ours].

    Args:
        teacher: Any.
        seeds: Items to assign.
        modules: Ids, which the question lists.
        settings: Pack, retries and temperature.
        seed: Of further attempts.

    Returns:
        One entry for each seed of which a module was named.
    """
    found = _ask_each(
        teacher,
        seeds,
        lambda item: render_module_choice(settings.pack, item.prompt, modules),
        lambda text: named_module(text, modules),
        settings,
        seed,
    )
    return tuple(Assignment(item.id, found[item.id], None) for item in seeds if item.id in found)


def _ask_each(
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    question: Callable[[SeedItem], Messages],
    read: Callable[[str], Answer | None],
    settings: DecomposeSettings,
    seed: int,
) -> dict[str, Answer]:
    """Something short about each item, by its id; items without a usable answer are left out.

    The first answer is greedy; one that can't be read is asked for again at the settings'
    temperature. It is short, unless the teacher thinks for longer: then it may be as long as the
    settings allow.
    """
    found: dict[str, Answer] = {}
    max_tokens = CHOICE_TOKENS
    for attempt in range(settings.max_retries + 1):
        asked = [item for item in seeds if item.id not in found]
        if not asked:
            break
        number = int(stream(seed, "choice", attempt).integers(2**31)) if attempt else seed
        requests = [ChatRequest(question(item), PURPOSE, number) for item in asked]
        sampling = Sampling(max_tokens, settings.temperature if attempt else 0.0)
        for item, completion in zip(asked, teacher.generate(requests, sampling), strict=True):
            said = completion.answer or ""
            answer = read(said)
            if answer is not None:
                found[item.id] = answer
            elif not said.strip() and completion.finish_reason == "length":
                max_tokens = settings.max_tokens
    return found


def named_module(text: str, modules: Sequence[str]) -> str | None:
    """The module that an answer names first; None if it names none.

    Where several begin at one place, as `m/add` and `m/add-carry`, the longest counts.
    """
    text = text.lower()
    places = [(text.find(module), -len(module), module) for module in modules]
    named = [place for place in places if place[0] >= 0]
    return min(named)[2] if named else None


def _by_embedding(
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    taken: _Found,
    roles: Mapping[str, Role],
    settings: DecomposeSettings,
    directory: Path,
    seed: int,
) -> _Found:
    """Clusters of the teacher's mean hidden states, named by the teacher.

    k-means (scipy) on the synthesis seeds' vectors, centred and of length 1; a probe belongs to the
    nearest centroid. A cluster's name is the first module that the teacher proposes for the seeds
    closest to its centroid; clusters with one name are one module.
    """
    from scipy.cluster.vq import kmeans, vq

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
    batches: list[list[SeedItem]] = []
    clusters = sorted({int(owners[i]) for i in readable})
    for cluster in clusters:
        own = sorted((distances[i], seeds[i].id, i) for i in readable if owners[i] == cluster)
        batches.append([seeds[i] for _, _, i in own[: settings.batch_size]])
    # Every cluster needs a name.
    named = _propose(
        teacher, batches, settings.model_copy(update={"min_valid_batches": 1.0}), directory, seed
    )
    names = [proposal.modules[0] for proposal in named if proposal is not None]
    taxonomy = merge_proposals([Proposal(modules=(name,)) for name in names])
    by_cluster = {cluster: name.id for cluster, name in zip(clusters, names, strict=True)}
    # A centroid that no synthesis seed is nearest to has no name, and its probes no module.
    modules = {
        item.id: by_cluster[int(owner)]
        for item, owner in zip(seeds, owners, strict=True)
        if int(owner) in by_cluster
    }
    return _Found(
        "embedding",
        "nearest",
        _joined(taken.taxonomy, taxonomy),
        {**taken.modules, **modules},
        roles,
        {},
        tuple(sorted(item.id for item in seeds if item.id not in modules)),
        tuple(sorted(item.id for batch in batches for item in batch)),
        len(batches),
        len(names),
    )
