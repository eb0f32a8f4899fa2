"""What the trials of a study say about its parameters: one record, made in one pass.

Pure functions of trials; files and pictures are made in :mod:`tune.report`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from threadpoolctl import threadpool_limits

from tune.analysis.bounds import BoundHit, bounds_hit
from tune.analysis.importance import (
    RESAMPLES,
    Importance,
    Interaction,
    importances_and_interactions,
)
from tune.analysis.pruning import Savings, savings
from tune.analysis.surrogate import MIN_TRIALS, GoodRange, Surrogate, with_expected_scores
from tune.protocol.axes import common_axes
from tune.protocol.settings import Settings
from tune.protocol.trials import TrialRecord

TRIALS_PER_PARAMETER = 5
"""Importances are reliable from this many trials with a score per tuned parameter."""

MIN_LOO_R2 = 0.25
"""A surrogate that predicts less of the variance of left-out scores models mostly noise."""

MIN_SHARE = 0.01
"""A parameter or a pair explains something if the interval of its share begins here or above."""

MIN_TRIALS_IN_RANGE = 3
"""Fewest trials that a good range is read off."""


@dataclasses.dataclass(frozen=True)
class Analysis:
    """The analysis of a study.

    Attributes:
      importances: parameter -> importance, the largest fANOVA share first. Empty if too few
        trials have a score, or all have the same.
      interactions: the largest share first; which pairs is described in
        :func:`tune.analysis.importance.importances_and_interactions`.
      good_ranges: parameter -> good range.
      bounds_hit: hyperparameter -> bound of the search space that the best trials run into.
      pruning: what pruning has saved.
      warning: why importances are missing or unreliable; None if they are sound.
      surrogate: the model behind all of them; None if there are no importances.
    """

    importances: dict[str, Importance]
    interactions: list[Interaction]
    good_ranges: dict[str, GoodRange]
    bounds_hit: dict[str, BoundHit]
    pruning: Savings
    warning: str | None
    surrogate: Surrogate | None

    @classmethod
    def skipped(cls, trials: Sequence[TrialRecord], settings: Settings) -> "Analysis":
        """Return the analysis of an interrupted study: only what pruning has saved, no model."""
        saved = savings([trial for trial in trials if trial.is_finished], settings)
        warning = (
            "The study was interrupted, so its trials have not been analysed; "
            "`python -m tune.report` does it."
        )
        return cls({}, [], {}, {}, saved, warning, None)

    @property
    def clear_ranges(self) -> dict[str, GoodRange]:
        """The good ranges with trials and variance behind them, and with values outside."""
        return {
            name: good
            for name, good in self.good_ranges.items()
            if not good.everywhere
            and _explains(self.importances[name].fanova_interval)
            and self._trials_in(name, good) >= MIN_TRIALS_IN_RANGE
        }

    @property
    def clear_interactions(self) -> list[Interaction]:
        """The interactions that explain something of the score."""
        return [found for found in self.interactions if _explains(found.interval)]

    def _trials_in(self, name: str, good: GoodRange) -> int:
        """Return how many trials with a score lie in a good range."""
        assert self.surrogate is not None, "good ranges come from a surrogate"
        column = [axis.name for axis in self.surrogate.axes].index(name)
        axis = self.surrogate.axes[column]
        points = self.surrogate.unit_points[:, column]
        if axis.is_list:
            inside = [axis.from_unit(float(point)) in good.values for point in points]
        else:
            low, high = (axis.to_unit(value) for value in good.values)
            inside = [bool(low <= point <= high) for point in points]
        return sum(inside)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the surrogate as plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["surrogate"]
        return {name: _plain(value) for name, value in values.items()}


def analyse(
    trials: Sequence[TrialRecord], settings: Settings, *, resamples: int = RESAMPLES
) -> Analysis:
    """Analyse the finished trials of a study.

    With 20 trials and 100 resamples it takes about 3 seconds of CPU time.

    Args:
      trials: in any state; those that have not finished are ignored.
      settings: of the study.
      resamples: bootstrap resamples behind the intervals of importances and interactions.
    """
    # Matrices are so small that BLAS threads would only wait for each other.
    with threadpool_limits(1):
        return _analyse([trial for trial in trials if trial.is_finished], settings, resamples)


def _analyse(finished: Sequence[TrialRecord], settings: Settings, resamples: int) -> Analysis:
    scored = with_expected_scores(finished)
    axes = common_axes(scored)
    saved = savings(finished, settings)
    distinct = len({trial.score for trial in scored})
    if not axes or len(scored) < MIN_TRIALS or distinct < 2:
        return Analysis({}, [], {}, {}, saved, _no_model_warning(len(scored), distinct), None)
    surrogate = Surrogate.fit(axes, scored)
    importances, interactions = importances_and_interactions(
        surrogate, scored, seed=settings.seed, resamples=resamples
    )
    good = surrogate.good_ranges()
    return Analysis(
        importances=importances,
        interactions=interactions,
        good_ranges=good,
        bounds_hit=bounds_hit(
            [axis for axis in axes if _explains(importances[axis.name].fanova_interval)],
            *(good, finished, settings.space),
        ),
        pruning=saved,
        warning=reliability_warning(len(scored), len(axes), surrogate.loo_r2),
        surrogate=surrogate,
    )


def _explains(share: tuple[float, float]) -> bool:
    """Return whether the interval of a share says that there is one."""
    return share[0] >= MIN_SHARE


def reliability_warning(scored: int, parameters: int, loo_r2: float) -> str | None:
    """Return why the importances should not be trusted, or None if they can be.

    Args:
      scored: number of trials with a score.
      parameters: number of tuned parameters.
      loo_r2: of the surrogate.
    """
    enough = TRIALS_PER_PARAMETER * parameters
    if scored < enough:
        return (
            f"{scored} trials with a score are too few to trust importances, interactions and "
            f"good ranges of {parameters} parameters; from about {enough} on they settle."
        )
    if loo_r2 < MIN_LOO_R2:
        return (
            "Importances, interactions and good ranges are mostly noise: the model behind them "
            f"predicts only {max(loo_r2, 0.0):.0%} of the variance of scores it has not seen."
        )
    return None


def _no_model_warning(scored: int, distinct: int) -> str:
    if scored < MIN_TRIALS:
        return (
            f"{scored} trials with a score are too few to estimate importances; at least "
            f"{MIN_TRIALS} are needed."
        )
    if distinct < 2:
        return "All trials have the same score, so no parameter can be called important."
    return "No parameter varies over all trials."


def _plain(value: Any) -> Any:
    """Return dataclasses inside containers as dictionaries."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
