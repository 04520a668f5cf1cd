"""Which module needs which (Eq. 3): the population is trained, or the teacher's word is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ioa_jax.engine.batching import TokenPair
from ioa_jax.errors import InputError
from ioa_jax.identifier.decompose import Taxonomy
from ioa_jax.identifier.dependency import (
    Dependency,
    DependencyGraph,
    Population,
    build_graph,
    estimate_dependencies,
)
from ioa_jax.identifier.interventions import (
    InterventionProbe,
    InterventionResult,
    intervene,
    warm_up,
)
from ioa_jax.identifier.probes import Measurement, answer_length, probe_pair
from ioa_jax.identifier.seeds import Role
from ioa_jax.identifier.settings import DependencyOptions, EstimatorName
from ioa_jax.seeds import SeedItem
from ioa_jax.student import Student
from ioa_jax.values import Value

# Takes (what is being done, steps done, steps in all).
Progress = Callable[[str, int, int], None]

NO_DEPENDENCY = "no dependency found: stages begin with the best known modules"


@dataclasses.dataclass(frozen=True)
class DependencyEstimate(Value):
    """Which module needs which, and how that was found.

    Attributes:
        estimator: Where the population came from.
        population: Ω; None with `teacher_prior`.
        dependencies: Eq. 3 of every ordered pair; with `teacher_prior` what the teacher named.
        graph: Of those above τ_dep, without cycles.
        student_tokens: Tokens that adapters were trained on for the population.
        left_out: Seeds whose prompts were too long for that, sorted.
        reason: Why this estimator.
        note: `NO_DEPENDENCY` where the graph has no edge; else None.
    """

    estimator: EstimatorName
    population: Population | None
    dependencies: tuple[Dependency, ...]
    graph: DependencyGraph
    student_tokens: int
    left_out: tuple[str, ...] = ()
    reason: str = ""
    note: str | None = None


@dataclasses.dataclass(frozen=True)
class DependencyTask:
    """Among what dependencies are looked for, and how.

    Attributes:
        student: It isn't changed.
        modules: Those that the teacher can teach.
        items: Seed items by role and module.
        taxonomy: With the prerequisites that the teacher named.
        measurement: Of both models; with log-probabilities, unless the estimator is
            `teacher_prior`.
        settings: How.
        estimator: Where the population comes from.
        reason: Why from there.
        seed: Of all draws.
    """

    student: Student
    modules: Sequence[str]
    items: Mapping[Role, Mapping[str, Sequence[SeedItem]]]
    taxonomy: Taxonomy
    measurement: Measurement
    settings: DependencyOptions
    estimator: EstimatorName
    reason: str
    seed: int


def estimate(task: DependencyTask, progress: Progress | None = None) -> DependencyEstimate:
    """Eq. 3 among the modules that the teacher can teach.

    Args:
        task: What and how.
        progress: Called while adapters are trained.

    Raises:
        InputError: All seeds of a module are too long, or as `intervene`.
    """
    prior = {
        pair: share
        for pair, share in task.taxonomy.prior().items()
        if set(pair) <= set(task.modules)
    }
    population: Population | None = None
    tokens = 0
    left_out: tuple[str, ...] = ()
    if task.estimator == "teacher_prior":
        dependencies = tuple(Dependency(*pair, share, "prior") for pair, share in prior.items())
    else:
        lessons, left_out = _lessons(task)
        result = _population(task, lessons, progress)
        population, tokens = result.population, result.tokens
        dependencies = estimate_dependencies(population, prior, task.settings.conditionals())
    graph = build_graph(task.modules, dependencies, task.settings.tau_dep)
    return DependencyEstimate(
        task.estimator,
        population,
        dependencies,
        graph,
        tokens,
        left_out,
        task.reason,
        None if graph.edges else NO_DEPENDENCY,
    )


def _lessons(task: DependencyTask) -> tuple[dict[str, list[TokenPair]], tuple[str, ...]]:
    """Seeds by module as tokens, and the ids of those that were too long, sorted."""
    row_length = task.settings.row_length
    lessons: dict[str, list[TokenPair]] = {}
    left_out: list[str] = []
    for module in task.modules:
        seeds = task.items["seed"][module]
        own = [(x.id, task.student.answer_pair(x.messages, x.reference)) for x in seeds]
        # A row has to hold the prompt and a part of the answer.
        lessons[module] = [pair for _, pair in own if len(pair.prompt) < row_length]
        left_out += [item for item, pair in own if len(pair.prompt) >= row_length]
        if not lessons[module]:
            raise InputError(
                f"module {module!r}: no seed's prompt is shorter than dependencies.row_length="
                f"{row_length}; raise it"
            )
    return lessons, tuple(sorted(left_out))


def _population(
    task: DependencyTask, lessons: Mapping[str, Sequence[TokenPair]], progress: Progress | None
) -> InterventionResult:
    """Students that were taught a module each, or all together, measured on all modules."""
    unit = task.measurement.unit
    # Log-probabilities were measured because a population is wanted.
    assert unit is not None
    probes: dict[str, list[InterventionProbe]] = {}
    for module in task.modules:
        pairs = [(item, probe_pair(task.student, item)) for item in task.items["probe"][module]]
        probes[module] = [
            InterventionProbe(pair, answer_length(item, len(pair.completion), unit))
            for item, pair in pairs
        ]
    of_teacher = task.measurement.teacher["logprob"]
    teach = intervene if task.estimator == "interventions" else warm_up

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("dependencies", done, total)

    return teach(
        task.student.model.decoder,
        lessons,
        probes,
        {module: of_teacher[module].mean for module in task.modules},
        task.settings.training(task.estimator, task.seed),
        report,
    )
