"""Recorded trials, and a model of them that answers for any configuration.

A record holds the returns of quasi-random configurations at every checkpoint and for several
seeds. One surrogate is fitted to half of the seeds and answers in tuning and selection; another,
fitted to the other half, judges the winner, so a sampler gains nothing by exploiting the luck
of the first half. The studies themselves are in :mod:`benchmarks.samplers`.
"""

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_jax.files import replacing
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import Checkpoint
from tune.protocol.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from ppo_jax.schedules import RunsSeeds

NEIGHBOURS = 8
"""Number of recorded configurations from which the noise of a seed is drawn."""


@dataclasses.dataclass(frozen=True)
class Records:
    """Recorded trials.

    Attributes:
      names: hyperparameters, ``[parameters]``.
      params: their values, float ``[configurations, parameters]``.
      steps: nominal steps of the checkpoints, int ``[checkpoints]``.
      returns: float ``[configurations, checkpoints, seeds]``; NaN after the end of a run and
        for a seed that has diverged.
      checkpoints: number of checkpoints of each configuration, int ``[configurations]``.
    """

    names: np.ndarray
    params: np.ndarray
    steps: np.ndarray
    returns: np.ndarray
    checkpoints: np.ndarray

    @classmethod
    def load(cls, path: Path) -> "Records":
        """Read a record."""
        with np.load(path) as found:
            return cls(**{field.name: found[field.name] for field in dataclasses.fields(cls)})

    def save(self, path: Path) -> None:
        """Write the record, compressed."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **vars(self))

    def returns_at(self, steps: Sequence[int], seeds: slice) -> np.ndarray:
        """Return the returns at `steps`, float64 ``[configurations, steps, seeds]``.

        A diverged seed gets the lowest return of the record.
        """
        rows = [list(self.steps).index(step) for step in steps]
        returns = self.returns[:, rows, seeds].astype(np.float64)
        return np.where(np.isnan(returns), np.nanmin(self.returns), returns)


def record(
    settings: Settings,
    programs: "RunsSeeds",
    configurations: int,
    long: int,
    long_steps: int,
    path: Path,
    console: "Console",
) -> None:
    """Train quasi-random configurations and write their returns to `path`.

    Configurations that `path` already holds are not trained again, so the same call continues
    a recording that was stopped.

    Args:
      settings: environment, space, seeds and checkpoints of the trials.
      programs: of the settings' configuration.
      configurations: their number; the default configuration comes first.
      long: number of configurations that are trained for `long_steps` instead of the steps of
        a trial.
      long_steps: environment steps of a seed.
      path: an ``.npz`` file.
      console: prints a line per configuration.
    """
    import optuna

    from ppo_jax.seeds import seed_keys
    from tune.protocol.purposes import TUNING
    from tune.search.samplers import make_sampler

    study = optuna.create_study(sampler=make_sampler(settings))
    study.enqueue_trial(settings.space.baseline())
    names = np.array([name for name, _ in settings.space.tuned])
    steps = np.array(settings.checkpoints(long_steps))
    known = Records.load(path) if path.exists() else None
    rows = [] if known is None else list(zip(known.params, known.returns, known.checkpoints))  # noqa: B905
    keys = seed_keys(settings.seed, TUNING, settings.seeds)
    for number in range(configurations):
        hyperparameters = settings.space.suggest(study.ask()).hyperparameters
        if number < len(rows):
            continue
        checkpoints = settings.checkpoints(long_steps if number < long else None)
        returns = np.full((len(steps), settings.seeds), np.nan, np.float32)
        for row, checkpoint in enumerate(programs.run(keys, hyperparameters, checkpoints)):
            returns[row] = checkpoint.returns
        values = np.array([float(getattr(hyperparameters, name)) for name in names])
        rows.append((values, returns, np.int64(len(checkpoints))))
        params, all_returns, lengths = (np.array(column) for column in zip(*rows, strict=True))
        Records(names, params, steps, all_returns, lengths).save(path)
        end = returns[len(checkpoints) - 1]
        console.print(
            f"{number + 1} of {configurations}: {checkpoints[-1]:,} steps, {end.mean():.1f}"
        )


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
        for step, returns in zip(checkpoints, self.draw(hyperparameters, len(keys)), strict=True):
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


def halves(records: Records) -> tuple[slice, slice]:
    """Return the recorded seeds for tuning and those for judging the winner."""
    count = records.returns.shape[2]
    return slice(0, count // 2), slice(count // 2, count)


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
