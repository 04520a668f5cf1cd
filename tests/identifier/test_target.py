import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.errors import InputError
from ioa_jax.identifier.dependency import Dependency, build_graph
from ioa_jax.identifier.gap import ModuleGap
from ioa_jax.identifier.settings import DiagnoseSettings
from ioa_jax.identifier.target import Severity, Targets, choose_targets, severities, severity


def gap_of(module, relative):
    return ModuleGap(module, "accuracy", 10, 0.9, 0.1, relative, None)


def graph(*edges, modules="abcd"):
    return build_graph(modules, [Dependency(a, b, value, "prior") for a, b, value in edges])


def ranked(**values):
    return [Severity(module, value, 0.0, value) for module, value in values.items()]


def test_severity_is_equation_4():
    assert severity(0.5, 0.8) == pytest.approx(0.7 * 0.5 + 0.3 * 0.8)
    assert severity(0.5, 0.8, alpha=0.0) == pytest.approx(0.8)


def test_severities_take_the_mean_over_dependents():
    # a is needed by b (0.4) and c (0.8); nothing needs d.
    found = severities(
        [gap_of("a", 0.5), gap_of("b", 0.1), gap_of("c", 0.2), gap_of("d", 0.9)],
        ["a", "d"],
        graph(("a", "b", 0.4), ("a", "c", 0.8)),
    )
    assert [entry.module for entry in found] == ["d", "a"]
    assert [entry.mean_dependency for entry in found] == pytest.approx([0.0, 0.6])
    assert [entry.value for entry in found] == pytest.approx([0.63, 0.35 + 0.18])


def test_severity_needs_a_gap_and_a_sound_alpha():
    with pytest.raises(InputError, match="'a' has no gap"):
        severities([gap_of("a", None)], ["a"], graph())
    with pytest.raises(InputError, match="alpha"):
        severity(0.5, 0.5, alpha=1.1)


def test_targets_are_equation_5():
    severe = ranked(a=0.5, b=0.9, c=0.7)
    targets = choose_targets(severe, 7, 0.25)
    assert targets.limit == 2
    assert targets.modules == ("b", "c")
    assert [entry.module for entry in targets.severities] == ["b", "c", "a"]
    assert choose_targets(severe, 8, 0.25).modules == ("b", "c")
    assert choose_targets(severe, 9, 0.25).modules == ("b", "c", "a")
    assert choose_targets([], 9, 0.25).modules == ()


def test_every_deficient_module_is_a_target_unless_a_fraction_is_given():
    severe = ranked(a=0.5, b=0.9, c=0.7)
    assert choose_targets(severe, 7).modules == ("b", "c", "a")
    assert choose_targets(severe, 7).limit == 3
    assert DiagnoseSettings().target_fraction is None
    assert choose_targets([], 7) == Targets((), 0, ())


def test_the_number_of_targets_is_not_rounded_up_for_floating_point():
    assert 0.07 * 100 > 7
    assert choose_targets([], 100, 0.07).limit == 7


def test_ties_are_broken_by_id():
    assert choose_targets(ranked(c=0.5, a=0.5, b=0.5), 8, 0.25).modules == ("a", "b")


def test_targets_are_read_back_as_written():
    targets = choose_targets(ranked(a=0.5, b=0.9), 4)
    assert Targets.from_json(targets.to_json(), "targets.json") == targets


@pytest.mark.parametrize("fraction", [0.0, 1.1])
def test_target_fraction_is_a_fraction(fraction):
    with pytest.raises(InputError, match="target_fraction"):
        choose_targets([], 4, fraction)


def test_there_are_no_more_deficient_modules_than_modules():
    with pytest.raises(InputError, match="3 deficient modules of 2"):
        choose_targets(ranked(a=0.5, b=0.9, c=0.7), 2)


@given(st.floats(-5, 1), st.floats(-5, 1), st.floats(0, 1), st.floats(0, 1))
def test_severity_is_monotone_in_the_gap(a, b, dependency, alpha):
    smaller, larger = sorted((a, b))
    assert severity(smaller, dependency, alpha) <= severity(larger, dependency, alpha)


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0.4, 0.5, 0.9])),
    st.floats(0.01, 1),
)
def test_no_module_left_out_is_more_severe_than_a_target(values, fraction):
    targets = choose_targets(ranked(**values), 8, fraction)
    left = set(values) - set(targets.modules)
    assert len(targets.modules) == min(targets.limit, len(values))
    for module in left:
        assert all(values[module] <= values[target] for target in targets.modules)
