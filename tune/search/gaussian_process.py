"""A Gaussian process for few observations whose noise is known.

Pure functions of arrays. Rasmussen and Williams, 2006, "Gaussian Processes for Machine
Learning"; equations are those of the book.
"""

import dataclasses
from typing import Self

import numpy as np
from scipy import linalg, optimize
from scipy.spatial.distance import cdist

_ROOT5 = 5**0.5

_LENGTH_SCALE, _SIGNAL, _NOISE = (0.8, 1.0), (1.0, 1.0), (0.01, 1.5)
"""Log-normal priors, (median, standard deviation of the logarithm): of a length scale, and of
the variances of signal and noise relative to that of the values."""

_BOUNDS = (-3.0, 4.0), (-4.0, 4.0), (-9.0, 1.0)
"""Of the logarithms of length scales, signal and noise."""

_JITTER = 1e-8
_STEPS = 30
_MOST_FITTED = 150
"""Observations that the kernel is fitted to, evenly taken from all; the posterior knows all."""


@dataclasses.dataclass(frozen=True)
class GaussianProcess:
    """The posterior of a function over the unit cube.

    The kernel is a Matérn-5/2 (equation 4.17) with a length scale for each coordinate. Every
    observation has a known variance; another one, common to all, is learned.

    Attributes:
      points: float ``[observations, coordinates]``.
      values: float ``[observations]``.
      variances: of the values, float ``[observations]``.
      log_kernel: logarithms of the length scales, of signal and noise variance,
        float ``[coordinates + 2]``.
    """

    points: np.ndarray
    values: np.ndarray
    variances: np.ndarray
    log_kernel: np.ndarray
    _offset: float
    _scale: float
    _factor: np.ndarray
    _weights: np.ndarray

    @classmethod
    def fit(cls, points: np.ndarray, values: np.ndarray, variances: np.ndarray) -> Self:
        """Find the kernel of maximum posterior density (section 5.4.1), and the posterior."""
        offset, scale = float(values.mean()), float(values.std()) or 1.0
        standard, noise = (values - offset) / scale, variances / scale**2
        count = len(values)
        some = np.unique(np.linspace(0, count - 1, min(count, _MOST_FITTED)).astype(int))
        log_kernel = _fit_kernel(points[some], standard[some], noise[some])
        return cls._conditioned(points, values, variances, log_kernel, offset, scale)

    def believing(self, points: np.ndarray) -> Self:
        """Return the process as if its expectations at `points` had been observed.

        The Kriging believer (Ginsbourger et al., 2010, doi:10.1007/978-3-642-10701-6_6): what
        is still running will do what is expected of it, so nothing is proposed beside it.
        """
        expected, _ = self.predict(points)
        return self._conditioned(
            np.concatenate([self.points, points]),
            np.concatenate([self.values, expected]),
            np.concatenate([self.variances, np.full(len(points), np.median(self.variances))]),
            self.log_kernel,
            self._offset,
            self._scale,
        )

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the function at `points`, ``[points]`` each.

        Equations 2.25 and 2.26.
        """
        covariance = _matern(self.points, points, self.log_kernel)
        explained = linalg.solve_triangular(self._factor, covariance, lower=True)
        variance = np.exp(self.log_kernel[-2]) - (explained**2).sum(axis=0)
        mean = self._offset + self._scale * (self._weights @ covariance)
        return mean, self._scale * np.sqrt(np.maximum(variance, 1e-12))

    def covariances(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the covariance of the function between `points` before and after it was observed.

        Float ``[points, points]`` each; the second is equation 2.24.
        """
        before = _matern(points, points, self.log_kernel)
        covariance = _matern(self.points, points, self.log_kernel)
        explained = linalg.solve_triangular(self._factor, covariance, lower=True)
        return self._scale**2 * before, self._scale**2 * (before - explained.T @ explained)

    @classmethod
    def _conditioned(
        cls,
        points: np.ndarray,
        values: np.ndarray,
        variances: np.ndarray,
        log_kernel: np.ndarray,
        offset: float,
        scale: float,
    ) -> Self:
        noise = variances / scale**2 + np.exp(log_kernel[-1]) + _JITTER
        covariance = _matern(points, points, log_kernel) + np.diag(noise)
        factor = linalg.cholesky(covariance, lower=True)
        weights = linalg.cho_solve((factor, True), (values - offset) / scale)
        return cls(points, values, variances, log_kernel, offset, scale, factor, weights)


def negative_log_posterior(
    log_kernel: np.ndarray, squares: np.ndarray, values: np.ndarray, noise: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the negative log posterior density of a kernel, and its gradient.

    Equations 5.8 and 5.9 with the log-normal priors.

    Args:
      log_kernel: see :attr:`GaussianProcess.log_kernel`.
      squares: squared differences, float ``[coordinates, observations * observations]``.
      values: of mean 0 and variance 1, float ``[observations]``.
      noise: known variances of the values, float ``[observations]``.
    """
    coordinates = len(squares)
    inverse_squares = np.exp(-2 * log_kernel[:coordinates])
    signal, learned = np.exp(log_kernel[coordinates:])
    squared = (inverse_squares @ squares).reshape(len(values), len(values))
    distance = np.sqrt(np.maximum(squared, 1e-16))
    decay = signal * np.exp(-_ROOT5 * distance)
    kernel = (1 + _ROOT5 * distance + 5 / 3 * distance**2) * decay
    slope = 5 / 3 * (1 + _ROOT5 * distance) * decay
    try:
        factor = linalg.cholesky(kernel + np.diag(noise + learned + _JITTER), lower=True)
    except linalg.LinAlgError:
        return 1e10, np.zeros_like(log_kernel)
    weights = linalg.cho_solve((factor, True), values)
    inverse = linalg.cho_solve((factor, True), np.eye(len(values)))
    ascent = np.outer(weights, weights) - inverse
    median, deviation = _priors(coordinates)
    standard = (log_kernel - median) / deviation
    likelihood = 0.5 * values @ weights + np.log(np.diag(factor)).sum()
    gradient = np.concatenate(
        [
            -0.5 * inverse_squares * (squares @ (ascent * slope).ravel()),
            [-0.5 * (ascent * kernel).sum(), -0.5 * learned * np.trace(ascent)],
        ]
    )
    return float(likelihood + 0.5 * standard @ standard), gradient + standard / deviation


def _fit_kernel(points: np.ndarray, values: np.ndarray, noise: np.ndarray) -> np.ndarray:
    coordinates = points.shape[1]
    differences = points.T[:, :, None] - points.T[:, None, :]
    squares = (differences**2).reshape(coordinates, -1)
    median, _ = _priors(coordinates)
    length, signal, learned = _BOUNDS
    found = optimize.minimize(
        negative_log_posterior,
        median,
        args=(squares, values, noise),
        jac=True,
        method="L-BFGS-B",
        bounds=[length] * coordinates + [signal, learned],
        options={"maxiter": _STEPS},
    )
    return np.asarray(found.x)


def _priors(coordinates: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of the logarithms of a kernel, ``[coordinates + 2]`` each."""
    priors = np.array([_LENGTH_SCALE] * coordinates + [_SIGNAL, _NOISE])
    return np.log(priors[:, 0]), priors[:, 1]


def _matern(a: np.ndarray, b: np.ndarray, log_kernel: np.ndarray) -> np.ndarray:
    """Return the kernel between points ``[n, coordinates]`` and ``[m, coordinates]``."""
    length_scales = np.exp(log_kernel[:-2])
    distance = _ROOT5 * cdist(a / length_scales, b / length_scales)
    kernel: np.ndarray = (1 + distance + distance**2 / 3) * np.exp(log_kernel[-2] - distance)
    return kernel
