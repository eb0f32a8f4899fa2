"""How often a comparison is looked at, and how sure each look has to be.

A comparison that ends as soon as it is clear is looked at several times, and each look is a
chance to be misled. The chances are kept within one error level by spending it piece by piece.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import integrate, optimize, stats

from ppo_jax.statistics import CONFIDENCE

LEVEL_ERROR, SPEED_ERROR = 0.03, 0.01
"""Two-sided error levels of the two comparisons of a first validation."""
_FIRST_SHARES = (0.4, 0.6)
_FEWEST_SEEDS = 6


@dataclasses.dataclass(frozen=True)
class Look:
    """How sure a comparison is, at one of the looks at it.

    Attributes:
      error: two-sided error level of this look alone.
      confidence: that the intervals of all looks hold together. Of a single look, 1 − error.
    """

    error: float = 1 - CONFIDENCE
    confidence: float = CONFIDENCE


SINGLE_LOOK = Look()


def planned_looks(seeds: int) -> list[int]:
    """Return the numbers of seeds after which winner and baseline are compared.

    At least six, since fewer tell too little.

    >>> planned_looks(20), planned_looks(12), planned_looks(4)
    ([8, 12, 20], [8, 12], [4])
    """
    early = (math.ceil(share * seeds) for share in _FIRST_SHARES)
    return sorted({seeds, *(count for count in early if count >= _FEWEST_SEEDS)})


def repeated(error: float, repetition: int) -> float:
    """Return what is left of an error level for one more validation in the same folder.

    The first has all of it, the k-th 2^-(k+1); together they have 1.25 of it at most, so that
    with :data:`LEVEL_ERROR` and :data:`SPEED_ERROR`, half of each on either side, no number of
    validations calls more than 2.5% of equal configurations improved.

    >>> [repeated(0.04, k) for k in (1, 2, 3)]
    [0.04, 0.005, 0.0025]
    """
    return error if repetition == 1 else error * 2.0 ** -(repetition + 1)


def look_at(seeds: int, looks: Sequence[int], error: float) -> Look:
    """Return how sure the look after `seeds` seeds is, one of `looks`.

    Args:
      seeds: of each configuration.
      looks: all planned ones, the last the largest.
      error: two-sided error level of all looks together.
    """
    return Look(error_levels(tuple(looks), error)[looks.index(seeds)], 1 - error)


@functools.cache
def error_levels(looks: tuple[int, ...], error: float) -> tuple[float, ...]:
    """Return the two-sided error level of each look that keeps `error` over all of them.

    After a share t of the seeds, t² of the error is spent: the power family of Kim and DeMets,
    1987, doi:10.1093/biomet/74.1.149. The bounds follow by integrating over the paths that no
    earlier look has ended (Armitage, McPherson and Rowe, 1969, doi:10.2307/2343787). With
    Student's t in the place of the normal distribution the levels are the same to first order.

    Args:
      looks: increasing numbers of seeds, at most a few.
      error: for example 0.03, half of it on either side.
    """
    levels: list[float] = []
    sums, density = np.zeros(1), np.ones(1)  # Before the first seed, every sum is 0.
    spent, before = 0.0, 0
    for seeds in looks:
        to_spend = error / 2 * (seeds / looks[-1]) ** 2
        root, added = math.sqrt(seeds), math.sqrt(seeds - before)
        tail = functools.partial(_tail, sums=sums, density=density, root=root, added=added)
        share = to_spend - spent
        bound = optimize.brentq(lambda z, share=share, tail=tail: tail(z) - share, 0, 12)
        levels.append(float(2 * stats.norm.sf(bound)))
        reached = np.linspace(-9 * root, bound * root, 401)
        density = _integral(stats.norm.pdf(reached[:, None], sums, added) * density, sums)
        sums, spent, before = reached, to_spend, seeds
    return tuple(levels)


def _tail(bound: float, sums: np.ndarray, density: np.ndarray, root: float, added: float) -> float:
    """Return the probability that the next sum over its `root` is above `bound`."""
    return float(_integral(density * stats.norm.sf((bound * root - sums) / added), sums))


def _integral(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Integrate over the last axis; a single point is a mass of one."""
    return values[..., 0] if len(points) == 1 else integrate.simpson(values, points, axis=-1)
