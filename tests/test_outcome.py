"""Whether a student changed, said of a few probes."""

from __future__ import annotations

import pytest

from ioa_jax.identifier.measure import ModulePerformance
from ioa_jax.steps.finish import _interval_of_change


def performance(module: str, *values: float) -> ModulePerformance:
    probes = tuple(f"{module}{number:02d}" for number in range(len(values)))
    return ModulePerformance(module, "accuracy", probes, values)


@pytest.mark.parametrize(("before", "after"), [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)])
def test_probes_that_all_change_alike_leave_some_doubt(before: float, after: float) -> None:
    widths: list[float] = []
    for count in (2, 30):
        old, new = (
            {module: performance(module, *[value] * count) for module in ("a/x", "a/y")}
            for value in (before, after)
        )
        low, high = _interval_of_change(old, new, 0)
        assert low <= after - before <= high
        widths.append(high - low)
    assert widths[0] > 0.1 > widths[1] > 0


def test_a_change_beyond_doubt_is_one() -> None:
    values = (1.0, 0.0, 1.0, 1.0) * 5
    old = {"a/x": performance("a/x", *values), "a/y": performance("a/y", *values)}
    new = {"a/x": performance("a/x", *[0.0] * 20), "a/y": old["a/y"]}
    low, high = _interval_of_change(old, new, 0)
    assert low < -0.375 < high < 0
    # Pairs: what both fail says nothing of a change.
    assert high - low < 0.3


def test_scores_in_between_tell_more_than_right_and_wrong() -> None:
    old = {"a/x": performance("a/x", 0.01, 0.012, 0.008, 0.011)}
    new = {"a/x": performance("a/x", 0.001, 0.002, 0.001, 0.001)}
    low, high = _interval_of_change(old, new, 0)
    assert -0.02 < low < high < -0.005
