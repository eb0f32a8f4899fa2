"""Running statistics against NumPy over everything at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.normalization import CLIP, RunningStatistics, normalized, scaled


@pytest.mark.parametrize("shape", [(), (3,), (4, 2)])
def test_statistics_of_batches_are_those_of_all_values(shape):
    random = np.random.default_rng(0)
    batches = [random.normal(5, 3, (n, *shape)).astype(np.float32) for n in (16, 1, 7, 300)]
    statistics = RunningStatistics.empty(shape)
    for batch in batches:
        statistics = jax.jit(RunningStatistics.updated)(statistics, jnp.asarray(batch))
    values = np.concatenate(batches)
    np.testing.assert_allclose(statistics.mean, values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics.variance, values.var(0), rtol=1e-4)
    assert statistics.weight == len(values)


def test_many_small_batches_far_from_zero_keep_their_precision():
    values = 1000 + np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)
    statistics, _ = jax.lax.scan(
        lambda s, batch: (s.updated(batch), None), RunningStatistics.empty(()), jnp.asarray(values)
    )
    np.testing.assert_allclose(statistics.mean, 1000, rtol=1e-5)
    np.testing.assert_allclose(statistics.variance, values.var(), rtol=0.01)


def shifted(mean, weight, batches, shift=1.0):
    """Return statistics of `weight` values with deviation 1, and then of shifted batches."""
    statistics = RunningStatistics.empty(())
    statistics = statistics._replace(
        mean=jnp.float32(mean), variance=jnp.float32(1), weight=jnp.float32(weight)
    )
    batch = mean + shift + jnp.asarray(np.tile([-1.0, 1.0], 512), jnp.float32)

    @jax.jit
    def take_in(statistics):
        return jax.lax.fori_loop(0, batches, lambda _, s: s.updated(batch), statistics)

    return take_in(statistics), batches * len(batch)


@pytest.mark.parametrize("mean", [0.0, 100.0, 1000.0])
@pytest.mark.parametrize("weight", [1e7, 1e9])
def test_statistics_of_many_values_keep_moving(weight, mean):
    """A quarter more values, shifted by one deviation, move the mean by a fifth of it."""
    statistics, added = shifted(mean, weight, round(weight / 4 / 1024))
    share = added / (weight + added)
    np.testing.assert_allclose(statistics.mean - mean, share, atol=1e-3 + 1e-7 * mean)
    np.testing.assert_allclose(statistics.variance, 1 + share * (1 - share), rtol=1e-3)
    np.testing.assert_allclose(statistics.weight, weight + added, rtol=1e-6)


def test_tiny_spreads_are_not_lost():
    values = np.float32(1e-5) * np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    statistics = RunningStatistics.empty((3,)).updated(jnp.asarray(values))
    np.testing.assert_allclose(statistics.variance, values.var(axis=0), rtol=1e-4)


def test_bytes_are_counted_as_numbers():
    statistics = RunningStatistics.empty((2,)).updated(jnp.array([[255, 0], [255, 1]], jnp.uint8))
    np.testing.assert_allclose(statistics.mean, [255, 0.5])
    np.testing.assert_allclose(statistics.variance, [0, 0.25])


def test_normalized_values_have_mean_0_and_variance_1():
    values = jnp.asarray(np.random.default_rng(0).normal(-7, 4, (5000, 3)), jnp.float32)
    statistics = RunningStatistics.empty((3,)).updated(values)
    result = np.asarray(normalized(statistics, values))
    np.testing.assert_allclose(result.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(result.std(0), 1, atol=1e-4)
    np.testing.assert_allclose(scaled(statistics, values), values / values.std(0), rtol=1e-4)


def test_outliers_are_clipped_and_constants_stay_finite():
    statistics = RunningStatistics.empty((2,)).updated(jnp.array([[0.0, 3.0], [1.0, 3.0]]))
    result = normalized(statistics, jnp.array([1e9, 3.0]))
    np.testing.assert_array_equal(result, [CLIP, 0])
    assert scaled(statistics, jnp.array([-1e9, 0.0])).tolist() == [-CLIP, 0]


def test_nothing_seen_leaves_values_as_they_are():
    np.testing.assert_allclose(normalized(RunningStatistics.empty(()), jnp.float32(2)), 2)
