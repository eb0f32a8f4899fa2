"""A model of recorded trials that answers for any configuration.

One surrogate is fitted to half of the recorded seeds and answers in tuning and selection;
another, fitted to the other half, judges the winner, so a sampler gains nothing by exploiting the
luck of the first half. The studies themselves are in :mod:`benchmarks.samplers`.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.records import Records, halves
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import Checkpoint
from tune.protocol.settings import Settings

NEIGHBOURS = 8
"""Number of recorded configurations from which the noise of a seed is drawn."""


class Surrogate:
    """Takes the place of a study's compiled programs; its returns come from recorded trials.

    A regression on the recorded trials predicts the mean learning curve of a configuration. The
    deviation of a seed from that mean is drawn from the recorded seeds of the configurations
    with the nearest curves. Returns stay within the range of the recorded ones.

    Args:
      records: of the study's environment.
      settings: of the study; its checkpoints are among the recorded ones.
      seeds: the recorded seeds to fit.
      regressor: a scikit-learn regressor for several outputs.
    """

    def __init__(self, records: Records, settings: Settings, seeds: slice, regressor: Any) -> None:
        self.seeds = settings.seeds
        self._settings = settings
        self._names = [str(name) for name in records.names]
        curves = records.returns_at(settings.checkpoints(), seeds)
        self._range = curves.min(), curves.max()
        self._means = curves.mean(axis=2)
        count = curves.shape[2]
        # Bessel's correction: seeds spread less around their own mean than around the true one.
        self._noise = (curves - self._means[..., None]) * math.sqrt(count / max(1, count - 1))
        with warnings.catch_warnings():
            # A length scale at its bound: the parameter has no influence.
            warnings.simplefilter("ignore")
            self._regressor = regressor.fit(features(settings, records), self._means)
        self._rng = np.random.default_rng(0)

    def reseed(self, seed: int) -> None:
        """Restart the noise from `seed`."""
        self._rng = np.random.default_rng(seed)

    def mean_curve(self, hyperparameters: Hyperparameters) -> np.ndarray:
        """Return the predicted mean return at each checkpoint, float ``[checkpoints]``."""
        row = np.array([[getattr(hyperparameters, name) for name in self._names]], float)
        scaled = _scaled(self._settings, self._names, row)
        low, high = self._range
        return np.asarray(np.clip(self._regressor.predict(scaled)[0], low, high))

    def draw(self, hyperparameters: Hyperparameters, seeds: int) -> np.ndarray:
        """Return the returns of fresh seeds, float ``[checkpoints, seeds]``."""
        mean = self.mean_curve(hyperparameters)
        distance = np.abs(self._means - mean).sum(axis=1)
        near = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        pool = np.concatenate(list(self._noise[near]), axis=1)
        noise = pool[:, self._rng.integers(0, pool.shape[1], seeds)]
        low, high = self._range
        return np.asarray(np.clip(mean[:, None] + noise, low, high))

    def run(
        self, keys: Any, hyperparameters: Hyperparameters, checkpoints: Sequence[int]
    ) -> Iterator[Checkpoint]:
        """Yield checkpoints as :meth:`ppo_jax.programs.Programs.run` does."""
        n_steps = hyperparameters.n_steps
        curve = self.draw(hyperparameters, len(keys))[: len(checkpoints)]  # Trials may be shorter.
        for step, returns in zip(checkpoints, curve, strict=True):
            taken = math.ceil(step / n_steps) * n_steps
            nothing: Any = None
            yield Checkpoint(step, taken, returns, nothing, nothing, 0.0, 0.0)


def regressors(seed: int) -> Mapping[str, Any]:
    """Return name -> regressor, the candidates for the surrogate."""
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
    from sklearn.neighbors import KNeighborsRegressor

    kernel = ConstantKernel(1.0) * Matern(np.ones(10), (0.1, 100.0), nu=2.5) + WhiteKernel(0.1)
    return {
        "Gaussian process": GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed),
        "randomised trees": ExtraTreesRegressor(200, max_features=1.0, random_state=seed),
        "nearest neighbours": KNeighborsRegressor(5, weights="distance"),
    }


def quality(records: Records, settings: Settings, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return model -> R² and rank correlation of its scores, in eight-fold cross-validation.

    Models are fitted to the first half of the seeds and compared with the second half. The last
    row is an upper bound: the recorded scores of the first half themselves.
    """
    from scipy.stats import spearmanr
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold, cross_val_predict

    tuning, judging = halves(records)
    steps = settings.checkpoints()
    known = records.returns_at(steps, tuning).mean(axis=2)
    truth = records.returns_at(steps, judging).mean(axis=(1, 2))
    folds = KFold(8, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answers = {
            name: cross_val_predict(model, features(settings, records), known, cv=folds).mean(1)
            for name, model in regressors(seed).items()
        }
    answers["the other seeds themselves"] = known.mean(axis=1)
    return {
        name: {
            "r2": float(r2_score(truth, found)),
            "rank_correlation": float(spearmanr(truth, found).statistic),
        }
        for name, found in answers.items()
    }


def features(settings: Settings, records: Records) -> np.ndarray:
    """Return the recorded configurations scaled to the unit cube as the space says."""
    return _scaled(settings, [str(name) for name in records.names], records.params)


def _scaled(settings: Settings, names: Sequence[str], params: np.ndarray) -> np.ndarray:
    from tune.protocol.space import Range

    tuned = dict(settings.space.tuned)
    columns = []
    for name, values in zip(names, params.T, strict=True):
        parameter = tuned[name]
        if isinstance(parameter, Range):
            low, high, log = parameter.low, parameter.high, parameter.log
        else:
            sizes = [float(x) for x in parameter.values if not isinstance(x, (str, tuple))]
            low, high, log = min(sizes), max(sizes), True
        low, high, values = (np.log(x) if log else x for x in (low, high, values))
        columns.append((values - low) / (high - low))
    return np.stack(columns, axis=1)
