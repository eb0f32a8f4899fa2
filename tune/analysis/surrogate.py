"""A Gaussian process of the score over the search space, scaled to the unit cube.

Marginals, variance shares (fANOVA) and good ranges are computed from it in closed form. Which
of them are reported, and with what uncertainty, is in :mod:`tune.analysis.importance`. The
Gaussian process that proposes trials is another one, in :mod:`tune.search`.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import linalg, optimize, stats

from tune.protocol.axes import Axis
from tune.protocol.trials import TrialRecord

MIN_TRIALS = 4
"""Fewest trials with a score that a model or a regression is fitted to."""

_GOOD_TOLERANCE = 0.25


@dataclasses.dataclass(frozen=True)
class GoodRange:
    """The values of a parameter that score well.

    A value is good if its expected score, averaged over all settings of the other parameters,
    is at most a quarter of the score's standard deviation over the search space below the
    highest.

    Attributes:
      values: (low, high) of a range, the connected part around the best value; or the good
        choices of a list.
      best: the value with the highest expected score.
      everywhere: whether every value is good, so the parameter hardly matters.
    """

    values: tuple[Any, ...]
    best: Any
    everywhere: bool


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """A Gaussian process of the score over the unit cube.

    The kernel is a product over axes, so means and variances over any subset of axes are sums
    of products of one-dimensional integrals (Oakley and O'Hagan, 2004,
    doi:10.1111/j.1467-9868.2004.05304.x); nothing is sampled. Random forests, the usual choice
    for fANOVA, approximate slopes with steps and therefore report an interaction between any
    two strong parameters.

    Attributes:
      axes: the parameters.
      unit_points: the trials in the unit cube, float ``[trials, axes]``.
      weights: of the kernel functions centred on the trials, float ``[trials]``.
      offset: the score far from all trials.
      length_scales: of the kernel, float ``[axes]``.
      noise: variance of the score that no parameter explains.
      loo_r2: share of the scores' variance that leave-one-out predictions explain (Rasmussen
        and Williams, 2006, equation 5.12). At most 1; negative if they are worse than the mean.
      kernel: the fitted kernel, a starting point for further fits.
    """

    axes: tuple[Axis, ...]
    unit_points: np.ndarray
    weights: np.ndarray
    offset: float
    length_scales: np.ndarray
    noise: float
    loo_r2: float
    kernel: Any

    @classmethod
    def fit(
        cls, axes: Sequence[Axis], scored: Sequence[TrialRecord], start: Any = None
    ) -> "Surrogate":
        """Fit the scores of trials by maximum marginal likelihood.

        Args:
          axes: the parameters.
          scored: trials with a score; at least two, with different scores.
          start: kernel of a fit to similar trials, from which a few steps are enough.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        unit_points = np.array([[a.to_unit(t.params[a.name]) for a in axes] for t in scored])
        scores = np.array([trial.score for trial in scored], np.float64)
        # Shorter length scales than 0.4 would find a pattern in any noise.
        kernel = start or (
            ConstantKernel(1.0, (0.05, 20.0)) * RBF(np.ones(len(axes)), (0.4, 30.0))
            + WhiteKernel(0.3, (0.01, 1.0))
        )
        steps = 100 if start is None else 10
        process = GaussianProcessRegressor(
            kernel, normalize_y=True, optimizer=functools.partial(_minimize, steps=steps)
        )
        with warnings.catch_warnings():  # An irrelevant axis has an infinite length scale.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(unit_points, scores)
        deviation, kernel = scores.std(), process.kernel_
        inverse = linalg.cho_solve((process.L_, True), np.eye(len(scores)))
        errors = deviation * process.alpha_ / np.diag(inverse)
        return cls(
            axes=tuple(axes),
            unit_points=unit_points,
            weights=deviation * kernel.k1.k1.constant_value * process.alpha_,
            offset=float(scores.mean()),
            length_scales=np.broadcast_to(kernel.k1.k2.length_scale, (len(axes),)),
            noise=float(deviation**2 * kernel.k2.noise_level),
            loo_r2=float(1 - np.mean(errors**2) / deviation**2),
            kernel=kernel,
        )

    def marginal(self, *names: str, points: int = 101) -> np.ndarray:
        """Return the expected score over the grids of one or two parameters.

        The expectation is over all settings of the other parameters.

        Args:
          names: one or two parameters.
          points: see :meth:`Axis.grid`.

        Returns:
          Float ``[grid]`` or ``[first grid, second grid]``.
        """
        chosen = [next(i for i, a in enumerate(self.axes) if a.name == name) for name in names]
        others = [i for i in range(len(self.axes)) if i not in chosen]
        mass = self.weights * self._integrals[others].prod(axis=0)
        first, *second = (self._kernel(i, self.axes[i].grid(points)) for i in chosen)
        surface: np.ndarray = (first * mass) @ second[0].T if second else first @ mass
        expected: np.ndarray = self.offset + surface
        return expected

    def shares(self) -> np.ndarray:
        """Return fANOVA shares of the score's variance over the search space, noise included.

        Returns:
          Float ``[axes, axes]``: main effects on the diagonal, pairwise interactions off it.
        """
        mass = self.weights * self._integrals.prod(axis=0)
        squares, flat = np.outer(mass, mass), self._overlaps.reshape(len(self.axes), -1)
        mean = mass.sum() ** 2
        alone = flat @ squares.ravel() - mean
        pairs = (flat * squares.ravel()) @ flat.T - mean - alone[:, None] - alone[None, :]
        np.fill_diagonal(pairs, alone)
        shares: np.ndarray = np.maximum(pairs, 0.0) / (self._variance + self.noise)
        return shares

    def good_ranges(self) -> dict[str, GoodRange]:
        """Return the good range of each parameter; see :class:`GoodRange`."""
        tolerance = _GOOD_TOLERANCE * math.sqrt(self._variance)
        return {axis.name: self._good_range(axis, tolerance) for axis in self.axes}

    def _good_range(self, axis: Axis, tolerance: float) -> GoodRange:
        points, expected = axis.grid(), self.marginal(axis.name)
        good = expected >= expected.max() - tolerance
        if axis.is_list:
            assert axis.values is not None
            values = tuple(v for v, is_good in zip(axis.values, good, strict=True) if is_good)
            return GoodRange(values, axis.values[int(expected.argmax())], bool(good.all()))
        best = int(expected.argmax())
        outside = np.flatnonzero(~good)
        first = max((i + 1 for i in outside if i < best), default=0)
        last = min((i - 1 for i in outside if i > best), default=len(good) - 1)
        low, peak, high = (axis.from_unit(float(points[i])) for i in (first, best, last))
        return GoodRange((low, high), peak, bool(good.all()))

    @functools.cached_property
    def _variance(self) -> float:
        """The variance of the process's mean over the unit cube."""
        mass = self.weights * self._integrals.prod(axis=0)
        squares = (self._overlaps.prod(axis=0) * np.outer(mass, mass)).sum()
        return max(float(squares - mass.sum() ** 2), 0.0)

    @functools.cached_property
    def _integrals(self) -> np.ndarray:
        """Integrals of the kernels over each axis, ``[axes, trials]``."""
        return np.stack([w @ self._kernel(i, p) for i, (p, w) in enumerate(self._quadrature)])

    @functools.cached_property
    def _overlaps(self) -> np.ndarray:
        """Integrals of products of two kernels over each axis, ``[axes, trials, trials]``.

        Relative to the product of their integrals.
        """
        overlaps = []
        for i, (points, weights) in enumerate(self._quadrature):
            kernel = self._kernel(i, points) / self._integrals[i]
            overlaps.append(kernel.T @ (weights[:, None] * kernel))
        return np.stack(overlaps)

    @functools.cached_property
    def _quadrature(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [axis.quadrature() for axis in self.axes]

    def _kernel(self, axis: int, points: np.ndarray) -> np.ndarray:
        """Return the trials' kernels at `points` of one axis, ``[points, trials]``."""
        distance = (points[:, None] - self.unit_points[None, :, axis]) / self.length_scales[axis]
        kernel: np.ndarray = np.exp(-0.5 * distance**2)
        return kernel


def with_expected_scores(finished: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials, then the pruned ones with the score they would have reached.

    The expected score comes from a linear regression, over the complete trials, of the score
    on the mean return at the step where the trial was pruned. Without the pruned trials a model
    would hardly see the bad part of the search space. Trials for which there is no such
    regression, or one with a negative slope, are left out.
    """
    complete = [trial for trial in finished if trial.is_complete]
    scored = list(complete)
    for trial in finished:
        if not trial.is_pruned or not trial.means:
            continue
        step, mean = max(trial.means.items())
        known = [
            (t.means[step], t.score) for t in complete if step in t.means and t.score is not None
        ]
        if len(known) < MIN_TRIALS or len({x for x, _ in known}) < 2:
            continue
        line = stats.linregress(*zip(*known, strict=True))
        if line.slope > 0:
            scored.append(dataclasses.replace(trial, score=line.intercept + line.slope * mean))
    return scored


def _minimize(
    objective: Callable[..., Any], start: np.ndarray, bounds: np.ndarray, *, steps: int
) -> tuple[np.ndarray, float]:
    found = optimize.minimize(
        objective, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": steps}
    )
    return found.x, found.fun
