"""What the trials of a study say about every configuration: a model of the score.

The sampler proposes by it (:mod:`tune.search.samplers.gp`), and the finalists are chosen by it.
A score is a mean over few seeds. The model knows how much they scatter, so one lucky trial does
not look like a good configuration, and it learns from pruned trials as well.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import linalg
from threadpoolctl import threadpool_limits

from tune.protocol.axes import Axis
from tune.protocol.settings import OBJECTIVES, Settings
from tune.protocol.trials import TrialRecord, ranked
from tune.search.gaussian_process import GaussianProcess

FEWEST_TRIALS = 4
"""With fewer observations than this the scores themselves say as much as a model."""

HORIZON_CORRELATION = 0.75
"""Of the scores of trials with levels after five times the steps. Rank correlations are 0.69
(CartPole-v1) and 0.76 (Pendulum-v1) in ``python -m benchmarks.samplers``."""

_DRAWS = 16_384
"""Of random levels: half of them, and their opposites, whose means are exact."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """What a finished trial says about the score of its configuration.

    Attributes:
      trial: the trial.
      value: its score, or what it would have been had the trial not been pruned.
      variance: of the value: that of a mean over its seeds, and of the prediction.
    """

    trial: TrialRecord
    value: float
    variance: float


def observe(trials: Sequence[TrialRecord], settings: Settings) -> list[Observation]:
    """Return what finished trials say; nothing of a trial without a checkpoint.

    The learning curve of a pruned trial is completed by a regression on the complete ones. A
    seed that has diverged counts as the worst return of any trial at that checkpoint.
    """
    steps = settings.checkpoints()
    curves = {
        trial.number: curve
        for trial in trials
        if trial.is_finished and len(curve := _curve(trial, steps))
    }
    seen = [trial for trial in trials if trial.number in curves]
    finite = np.concatenate([curve[np.isfinite(curve)] for curve in curves.values()] or [[]])
    if not len(finite):
        return []
    for place in range(len(steps)):
        rows = [curve[place] for curve in curves.values() if len(curve) > place]
        worst = np.min([r[np.isfinite(r)].min(initial=np.inf) for r in rows], initial=np.inf)
        for row in rows:
            row[~np.isfinite(row)] = worst if np.isfinite(worst) else finite.min()
    complete = [curve.mean(axis=1) for curve in curves.values() if len(curve) == len(steps)]
    whole = np.array(complete).reshape(-1, len(steps))
    counted = OBJECTIVES[settings.objective](len(steps))
    noise = _noise([curves[trial.number][-counted:].mean(axis=0) for trial in seen])
    continuation = functools.cache(
        lambda reached, place: _Continuation.of(whole[:, reached - 1], whole[:, place])
    )
    observations = []
    for trial, variance in zip(seen, noise, strict=True):
        mean = curves[trial.number].mean(axis=1)
        means, error = _completed(mean, continuation, len(steps), counted)
        observations.append(Observation(trial, settings.score(means), variance + error**2))
    return observations


@dataclasses.dataclass(frozen=True)
class ScoreModel:
    """A Gaussian process of the score over the search space.

    Attributes:
      axes: the tuned parameters.
      observations: what it was fitted to.
      points: of the observations in the unit cube, float ``[observations, axes]``.
      earlier: points of the trials of an earlier study that it was fitted to as well.
      process: over :func:`coordinates` of the unit cube.
    """

    axes: Sequence[Axis]
    observations: Sequence[Observation]
    points: np.ndarray
    earlier: np.ndarray
    process: GaussianProcess

    @classmethod
    def fit(cls, trials: Sequence[TrialRecord], settings: Settings) -> Self | None:
        """Fit the model to the trials of a study.

        Returns:
          None where fewer than four trials, or no complete one, lie within the space, or nothing
          varies.
        """
        axes = axes_of(settings)
        if not axes:
            return None
        inside = {
            trial.number: place
            for trial in trials
            if (configuration := trial.configuration(settings)) is not None
            and (params := settings.space.encode(configuration)) is not None
            and (place := unit_point(axes, params)) is not None
        }
        found = observe(_without_copies(trials, inside), settings)
        if not any(o.trial.is_complete for o in found):
            return None
        points = np.array([inside[o.trial.number] for o in found])
        values = np.array([o.value for o in found])
        variances = np.array([o.variance for o in found])
        earlier = transferred(axes, settings, points, values)
        if len(found) + len(earlier.points) < FEWEST_TRIALS:
            return None
        process = GaussianProcess.fit(
            coordinates(axes, np.concatenate([points, earlier.points])),
            np.concatenate([values, earlier.values]),
            np.concatenate([variances, earlier.variances]),
        )
        return cls(axes, found, points, earlier.points, process)

    def expected_scores(self) -> Mapping[int, float]:
        """Return number -> expected score of each trial that was observed."""
        means, _ = self.process.predict(self.process.points[: len(self.observations)])
        numbers = [observation.trial.number for observation in self.observations]
        return dict(zip(numbers, means.tolist(), strict=True))

    def most_promising(self, numbers: Sequence[int], count: int) -> list[int]:
        """Return the trials whose best is expected to be best after longer training.

        What a configuration reaches then is its score and a deviation, on a scale that all share.
        Similar configurations deviate alike: the deviation has the kernel of the score, as large
        as makes the two correlate by :data:`HORIZON_CORRELATION`. So a trial that is nearly
        another one adds nothing to the expected maximum, however high its score.

        Trials are taken one by one, each time the one that adds most. The expected maximum is
        submodular, so this is at least 63% as good as the best choice (Nemhauser et al., 1978,
        doi:10.1007/BF01588971).

        Args:
          numbers: of the trials to choose among, all of them observed.
          count: how many to take, at most.
        """
        if not numbers:
            return []
        place = {o.trial.number: index for index, o in enumerate(self.observations)}
        points = self.process.points[[place[number] for number in numbers]]
        means, _ = self.process.predict(points)
        prior, posterior = self.process.covariances(points)
        deviation = (HORIZON_CORRELATION**-2 - 1) * prior
        levels = _draws(means, posterior + deviation)
        best = np.full(_DRAWS, -np.inf)
        left, taken = list(range(len(numbers))), list[int]()
        while left and len(taken) < count:
            most = max(left, key=lambda index: float(np.maximum(best, levels[index]).mean()))
            best = np.maximum(best, levels[most])
            left.remove(most)
            taken.append(numbers[most])
        return taken


class Earlier(NamedTuple):
    """Trials of an earlier study as this study sees them.

    Attributes:
      points: in the unit cube, float ``[trials, axes]``.
      values: on the scale of this study's scores, float ``[trials]``.
      variances: of the values, float ``[trials]``.
    """

    points: np.ndarray
    values: np.ndarray
    variances: np.ndarray


def transferred(
    axes: Sequence[Axis], settings: Settings, points: np.ndarray, values: np.ndarray
) -> Earlier:
    """Return the earlier trials of a study that was given some, and that lie in its space.

    Those of the same task are what they are. Those of another are put on the scale of this
    study's scores by a line: a regression of its scores on what a model of the earlier study
    expects of the same configurations. How far its scores lie off the line is noise of the
    earlier ones, besides their own. So they count for little where the studies disagree, and for
    nothing where the line falls, or before there are four scores to draw it through.

    Args:
      axes: of the space.
      settings: of the study.
      points: of its own trials in the unit cube, float ``[trials, axes]``.
      values: their scores, float ``[trials]``.
    """
    none = Earlier(np.zeros((0, len(axes))), np.zeros(0), np.zeros(0))
    warm = settings.warm_start
    if warm is None:
        return none
    inside = [
        (place, trial)
        for trial in warm.trials
        if (params := settings.space.encode(trial.configuration)) is not None
        and (place := unit_point(axes, params)) is not None
    ]
    if not inside:
        return none
    found = Earlier(
        np.array([place for place, _ in inside]),
        np.array([trial.value for _, trial in inside]),
        np.array([trial.variance for _, trial in inside]),
    )
    if warm.same_task:
        return found
    if len(values) < FEWEST_TRIALS or len(inside) < FEWEST_TRIALS:
        return none
    process = GaussianProcess.fit(coordinates(axes, found.points), found.values, found.variances)
    expected, _ = process.predict(coordinates(axes, points))
    away = expected - expected.mean()
    slope = float(away @ values / max(away @ away, 1e-12))
    if slope <= 0:
        return none
    level = values.mean() - slope * expected.mean()
    off = values - level - slope * expected
    noise = float(off @ off) / (len(values) - 2)
    return Earlier(found.points, level + slope * found.values, slope**2 * found.variances + noise)


def ranked_by_model(trials: Sequence[TrialRecord], settings: Settings) -> list[TrialRecord]:
    """Return the complete trials, the highest expected score first.

    By their own scores where there are too few for a model.
    """
    order = ranked(trials)
    with threadpool_limits(1, "blas"):  # The same sums on any number of cores.
        model = ScoreModel.fit(trials, settings)
    if model is None:
        return order
    expected = model.expected_scores()
    return sorted(order, key=lambda t: expected.get(t.number, -np.inf), reverse=True)


def promising_by_model(
    trials: Sequence[TrialRecord],
    settings: Settings,
    among: Sequence[TrialRecord],
    count: int,
) -> list[TrialRecord]:
    """Return the trials to train for longer; see :meth:`ScoreModel.most_promising`.

    The first of `among` where there are too few for a model; last, those outside of the space.

    Args:
      trials: of the study.
      settings: of the study.
      among: complete trials, the highest score first.
      count: how many to take, at most.
    """
    with threadpool_limits(1, "blas"):  # The same sums on any number of cores.
        model = ScoreModel.fit(trials, settings)
        if model is None:
            return list(among[:count])
        observed = {observation.trial.number for observation in model.observations}
        known = {trial.number: trial for trial in among if trial.number in observed}
        taken = [known[number] for number in model.most_promising(list(known), count)]
    outside = [trial for trial in among if trial.number not in observed]
    return [*taken, *outside][:count]


def axes_of(settings: Settings) -> list[Axis]:
    """Return the tuned parameters of a study that have more than one value."""
    distributions = settings.space.distributions()
    return [Axis(name, d) for name, d in distributions.items() if not d.single()]


def unit_point(axes: Sequence[Axis], params: Mapping[str, Any]) -> list[float] | None:
    """Return the point of a trial's parameters in the unit cube; None where it is outside."""
    point = []
    for axis in axes:
        value = params[axis.name]
        if axis.is_list:
            assert axis.values is not None
            if value not in axis.values:
                return None
        elif not axis.low <= value <= axis.high:
            return None
        point.append(axis.to_unit(value))
    return point


def coordinates(axes: Sequence[Axis], points: np.ndarray) -> np.ndarray:
    """Return what the process sees of points of the unit cube, float ``[points, coordinates]``.

    A list without an order has a coordinate for each choice, so that all are equally far apart.
    """
    columns = []
    for axis, column in zip(axes, points.T, strict=True):
        if axis.is_ordered:
            columns.append(column[:, None])
        else:
            cells: np.ndarray = np.equal.outer(column, axis.grid())
            columns.append(cells / np.sqrt(2))
    return np.concatenate(columns, axis=1)


def _without_copies(
    trials: Sequence[TrialRecord], places: Mapping[int, Sequence[float]]
) -> list[TrialRecord]:
    """Return the finished trials, of those at the same place the one that was trained longest.

    A configuration returns the same again on the same seeds, so another trial of it says nothing.

    Args:
      trials: of a study.
      places: number -> point in the unit cube; others are left out.
    """
    longest = dict[tuple[float, ...], TrialRecord]()
    for trial in trials:
        if trial.is_finished and trial.number in places:
            place = tuple(places[trial.number])
            known = longest.setdefault(place, trial)
            if (trial.is_complete, len(trial.means)) > (known.is_complete, len(known.means)):
                longest[place] = trial
    kept = {id(trial) for trial in longest.values()}
    return [trial for trial in trials if id(trial) in kept]


def _draws(means: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return normal random numbers, float ``[variables, draws]``, the same ones at every call."""
    jitter = 1e-6 * np.diag(covariance).mean() * np.eye(len(means))
    factor = linalg.cholesky(covariance + jitter, lower=True)
    noise = np.random.default_rng(0).standard_normal((len(means), _DRAWS // 2))
    drawn: np.ndarray = means[:, None] + factor @ np.concatenate([noise, -noise], axis=1)
    return drawn


def _curve(trial: TrialRecord, steps: Sequence[int]) -> np.ndarray:
    """Return the returns of a trial at its first checkpoints, float ``[reached, seeds]``.

    NaN for a diverged seed. Where no returns of seeds are stored, their means.
    """
    known = trial.returns or {step: np.array([mean]) for step, mean in trial.means.items()}
    reached = []
    for step in steps:
        if step not in known:
            break
        reached.append(known[step])
    if not reached and trial.score is not None:
        reached = [np.array([trial.score])] * len(steps)
    return np.array(reached, np.float64)


def _noise(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Return the variance of the mean of each trial's seeds, ``[trials]``.

    The variance of few seeds is hardly known, so it is drawn towards that of all trials, which
    counts as much as two degrees of freedom more.
    """
    own = [score.var(ddof=1) if len(score) > 1 else np.nan for score in scores]
    known = [variance for variance in own if np.isfinite(variance)]
    pooled = float(np.mean(known)) if known else 0.0
    return np.array(
        [
            (2 * pooled + (len(score) - 1) * np.nan_to_num(variance))
            / (len(score) + 1)
            / len(score)
            for score, variance in zip(scores, own, strict=True)
        ]
    )


class _Continuation(NamedTuple):
    """A ridge regression of later returns on earlier ones, over the complete trials.

    Attributes:
      before, then: mean returns.
      slope: of the later ones against the earlier.
      best: of the later ones; nothing is predicted above it.
      error: deviation of the later returns from the line.
    """

    before: float
    then: float
    slope: float
    best: float
    error: float

    @classmethod
    def of(cls, before: np.ndarray, then: np.ndarray) -> Self:
        """Fit the line through the returns of trials, ``[trials]`` each.

        Fewer than two trials say nothing: returns stay where they are.
        """
        if len(before) < 2:
            return cls(0.0, 0.0, 1.0, np.inf, 0.0)
        away, rise = before - before.mean(), then - then.mean()
        ridge = 0.5 * before.var() + 1e-9
        slope = ((away * rise).mean() + ridge) / (before.var() + ridge)
        error = float((rise - slope * away).std())
        return cls(before.mean(), then.mean(), slope, float(then.max()), error)

    def after(self, value: float) -> float:
        """Return what is predicted after `value`."""
        return min(float(self.then + self.slope * (value - self.before)), self.best)


def _completed(
    curve: np.ndarray,
    continuation: Callable[[int, int], _Continuation],
    checkpoints: int,
    counted: int,
) -> tuple[list[float], float]:
    """Return a learning curve continued to its end, and the error of its score.

    Args:
      curve: mean returns so far, float ``[reached]``.
      continuation: from the last of some checkpoints, by their number, to one by its place.
      checkpoints: of a complete trial.
      counted: how many of the last checkpoints the score is the mean of.
    """
    reached, last = len(curve), float(curve[-1])
    means, error = [float(mean) for mean in curve], 0.0
    for place in range(reached, checkpoints):
        line = continuation(reached, place)
        means.append(line.after(last))
        if place >= checkpoints - counted:
            error += line.error / counted
    return means, error
