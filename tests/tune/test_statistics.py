import numpy as np
import pytest
from scipy import stats

from tune.statistics import bootstrap_interval, compare, iqm, probability_of_improvement, summarize


def test_iqm_drops_the_outer_quarters():
    values = np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0])
    assert iqm(values) == pytest.approx(np.mean([2.0, 3.0, 4.0, 5.0]))


def test_interval_agrees_with_scipy_on_the_same_resamples():
    values = np.random.default_rng(1).normal(size=12)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=9_999, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert bootstrap_interval([values], np.mean) == pytest.approx((expected.low, expected.high))


def test_interval_of_a_difference_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        comparison = compare(rng.normal(1.0, 2.0, 20), rng.normal(0.0, 1.0, 20))
        low, high = comparison.difference_interval
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_probability_of_improvement_counts_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, 7).astype(float), rng.integers(0, 4, 9).astype(float)
    pairs = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    assert probability_of_improvement(a, b) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(
    ("winner", "baseline", "verdict"),
    [
        ([500, 499, 500, 498], [400, 410, 390, 405], "improved"),
        ([400, 410, 390, 405], [500, 499, 500, 498], "worse"),
        ([500, 480, 490, 470], [495, 485, 475, 480], "no clear difference"),
        ([500, 500, 500, 500], [500, 500, 500, 500], "no clear difference"),
        ([500], [100], "no clear difference"),
    ],
)
def test_verdict(winner, baseline, verdict):
    comparison = compare(np.array(winner, float), np.array(baseline, float))
    assert comparison.verdict == verdict
    assert comparison.difference == np.mean(winner) - np.mean(baseline)


def test_degenerate_values_never_give_nan():
    equal = summarize(np.full(5, 500.0))
    assert equal.mean_interval == equal.iqm_interval == (500.0, 500.0)
    single = summarize(np.array([3.0]))
    assert (single.mean, single.mean_interval, single.seeds) == (3.0, None, 1)
    assert summarize(np.array([np.nan, np.nan])) is None
    assert compare(np.array([np.nan]), np.array([1.0, 2.0])) is None


def test_diverged_seeds_are_left_out():
    summary = summarize(np.array([1.0, np.nan, 3.0, np.inf]))
    assert (summary.mean, summary.seeds) == (2.0, 2)
