import dataclasses
import math

import numpy as np
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
    posterior_means,
    relative_gap,
)
from ioa_jax.identifier.measure import (
    ProbeGrade,
    ProbeScore,
    accuracy_performance,
    logprob_performance,
)
from ioa_jax.streams import stream


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


def width(interval):
    assert interval is not None
    return interval.high - interval.low


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
    with pytest.raises(InputError, match=r"accuracy.*logprob"):
        module_gaps(graded("a/x", [1.0]), logprob_performance([score("p000", "a/x", 0.5)]))


def test_probes_are_drawn_in_pairs_where_both_answered_them():
    # The student has exactly half of the teacher's value on every probe, so that Δ is 0.5 whatever
    # is drawn, but for what wasn't seen. Draws apart of such unequal values scatter it widely.
    values = [0.02, 0.1, 0.4, 1.0] * 10
    teacher, student = graded("a/x", values), graded("a/x", [v / 2 for v in values])
    others = {"a/x": dataclasses.replace(student["a/x"], probes=(*teacher["a/x"].probes[:-1], "q"))}
    (paired,), (apart,) = module_gaps(teacher, student), module_gaps(teacher, others)
    assert paired.relative == apart.relative == pytest.approx(0.5)
    assert width(paired.interval) < 0.2
    assert width(apart.interval) > 0.4


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


def test_two_probes_that_agree_give_a_wide_interval():
    (gap,) = module_gaps(graded("a/x", [1.0, 1.0]), graded("a/x", [0.0, 0.0]))
    assert gap.relative == 1.0
    assert -0.5 < interval_of(gap).low < 0.28
    assert interval_of(gap).high == 1.0
    # Jeffreys' interval of two of two, Beta(5/2, 1/2): its 2.5 % quantile is 0.333.
    for interval, low, high in ((gap.teacher_interval, 0.333, 1), (gap.student_interval, 0, 0.667)):
        assert interval is not None
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.06)
    assert deficient_modules([gap]) == ("a/x",)
    assert deficient_modules([gap], confident_gap=True) == ()
    many = module_gaps(graded("a/x", [1.0] * 40), graded("a/x", [0.0] * 40))
    assert deficient_modules(many, confident_gap=True) == ("a/x",)


def test_a_single_probe_has_an_interval_as_well():
    (gap,) = module_gaps(graded("a/x", [1.0]), graded("a/x", [1.0]))
    assert gap.relative == 0.0
    assert interval_of(gap).low < -0.5
    assert interval_of(gap).high > 0.5


@pytest.mark.parametrize(("right", "count"), [(0, 2), (2, 2), (3, 8), (20, 40)])
def test_right_and_wrong_answers_have_a_beta_posterior(right, count):
    generator = stream(0, "test")
    (drawn,) = posterior_means([[1.0] * right + [0.0] * (count - right)], 20_000, generator)
    expected = generator.beta(right + 0.5, count - right + 0.5, 20_000)
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    assert np.quantile(drawn, levels) == pytest.approx(np.quantile(expected, levels), abs=0.02)


def test_many_fractional_values_have_the_bootstrap_s_interval():
    values = np.linspace(0.2, 0.6, 101)
    (gap,) = module_gaps(graded("a/x", [1.0] * 101), graded("a/x", values.tolist()))
    interval = gap.student_interval
    assert interval is not None
    error = 1.96 * values.std() / math.sqrt(len(values))
    assert (interval.low, interval.high) == pytest.approx((0.4 - error, 0.4 + error), abs=0.01)


def test_the_share_of_draws_in_which_the_teacher_cannot_teach_is_told():
    # One of two: Beta(3/2, 3/2) is under 0.3 in a quarter of all draws.
    (gap,) = module_gaps(graded("a/x", [1.0, 0.0]), graded("a/x", [0.0, 0.0]))
    assert interval_of(gap).undefined == pytest.approx(0.25, abs=0.05)


def test_teacher_and_student_may_be_measured_on_different_probes():
    teacher, student = graded("a/x", [1.0, 1.0]), graded("a/x", [1.0] * 2 + [0.0] * 6)
    (gap,) = module_gaps(teacher, student)
    assert (gap.num_probes, gap.num_teacher_probes) == (8, 2)
    assert (gap.teacher, gap.student, gap.relative) == (1.0, 0.25, 0.75)


def test_what_the_teacher_seldom_gets_right_is_excluded():
    def relative(values, minimum=None):
        teacher = graded("a/x", values)
        return module_gaps(teacher, graded("a/x", [0.0] * len(values)), None, minimum)[0].relative

    assert relative([1.0] * 2 + [0.0] * 8) is None
    assert relative([1.0] * 3 + [0.0] * 7) == 1.0
    assert relative([1.0] * 2 + [0.0] * 8, 0.1) == 1.0
    # ROUGE and log-probabilities have no such scale.
    assert relative([0.2] * 10) == 1.0
    assert relative([0.2] * 10, 0.3) is None


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
    gaps = [gap_of("c", 0.29), gap_of("b", 0.28), gap_of("d", -0.5), gap_of("a", 0.9)]
    assert deficient_modules([*gaps, gap_of("e", None)]) == ("a", "c")
    assert deficient_modules(gaps, tau_gap=0.27) == ("a", "b", "c")


def test_a_gap_that_is_the_threshold_on_paper_is_not_deficient():
    relative = defined_gap(1.0, 0.7)
    assert relative > 0.3
    assert deficient_modules([gap_of("a", relative)], 0.3) == ()


def test_confident_gap_needs_the_lower_end_of_the_interval():
    gaps = [gap_of("a", 0.9, 0.29), gap_of("b", 0.9, 0.28), gap_of("c", 0.9)]
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


@given(st.lists(st.tuples(st.floats(0.01, 1), probabilities), min_size=1, max_size=6))
def test_an_interval_holds_what_was_found(pairs):
    (gap,) = module_gaps(
        graded("a/x", [t for t, _ in pairs]),
        graded("a/x", [s for _, s in pairs]),
        bootstrap=BootstrapSettings(resamples=30),
    )
    for interval, value in (
        (gap.interval, gap.relative),
        (gap.teacher_interval, gap.teacher),
        (gap.student_interval, gap.student),
    ):
        if interval is not None and value is not None:
            assert interval.low <= value <= interval.high
            assert interval.low < interval.high
