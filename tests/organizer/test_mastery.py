import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from ioa_jax.errors import InputError
from ioa_jax.identifier.dependency import Dependency, build_graph
from ioa_jax.identifier.measure import ModulePerformance, relative_mastery
from ioa_jax.organizer.mastery import (
    GateResult,
    GateSettings,
    flag_dependents,
    judge_stage,
)

TEACHER = {"a": 0.8, "b": 0.5, "c": 1.0}
LITERAL = GateSettings(gate="literal")


def performances_of(means):
    """Two probes a module, whose mean is as given."""
    return {
        module: ModulePerformance(module, "accuracy", ("p", "q"), (mean, mean))
        for module, mean in means.items()
    }


def of_probes(right, count):
    values = tuple(float(i < right) for i in range(count))
    return {
        "c": ModulePerformance("c", "accuracy", tuple(f"p{i:03d}" for i in range(count)), values)
    }


def judge_means(stage, modules, means, teacher, remedial_round, settings=LITERAL):
    return judge_stage(stage, modules, performances_of(means), teacher, remedial_round, settings)


@pytest.mark.parametrize(
    ("right", "count", "passes"),
    [(8, 8, True), (7, 8, False), (6, 6, True), (5, 5, False), (37, 40, True), (35, 40, False)],
)
def test_the_posterior_gate_asks_whether_mastery_is_as_likely_as_not(right, count, passes):
    gate = judge_stage(1, "c", of_probes(right, count), TEACHER, 0, GateSettings())
    (module,) = gate.modules
    assert module.probability is not None
    assert gate.passed == passes == (module.probability >= 0.5)
    exact = beta.sf(0.9, 1 + right, 1 + count - right)
    assert module.probability == pytest.approx(exact)


def test_a_true_mastery_passes_the_posterior_gate_mostly():
    """Forty probes at a true r of 0.95."""
    rng = np.random.default_rng(0)
    right = rng.binomial(40, 0.95, size=300)
    passed = [judge_stage(1, "c", of_probes(int(r), 40), TEACHER, 0).passed for r in right]
    assert np.mean(passed) > 0.7


def test_the_prior_counts_where_there_are_few_probes():
    doubtful = GateSettings(prior=(1.0, 9.0))
    assert judge_stage(1, "c", of_probes(8, 8), TEACHER, 0).passed
    assert not judge_stage(1, "c", of_probes(8, 8), TEACHER, 0, doubtful).passed


def test_without_a_gate_every_module_passes():
    gate = judge_stage(1, "c", of_probes(0, 8), TEACHER, 0, GateSettings(gate="off"))
    assert gate.passed
    assert gate.minimum == 0


def test_the_gate_is_equation_9():
    # r is 0.9 and 1.2.
    gate = judge_means(2, "ba", {"a": 0.72, "b": 0.6}, TEACHER, 0)
    assert gate.passed
    assert gate.action == "advance"
    assert gate.minimum == pytest.approx(0.9)
    assert [entry.module for entry in gate.modules] == ["a", "b"]
    assert [entry.ratio for entry in gate.modules] == pytest.approx([0.9, 1.2])
    assert (gate.weak, gate.parked) == ((), ())


def test_one_weak_module_holds_the_stage():
    gate = judge_means(2, "abc", {"a": 0.7, "b": 0.5, "c": 0.1}, TEACHER, 0)
    assert not gate.passed
    assert gate.weak == ("a", "c")
    assert (gate.action, gate.parked) == ("remediate", ())
    assert gate.minimum == pytest.approx(0.1)


def test_what_still_fails_after_the_last_round_is_parked():
    student = {"a": 0.7, "b": 0.5}
    settings = GateSettings(max_remedial_rounds=2, gate="literal")
    actions = [judge_means(1, "ab", student, TEACHER, i, settings).action for i in range(3)]
    assert actions == ["remediate", "remediate", "park"]
    gate = judge_means(1, "ab", student, TEACHER, 2, settings)
    assert gate.parked == ("a",)
    assert not gate.passed
    assert judge_means(1, "b", student, TEACHER, 2, settings).action == "advance"


def test_without_remediation_the_first_gate_parks():
    gate = judge_means(
        1, "a", {"a": 0.7}, TEACHER, 0, GateSettings(max_remedial_rounds=0, gate="literal")
    )
    assert (gate.action, gate.parked) == ("park", ("a",))


def test_dependents_of_parked_modules_are_flagged_through_others():
    edges = [Dependency(a, b, 0.9, "prior") for a, b in ("ab", "bc", "dc")]
    graph = build_graph("abcde", edges)
    assert flag_dependents(["a", "d"], graph) == {"b": ("a",), "c": ("a", "d")}
    assert flag_dependents([], graph) == {}
    with pytest.raises(InputError, match="'z'"):
        flag_dependents(["z"], graph)


def test_a_gate_is_read_back_as_written():
    gate = judge_means(1, "ab", {"a": 0.7, "b": 0.5}, TEACHER, 5)
    assert GateResult.from_json(gate.to_json(), "gate.json") == gate


@pytest.mark.parametrize(
    ("modules", "student", "teacher", "remedial_round", "message"),
    [
        ("", {}, TEACHER, 0, "stage 1 has no modules"),
        ("a", {}, TEACHER, 0, r"'a'.*measured"),
        ("a", {"a": 0.5}, {}, 0, r"'a'.*measured"),
        ("a", {"a": 0.5}, {"a": 0.0}, 0, r"'a'.*teacher performance 0"),
        ("a", {"a": 0.5}, TEACHER, 6, "remedial round 6 of 5"),
    ],
)
def test_gates_are_of_measured_modules(modules, student, teacher, remedial_round, message):
    with pytest.raises(InputError, match=message):
        judge_means(1, modules, student, teacher, remedial_round)


@pytest.mark.parametrize(
    "bad", [{"tau_mastery": 0.0}, {"max_remedial_rounds": -1}, {"prior": (0.0, 1.0)}]
)
def test_settings_are_checked(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        GateSettings(**bad)


performances = st.fixed_dictionaries({m: st.floats(0, 1) for m in "abc"})


@given(performances, st.floats(0.05, 1.5), st.integers(0, 5))
def test_a_stage_is_never_left_with_a_weak_module_that_is_not_parked(student, tau, done):
    gate = judge_means(1, "abc", student, TEACHER, done, GateSettings(tau, gate="literal"))
    ratios = {m: relative_mastery(student[m], TEACHER[m]) for m in "abc"}
    assert gate.passed == (min(ratios.values()) >= tau - 1e-9)
    assert set(gate.weak) == {m for m in "abc" if ratios[m] < tau - 1e-9}
    assert (gate.action == "advance") == gate.passed
    if gate.action == "park":
        assert gate.parked == gate.weak
    else:
        assert gate.parked == ()
