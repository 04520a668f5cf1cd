import numpy as np
import pytest

from suite.stats import mean_interval


def test_right_or_wrong_has_wilsons_interval():
    found = mean_interval([1.0] * 8 + [0.0] * 2, [str(i) for i in range(10)])
    # Closed form, z = 1.959964: centre (p + z²/2n) / (1 + z²/n).
    n, p, z = 10, 0.8, 1.959964
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert found.method == "wilson"
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert mean_interval([0.0] * 20, [str(i) for i in range(20)]).high > 0.1


def test_values_of_one_item_count_as_one():
    rng = np.random.default_rng(0)
    item_means = rng.uniform(size=40)
    values = np.repeat(item_means, 5)
    items = [str(i) for i in range(40)]
    clustered = mean_interval(values.tolist(), [i for i in items for _ in range(5)])
    alone = mean_interval(item_means.tolist(), items)
    assert clustered.method == alone.method == "bootstrap"
    assert clustered.clusters == 40
    assert (clustered.low, clustered.high) == pytest.approx((alone.low, alone.high))
    # Against the normal approximation of the mean of 40.
    half = 1.96 * item_means.std() / np.sqrt(40)
    assert alone.high - alone.low == pytest.approx(2 * half, rel=0.1)


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="0 values"):
        mean_interval([], [])


def test_all_wrong_isnt_certainly_zero_with_several_values_an_item():
    several = mean_interval([0.0] * 12, [str(i // 3) for i in range(12)])
    assert several.method == "wilson"
    assert several.high == mean_interval([0.0] * 4, ["a", "b", "c", "d"]).high > 0.4
