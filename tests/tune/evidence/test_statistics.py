import warnings

import numpy as np
import pytest
from scipy import stats

from ppo_jax.statistics import STUDENT, welch_test
from tune.evidence.statistics import (
    BCA,
    PERCENTILE,
    compare,
    estimate,
    iqm,
    performance_profile,
    probability_of_improvement,
    summarize,
)

NAN = np.nan


def draws(name, shape, rng):
    """Return returns whose distribution resembles what training gives."""
    match name:
        case "normal":
            return rng.normal(400, 50, shape)
        case "skewed":
            return 500 - rng.exponential(60, shape)
        case "heavy tail":
            return rng.lognormal(0, 1, shape)
        case "capped":
            return np.minimum(500, rng.normal(490, 40, shape))
        case "rare falls":
            return np.where(rng.random(shape) < 0.15, rng.uniform(100, 480, shape), 500.0)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("name", ["normal", "skewed", "heavy tail", "capped", "rare falls"])
def test_equal_configurations_are_rarely_called_improved(name, seeds):
    rng = np.random.default_rng(0)
    test = welch_test(draws(name, (1000, seeds), rng), draws(name, (1000, seeds), rng))
    # 2.5% are meant for each side; three standard errors of 1,000 repeats are 1.5%.
    assert np.mean(test.low > 0) <= 0.04
    assert np.mean(test.high < 0) <= 0.04


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_a_real_difference_is_covered_and_found(spread):
    rng = np.random.default_rng(0)
    winner = rng.normal(3.0, spread, (1000, 10))
    test = welch_test(winner, rng.normal(0.0, 1.0, (1000, 10)))
    assert 0.93 <= np.mean((test.low <= 3.0) & (test.high >= 3.0)) <= 0.97
    assert np.mean(test.low > 0) > (0.99 if spread == 1.0 else 0.5)


@pytest.mark.parametrize("sizes", [(10, 10), (5, 8), (2, 2)])
def test_welch_agrees_with_scipy(sizes):
    rng = np.random.default_rng(1)
    winner, baseline = rng.normal(1, 3, (7, sizes[0])), rng.normal(0, 1, (7, sizes[1]))
    ours = welch_test(winner, baseline)
    theirs = stats.ttest_ind(winner, baseline, axis=-1, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    np.testing.assert_allclose(ours.statistic, theirs.statistic)
    np.testing.assert_allclose(ours.degrees_of_freedom, theirs.df)
    np.testing.assert_allclose(ours.p_value, theirs.pvalue)
    np.testing.assert_allclose(ours.low, interval.low)
    np.testing.assert_allclose(ours.high, interval.high)


def test_iqm_drops_the_outer_quarters():
    values = np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0])
    assert iqm(values) == pytest.approx(np.mean([2.0, 3.0, 4.0, 5.0]))


@pytest.mark.parametrize("statistic", ["median", "iqm"])
def test_summary_agrees_with_scipy_on_the_same_resamples(statistic):
    values = np.random.default_rng(1).gamma(2.0, 50.0, 12)
    function = {
        "median": np.median,
        "iqm": lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
    }[statistic]
    found = getattr(summarize(values), statistic)
    method = {BCA: "BCa", PERCENTILE: "percentile"}[found.method]
    assert method == ("percentile" if statistic == "median" else "BCa")
    expected = stats.bootstrap(
        (values,), function, n_resamples=9_999, method=method, rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.value == pytest.approx(function(values, axis=-1))


def test_bca_interval_is_the_published_one(monkeypatch):
    # Efron and Tibshirani, An Introduction to the Bootstrap, 1993, table 14.2: the variance
    # of the 26 spatial test values A, 90% interval.
    values = "48 36 20 29 42 42 20 42 22 41 45 14 6 0 33 28 34 4 32 24 47 41 24 26 30 41"
    values = np.array([float(value) for value in values.split()])
    monkeypatch.setattr("tune.evidence.statistics.CONFIDENCE", 0.9)
    found = estimate([values], np.var)
    assert found.value == pytest.approx(171.5, abs=0.1)
    assert found.interval == pytest.approx((115.8, 259.6), rel=0.02)


def test_probability_of_improvement_counts_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, 7).astype(float), rng.integers(0, 4, 9).astype(float)
    pairs = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    found = probability_of_improvement(a, b)
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.value == stats.mannwhitneyu(a, b).statistic / 63


@pytest.mark.parametrize("seeds", [(2, 2), (8, 8), (20, 20), (5, 12)])
@pytest.mark.parametrize("probability", [0.5, 0.75, 0.92, 0.98])
def test_probability_of_improvement_lies_in_its_interval(probability, seeds):
    """Also near 1, where the bootstrap's collapses: 46% at 0.98 with 8 seeds."""
    rng = np.random.default_rng(0)
    shift = stats.norm.ppf(probability) * np.sqrt(2)
    held = []
    for _ in range(500):
        winner, baseline = rng.normal(shift, 1, seeds[0]), rng.normal(0, 1, seeds[1])
        low, high = probability_of_improvement(winner, baseline).interval
        held.append(low <= probability <= high)
    assert np.mean(held) >= (0.92 if min(seeds) > 2 else 0.88)


def test_interval_of_the_probability_of_improvement_is_the_one_of_its_equation():
    """On a grid, for every share of pairs: as far as the standard error of the probability."""
    p = np.linspace(0, 1, 100_001)
    for n, m in ((2, 2), (3, 5), (8, 8), (4, 20)):
        more = (n + m) / 2 - 1
        error = np.sqrt(p * (1 - p) * (1 + more * ((1 - p) / (2 - p) + p / (1 + p))) / (n * m))
        for baseline in ([0.0] * m, [1.0, *[0.0] * (m - 1)], [1.0] * m, [2.0] * m):
            found = probability_of_improvement(np.ones(n), np.array(baseline))
            inside = p[np.abs(found.value - p) <= stats.norm.ppf(0.975) * error + 1e-9]
            assert found.interval == pytest.approx((inside[0], inside[-1]), abs=2e-5)
            assert found.interval[1] - found.interval[0] > 0.15, "it never collapses"
    assert probability_of_improvement(np.ones(1), np.zeros(5)).interval is None


def test_performance_profile_is_the_share_of_seeds_above():
    values = np.array([1.0, 2.0, 2.0, NAN])
    assert performance_profile(values, np.array([0.5, 1.0, 2.0])).tolist() == [0.75, 0.5, 0.0]


def test_student_interval_of_the_mean_is_the_textbook_one():
    values = np.random.default_rng(1).gamma(2.0, 50.0, 12)
    found = summarize(values).mean
    half = stats.t(11).ppf(0.975) * values.std(ddof=1) / np.sqrt(12)
    assert found.interval == pytest.approx((values.mean() - half, values.mean() + half))
    assert (found.value, found.method) == (pytest.approx(values.mean()), STUDENT)


@pytest.mark.parametrize(
    ("winner", "baseline"),
    [
        ([500, 499, 500, 498], [400, 410, 390, 405]),
        ([500, 500, 500, 500], [400, 400, 400, 400]),
        ([500, 499, 500, NAN], [400, 410, 390, 405]),
        ([500], [100]),
        ([NAN, NAN], [400, 410]),
    ],
)
def test_comparisons_never_hold_nan(winner, baseline):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        comparison = compare(np.array(winner, float), np.array(baseline, float))
    probability = comparison.probability_of_improvement
    assert np.isfinite([probability.value, *(probability.interval or ())]).all()
    for difference in (comparison.difference, comparison.difference_bootstrap):
        if difference is not None:
            assert np.isfinite([difference.value, *(difference.interval or ())]).all()
            assert difference.value == np.nanmean(winner) - np.nanmean(baseline)


def test_diverged_seeds_rank_last():
    comparison = compare(np.array([1.0, NAN]), np.array([0.0, 0.5]))
    assert comparison.probability_of_improvement.value == 0.5


def test_degenerate_values_never_give_nan():
    equal = summarize(np.full(5, 500.0))
    for found, method in (
        (equal.mean, STUDENT),
        (equal.median, PERCENTILE),
        (equal.iqm, PERCENTILE),
    ):
        assert (found.value, found.interval, found.method) == (500.0, (500.0, 500.0), method)
    single = summarize(np.array([3.0]))
    assert (single.mean.value, single.mean.interval, single.seeds) == (3.0, None, 1)
    assert summarize(np.array([NAN, NAN])) is None


def test_diverged_seeds_are_left_out_of_means():
    summary = summarize(np.array([1.0, NAN, 3.0, np.inf]))
    assert (summary.mean.value, summary.seeds) == (2.0, 2)


def test_the_same_values_give_the_same_intervals():
    values = np.random.default_rng(3).normal(size=10)
    assert summarize(values) == summarize(values.copy())
