import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.bootstrap import BootstrapSettings, Interval
from ioa_jax.errors import InputError
from ioa_jax.identifier.gap import (
    ModuleGap,
    deficient_modules,
    logprob_gaps,
    module_gaps,
    relative_gap,
)
from ioa_jax.identifier.measure import (
    ProbeGrade,
    ProbeScore,
    accuracy_performance,
    logprob_performance,
)


def score(probe, module, probability, length=4):
    """A probe whose tokens all have the given probability."""
    return ProbeScore(probe, module, length * math.log(probability), length)


def graded(module, values):
    return accuracy_performance(
        [ProbeGrade(f"p{i:03}", module, value) for i, value in enumerate(values)]
    )


def gap_of(module, relative, low=None):
    interval = None if low is None else Interval(low, 1.0)
    return ModuleGap(module, "accuracy", 10, 0.9, 0.1, relative, interval)


def interval_of(gap):
    assert gap.interval is not None
    return gap.interval


def defined_gap(teacher, student):
    gap = relative_gap(teacher, student)
    assert gap is not None
    return gap


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [(0.8, 0.2, 0.75), (0.5, 0.5, 0.0), (0.4, 0.6, -0.5), (0.5, 0.0, 1.0)],
)
def test_relative_gap_is_equation_2(teacher, student, expected):
    assert relative_gap(teacher, student) == pytest.approx(expected)


def test_what_the_teacher_cannot_teach_is_set_aside():
    assert relative_gap(0.0, 0.3) is None
    assert relative_gap(0.09, 0.01, min_teacher_performance=0.1) is None
    assert relative_gap(0.1, 0.01, min_teacher_performance=0.1) == pytest.approx(0.9)


@pytest.mark.parametrize(("teacher", "student"), [(1.1, 0.5), (0.5, -0.1), (math.nan, 0.5)])
def test_relative_gap_refuses_what_is_no_performance(teacher, student):
    with pytest.raises(InputError, match=r"outside \[0, 1\]"):
        relative_gap(teacher, student)


def test_logprob_gap_is_by_unit_of_the_answer():
    teacher = [score("p1", "b/x", 0.8), score("p2", "b/x", 0.4, 7), score("p3", "a/x", 0.5, 3)]
    student = [score("p3", "a/x", 0.5, 3), score("p1", "b/x", 0.2), score("p2", "b/x", 0.1, 7)]
    gaps = logprob_gaps(teacher, student, "byte")
    assert list(gaps) == ["a/x", "b/x"]
    assert gaps["a/x"].nats == pytest.approx(0)
    # Both probes of b are behind by a factor of 4 a unit, whatever their length.
    assert gaps["b/x"].nats == pytest.approx(math.log(4))
    assert gaps["b/x"].unit == "byte"
    assert gaps["a/x"].interval is None
    assert interval_of(gaps["b/x"]).low == pytest.approx(math.log(4))


def test_module_gaps_by_logprob():
    teacher = [score("p1", "b/x", 0.8), score("p2", "b/x", 0.4, 7), score("p3", "a/x", 0.5, 3)]
    student = [score("p1", "b/x", 0.2), score("p2", "b/x", 0.1, 7), score("p3", "a/x", 0.5, 3)]
    nats = logprob_gaps(teacher, student, "token")
    a, b = module_gaps(logprob_performance(teacher), logprob_performance(student), nats)
    assert (a.module, a.num_probes, b.module, b.num_probes) == ("a/x", 1, "b/x", 2)
    assert a.relative == pytest.approx(0)
    assert (b.teacher, b.student) == pytest.approx((0.6, 0.15))
    assert b.relative == pytest.approx(0.75)
    assert b.logprob == pytest.approx(math.log(4))
    assert b.unit == "token"


def test_log_gap_is_finite_where_the_relative_gap_is_not():
    # exp(-800) is 0 in floating point.
    teacher, student = [ProbeScore("p", "a/x", -800.0, 1)], [ProbeScore("p", "a/x", -900.0, 1)]
    (gap,) = module_gaps(
        logprob_performance(teacher),
        logprob_performance(student),
        logprob_gaps(teacher, student, "token"),
    )
    assert gap.relative is None
    assert gap.logprob == pytest.approx(100)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ([], "'p' of module 'a/x' was scored by one"),
        ([score("q", "a/x", 0.5)], "'p' of module 'a/x' was scored by one"),
        ([score("p", "a/x", 0.5, 5)], "UTF-8 bytes"),
        ([score("p", "a/x", 0.5)] * 2, "scored twice"),
    ],
)
def test_logprob_gaps_refuse_unlike_probes(student, message):
    with pytest.raises(InputError, match=message):
        logprob_gaps([score("p", "a/x", 0.5)], student, "token")


def test_module_gaps_refuse_unlike_measurements():
    with pytest.raises(InputError, match=r"\['b/x'\]"):
        module_gaps(graded("a/x", [1.0]), graded("a/x", [1.0]) | graded("b/x", [1.0]))
    with pytest.raises(InputError, match=r"'a/x'.*2 probes.*1 probes"):
        module_gaps(graded("a/x", [1.0, 1.0]), graded("a/x", [1.0]))
    with pytest.raises(InputError, match=r"accuracy.*logprob"):
        module_gaps(graded("a/x", [1.0]), logprob_performance([score("p000", "a/x", 0.5)]))


def test_interval_resamples_probes_in_pairs():
    # The student has exactly half of the teacher's value on every probe: whatever is drawn, Δ is
    # 0.5. Unpaired draws of such unequal values would scatter it widely.
    values = [0.02, 0.1, 0.4, 1.0]
    (gap,) = module_gaps(graded("a/x", values), graded("a/x", [v / 2 for v in values]))
    assert (interval_of(gap).low, interval_of(gap).high) == pytest.approx((0.5, 0.5))


def test_interval_is_that_of_a_binomial_share():
    # A teacher that is always right, a student right on 40 of 100: Δ is 1 minus a binomial share,
    # whose standard error is sqrt(0.4 * 0.6 / 100) = 0.049.
    (gap,) = module_gaps(
        graded("a/x", [1.0] * 100),
        graded("a/x", [1.0] * 40 + [0.0] * 60),
        bootstrap=BootstrapSettings(resamples=4000),
    )
    assert gap.relative == pytest.approx(0.6)
    assert interval_of(gap).low == pytest.approx(0.6 - 1.96 * 0.049, abs=0.015)
    assert interval_of(gap).high == pytest.approx(0.6 + 1.96 * 0.049, abs=0.015)


def test_interval_tells_how_often_the_gap_was_not_defined():
    # Two probes of which the teacher has one: a quarter of all draws has none.
    (gap,) = module_gaps(graded("a/x", [1.0, 0.0]), graded("a/x", [0.0, 0.0]))
    assert interval_of(gap).undefined == pytest.approx(0.25, abs=0.05)
    assert (interval_of(gap).low, interval_of(gap).high) == (1.0, 1.0)


def test_intervals_repeat_and_depend_on_the_seed():
    teacher, student = graded("a/x", [1.0] * 9), graded("a/x", [1.0, 0.3, 0.2] * 3)

    def interval(seed):
        bootstrap = BootstrapSettings(resamples=50, seed=seed)
        return module_gaps(teacher, student, bootstrap=bootstrap)[0].interval

    assert interval(1) == interval(1)
    assert interval(1) != interval(2)


def test_a_gap_is_read_back_as_written():
    (gap,) = module_gaps(graded("a/x", [1.0, 0.5]), graded("a/x", [0.1, 0.2]))
    assert ModuleGap.from_json(gap.to_json(), "gaps.json") == gap


def test_deficient_is_equation_6():
    gaps = [gap_of("c", 0.31), gap_of("b", 0.3), gap_of("d", -0.5), gap_of("a", 0.9)]
    assert deficient_modules([*gaps, gap_of("e", None)]) == ("a", "c")
    assert deficient_modules(gaps, tau_gap=0.29) == ("a", "b", "c")


def test_a_gap_that_is_the_threshold_on_paper_is_not_deficient():
    relative = defined_gap(1.0, 0.7)
    assert relative > 0.3
    assert deficient_modules([gap_of("a", relative)]) == ()


def test_confident_gap_needs_the_lower_end_of_the_interval():
    gaps = [gap_of("a", 0.9, 0.31), gap_of("b", 0.9, 0.3), gap_of("c", 0.9)]
    assert deficient_modules(gaps) == ("a", "b", "c")
    assert deficient_modules(gaps, confident_gap=True) == ("a",)


@pytest.mark.parametrize("bad", [{"resamples": 0}, {"level": 1.0}, {"level": 0.0}])
def test_bootstrap_settings_are_checked(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        BootstrapSettings(**bad)


probabilities = st.floats(0, 1, allow_nan=False)


@given(st.floats(0.01, 1), probabilities, probabilities)
def test_a_better_student_has_a_smaller_gap(teacher, a, b):
    worse, better = sorted((a, b))
    assert defined_gap(teacher, worse) >= defined_gap(teacher, better)


@given(st.lists(st.tuples(st.floats(0.01, 1), probabilities), min_size=2, max_size=6))
def test_the_interval_stays_within_the_gaps_of_single_probes(pairs):
    (gap,) = module_gaps(
        graded("a/x", [t for t, _ in pairs]),
        graded("a/x", [s for _, s in pairs]),
        bootstrap=BootstrapSettings(resamples=30),
    )
    single = [defined_gap(t, s) for t, s in pairs]
    assert min(single) - 1e-9 <= interval_of(gap).low <= interval_of(gap).high <= max(single) + 1e-9
