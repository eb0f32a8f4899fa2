"""The categorical distribution against SciPy and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ppo_jax import distributions

LOGITS = np.random.default_rng(0).normal(scale=2, size=(5, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", [(), (4,), (5, 4)])
def test_log_probability(shape):
    logits = LOGITS[(0,) * (2 - len(shape))]
    action = np.random.default_rng(1).integers(0, 3, shape).astype(np.int32)
    log_probs = scipy.special.log_softmax(logits, axis=-1)
    expected = np.take_along_axis(log_probs, np.asarray(action)[..., None], -1)[..., 0]
    computed = distributions.categorical_log_prob(jnp.asarray(logits), jnp.asarray(action))
    assert computed.shape == shape
    np.testing.assert_allclose(computed, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (4,), (5, 4)])
def test_entropy(shape):
    logits = LOGITS[(0,) * (2 - len(shape))]
    expected = scipy.stats.entropy(scipy.special.softmax(logits, axis=-1), axis=-1)
    computed = distributions.categorical_entropy(jnp.asarray(logits))
    assert computed.shape == shape
    np.testing.assert_allclose(computed, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (4,), (5, 4)])
def test_mode(shape):
    logits = LOGITS[(0,) * (2 - len(shape))]
    computed = distributions.categorical_mode(jnp.asarray(logits))
    assert computed.dtype == jnp.int32
    np.testing.assert_array_equal(computed, logits.argmax(-1))


def test_sampling_frequencies():
    draws, logits = 20_000, LOGITS[0]
    noise = distributions.categorical_noise(jax.random.key(0), (draws, *logits.shape))
    actions = distributions.categorical_sample(logits, noise)
    assert actions.shape == (draws, 4)
    assert actions.dtype == jnp.int32
    frequencies = np.stack([(np.asarray(actions) == a).mean(0) for a in range(3)], axis=-1)
    # Five standard deviations of a frequency.
    np.testing.assert_allclose(frequencies, scipy.special.softmax(logits, -1), atol=0.018)


def test_sampling_draws_independently_along_a_batch():
    noise = distributions.categorical_noise(jax.random.key(0), (1000, 2))
    assert 400 < distributions.categorical_sample(jnp.zeros(2), noise).sum() < 600


def test_extreme_logits_stay_finite():
    logits = jnp.array([1e4, 0.0, -1e4])
    np.testing.assert_allclose(distributions.categorical_log_prob(logits, jnp.array(0)), 0.0)
    np.testing.assert_allclose(distributions.categorical_entropy(logits), 0.0)
    gradient = jax.grad(distributions.categorical_entropy)(logits)
    assert jnp.isfinite(gradient).all()


def test_shifting_all_logits_changes_nothing():
    logits, action = jnp.asarray(LOGITS[0]), jnp.arange(4) % 3
    for function in (
        distributions.categorical_entropy,
        lambda x: distributions.categorical_log_prob(x, action),
    ):
        np.testing.assert_allclose(function(logits + 7), function(logits), atol=1e-5)
