"""Which module needs which (method 1.5, Eq. 3), as an acyclic graph."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import networkx as nx
import numpy as np

from ioa_jax.errors import InputError
from ioa_jax.values import ROUNDING, Value

Estimator = Literal["population", "quantile", "prior"]


@dataclasses.dataclass(frozen=True)
class DependencySettings(Value):
    """Of Eq. 3.

    Attributes:
        tau_high: τ_high: from this r_i on, a state has mastered k_i.
        tau_low: τ_low: under this, it lacks k_i. At most τ_high.
        tau_dep: τ_dep: above this, a dependency is an edge.
        epsilon: ε of the denominator.
        min_states: States that each side of a split needs [ours].
        min_probes: Probes that both modules need for a dependency to be estimated [ours].
    """

    tau_high: float = 0.9
    tau_low: float = 0.7
    tau_dep: float = 0.3
    epsilon: float = 1e-8
    min_states: int = 2
    min_probes: int = 5

    def __post_init__(self) -> None:
        if self.tau_low > self.tau_high:
            raise InputError(
                f"tau_low={self.tau_low} is above tau_high={self.tau_high}: the sides would overlap"
            )
        if self.min_states < 1:
            raise InputError(f"min_states={self.min_states}: at least 1")
        if self.min_probes < 1:
            raise InputError(f"min_probes={self.min_probes}: at least 1")
        if self.epsilon <= 0:
            raise InputError(f"epsilon={self.epsilon}: above 0")


@dataclasses.dataclass(frozen=True)
class Population(Value):
    """Ω of Eq. 3: what students in several states of learning can do, and the teacher.

    Attributes:
        modules: Ids, the columns of the performances.
        states: Names, the rows: where each state came from.
        student: P_S, [states, modules], each in [0, 1].
        teacher: P_T, [modules], above 0 and at most 1. Modules that the teacher can't teach are set
            aside before.
        num_probes: Probes of each module, [modules]; None where it isn't known.
    """

    modules: tuple[str, ...]
    states: tuple[str, ...]
    student: tuple[tuple[float, ...], ...]
    teacher: tuple[float, ...]
    num_probes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if len(set(self.modules)) != len(self.modules):
            raise InputError("population: a module occurs twice")
        if len(self.teacher) != len(self.modules):
            raise InputError(
                f"population: {len(self.modules)} modules, {len(self.teacher)} teacher performances"
            )
        if self.num_probes is not None and len(self.num_probes) != len(self.modules):
            raise InputError(
                f"population: {len(self.modules)} modules, {len(self.num_probes)} numbers of probes"
            )
        if len(self.student) != len(self.states):
            raise InputError(f"population: {len(self.states)} states, {len(self.student)} rows")
        for module, value in zip(self.modules, self.teacher, strict=True):
            if not 0 < value <= 1:
                raise InputError(
                    f"population: module {module!r}: teacher performance {value}; set modules "
                    "aside that the teacher can't teach"
                )
        for state, row in zip(self.states, self.student, strict=True):
            if len(row) != len(self.modules) or not all(0 <= value <= 1 for value in row):
                raise InputError(
                    f"population: state {state!r}: one performance in [0, 1] for each of the "
                    f"{len(self.modules)} modules is needed"
                )


@dataclasses.dataclass(frozen=True)
class Dependency(Value):
    """`Dep(prerequisite → dependent)` of Eq. 3.

    Attributes:
        prerequisite: k_i.
        dependent: k_j.
        value: In [0, 1].
        estimator: `population` (the sides are Eq. 3's), `quantile` (the upper and the lower third
            of r_i) or `prior` (what the teacher named).
        num_high: States on the upper side; 0 for `prior`.
        num_low: States on the lower side; 0 for `prior`.
    """

    prerequisite: str
    dependent: str
    value: float
    estimator: Estimator
    num_high: int = 0
    num_low: int = 0

    @property
    def strength(self) -> tuple[float, str, str]:
        """Key of a strict order in which equal values are told apart by the ids."""
        return (self.value, self.prerequisite, self.dependent)


@dataclasses.dataclass(frozen=True)
class DroppedEdge(Value):
    """An edge that was the weakest of a cycle.

    Attributes:
        edge: The edge.
        cycle: Modules of a shortest such cycle, from the prerequisite back to it; its other edges
            are in the graph.
    """

    edge: Dependency
    cycle: tuple[str, ...]

    @property
    def reason(self) -> str:
        """In words."""
        return f"weakest edge ({self.edge.value:.3g}) of the cycle {' → '.join(self.cycle)}"


@dataclasses.dataclass(frozen=True)
class DependencyGraph(Value):
    """Modules and what they need, without cycles.

    Attributes:
        modules: Ids, sorted.
        edges: Sorted by prerequisite and dependent.
        dropped: Edges that are missing for a cycle's sake, sorted likewise.
    """

    modules: tuple[str, ...]
    edges: tuple[Dependency, ...]
    dropped: tuple[DroppedEdge, ...] = ()

    def __post_init__(self) -> None:
        for edge in self.edges:
            for module in (edge.prerequisite, edge.dependent):
                if module not in self.modules:
                    raise InputError(f"dependency graph: an edge names no module: {module!r}")
        if not nx.is_directed_acyclic_graph(self.digraph):
            raise InputError("dependency graph: it has a cycle; make it with build_graph")

    @functools.cached_property
    def digraph(self) -> nx.DiGraph:
        """As a networkx graph from prerequisite to dependent, the edges' values as `value`."""
        return _digraph(self.modules, self.edges)

    def prerequisites(self, module: str) -> tuple[str, ...]:
        """Modules that `module` needs directly, sorted.

        Raises:
            InputError: No such module.
        """
        self._check(module)
        return tuple(sorted(self.digraph.predecessors(module)))

    def all_prerequisites(self, module: str) -> tuple[str, ...]:
        """Modules that `module` needs directly or through others, sorted.

        Raises:
            InputError: No such module.
        """
        self._check(module)
        return tuple(sorted(nx.ancestors(self.digraph, module)))

    def dependents(self, module: str) -> tuple[str, ...]:
        """Modules that need `module` directly, sorted: N(k) of Eq. 4.

        Raises:
            InputError: No such module.
        """
        self._check(module)
        return tuple(sorted(self.digraph.successors(module)))

    def value(self, prerequisite: str, dependent: str) -> float:
        """Dep of an edge.

        Raises:
            InputError: No such edge.
        """
        if not self.digraph.has_edge(prerequisite, dependent):
            raise InputError(f"dependency graph: no edge {prerequisite!r} → {dependent!r}")
        return self.digraph.edges[prerequisite, dependent]["value"]

    def _check(self, module: str) -> None:
        if module not in self.digraph:
            raise InputError(f"dependency graph: no module {module!r}")


def estimate_dependencies(
    population: Population,
    prior: Mapping[tuple[str, str], float],
    settings: DependencySettings | None = None,
) -> tuple[Dependency, ...]:
    """Eq. 3 of every ordered pair of modules.

    With `r_i = P_S(k_i) / P_T(k_i)`, over the states of the population,

        Dep(k_i → k_j) = (E[P_S(k_j) | r_i ≥ τ_high] - E[P_S(k_j) | r_i < τ_low])
                         / (E[P_S(k_j) | r_i ≥ τ_high] + ε)

    clipped to [0, 1]. Where a side has fewer than `min_states`, the sides are the upper and the
    lower third of the states by r_i, and where those are too small or r_i doesn't tell them apart,
    the value is the prior's; so it is where a module has fewer than `min_probes` [ours].

    Args:
        population: Ω with P_S and P_T.
        prior: Values in [0, 1] by (prerequisite, dependent), such as the share of the teacher's
            proposals that name it; pairs that are missing have 0.
        settings: None is the default.

    Returns:
        One entry an ordered pair of different modules, sorted.

    Raises:
        InputError: A value of the prior is outside [0, 1].
    """
    settings = settings or DependencySettings()
    for pair, value in prior.items():
        if not 0 <= value <= 1:
            raise InputError(f"prior of {pair[0]!r} → {pair[1]!r}: {value} is outside [0, 1]")
    student = np.asarray(population.student, np.float64).reshape(-1, len(population.modules))
    measured = [
        population.num_probes is None or population.num_probes[i] >= settings.min_probes
        for i in range(len(population.modules))
    ]
    dependencies: list[Dependency] = []
    for i, prerequisite in enumerate(population.modules):
        sides = _sides(student[:, i] / population.teacher[i], settings)
        for j, dependent in enumerate(population.modules):
            if i == j:
                continue
            if sides is None or not (measured[i] and measured[j]):
                value = prior.get((prerequisite, dependent), 0.0)
                dependencies.append(Dependency(prerequisite, dependent, value, "prior"))
                continue
            estimator, high, low = sides
            dependencies.append(
                Dependency(
                    prerequisite,
                    dependent,
                    conditional_dependency(student[high, j], student[low, j], settings.epsilon),
                    estimator,
                    int(high.sum()),
                    int(low.sum()),
                )
            )
    return tuple(sorted(dependencies, key=lambda edge: (edge.prerequisite, edge.dependent)))


def conditional_dependency(high: np.ndarray, low: np.ndarray, epsilon: float = 1e-8) -> float:
    """Eq. 3 from its two sides.

    Args:
        high: P_S(k_j) of the states that master k_i, [states], not empty.
        low: P_S(k_j) of the states that lack it, [states], not empty.
        epsilon: ε.

    Returns:
        In [0, 1].
    """
    mean_high, mean_low = float(np.mean(high)), float(np.mean(low))
    return min(max((mean_high - mean_low) / (mean_high + epsilon), 0.0), 1.0)


def _sides(
    mastery: np.ndarray, settings: DependencySettings
) -> tuple[Estimator, np.ndarray, np.ndarray] | None:
    """Which states are on the upper and the lower side, as masks; None if they can't be told."""
    high, low = mastery >= settings.tau_high - ROUNDING, mastery < settings.tau_low - ROUNDING
    if min(high.sum(), low.sum()) >= settings.min_states:
        return "population", high, low
    third = len(mastery) // 3
    if third == 0:
        return None
    ordered = np.sort(mastery)
    high, low = mastery >= ordered[-third], mastery <= ordered[third - 1]
    # Equal values would stand on both sides.
    if np.any(high & low) or min(high.sum(), low.sum()) < settings.min_states:
        return None
    return "quantile", high, low


def build_graph(
    modules: Sequence[str], dependencies: Sequence[Dependency], tau_dep: float = 0.3
) -> DependencyGraph:
    """Edges where `Dep > τ_dep`, made acyclic by dropping weakest edges of cycles.

    The strongest edge is kept first, and then each weaker one unless the kept ones lead back from
    its dependent to its prerequisite: it is the weakest edge of a cycle whose other edges all stay.
    So nothing is dropped for a cycle that is broken anyway, and the result doesn't depend on the
    order in which cycles are looked for [ours]. Of equal values the one with the smaller ids is the
    weaker.

    Args:
        modules: Ids.
        dependencies: At most one for each ordered pair, such as `estimate_dependencies` gives.
        tau_dep: τ_dep.

    Raises:
        InputError: A pair occurs twice, names no module, or joins a module with itself.
    """
    pairs = {(edge.prerequisite, edge.dependent) for edge in dependencies}
    if len(pairs) != len(dependencies):
        raise InputError("dependencies: a pair of modules occurs twice")
    for edge in dependencies:
        if edge.prerequisite == edge.dependent or not {*edge_ends(edge)} <= {*modules}:
            raise InputError(
                f"dependencies: {edge.prerequisite!r} → {edge.dependent!r} doesn't join two of the "
                "modules"
            )
    graph = _digraph(modules, ())
    kept: list[Dependency] = []
    dropped: list[DroppedEdge] = []
    strong = [edge for edge in dependencies if edge.value > tau_dep]
    for edge in sorted(strong, key=lambda edge: edge.strength, reverse=True):
        if nx.has_path(graph, edge.dependent, edge.prerequisite):
            back = nx.shortest_path(graph, edge.dependent, edge.prerequisite)
            dropped.append(DroppedEdge(edge, (edge.prerequisite, *back)))
        else:
            kept.append(edge)
            graph.add_edge(*edge_ends(edge))
    return DependencyGraph(
        tuple(sorted(modules)),
        tuple(sorted(kept, key=edge_ends)),
        tuple(sorted(dropped, key=lambda drop: edge_ends(drop.edge))),
    )


def edge_ends(edge: Dependency) -> tuple[str, str]:
    """(prerequisite, dependent)."""
    return edge.prerequisite, edge.dependent


def _digraph(modules: Sequence[str], edges: Sequence[Dependency]) -> nx.DiGraph:
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from(sorted(modules))
    graph.add_edges_from((*edge_ends(edge), {"value": edge.value}) for edge in edges)
    return graph


def mean_dependency(graph: DependencyGraph, module: str) -> float:
    """`mean_{k' ∈ N(k)} Dep(k → k')` of Eq. 4, in [0, 1]; 0 without dependents.

    Args:
        graph: Its edges are N.
        module: k.

    Raises:
        InputError: No such module.
    """
    values = [graph.value(module, dependent) for dependent in graph.dependents(module)]
    return math.fsum(values) / len(values) if values else 0.0
