"""How much of the score each parameter and each pair of parameters explains.

Two measures: fANOVA of the :mod:`surrogate <tune.analysis.surrogate>` over the whole search
space, and PED-ANOVA among the best trials. Both come with bootstrap intervals over trials.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Collection, Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from tune.analysis.bounds import BEST_SHARE
from tune.analysis.surrogate import Surrogate
from tune.protocol.axes import Axis
from tune.protocol.trials import TrialRecord

PAIRS = (
    ("learning_rate", "n_epochs"),
    ("clip_epsilon", "learning_rate"),
    ("n_steps", "batch_size"),
    ("entropy_coef", "clip_epsilon"),
)
"""Pairs that are known to interact in PPO; always reported if both are tuned."""

STRONGEST_PAIRS = 4
"""How many of the other pairs are reported, the strongest first."""

RESAMPLES = 100
"""Bootstrap resamples of the trials, each with a surrogate of its own."""

Interval = tuple[float, float]
"""(low, high), 95%."""


@dataclasses.dataclass(frozen=True)
class Importance:
    """How much of the score depends on one parameter.

    Attributes:
      fanova: share of the score's variance over the search space that the parameter explains
        alone: functional ANOVA (Hutter et al., 2014) of the surrogate. The shares of all
        parameters leave interactions and noise unexplained, so they sum to less than 1.
      ped_anova: share in what separates the best quarter of the trials from all of them
        (Watanabe et al., 2023, arXiv:2304.10255). The shares of all parameters sum to 1.
      fanova_interval, ped_anova_interval: 95% percentile bootstrap over trials.
    """

    fanova: float
    fanova_interval: Interval
    ped_anova: float
    ped_anova_interval: Interval


@dataclasses.dataclass(frozen=True)
class Interaction:
    """How much of the score depends on two parameters jointly, beyond each alone.

    Attributes:
      pair: their names.
      share: of the score's variance, by pairwise fANOVA (Hutter et al., 2014, section 4).
      interval: 95% percentile bootstrap over trials.
    """

    pair: tuple[str, str]
    share: float
    interval: Interval


def importances_and_interactions(
    surrogate: Surrogate, scored: Sequence[TrialRecord], *, seed: int, resamples: int = RESAMPLES
) -> tuple[dict[str, Importance], list[Interaction]]:
    """Return parameter -> importance, and the interactions to report.

    Args:
      surrogate: fitted to `scored`.
      scored: the trials, each with a score.
      seed: of the bootstrap.
      resamples: of the bootstrap.

    Returns:
      Importances, the largest fANOVA share first. Interactions, the largest share first: those
      of :data:`PAIRS` that are tuned, and the :data:`STRONGEST_PAIRS` strongest others.
    """
    axes, names = surrogate.axes, [axis.name for axis in surrogate.axes]
    study = _study_of(scored)
    shares, ped = surrogate.shares(), _ped_anova(study, names, range(len(scored)))
    rng = np.random.default_rng(seed)

    @functools.cache  # Of few trials the same are drawn often.
    def shares_of(drawn: frozenset[int]) -> tuple[np.ndarray, np.ndarray]:
        refitted = Surrogate.fit(axes, [scored[i] for i in sorted(drawn)], surrogate.kernel)
        return refitted.shares(), _ped_anova(study, names, drawn)

    resampled: list[tuple[np.ndarray, np.ndarray]] = []
    while len(resampled) < resamples:
        # A trial that is drawn twice counts once: it has the same noise both times.
        drawn = frozenset(rng.integers(len(scored), size=len(scored)).tolist())
        if len({scored[i].score for i in drawn}) > 1:
            resampled.append(shares_of(drawn))
    intervals, ped_intervals = (_percentiles(found) for found in zip(*resampled, strict=True))

    def at(bounds: np.ndarray, *index: int) -> Interval:
        low, high = (bound[index] for bound in bounds)
        return float(low), float(high)

    importances = {
        axis.name: Importance(
            float(shares[i, i]), at(intervals, i, i), float(ped[i]), at(ped_intervals, i)
        )
        for i, axis in sorted(enumerate(axes), key=lambda item: -shares[item[0], item[0]])
    }
    interactions = [
        Interaction((names[i], names[j]), float(shares[i, j]), at(intervals, i, j))
        for i, j in _reported_pairs(axes, shares)
    ]
    return importances, interactions


def _reported_pairs(axes: Sequence[Axis], shares: np.ndarray) -> list[tuple[int, int]]:
    index = {axis.name: i for i, axis in enumerate(axes)}
    named = [(index[a], index[b]) for a, b in PAIRS if a in index and b in index]
    others = [
        (i, j)
        for i in range(len(axes))
        for j in range(i + 1, len(axes))
        if (i, j) not in named and (j, i) not in named
    ]
    others.sort(key=lambda pair: -shares[pair])
    return sorted([*named, *others[:STRONGEST_PAIRS]], key=lambda pair: -shares[pair])


def _ped_anova(study: optuna.Study, names: Sequence[str], numbers: Collection[int]) -> np.ndarray:
    """Return the PED-ANOVA share of each parameter; zeros if the trials do not differ.

    Args:
      study: of :func:`_study_of`.
      names: the parameters.
      numbers: of the trials in `study` that count.
    """

    def loss(trial: FrozenTrial) -> float:
        assert trial.value is not None
        return -trial.value if trial.number in numbers else math.nan

    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    with warnings.catch_warnings():  # "The study is maximized": the loss is minimized.
        warnings.simplefilter("ignore")
        found = evaluator.evaluate(study, list(names), target=loss)
    values = np.array([found[name] for name in names])
    shares: np.ndarray = values / values.sum() if values.sum() > 0 else values
    return shares


def _study_of(scored: Sequence[TrialRecord]) -> optuna.Study:
    """Return `scored` as an in-memory study of complete trials, numbered from 0."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), direction="maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        [
            optuna.trial.create_trial(
                value=trial.score,
                params=dict(trial.params),
                distributions=dict(trial.distributions),
            )
            for trial in scored
        ]
    )
    return study


def _percentiles(resampled: Sequence[np.ndarray]) -> np.ndarray:
    bounds: np.ndarray = np.percentile(resampled, [2.5, 97.5], axis=0)
    return bounds
