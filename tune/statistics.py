"""Statistics of per-seed values. Pure functions of arrays; no training, no files."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
_RESAMPLES = 9_999

Interval = tuple[float, float]
"""(low, high)"""


@dataclasses.dataclass(frozen=True)
class Summary:
    """Per-seed values in brief, with 95% bootstrap intervals; None for a single seed."""

    mean: float
    mean_interval: Interval | None
    iqm: float
    iqm_interval: Interval | None
    seeds: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Winner against baseline on validation seeds.

    Attributes:
      difference: mean of the winner minus mean of the baseline.
      difference_interval: its 95% bootstrap interval; None with a single seed.
      probability_of_improvement: that a seed of the winner beats one of the baseline.
      verdict: ``improved``, ``no clear difference`` or ``worse``.
    """

    difference: float
    difference_interval: Interval | None
    probability_of_improvement: float
    verdict: str


def iqm(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the interquartile mean: the mean without the lower and the upper quarter.

    Agarwal et al., 2021, arXiv:2108.13264.

    >>> float(iqm(np.array([0.0, 1.0, 2.0, 100.0])))
    1.5
    """
    return stats.trim_mean(values, 0.25, axis=axis)


def summarize(values: np.ndarray) -> Summary | None:
    """Summarize per-seed values ``[seeds]``; NaN (diverged seeds) are left out.

    Returns:
      None where no finite value is left.
    """
    values = _finite(values)
    if not len(values):
        return None
    return Summary(
        mean=float(values.mean()),
        mean_interval=bootstrap_interval([values], np.mean),
        iqm=float(iqm(values)),
        iqm_interval=bootstrap_interval([values], iqm),
        seeds=len(values),
    )


def compare(winner: np.ndarray, baseline: np.ndarray) -> Comparison | None:
    """Compare per-seed values ``[seeds]`` of two configurations; NaN are left out.

    Returns:
      None where one of them has no finite value.
    """
    winner, baseline = _finite(winner), _finite(baseline)
    if not len(winner) or not len(baseline):
        return None

    def difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return a.mean(axis=axis) - b.mean(axis=axis)

    interval = bootstrap_interval([winner, baseline], difference)
    return Comparison(
        difference=float(difference(winner, baseline)),
        difference_interval=interval,
        probability_of_improvement=probability_of_improvement(winner, baseline),
        verdict=_verdict(interval),
    )


def probability_of_improvement(winner: np.ndarray, baseline: np.ndarray) -> float:
    """Return P(X > Y) + P(X = Y) / 2 for X drawn from `winner` and Y from `baseline`.

    The Mann-Whitney U statistic over the number of pairs.

    >>> probability_of_improvement(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    u = stats.mannwhitneyu(winner, baseline).statistic
    return float(u / (len(winner) * len(baseline)))


def bootstrap_interval(
    samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray]
) -> Interval | None:
    """Return the 95% percentile bootstrap interval of a statistic of independent samples.

    Seeded, so the same values give the same interval. None where a sample has a single
    value: nothing is known of its spread.
    """
    if min(len(sample) for sample in samples) < 2:
        return None
    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    interval = result.confidence_interval
    return float(interval.low), float(interval.high)


def _verdict(interval: Interval | None) -> str:
    if interval is None:
        return "no clear difference"
    low, high = interval
    return "improved" if low > 0 else "worse" if high < 0 else "no clear difference"


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return values[np.isfinite(values)]
