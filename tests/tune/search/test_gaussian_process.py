"""The Gaussian process against scikit-learn's, and its gradient against differences."""

import numpy as np
import pytest
from scipy import optimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from tune.search.gaussian_process import GaussianProcess, negative_log_posterior


@pytest.fixture
def observed():
    rng = np.random.default_rng(0)
    points = rng.random((25, 3))
    values = 100 * np.sin(4 * points[:, 0]) + 30 * points[:, 1] + rng.normal(0, 3, 25)
    return points, values, rng.uniform(4, 30, 25)


def reference(process):
    """Return scikit-learn's process with the kernel that `process` has found."""
    length_scales = np.exp(process.log_kernel[:-2])
    signal, learned = np.exp(process.log_kernel[-2:])
    spread = process.values.std()
    kernel = ConstantKernel(signal) * Matern(length_scales, nu=2.5)
    noise = process.variances / spread**2 + learned + 1e-8
    model = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None, normalize_y=True)
    return model.fit(process.points, process.values)


def test_predictions_are_those_of_scikit_learn(observed):
    process = GaussianProcess.fit(*observed)
    elsewhere = np.random.default_rng(1).random((40, 3))
    mean, deviation = process.predict(elsewhere)
    expected_mean, expected_deviation = reference(process).predict(elsewhere, return_std=True)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-7)
    np.testing.assert_allclose(deviation, expected_deviation, rtol=1e-5)


def test_covariances_are_those_of_scikit_learn(observed):
    process = GaussianProcess.fit(*observed)
    elsewhere = np.random.default_rng(1).random((40, 3))
    before, after = process.covariances(elsewhere)
    model = reference(process)
    _, expected = model.predict(elsewhere, return_cov=True)
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-9 * np.abs(before).max())
    np.testing.assert_allclose(before, model.kernel_(elsewhere) * process.values.var())


def test_density_is_the_marginal_likelihood_and_the_priors(observed):
    points, values, variances = observed
    process = GaussianProcess.fit(points, values, variances)
    squares = ((points.T[:, :, None] - points.T[:, None, :]) ** 2).reshape(3, -1)
    standard = (values - values.mean()) / values.std()
    found, _ = negative_log_posterior(
        process.log_kernel, squares, standard, variances / values.std() ** 2
    )
    likelihood = reference(process).log_marginal_likelihood_value_ + 25 / 2 * np.log(2 * np.pi)
    median, deviation = np.log([0.8, 0.8, 0.8, 1.0, 0.01]), np.array([1, 1, 1, 1, 1.5])
    priors = -0.5 * (((process.log_kernel - median) / deviation) ** 2).sum()
    assert found == pytest.approx(-(likelihood + priors), rel=1e-7)


def test_gradient_is_the_slope_of_the_density(observed):
    points, values, variances = observed
    squares = ((points.T[:, :, None] - points.T[:, None, :]) ** 2).reshape(3, -1)
    arguments = squares, (values - values.mean()) / values.std(), variances / values.var()
    for log_kernel in np.random.default_rng(2).normal(-0.5, 0.7, (5, 5)):
        slope = optimize.approx_fprime(
            log_kernel, lambda x: negative_log_posterior(x, *arguments)[0], 1e-6
        )
        _, gradient = negative_log_posterior(log_kernel, *arguments)
        np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-3)


def test_an_irrelevant_coordinate_gets_a_long_scale(observed):
    process = GaussianProcess.fit(*observed)
    length_scales = np.exp(process.log_kernel[:3])
    assert length_scales[0] < 1 < length_scales[2]


def test_a_noisy_observation_is_believed_less(observed):
    points, values, variances = observed
    values = values.copy()
    values[3] += 200
    sure, unsure = variances.copy(), variances.copy()
    sure[3], unsure[3] = 1.0, 1e5
    means = [GaussianProcess.fit(points, values, v).predict(points[3:4])[0] for v in (sure, unsure)]
    assert values[3] - means[1] > 3 * abs(values[3] - means[0])


def test_believing_lowers_the_deviation_and_keeps_the_mean(observed):
    process = GaussianProcess.fit(*observed)
    pending = np.array([[0.5, 0.5, 0.5]])
    believing = process.believing(pending)
    before, after = process.predict(pending), believing.predict(pending)
    assert after[1] < before[1]
    np.testing.assert_allclose(after[0], before[0], rtol=1e-6)


def test_equal_values_and_many_observations_are_no_error():
    points = np.random.default_rng(0).random((400, 2))
    process = GaussianProcess.fit(points, np.full(400, -200.0), np.zeros(400))
    mean, deviation = process.predict(points[:3])
    np.testing.assert_allclose(mean, -200.0)
    assert np.isfinite(deviation).all()
