"""The distributions against SciPy and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ppo_jax.distributions import Categorical, Gaussian, SquashedGaussian

CATEGORICAL = Categorical(3)
LOGITS = np.random.default_rng(0).normal(scale=2, size=(5, 4, 3)).astype(np.float32)


@pytest.fixture(params=["cpu", "accelerator"])
def platform(request):
    """Whose form of the sums over actions the test sees."""
    if request.param == "accelerator":
        request.getfixturevalue("accelerator_forms")


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("shape", [(), (4,), (5, 4)])
def test_log_probability(shape):
    logits = LOGITS[(0,) * (2 - len(shape))]
    action = np.random.default_rng(1).integers(0, 3, shape).astype(np.int32)
    log_probs = scipy.special.log_softmax(logits, axis=-1)
    expected = np.take_along_axis(log_probs, np.asarray(action)[..., None], -1)[..., 0]
    computed = CATEGORICAL.log_prob(jnp.asarray(logits), jnp.asarray(action))
    assert computed.shape == shape
    np.testing.assert_allclose(computed, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("shape", [(), (4,), (5, 4)])
def test_entropy(shape):
    logits = LOGITS[(0,) * (2 - len(shape))]
    expected = scipy.stats.entropy(scipy.special.softmax(logits, axis=-1), axis=-1)
    computed = CATEGORICAL.entropy(jnp.asarray(logits))
    assert computed.shape == shape
    np.testing.assert_allclose(computed, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("shape", [(), (4,), (5, 4)])
def test_mode(shape):
    logits = LOGITS[(0,) * (2 - len(shape))]
    computed = CATEGORICAL.mode(jnp.asarray(logits))
    assert computed.dtype == jnp.int32
    np.testing.assert_array_equal(computed, logits.argmax(-1))


@pytest.mark.usefixtures("platform")
def test_the_first_of_equals_is_the_mode_and_of_many_actions_the_largest():
    np.testing.assert_array_equal(CATEGORICAL.mode(jnp.array([[1.0, 1, 0], [0, 2, 2]])), [0, 1])
    many = jnp.asarray(np.random.default_rng(0).normal(size=(4, 40)), jnp.float32)
    np.testing.assert_array_equal(Categorical(40).mode(many), many.argmax(-1))
    expected = scipy.special.log_softmax(many, axis=-1)[:, 39]
    computed = Categorical(40).log_prob(many, jnp.full(4, 39))
    np.testing.assert_allclose(computed, expected, rtol=1e-5)


def test_sampling_frequencies():
    draws, logits = 20_000, LOGITS[0]
    noise = CATEGORICAL.noise(jax.random.key(0), (draws, 4))
    actions = CATEGORICAL.sample(logits, noise)
    assert actions.shape == (draws, 4)
    assert actions.dtype == jnp.int32
    frequencies = np.stack([(np.asarray(actions) == a).mean(0) for a in range(3)], axis=-1)
    # Five standard deviations of a frequency.
    np.testing.assert_allclose(frequencies, scipy.special.softmax(logits, -1), atol=0.018)


def test_sampling_draws_independently_along_a_batch():
    noise = Categorical(2).noise(jax.random.key(0), (1000,))
    assert 400 < Categorical(2).sample(jnp.zeros(2), noise).sum() < 600


@pytest.mark.usefixtures("platform")
def test_extreme_logits_stay_finite():
    logits = jnp.array([1e4, 0.0, -1e4])
    np.testing.assert_allclose(CATEGORICAL.log_prob(logits, jnp.array(0)), 0.0)
    np.testing.assert_allclose(CATEGORICAL.entropy(logits), 0.0)
    gradient = jax.grad(CATEGORICAL.entropy)(logits)
    assert jnp.isfinite(gradient).all()


def test_shifting_all_logits_changes_nothing():
    logits, action = jnp.asarray(LOGITS[0]), jnp.arange(4) % 3
    for function in (
        CATEGORICAL.entropy,
        lambda x: CATEGORICAL.log_prob(x, action),
    ):
        np.testing.assert_allclose(function(logits + 7), function(logits), atol=1e-5)


LOW, HIGH = (-2.0, 0.0, -np.inf), (2.0, 0.5, np.inf)
GAUSSIAN = Gaussian(LOW, HIGH)
SQUASHED = SquashedGaussian(LOW[:2], HIGH[:2])
RANDOM = np.random.default_rng(3)


def outputs(distribution, shape=()):
    size = len(distribution.low)
    means, log_stds = RANDOM.normal(size=(*shape, size)), RANDOM.normal(-0.5, 0.4, (*shape, size))
    return jnp.asarray(np.concatenate([means, log_stds], -1), jnp.float32), means, np.exp(log_stds)


@pytest.mark.parametrize("shape", [(), (4,), (5, 4)])
def test_gaussian_density_and_entropy(shape):
    out, means, stds = outputs(GAUSSIAN, shape)
    raw = RANDOM.normal(size=means.shape)
    expected = scipy.stats.norm(means, stds)
    density = GAUSSIAN.log_prob(out, jnp.asarray(raw, jnp.float32))
    np.testing.assert_allclose(density, expected.logpdf(raw).sum(-1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(GAUSSIAN.entropy(out), expected.entropy().sum(-1), rtol=1e-5)


@pytest.mark.parametrize("distribution", [GAUSSIAN, SQUASHED])
def test_gaussian_samples_have_their_mean_and_spread(distribution):
    out, means, stds = outputs(distribution)
    raw = np.asarray(distribution.sample(out, distribution.noise(jax.random.key(0), (20_000,))))
    assert raw.shape == (20_000, len(means))
    np.testing.assert_allclose(raw.mean(0), means, atol=0.05)
    np.testing.assert_allclose(raw.std(0), stds, rtol=0.04)
    np.testing.assert_allclose(distribution.mode(out), means, rtol=1e-5)


def test_the_action_is_mapped_to_its_bounds_and_clipped():
    raw = jnp.array([[-1.0, -1.0, -7.0], [0.0, 0.0, 0.0], [1.0, 1.0, 7.0], [-3.0, 3.0, 99.0]])
    expected = [[-2, 0, -7], [0, 0.25, 0], [2, 0.5, 7], [-2, 0.5, 99]]
    np.testing.assert_allclose(GAUSSIAN.action(raw), expected)


def test_a_squashed_action_never_leaves_its_bounds():
    raw = jnp.array([[-50.0, 50.0], [0.0, 0.0], [0.5, -0.5]])
    expected = [[-2, 0.5], [0, 0.25], [2 * np.tanh(0.5), 0.25 - 0.25 * np.tanh(0.5)]]
    np.testing.assert_allclose(SQUASHED.action(raw), expected, rtol=1e-6)


def test_squashed_density_is_that_of_the_tanh():
    distribution = SquashedGaussian((-1.0,), (1.0,))
    out, (mean,), (std,) = outputs(distribution)
    action = np.linspace(-0.999, 0.999, 20_001)
    log_density = distribution.log_prob(out, jnp.asarray(np.arctanh(action)[:, None], jnp.float32))
    density = np.exp(np.asarray(log_density, np.float64))
    np.testing.assert_allclose(np.trapezoid(density, action), 1, atol=0.01)
    # The density of the tanh by the change of variables, written with arctanh.
    expected = scipy.stats.norm(mean, std).pdf(np.arctanh(action)) / (1 - action**2)
    np.testing.assert_allclose(density, expected, rtol=2e-3, atol=1e-4)


def test_squashed_entropy_is_the_mean_of_the_negative_log_density():
    out, _, _ = outputs(SQUASHED)
    raw = SQUASHED.sample(out, SQUASHED.noise(jax.random.key(1), (200_000,)))
    np.testing.assert_allclose(
        SQUASHED.entropy(out), -SQUASHED.log_prob(out, raw).mean(), atol=0.01
    )


def test_squashed_density_and_its_gradient_stay_finite_far_out():
    raw = jnp.array([[-60.0, 60.0]])
    out = jnp.zeros(4)
    assert jnp.isfinite(SQUASHED.log_prob(out, raw)).all()
    assert jnp.isfinite(jax.grad(lambda x: SQUASHED.log_prob(x, raw).sum())(out)).all()
