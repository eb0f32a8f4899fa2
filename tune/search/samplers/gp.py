"""The default sampler: Bayesian optimisation with a Gaussian process that knows its noise.

It begins with a scrambled Sobol sequence. Then each draw maximises the expected improvement
(Jones et al., 1998, doi:10.1023/A:1008306431147) over the best *expected* score of a trial, not
over the best score, which is partly luck; in logarithms, which do not underflow (Ament et al.,
2023, arXiv:2310.20708).
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from scipy import special
from threadpoolctl import threadpool_limits

from tune.protocol.axes import Axis
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration, Range
from tune.protocol.trials import BEGAN, TrialRecord
from tune.search.finite import configuration_of, configurations, untried
from tune.search.model import FEWEST_TRIALS, ScoreModel, axes_of, coordinates, unit_point
from tune.search.optuna_private import (
    all_trials,
    enqueued_params,
    remember_suggestion,
    suggestion,
)
from tune.search.samplers.seeded import draw_number

UNIFORM = 700
"""Candidates spread over the whole space."""
NEAR = ((0.2, 120), (0.07, 120))
"""(standard deviation, candidates) around each of the best trials."""
CENTRES = 3


class GPSampler(BaseSampler):
    """Proposes configurations by a :class:`tune.search.model.ScoreModel`.

    A draw depends on the seed, on the number of the draw and on the trials in the storage.
    Trials that still run, of other workers or lanes, count as if they had done what is
    expected of them, so nothing is drawn twice. Of a small space every configuration that has not
    been tried is a candidate.

    Args:
      settings: of the study.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._axes = axes_of(settings)

    def infer_relative_search_space(
        self, _study: optuna.Study, _trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See :class:`optuna.samplers.BaseSampler`."""
        return {axis.name: axis.distribution for axis in self._axes}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """See :class:`optuna.samplers.BaseSampler`."""
        if not self._axes or enqueued_params(trial).keys() >= search_space.keys():
            return {}
        known = suggestion(trial)  # Of a run of this trial that was interrupted.
        if known is None:
            point = self._draw(study, trial)
            known = self._params(point)
            remember_suggestion(study, trial, known)
        return dict(known)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See :class:`optuna.samplers.BaseSampler`."""
        entropy = [self._settings.seed, draw_number(study, trial), zlib.crc32(param_name.encode())]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)

    def _draw(self, study: optuna.Study, trial: FrozenTrial) -> np.ndarray:
        """Return a point of the unit cube, ``[axes]``."""
        others = [other for other in all_trials(study) if other.number != trial.number]
        return self._point(draw_number(study, trial), others)

    def expected(self, study: optuna.Study) -> dict[str, Any]:
        """Return what the next trial is likely to be, as long as the last one still runs.

        Exact among the start-up trials.
        """
        trials = all_trials(study)
        drawn = sum("retry_of" not in trial.user_attrs for trial in trials)
        return self._params(self._point(drawn, trials)) if self._axes else {}

    def _params(self, point: np.ndarray) -> dict[str, Any]:
        pairs = zip(self._axes, point, strict=True)
        return {axis.name: axis.from_unit(float(place)) for axis, place in pairs}

    def _point(self, number: int, others: Sequence[FrozenTrial]) -> np.ndarray:
        """Return the point of a draw, ``[axes]``, beside `others`."""
        left = self._left(others)
        if number >= self._startup_trials(others):
            records = [TrialRecord.of(other) for other in others if other.state.is_finished()]
            # One thread: the matrices are small, and the same sums on any number of cores.
            with threadpool_limits(1, "blas"):
                model = ScoreModel.fit(records, self._settings)
                if model is not None:
                    rng = np.random.default_rng([self._settings.seed, number])
                    return propose(model, self._pending(others), rng, self._repaired, left)
        point = self._sobol(number)
        if left is None:
            return point
        nearest: np.ndarray = left[((left - point) ** 2).sum(axis=1).argmin()]
        return nearest

    def _left(self, others: Sequence[FrozenTrial]) -> np.ndarray | None:
        """Return the points of a small space that `others` have not tried, ``[points, axes]``.

        All of them where none is left, and None of a large space.
        """
        found = untried(others, self._settings)
        if found is None:
            return None
        return np.unique(self._places(found or configurations(self._settings.space) or ()), axis=0)

    def _startup_trials(self, others: Sequence[FrozenTrial]) -> int:
        """Return how many trials come before the model.

        Earlier trials of a study of the same task stand in for them. Side by side they are whole
        batches: a few more of them would take places from the next one, which the model fills.
        """
        asked, warm = self._settings.sampler_startup_trials, self._settings.warm_start
        if warm is not None:
            return min(asked, 1 if warm.same_task else FEWEST_TRIALS)
        lanes = sum(other.user_attrs.get(BEGAN) == 0 for other in others)
        return max(lanes, asked // lanes * lanes) if lanes else asked

    def _sobol(self, number: int) -> np.ndarray:
        from scipy.stats import qmc  # Half a second, which `--help` need not wait for.

        sequence = qmc.Sobol(len(self._axes), rng=np.random.default_rng(self._settings.seed))
        points = sequence.random_base2(number.bit_length())  # At least number + 1 of them.
        (point,) = self._repaired(_snapped(self._axes, points[[number]]))
        return np.asarray(point)

    def _repaired(self, points: np.ndarray) -> np.ndarray:
        """Return the points of what the space makes of `points`, ``[points, axes]``."""
        space, points = self._settings.space, points.copy()
        place = {axis.name: column for column, axis in enumerate(self._axes)}
        tuned, keys = dict(space.tuned), space.keys
        for name, parameter in tuned.items():
            if isinstance(parameter, Range) and parameter.zero:
                column = place[keys[name]]
                axis = self._axes[column]
                zero = axis.to_unit(parameter.encode(0.0))
                below = points[:, column] < axis.to_unit(parameter.low)
                points[below, column] = zero
        known = ("n_steps", "num_envs", "batch_size", "network", "sequence_length")
        sizes = [name for name in known if keys.get(name) in place]
        if len(sizes) < 2:
            return points
        columns = [place[keys[name]] for name in sizes]
        whole = space.complete({}).to_dict()
        # A handful of combinations among hundreds of points.
        found, which = np.unique(points[:, columns], axis=0, return_inverse=True)
        for row in found:
            values = {
                name: self._axes[column].from_unit(float(at))
                for name, column, at in zip(sizes, columns, row, strict=True)
            }
            for name, value in space.repaired(whole | values).items():
                row[sizes.index(name)] = self._axes[place[keys[name]]].to_unit(value)
        points[:, columns] = found[which.ravel()]
        return points

    def _pending(self, trials: Sequence[FrozenTrial]) -> np.ndarray:
        """Return the points of the trials that run or wait, ``[trials, axes]``."""
        unfinished = (TrialState.RUNNING, TrialState.WAITING)
        begun = [configuration_of(t, self._settings) for t in trials if t.state in unfinished]
        return self._places(configuration for configuration in begun if configuration is not None)

    def _places(self, configurations: Iterable[Configuration]) -> np.ndarray:
        """Return the points of those that are in the space, ``[points, axes]``."""
        params = map(self._settings.space.encode, configurations)
        points = [unit_point(self._axes, found) for found in params if found is not None]
        inside = [point for point in points if point is not None]
        return np.array(inside).reshape(-1, len(self._axes))


def propose(
    model: ScoreModel,
    pending: np.ndarray,
    rng: np.random.Generator,
    repaired: Callable[[np.ndarray], np.ndarray] = lambda points: points,
    among: np.ndarray | None = None,
) -> np.ndarray:
    """Return the point of the unit cube with the highest expected improvement, ``[axes]``.

    Args:
      model: of the finished trials.
      pending: points that are being tried, ``[trials, axes]``.
      rng: draws the candidates.
      repaired: makes points that can be trained of points, ``[points, axes]`` each.
      among: the candidates; drawn if not given.
    """
    axes, process, known = model.axes, model.process, model.points
    places = np.concatenate([known, model.earlier])
    if len(pending):
        process = process.believing(coordinates(axes, pending))
        known, places = np.concatenate([known, pending]), np.concatenate([places, pending])
    expected, _ = process.predict(process.points)
    centres = places[np.argsort(-expected, kind="stable")[:CENTRES]]
    candidates = repaired(_candidates(axes, centres, rng)) if among is None else among
    # The same configuration on the same seeds returns the same again.
    new = ~(candidates[:, None] == known[None]).all(axis=2).any(axis=1)
    if new.any():
        candidates = candidates[new]
    mean, deviation = process.predict(coordinates(axes, candidates))
    improvement = log_expected_improvement((mean - expected.max()) / deviation)
    best: np.ndarray = candidates[np.argmax(improvement + np.log(deviation))]
    return best


def log_expected_improvement(z: np.ndarray) -> np.ndarray:
    """Return the logarithm of E[max(Z, 0)] for Z normal with mean `z` and deviation 1.

    >>> round(float(log_expected_improvement(np.array([0.0]))[0]), 6)
    -0.918939
    """
    density = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    # z Φ(z) / φ(z) by the scaled complementary error function: exact far below zero.
    ratio = z * np.sqrt(np.pi / 2) * special.erfcx(-np.minimum(z, 0.0) / np.sqrt(2))
    with np.errstate(invalid="ignore", divide="ignore"):
        below = np.where(z > -1e3, np.log1p(ratio), -2 * np.log(np.abs(z)))
        above = np.log(z * special.ndtr(z) + np.exp(density)) - density
    return np.asarray(density + np.where(z < 0, below, above))


def _candidates(axes: Sequence[Axis], centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return points all over the unit cube and around `centres`, ``[candidates, axes]``."""
    count = len(axes)
    parts = [rng.random((UNIFORM, count))]
    ordered = np.array([axis.is_ordered and len(axis.values or range(3)) > 2 for axis in axes])
    for centre in centres:
        for deviation, number in NEAR:
            near = centre + rng.normal(0.0, deviation, (number, count))
            near = np.where(ordered, near, rng.random((number, count)))
            moved = rng.random((number, count)) < max(0.3, 2 / count)
            parts.append(np.where(moved, near, centre).clip(0.0, 1.0))
    return _snapped(axes, np.concatenate(parts))


def _snapped(axes: Sequence[Axis], points: np.ndarray) -> np.ndarray:
    """Return `points` with each coordinate of integers and lists at the middle of its cell."""
    columns = []
    for axis, column in zip(axes, points.T, strict=True):
        if axis.values is not None:
            middles = axis.grid(len(axis.values))
            column = middles[np.searchsorted((middles[1:] + middles[:-1]) / 2, column)]
        columns.append(column)
    return np.stack(columns, axis=1)
