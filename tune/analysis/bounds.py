"""Bounds of the search space that the best trials run into, and where to move them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from scipy import stats

from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import DOMAINS
from tune.analysis.surrogate import GoodRange
from tune.protocol.axes import Axis
from tune.protocol.space import Parameter, Range, SearchSpace, complement
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
    axes: Sequence[Axis],
    good: Mapping[str, GoodRange],
    finished: Sequence[TrialRecord],
    space: SearchSpace,
) -> dict[str, BoundHit]:
    """Return hyperparameter -> bound, for those whose bound is hit.

    Args:
      axes: the parameters, as they are drawn.
      good: the good range of each.
      finished: complete and pruned trials.
      space: whose bounds they are.
    """
    best = best_trials(finished)
    numbers = {trial.number for trial in best}
    others = [trial for trial in finished if trial.number not in numbers]
    hyperparameters = {parameter.key(name): (name, parameter) for name, parameter in space.tuned}
    found = {}
    for axis in axes:
        name, parameter = hyperparameters.get(axis.name, (axis.name, None))
        for side in ("low", "high"):
            hit = _bound_hit(axis, side, good[axis.name], best, others)
            told = hit and _of_hyperparameter(hit, name, parameter)
            if told is not None:
                found[name] = told
    return found


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
    """Return the bound on `side` if the best trials hit it."""
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
    return BoundHit(side, bound, _widen(axis, side), near, len(best))


def _of_hyperparameter(hit: BoundHit, name: str, parameter: Parameter | None) -> BoundHit | None:
    """Return a hit in terms of the hyperparameter, of which the space may draw the complement.

    None where nothing lies beyond the bound.
    """
    if isinstance(parameter, Range):
        if parameter.zero and hit.side == "low":
            return None
        if parameter.log_complement:
            side = "high" if hit.side == "low" else "low"
            bound, widen_to = complement(hit.bound), complement(hit.widen_to)
            hit = dataclasses.replace(hit, side=side, bound=bound, widen_to=widen_to)
    domain = DOMAINS.get(name)
    if domain is None:
        return hit
    widen_to = round(hit.widen_to) if domain.kind is int else hit.widen_to
    try:
        widen_to = domain.check(name, min(max(widen_to, domain.low), domain.high))
    except UserError:  # The domain is open at this end.
        return None
    return None if widen_to == hit.bound else dataclasses.replace(hit, widen_to=widen_to)


def _widen(axis: Axis, side: str) -> float:
    """Return the bound to try next, wherever the domain of the hyperparameter ends.

    A factor of 3 on a log scale, half the width on a linear one, a factor of 2 for a list of
    choices.
    """
    sign = -1 if side == "low" else 1
    bound: float = axis.low if side == "low" else axis.high
    if axis.is_list:
        return bound * 2.0**sign
    wider = bound * 3.0**sign if axis.is_log else bound + sign * 0.5 * (axis.high - axis.low)
    return float(f"{wider:.3g}")
