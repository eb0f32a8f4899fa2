"""Bounds of the search space that the best trials run into, and where to move them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from scipy import stats

from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import DOMAINS
from tune.analysis.surrogate import GoodRange
from tune.protocol.axes import Axis
from tune.protocol.trials import TrialRecord

BEST_SHARE = 0.25
"""The best trials are this share of the finished ones."""

_OUTER_SHARE = 0.2
_AT_BOUND = 0.01
_SIGNIFICANCE = 0.05


@dataclasses.dataclass(frozen=True)
class BoundHit:
    """A bound of the search space that the best trials run into.

    Two conditions hold. The expected score is highest at the bound, and not as good everywhere.
    And either more of the best trials than of the other finished ones lie in the outer fifth of
    the range, or take the outermost value (one-sided Fisher test at 5%); or most of the best
    trials lie within 1% of the bound of a real-valued range. The first test alone is blind to a
    sampler that has settled there, because then good and bad trials lie there alike.

    Attributes:
      side: ``low`` or ``high``.
      bound: the bound, or the outermost choice.
      widen_to: the bound or choice to try next.
      count: how many of the best trials lie in the outer fifth or take the outermost value.
      best: the number of best trials.
    """

    side: str
    bound: float
    widen_to: float
    count: int
    best: int


def bounds_hit(
    axes: Sequence[Axis], good: Mapping[str, GoodRange], finished: Sequence[TrialRecord]
) -> dict[str, BoundHit]:
    """Return parameter -> bound, for the parameters whose bound is hit.

    Args:
      axes: the parameters.
      good: the good range of each.
      finished: complete and pruned trials.
    """
    best = best_trials(finished)
    numbers = {trial.number for trial in best}
    others = [trial for trial in finished if trial.number not in numbers]
    return {
        axis.name: hit
        for axis in axes
        for side in ("low", "high")
        if (hit := _bound_hit(axis, side, good[axis.name], best, others)) is not None
    }


def best_trials(finished: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the best quarter of the finished trials, the best first.

    Pruned trials count towards the quarter but are never in it: others were better when they
    were pruned.
    """
    complete = [trial for trial in finished if trial.is_complete]
    ordered = sorted(complete, key=lambda trial: (-(trial.score or 0.0), trial.number))
    return ordered[: math.ceil(BEST_SHARE * len(finished))]


def _bound_hit(
    axis: Axis,
    side: str,
    good: GoodRange,
    best: Sequence[TrialRecord],
    others: Sequence[TrialRecord],
) -> BoundHit | None:
    """Return the bound on `side` if the best trials hit it and it can be widened."""
    bound = axis.low if side == "low" else axis.high
    if type(bound) not in (int, float):  # Names and switches have no bounds.
        return None
    if good.everywhere or bound != good.best:
        return None

    def within(share: float, trials: Sequence[TrialRecord]) -> int:
        points = (axis.to_unit(trial.params[axis.name]) for trial in trials)
        return sum((p <= share) if side == "low" else (p >= 1 - share) for p in points)

    outer = max(_OUTER_SHARE, 1.0 / len(axis.values or range(10)))
    near, elsewhere = within(outer, best), within(outer, others)
    table = [[near, len(best) - near], [elsewhere, len(others) - elsewhere]]
    more_than_others = stats.fisher_exact(table, "greater").pvalue <= _SIGNIFICANCE
    at_the_bound = axis.values is None and within(_AT_BOUND, best) > len(best) / 2
    if not (more_than_others or at_the_bound):
        return None
    widened = _widen(axis, side)
    return None if widened == bound else BoundHit(side, bound, widened, near, len(best))


def _widen(axis: Axis, side: str) -> float:
    """Return the bound to try next.

    A factor of 3 on a log scale, half the width on a linear one, a factor of 2 for a list of
    choices; never beyond the domain of the hyperparameter.
    """
    sign = -1 if side == "low" else 1
    bound: float = axis.low if side == "low" else axis.high
    wider: float
    if axis.is_list:
        wider = bound * 2.0**sign
    elif axis.is_log:
        wider = bound * 3.0**sign
    else:
        wider = bound + sign * 0.5 * (axis.high - axis.low)
    domain = DOMAINS.get(axis.name)
    if domain is None:
        return wider
    wider = round(wider) if domain.kind is int else float(f"{wider:.3g}")
    try:
        checked: float = domain.check(axis.name, min(max(wider, domain.low), domain.high))
    except UserError:  # The domain is open at this end.
        return bound
    return checked
