import math

import pytest

from ioa_jax.errors import InputError
from ioa_jax.identifier.measure import (
    ModulePerformance,
    ProbeGrade,
    ProbeScore,
    accuracy_performance,
    geometric_mean_probability,
    logprob_performance,
    rank_correlation,
)


def means(performance):
    return {module: value.mean for module, value in performance.items()}


def test_logprob_performance_is_the_mean_geometric_mean_probability():
    # Tokens of 0.9 and 0.4 have the geometric mean 0.6, and sqrt(0.5 * 0.02) is 0.1.
    scores = [
        ProbeScore("p2", "b/x", math.log(0.9) + math.log(0.4), 2),
        ProbeScore("p3", "a/x", math.log(0.25), 1),
        ProbeScore("p1", "b/x", math.log(0.5) + math.log(0.02), 2),
    ]
    performance = logprob_performance(scores)
    assert means(performance) == {"a/x": pytest.approx(0.25), "b/x": pytest.approx(0.35)}
    assert list(performance) == ["a/x", "b/x"]
    assert performance["b/x"].probes == ("p1", "p2")
    assert performance["b/x"].values == pytest.approx((0.1, 0.6))
    assert performance["b/x"].scorer == "logprob"


def test_a_rounding_error_above_certainty_is_certainty():
    assert geometric_mean_probability(ProbeScore("p", "a/x", 1e-9, 2)) == 1.0


def test_length_is_what_the_logprob_is_spread_over():
    two = logprob_performance([ProbeScore("p", "a/x", math.log(0.0625), 2)])
    four = logprob_performance([ProbeScore("p", "a/x", math.log(0.0625), 4)])
    assert two["a/x"].mean == pytest.approx(0.25)
    assert four["a/x"].mean == pytest.approx(0.5)


def test_accuracy_performance_is_the_mean_score():
    grades = [ProbeGrade("p1", "a/x", 1.0), ProbeGrade("p2", "a/x", 0.0)]
    grades += [ProbeGrade("p3", "a/x", 0.5), ProbeGrade("p1", "b/x", 0.25)]
    performance = accuracy_performance(grades)
    assert means(performance) == {"a/x": pytest.approx(0.5), "b/x": 0.25}
    assert performance["a/x"].scorer == "accuracy"


def test_a_performance_is_read_back_as_written():
    (value,) = accuracy_performance([ProbeGrade("p1", "a/x", 1 / 3)]).values()
    assert ModulePerformance.from_json(value.to_json(), "p.json") == value


def test_reading_names_file_and_field():
    text = '{"module": "a/x", "scorer": "rouge", "probes": ["p"], "values": [0.5]}'
    with pytest.raises(InputError, match=r"p\.json: field 'scorer'"):
        ModulePerformance.from_json(text, "p.json")
    text = '{"module": "a/x", "scorer": "accuracy", "probes": ["p"], "values": [0.5], "n": 1}'
    with pytest.raises(InputError, match=r"p\.json: field 'n'"):
        ModulePerformance.from_json(text, "p.json")


@pytest.mark.parametrize(
    ("logprob", "length"), [(-1.0, 0), (-math.inf, 3), (math.nan, 3), (0.1, 3)]
)
def test_scores_are_finite_and_of_something(logprob, length):
    with pytest.raises(InputError, match="'p7'"):
        ProbeScore("p7", "a/x", logprob, length)


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan])
def test_grades_are_in_the_unit_interval(score):
    with pytest.raises(InputError, match=r"'p7'.*outside"):
        accuracy_performance([ProbeGrade("p7", "a/x", score)])


def test_a_probe_counts_once():
    with pytest.raises(InputError, match="'p7' occurs twice"):
        accuracy_performance([ProbeGrade("p7", "a/x", 1.0), ProbeGrade("p7", "a/x", 0.0)])


def test_rank_correlation():
    a = {"w": 0.1, "x": 0.2, "y": 0.3, "z": 0.9}
    assert rank_correlation(a, {m: v**2 for m, v in a.items()}) == pytest.approx(1)
    assert rank_correlation(a, {m: -v for m, v in a.items()}) == pytest.approx(-1)
    # Ranks 1 2 3 4 against 1, 2.5, 2.5, 4: covariance 4.5 over sqrt(5 * 4.5).
    tied = {"w": 0.0, "x": 1.0, "y": 1.0, "z": 2.0}
    assert rank_correlation(a, tied) == pytest.approx(4.5 / math.sqrt(5 * 4.5))


def test_rank_correlation_of_what_does_not_vary_is_not_defined():
    assert rank_correlation({"x": 0.1, "y": 0.2}, {"x": 0.5, "y": 0.5}) is None
    assert rank_correlation({"x": 0.1}, {"x": 0.5}) is None


def test_rank_correlation_is_of_the_same_modules():
    with pytest.raises(InputError, match=r"\['y', 'z'\]"):
        rank_correlation({"x": 0.1, "y": 0.2}, {"x": 0.5, "z": 0.5})
