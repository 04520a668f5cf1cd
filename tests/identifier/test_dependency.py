import dataclasses

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.errors import InputError
from ioa_jax.identifier.dependency import (
    Dependency,
    DependencyGraph,
    DependencySettings,
    Population,
    build_graph,
    conditional_dependency,
    estimate_dependencies,
    mean_dependency,
)


def edge(prerequisite, dependent, value):
    return Dependency(prerequisite, dependent, value, "population", 2, 2)


def population(student, teacher=(1.0, 1.0), modules=("add", "multiply")):
    return Population(modules, tuple(f"s{i}" for i in range(len(student))), tuple(student), teacher)


def by_pair(dependencies):
    return {(d.prerequisite, d.dependent): d for d in dependencies}


def test_dependency_is_equation_3():
    # The teacher has 0.8 on add: r is 1.0, 0.9, 0.8, 0.625 and 0.5, so that the first two states
    # are the upper side, the last two the lower one, and 0.8 is on neither. On the upper side
    # multiply is at 0.6 on average, on the lower one at 0.15: (0.6 - 0.15) / 0.6.
    states = [(0.8, 0.7), (0.72, 0.5), (0.64, 1.0), (0.5, 0.1), (0.4, 0.2)]
    dependencies = by_pair(estimate_dependencies(population(states, (0.8, 1.0)), {}))
    found = dependencies["add", "multiply"]
    assert found.value == pytest.approx(0.75)
    assert (found.estimator, found.num_high, found.num_low) == ("population", 2, 2)
    assert set(dependencies) == {("add", "multiply"), ("multiply", "add")}


def test_dependency_is_clipped_and_finite():
    assert conditional_dependency(np.array([0.2]), np.array([0.8])) == 0.0
    assert conditional_dependency(np.array([0.0]), np.array([0.0])) == 0.0
    assert conditional_dependency(np.array([0.5]), np.array([0.0]), epsilon=0.5) == 0.5


def test_sides_that_nobody_reaches_become_thirds():
    # Nobody masters add. The thirds by r are (0.6, 0.5) and (0.1, 0.2).
    states = [(0.1, 0.0), (0.6, 0.4), (0.3, 0.9), (0.2, 0.2), (0.5, 0.6), (0.4, 0.0)]
    found = by_pair(estimate_dependencies(population(states), {("add", "multiply"): 1.0}))
    found = found["add", "multiply"]
    assert (found.estimator, found.num_high, found.num_low) == ("quantile", 2, 2)
    assert found.value == pytest.approx((0.5 - 0.1) / 0.5)


def test_states_with_equal_mastery_are_not_told_apart():
    states = [(0.5, value) for value in (0.1, 0.2, 0.3, 0.7, 0.8, 0.9)]
    found = by_pair(estimate_dependencies(population(states), {("add", "multiply"): 0.4}))
    assert found["add", "multiply"] == Dependency("add", "multiply", 0.4, "prior")


def test_few_states_leave_the_prior():
    # One state masters add, which is fewer than two; a third of four states is one too.
    states = [(1.0, 0.9), (0.3, 0.1), (0.2, 0.1), (0.1, 0.1)]
    prior = {("add", "multiply"): 0.5}
    found = by_pair(estimate_dependencies(population(states), prior))
    assert found["add", "multiply"] == Dependency("add", "multiply", 0.5, "prior")
    assert found["multiply", "add"] == Dependency("multiply", "add", 0.0, "prior")
    one = DependencySettings(min_states=1)
    found = by_pair(estimate_dependencies(population(states), prior, one))["add", "multiply"]
    assert (found.estimator, found.num_high, found.num_low) == ("population", 1, 3)


def test_no_states_leave_the_prior():
    found = estimate_dependencies(population([]), {("multiply", "add"): 1.0})
    assert [(d.value, d.estimator) for d in found] == [(0.0, "prior"), (1.0, "prior")]


def test_few_probes_leave_the_prior():
    # On four or five probes of multiply, the same states.
    states = [(0.9, 0.7), (1.0, 0.5), (0.8, 1.0), (0.5, 0.1), (0.4, 0.2)]
    prior = {("add", "multiply"): 0.2}

    def found(*num_probes):
        one = dataclasses.replace(population(states), num_probes=num_probes)
        return by_pair(estimate_dependencies(one, prior))["add", "multiply"]

    assert found(5, 4) == found(4, 5) == Dependency("add", "multiply", 0.2, "prior")
    assert found(5, 5).estimator == "population"
    assert found(5, 5).value == pytest.approx(0.75)
    with pytest.raises(InputError, match="1 numbers of probes"):
        found(5)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ([(0.5, 0.5)], (1.0, 0.0), "'multiply': teacher performance 0.0"),
        ([(0.5, 1.5)], (1.0, 1.0), "'s0'"),
        ([(0.5,)], (1.0, 1.0), "'s0'"),
        ([(0.5, 0.5)], (1.0,), "2 modules, 1 teacher"),
    ],
)
def test_populations_are_checked(student, teacher, message):
    with pytest.raises(InputError, match=message):
        population(student, teacher)


def test_settings_and_prior_are_checked():
    with pytest.raises(InputError, match="tau_low"):
        DependencySettings(tau_low=0.95)
    with pytest.raises(InputError, match="min_states"):
        DependencySettings(min_states=0)
    with pytest.raises(InputError, match="min_probes"):
        DependencySettings(min_probes=0)
    with pytest.raises(InputError, match=r"'add' → 'multiply': 1\.5"):
        estimate_dependencies(population([]), {("add", "multiply"): 1.5})


def test_edges_are_above_the_threshold():
    graph = build_graph(["b", "a"], [edge("a", "b", 0.3), edge("b", "a", 0.31)])
    assert graph.modules == ("a", "b")
    assert graph.edges == (edge("b", "a", 0.31),)
    assert graph.dropped == ()


def test_cycles_lose_their_weakest_edge():
    # a → b → c → a loses c → a, and b → d → b loses b → d. That breaks a → d → b → c → a too, so
    # that the weak a → d may stay.
    edges = [edge("a", "b", 0.9), edge("b", "c", 0.8), edge("c", "a", 0.5)]
    edges += [edge("b", "d", 0.6), edge("d", "b", 0.7), edge("a", "d", 0.4)]
    graph = build_graph("abcd", edges)
    assert [drop.edge for drop in graph.dropped] == [edge("b", "d", 0.6), edge("c", "a", 0.5)]
    assert graph.dropped[1].cycle == ("c", "a", "b", "c")
    assert graph.dropped[1].reason == "weakest edge (0.5) of the cycle c → a → b → c"
    assert graph.prerequisites("b") == ("a", "d")
    assert graph.all_prerequisites("c") == ("a", "b", "d")
    assert graph.dependents("a") == ("b", "d")
    assert mean_dependency(graph, "a") == pytest.approx(0.65)
    assert mean_dependency(graph, "c") == 0.0


def test_equal_edges_of_a_cycle_are_told_apart_by_id():
    graph = build_graph("ab", [edge("b", "a", 0.5), edge("a", "b", 0.5)])
    assert [drop.edge for drop in graph.dropped] == [edge("a", "b", 0.5)]


def test_a_graph_is_read_back_as_written():
    graph = build_graph("ab", [edge("b", "a", 0.5), edge("a", "b", 0.6)])
    assert DependencyGraph.from_json(graph.to_json(), "graph.json") == graph


@pytest.mark.parametrize(
    "edges",
    [
        [edge("a", "b", 0.5), edge("a", "b", 0.6)],
        [edge("a", "a", 0.5)],
        [edge("a", "z", 0.5)],
    ],
)
def test_dependencies_join_two_modules_once(edges):
    with pytest.raises(InputError, match="dependencies"):
        build_graph("ab", edges)


def test_a_graph_with_a_cycle_is_refused():
    with pytest.raises(InputError, match="cycle"):
        DependencyGraph(("a", "b"), (edge("a", "b", 0.5), edge("b", "a", 0.5)))


MODULES = "abcde"
values = st.sampled_from([0.2, 0.4, 0.5, 0.6, 0.8])
edge_lists = st.dictionaries(
    st.tuples(st.sampled_from(MODULES), st.sampled_from(MODULES)).filter(lambda p: p[0] != p[1]),
    values,
).map(lambda pairs: [edge(*pair, value) for pair, value in pairs.items()])


@given(edge_lists)
def test_every_dropped_edge_is_the_weakest_of_a_cycle_that_it_alone_would_close(edges):
    graph = build_graph(MODULES, edges)
    assert nx.is_directed_acyclic_graph(graph.digraph)
    strong = {d for d in edges if d.value > 0.3}
    assert {*graph.edges, *(drop.edge for drop in graph.dropped)} == strong
    kept = {(d.prerequisite, d.dependent): d for d in graph.edges}
    for drop in graph.dropped:
        first, *others = zip(drop.cycle, drop.cycle[1:], strict=False)
        assert first == (drop.edge.prerequisite, drop.edge.dependent)
        assert drop.cycle[-1] == first[0]
        assert all(kept[pair].strength > drop.edge.strength for pair in others)


@given(edge_lists, st.randoms())
def test_order_of_the_dependencies_does_not_matter(edges, random):
    graph = build_graph(MODULES, edges)
    random.shuffle(edges)
    assert build_graph(MODULES, edges) == graph


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), max_size=12))
def test_estimates_are_in_the_unit_interval_and_say_where_they_come_from(states):
    settings = DependencySettings()
    modules = ("a", "b", "c")
    for d in estimate_dependencies(population(states, (0.9, 0.5, 1.0), modules), {}, settings):
        assert 0 <= d.value <= 1
        if d.estimator == "prior":
            assert (d.value, d.num_high, d.num_low) == (0, 0, 0)
        else:
            assert min(d.num_high, d.num_low) >= settings.min_states
            assert d.num_high + d.num_low <= len(states)
