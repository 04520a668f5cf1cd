import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.errors import InputError
from ioa_jax.identifier.dependency import Dependency, build_graph
from ioa_jax.organizer.curriculum import Curriculum, Past, layer_targets, plan_curriculum, replan
from ioa_jax.organizer.zone import ZoneSettings


def graph(*pairs, modules="abcdefg"):
    """Edges such as "ab": b needs a."""
    return build_graph(modules, [Dependency(a, b, 0.9, "prior") for a, b in pairs])


def flat(value=0.5, modules="abcdefg"):
    return dict.fromkeys(modules, value)


def stages_of(curriculum):
    return [stage.modules for stage in curriculum.stages]


def placement_of(curriculum, module):
    (found,) = [entry for entry in curriculum.placements if entry.module == module]
    return found


def test_layers_are_equation_7():
    # d needs b and c, both of which need a; e needs nothing.
    assert layer_targets("abcde", graph("ab", "ac", "bd", "cd")) == (
        ("a", "e"),
        ("b", "c"),
        ("d",),
    )


def test_prerequisites_outside_the_targets_count_through_the_closure():
    # c needs b, which isn't a target, and b needs a.
    assert layer_targets("ac", graph("ab", "bc")) == (("a",), ("c",))
    assert layer_targets("c", graph("ab", "bc")) == (("c",),)
    assert layer_targets("", graph("ab")) == ()


def test_targets_are_modules_of_the_graph():
    with pytest.raises(InputError, match="'z'"):
        layer_targets("az", graph("ab"))


def test_every_module_has_its_reason():
    performance = flat() | {"b": 0.2, "c": 0.5}
    curriculum = plan_curriculum("abc", graph("ab", "ac"), performance, [])
    assert stages_of(curriculum) == [("a",), ("c",), ("b",)]
    a, b, c = (placement_of(curriculum, module) for module in "abc")
    assert (a.stage, a.reason, a.prerequisites) == (1, "start", ())
    assert (c.stage, c.reason, c.prerequisites) == (2, "prerequisites", ("a",))
    assert (b.stage, b.reason, b.prerequisites) == (3, "zone", ("a",))
    assert a.sentence() == "a is in stage 1: it needs no other target."
    assert "it needs a" in c.sentence()
    assert "0.20 is too far below" in b.sentence()
    assert curriculum.stages[1].bridge is None
    assert [bridge.modules for bridge in curriculum.zone.bridges] == [("b",)]
    assert curriculum.stages[2].bridge == curriculum.zone.bridges[0]


def test_unmet_and_parked_prerequisites_are_told():
    # e needs d (mastered), c (parked, and needs b) and, through c, b (neither).
    curriculum = plan_curriculum(
        "e", graph("de", "ce", "bc"), flat(), ["d"], past=Past(parked=["c"])
    )
    placement = placement_of(curriculum, "e")
    assert placement.prerequisites == ()
    assert placement.unmet == ("b",)
    assert placement.parked == ("c",)
    assert placement.sentence().endswith("Not mastered and not a target: b. Given up before: c.")


def test_a_parked_module_is_no_target():
    with pytest.raises(InputError, match="'a' is parked"):
        plan_curriculum("ab", graph(), flat(), [], past=Past(parked=["a"]))


def test_a_target_was_measured():
    with pytest.raises(InputError, match="'a'"):
        plan_curriculum("a", graph(), {"b": 0.5}, [])


def test_replanning_uses_what_is_measured_now():
    edges = graph("ab", "bd")
    before = plan_curriculum("abcd", edges, flat(), [])
    assert stages_of(before) == [("a", "c"), ("b",), ("d",)]
    # After stage 1, c is parked; b has become easy and d has not.
    after = replan(
        before, 1, edges, flat() | {"a": 0.9, "c": 0.7, "b": 0.8, "d": 0.3}, ["a"], parked=["c"]
    )
    assert [(stage.number, stage.modules) for stage in after.stages] == [(2, ("b",)), (3, ("d",))]
    # Stage 1 is at 0.8 now: 0.8 is inside, and from 0.8 to 0.3 a bridge is needed.
    assert [t.before for t in after.zone.transitions] == pytest.approx([0.8, 0.8])
    assert [bridge.stage for bridge in after.zone.bridges] == [3]
    assert placement_of(after, "b").unmet == ()


def test_replanning_tells_what_was_lost():
    edges = graph("ab")
    before = plan_curriculum("ab", edges, flat(), [])
    assert placement_of(replan(before, 1, edges, flat(), []), "b").unmet == ("a",)
    parked = replan(before, 1, edges, flat(), [], parked=["a"])
    assert placement_of(parked, "b").parked == ("a",)
    assert placement_of(parked, "b").unmet == ()


def test_replanning_ends():
    before = plan_curriculum("ab", graph("ab"), flat(), [])
    assert replan(before, 2, graph("ab"), flat(), ["a", "b"]).stages == ()
    with pytest.raises(InputError, match=r"no stage 3 in a curriculum of stages \[1, 2\]"):
        replan(before, 3, graph("ab"), flat(), ["a", "b"])


def test_a_curriculum_is_read_back_as_written():
    curriculum = plan_curriculum("abc", graph("ab", "ac"), flat() | {"b": 0.2}, [])
    assert Curriculum.from_json(curriculum.to_json(), "curriculum.json") == curriculum


MODULES = "abcdefg"
modules = st.sampled_from(MODULES)
edge_lists = st.lists(
    st.tuples(modules, modules, st.floats(0.31, 1)).filter(lambda e: e[0] != e[1]),
    max_size=14,
    unique_by=lambda e: e[:2],
)
performances = st.fixed_dictionaries({module: st.floats(0, 1) for module in MODULES})


@given(st.sets(modules), edge_lists)
def test_layers_respect_every_edge(targets, edges):
    graph = build_graph(MODULES, [Dependency(a, b, value, "prior") for a, b, value in edges])
    layers = layer_targets(targets, graph)
    layer = {module: i for i, members in enumerate(layers) for module in members}
    assert set(layer) == targets
    for module in targets:
        earlier = [layer[k] for k in graph.all_prerequisites(module) if k in targets]
        assert layer[module] == max(earlier, default=-1) + 1


@given(st.sets(modules), edge_lists, performances, st.sampled_from(["drop", "absolute", "printed"]))
def test_stages_respect_every_edge_and_hold_each_target_once(targets, edges, performance, reading):
    graph = build_graph(MODULES, [Dependency(a, b, value, "prior") for a, b, value in edges])
    curriculum = plan_curriculum(targets, graph, performance, [], ZoneSettings(0.15, reading))
    stage = {module: s.number for s in curriculum.stages for module in s.modules}
    assert sorted(stage) == sorted(m for s in curriculum.stages for m in s.modules)
    assert set(stage) == targets
    for edge in graph.edges:
        if edge.prerequisite in stage and edge.dependent in stage:
            assert stage[edge.prerequisite] < stage[edge.dependent]
    for placement in curriculum.placements:
        assert placement.stage == stage[placement.module]
        needed = {*placement.prerequisites, *placement.unmet}
        assert needed == set(graph.all_prerequisites(placement.module))
