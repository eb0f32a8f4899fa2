"""Intervals of the mean of independent values, and of the difference of two means.

``scipy.stats`` is imported where it is used: it takes half a second, which ``--help`` and the
import of ``ppo_jax.train`` need not wait for.
"""

import warnings
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
"""Of every interval that says nothing else."""

STUDENT, WELCH = "Student t", "Welch t"

Interval = tuple[float, float]
"""(low, high)"""


class WelchTest(NamedTuple):
    """Welch's test of equal means, scalars or one value for each of a batch of samples.

    Attributes:
      statistic, degrees_of_freedom, p_value: of the two-sided test.
      low, high: the interval of the difference that belongs to it.
    """

    statistic: np.ndarray
    degrees_of_freedom: np.ndarray
    p_value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def t_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> Interval | None:
    """Return Student's interval of the mean of `values`, ``[n]``; None for a single value.

    >>> [round(bound, 3) for bound in t_interval(np.array([1.0, 2.0, 3.0]))]
    [-0.484, 4.484]
    """
    if len(values) < 2:
        return None
    if values.min() == values.max():  # SciPy would divide by zero.
        return float(values.mean()), float(values.mean())
    from scipy import stats

    interval = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    return float(interval.low), float(interval.high)


def welch_interval(a: np.ndarray, b: np.ndarray, confidence: float = CONFIDENCE) -> Interval | None:
    """Return Welch's interval of mean of `a`, ``[n]``, minus mean of `b`, ``[m]``.

    None where one of them is a single value.
    """
    if min(len(a), len(b)) < 2:
        return None
    test = welch_test(a, b, confidence)
    return float(test.low), float(test.high)


def welch_test(a: np.ndarray, b: np.ndarray, confidence: float = CONFIDENCE) -> WelchTest:
    """Compare the means of samples ``[..., n]`` and ``[..., m]``; n and m at least 2.

    Welch, 1947, doi:10.1093/biomet/34.1-2.28. Without any spread the interval is the
    difference itself.
    """
    from scipy import stats

    difference = a.mean(axis=-1) - b.mean(axis=-1)
    spread = (np.ptp(a, axis=-1) > 0) | (np.ptp(b, axis=-1) > 0)  # Variances round.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Samples without spread are mended below.
        test = stats.ttest_ind(a, b, axis=-1, equal_var=False)
        low, high = test.confidence_interval(confidence)
    unequal = difference != 0
    return WelchTest(
        statistic=np.where(spread, test.statistic, _signed_infinity(difference)),
        degrees_of_freedom=np.where(spread, test.df, a.shape[-1] + b.shape[-1] - 2),
        p_value=np.where(spread, test.pvalue, np.where(unequal, 0.0, 1.0)),
        low=np.where(spread, low, difference),
        high=np.where(spread, high, difference),
    )


def _signed_infinity(difference: np.ndarray) -> np.ndarray:
    """Return the t statistic of a difference without any spread."""
    return np.where(difference == 0, 0.0, np.copysign(np.inf, difference))
