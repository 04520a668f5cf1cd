import math

import pytest

from ioa_jax.errors import InputError
from ioa_jax.identifier.gap import module_gaps, relative_gap
from ioa_jax.identifier.measure import ProbeScore, performance_by_module


def score(module, probability, length=4):
    """A probe whose tokens all have the given probability."""
    return ProbeScore(module, length * math.log(probability), length)


def test_performance_is_the_mean_geometric_mean_probability():
    # Tokens of 0.9 and 0.4 have the geometric mean 0.6, and sqrt(0.5 * 0.02) is 0.1.
    scores = [
        ProbeScore("b/x", math.log(0.9) + math.log(0.4), 2),
        ProbeScore("a/x", math.log(0.25), 1),
        ProbeScore("b/x", math.log(0.5) + math.log(0.02), 2),
    ]
    assert performance_by_module(scores) == {
        "a/x": pytest.approx(0.25),
        "b/x": pytest.approx(0.35),
    }
    assert list(performance_by_module(scores)) == ["a/x", "b/x"]


def test_length_is_what_the_logprob_is_spread_over():
    assert performance_by_module([ProbeScore("a/x", math.log(0.0625), 2)])["a/x"] == pytest.approx(
        0.25
    )
    assert performance_by_module([ProbeScore("a/x", math.log(0.0625), 4)])["a/x"] == pytest.approx(
        0.5
    )


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


def test_module_gaps():
    teacher = [score("b/x", 0.8), score("a/x", 0.5, 3), score("b/x", 0.4, 7)]
    student = [score("b/x", 0.2), score("a/x", 0.5, 3), score("b/x", 0.1, 7)]
    a, b = module_gaps(teacher, student)
    assert (a.module, a.num_probes, b.module, b.num_probes) == ("a/x", 1, "b/x", 2)
    assert a.logprob == pytest.approx(0)
    assert a.relative == pytest.approx(0)
    # Both probes of b are behind by a factor of 4 a token, whatever their length.
    assert b.logprob == pytest.approx(math.log(4))
    assert b.teacher == pytest.approx(0.6)
    assert b.student == pytest.approx(0.15)
    assert b.relative == pytest.approx(0.75)


def test_log_gap_is_finite_where_the_relative_gap_is_not():
    # exp(-800) is 0 in floating point.
    (gap,) = module_gaps([ProbeScore("a/x", -800.0, 1)], [ProbeScore("a/x", -900.0, 1)])
    assert gap.relative is None
    assert gap.logprob == pytest.approx(100)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ([], "1 teacher scores and 0"),
        ([score("b/x", 0.5)], "'a/x' and 'b/x'"),
        ([score("a/x", 0.5, 5)], "UTF-8 bytes"),
    ],
)
def test_module_gaps_refuse_unlike_probes(student, message):
    with pytest.raises(InputError, match=message):
        module_gaps([score("a/x", 0.5)], student)


@pytest.mark.parametrize(("logprob", "length"), [(-1.0, 0), (-math.inf, 3), (math.nan, 3)])
def test_scores_are_finite_and_of_something(logprob, length):
    with pytest.raises(InputError, match="a/x"):
        ProbeScore("a/x", logprob, length)
