import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_rel

from suite.stats import (
    Bootstrap,
    GroupBootstrap,
    difference,
    estimate,
    holm,
    lost_share,
    mcnemar,
    mean_interval,
    p_of,
    share,
)


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


def test_items_of_many_values_weigh_as_many():
    # The first item has 40 of the 79 values: with it, a resample's mean is far from without.
    values, items = [1.0] * 40 + [0.25] * 39, ["first"] * 40 + [str(i) for i in range(39)]
    found = mean_interval(values, items)
    assert found.mean == pytest.approx((40 + 39 / 4) / 79)
    # Without the first item, which a third of the resamples lack, there is 0.25 alone.
    assert found.low == pytest.approx(0.25)
    # Drawn three times, it has 120 values of 156; no mean of values is above 1.
    assert 0.75 < found.high < 0.9


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="0 values"):
        mean_interval([], [])


def test_all_wrong_isnt_certainly_zero_with_several_values_an_item():
    several = mean_interval([0.0] * 12, [str(i // 3) for i in range(12)])
    assert several.method == "wilson"
    assert several.high == mean_interval([0.0] * 4, ["a", "b", "c", "d"]).high > 0.4


def crossed(seeds, items, seed_spread, item_spread, mean=0.5, rng=0):
    """Scores with known spreads of seeds, of items, and of nothing else."""
    generator = np.random.default_rng(rng)
    return (
        mean
        + generator.normal(0, seed_spread, (seeds, 1))
        + generator.normal(0, item_spread, (1, items))
    )


def half_width(found):
    return (found.high - found.low) / 2


def test_items_alone_agree_with_scipy():
    scores = np.random.default_rng(1).uniform(size=(1, 60))
    found = estimate(scores, Bootstrap(60, "a"))
    scipys = bootstrap(
        (scores[0],), np.mean, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high), abs=0.005)
    assert found.method == "bootstrap"
    assert (found.values, found.clusters) == (60, 60)


def test_an_interval_has_the_spread_of_seeds_and_of_items():
    scores = crossed(8, 200, 0.05, 0.3)
    found = estimate(scores, Bootstrap(200, "a"))
    # Of the crossed means: variance of the seeds / 8 plus variance of the items / 200.
    variance = scores.mean(axis=1).var() / 8 + scores.mean(axis=0).var() / 200
    assert half_width(found) == pytest.approx(1.96 * np.sqrt(variance), rel=0.04)
    items_alone = estimate(scores.mean(axis=0, keepdims=True), Bootstrap(200, "a"))
    assert half_width(found) > 1.1 * half_width(items_alone)


def test_all_right_with_every_seed_isnt_certainly_one():
    found = estimate(np.ones((3, 20)), Bootstrap(20, "a"))
    assert found.method == "wilson"
    assert found.low == estimate(np.ones((1, 20)), Bootstrap(20, "a")).low < 0.9


def test_right_or_wrong_of_several_seeds_has_their_spread():
    scores = np.array([[1.0] * 30 + [0.0] * 10, [1.0] * 10 + [0.0] * 30])
    found = estimate(scores, Bootstrap(40, "a"))
    assert (found.mean, found.method) == (0.5, "bootstrap")
    one = estimate(np.array([[1.0] * 20 + [0.0] * 20]), Bootstrap(40, "a"))
    assert one.method == "wilson"
    # Half of the resamples have one seed alone, and its mean.
    assert half_width(found) > 1.5 * half_width(one)


def test_a_resample_without_a_difference_counts_for_both_sides():
    # 9 of 99 resamples at 0 and 90 above: 9 on the smaller side, and one more.
    ties = np.array([0.0] * 9 + [1.0] * 90)
    assert p_of(ties) == p_of(-ties) == pytest.approx(2 * 10 / 100)
    assert p_of(np.zeros(99)) == 1
    columns = np.stack([ties, np.zeros(99)], axis=1)
    assert p_of(columns) == pytest.approx([0.2, 1])


def test_a_paired_difference_agrees_with_the_paired_t_test():
    rng = np.random.default_rng(3)
    base = rng.uniform(0.2, 0.7, (1, 150))
    better = base + rng.normal(0.005, 0.03, (1, 150))
    found = difference(better, base, Bootstrap(150, "a"))
    test = ttest_rel(better[0], base[0])
    t_interval = test.confidence_interval(0.95)
    assert found.mean == pytest.approx(float((better - base).mean()))
    assert (found.low, found.high) == pytest.approx((t_interval.low, t_interval.high), abs=0.003)
    assert found.p_bootstrap == pytest.approx(test.pvalue, abs=0.02)
    assert found.p_mcnemar is None
    # The spread of the items is in both: unpaired, the interval would be many times as wide.
    assert half_width(found) < 0.5 * half_width(estimate(base, Bootstrap(150, "a")))


def test_no_difference_has_p_1_and_a_sure_one_not_0():
    scores = np.random.default_rng(0).uniform(size=(3, 30))
    none = difference(scores, scores, Bootstrap(30, "a"))
    assert (none.mean, none.low, none.high, none.p_bootstrap) == (0, 0, 0, 1)
    sure = difference(scores + 1, scores, Bootstrap(30, "a", resamples=999))
    assert sure.p_bootstrap == pytest.approx(2 / 1000)


def test_mcnemar_of_one_seed_is_the_exact_test():
    # 9 wins, 2 losses: the binomial tails of 11 fair coins, (1 + 11 + 55) * 2 / 2048.
    first = np.array([[1.0] * 9 + [0.0] * 2 + [1.0] * 5])
    second = np.array([[0.0] * 9 + [1.0] * 2 + [1.0] * 5])
    found = difference(first, second, Bootstrap(16, "a"))
    assert (found.wins, found.losses) == (9, 2)
    assert found.p_mcnemar == pytest.approx(2 * (1 + 11 + 55) / 2**11)


def test_mcnemar_is_of_one_seed():
    one = np.array([[1.0] * 12 + [0.0] * 14])
    other = np.array([[0.0] * 12 + [1.0] * 4 + [0.0] * 10])
    assert difference(one, other, Bootstrap(26, "a")).p_mcnemar == mcnemar(12, 4) < 0.1
    several = difference(np.repeat(one, 2, axis=0), np.repeat(other, 2, axis=0), Bootstrap(26, "a"))
    assert (several.wins, several.losses, several.p_mcnemar) == (24, 8, None)
    assert mcnemar(0, 0) == 1.0


def grouped(sizes, names=("a", "b")):
    ends = np.cumsum(sizes)
    return GroupBootstrap(
        dict(zip(names, np.split(np.arange(ends[-1]), ends[:-1]), strict=True)), resamples=4000
    )


def test_groups_weigh_the_same_whatever_their_items():
    # 2 of 4 and 36 of 36: .75 of the groups, .95 of the items.
    scores = np.array([[1.0, 1.0, 0.0, 0.0] + [1.0] * 36])
    groups = grouped((4, 36))
    found = estimate(scores, groups)
    assert (found.mean, found.method, found.clusters) == (0.75, "bootstrap", 40)
    # Half of the deviation of a mean of 4 coins is all there is.
    assert groups.means(scores).std() == pytest.approx(np.sqrt(0.25 / 4) / 2, rel=0.05)
    assert found.low < 0.6 < 0.9 < found.high
    assert groups.by_group(scores) == {"a": 0.5, "b": 1.0}


def test_items_are_drawn_within_their_groups():
    # Groups that are far apart, each without a spread: the mean of the two is sure.
    scores = np.array([[0.1] * 10 + [0.9] * 30])
    assert np.ptp(grouped((10, 30)).means(scores)) < 1e-9
    assert np.ptp(Bootstrap(40, "a", resamples=4000).means(scores)) > 0.1


def test_some_of_the_groups_have_the_same_draws():
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=(3, 12))
    groups = grouped((3, 4, 5), "abc")
    part = groups.only(["a", "c"])
    chosen = scores[:, groups.places(["a", "c"])]
    assert chosen.shape == (3, 8)
    alone = [groups.only([name]).means(scores[:, groups.groups[name]]) for name in "ac"]
    assert part.means(chosen) == pytest.approx(np.mean(alone, axis=0))
    assert part.mean(chosen) == pytest.approx(np.mean([scores[:, :3].mean(), scores[:, 7:].mean()]))


def test_seeds_are_drawn_together_in_all_groups():
    scores = np.repeat([[0.2], [0.4], [0.9]], 40, axis=1)
    groups = grouped((10, 30))
    assert groups.means(scores) == pytest.approx(groups.only(["a"]).means(scores[:, :10]))


def test_a_difference_over_groups_has_no_mcnemar():
    scores = np.array([[1.0, 1.0, 0.0, 0.0] + [1.0] * 36])
    found = difference(scores, np.zeros((1, 40)), grouped((4, 36)))
    assert (found.mean, found.p_mcnemar, found.wins, found.pairs) == (0.75, None, 38, 40)


def test_many_sets_are_resampled_as_each_alone():
    scores = np.random.default_rng(0).uniform(size=(5, 3, 20))
    draws = Bootstrap(20, "a", resamples=300)
    assert np.allclose(draws.many(scores).T, [draws.means(one) for one in scores])
    assert np.allclose(draws.many(scores[:, :1]).T, [draws.means(one[:1]) for one in scores])


def test_holm_is_the_textbooks():
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1; .04 is raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_retained_share_is_paired():
    teacher = np.random.default_rng(5).uniform(0.1, 1, (1, 80))
    found = share(np.repeat(0.947 * teacher, 3, axis=0), teacher, Bootstrap(80, "a"))
    assert (found.value, found.low, found.high) == pytest.approx((0.947, 0.947, 0.947))
    assert found.undefined == 0


def test_a_share_of_nothing_is_not_defined():
    found = share(np.ones((1, 4)), np.zeros((1, 4)), Bootstrap(4, "a"))
    assert (found.value, found.low, found.undefined) == (None, None, 1.0)
    # One item in two is missed by all four draws: (1/2)^2 of the resamples have none.
    half = share(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]), Bootstrap(2, "a"))
    assert half.undefined == pytest.approx(0.25, abs=0.02)


def test_forgetting_is_the_share_of_right_answers_that_became_wrong():
    before = np.array([[1.0] * 8 + [0.0] * 8])
    after = np.array([[1.0] * 6 + [0.0] * 2 + [1.0] * 8, [1.0] * 4 + [0.0] * 4 + [1.0] * 8])
    found = lost_share(before, after, Bootstrap(16, "a"))
    assert found.value == pytest.approx((2 + 4) / 16)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.3 < 0.5 < found.high


def test_seeds_are_drawn_together_on_all_tasks():
    # Two tasks on which a seed's luck is the same: the mean's interval is as wide as each one's.
    scores = np.repeat([[0.2], [0.4], [0.9]], 30, axis=1)
    a, b = (Bootstrap(30, task).means(scores) for task in ("a", "b"))
    assert np.allclose(a, b)


def test_items_are_drawn_anew_for_each_task_and_group():
    scores = np.random.default_rng(0).uniform(size=(1, 30))
    a, b = (Bootstrap(30, task).means(scores) for task in ("a", "b"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
    # The mean of two groups has half of the variance that each has.
    groups = grouped((30, 30))
    both = groups.means(np.concatenate([scores, scores], axis=1))
    assert both.var() == pytest.approx(a.var() / 2, rel=0.1)


@pytest.mark.slow
def test_intervals_cover():
    covered = 0
    for i in range(200):
        scores = crossed(10, 60, 0.1, 0.3, rng=i)
        found = estimate(scores, Bootstrap(60, "a", seed=i, resamples=500))
        covered += found.low <= 0.5 <= found.high
    # 95 % of 200 are 190, with a standard deviation of 3; ten seeds cost a little.
    assert 178 <= covered <= 198
