"""Trials recorded once, and a model that answers for any configuration in their place.

The record holds the returns of quasi-random configurations at every checkpoint, of several
seeds. Half of the seeds makes the surrogate that tuning sees, the other half the one that
judges, so what a sampler has learned of the first half's luck is worth nothing.
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

NEIGHBOURS = 8
"""Recorded configurations that the noise of a seed is drawn from."""


@dataclasses.dataclass(frozen=True)
class Records:
    """Recorded trials.

    Attributes:
      names: hyperparameters, ``[parameters]``.
      params: their values, float ``[configurations, parameters]``.
      steps: nominal steps of the checkpoints, int ``[checkpoints]``.
      returns: float ``[configurations, checkpoints, seeds]``; NaN after the end of a run and
        for a seed that has diverged.
      checkpoints: how many of them each configuration has run, int ``[configurations]``.
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
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **vars(self))

    def upto(self, steps: Sequence[int], seeds: slice) -> np.ndarray:
        """Return the returns of some seeds at some steps; a diverged seed has the worst."""
        rows = [list(self.steps).index(step) for step in steps]
        returns = self.returns[:, rows, seeds].astype(np.float64)
        return np.where(np.isnan(returns), np.nanmin(self.returns), returns)


def record(
    settings: Settings, configurations: int, long: int, long_steps: int, path: Path, tell: "Console"
) -> None:
    """Train quasi-random configurations and write their returns to `path`.

    What `path` holds already stays, so a recording that was stopped goes on.

    Args:
      settings: what is trained, on ``settings.seeds`` seeds; the default space.
      configurations: how many, the default configuration first.
      long: how many of them are trained for `long_steps`, not only for the steps of a trial.
    """
    import optuna

    from ppo_jax.seeds import seed_keys
    from tune.protocol.purposes import TUNING
    from tune.search.objective import shared_programs
    from tune.search.samplers import make_sampler

    study = optuna.create_study(sampler=make_sampler(settings))
    study.enqueue_trial(settings.space.baseline())
    names = np.array([name for name, _ in settings.space.tuned])
    steps = np.array(settings.checkpoints(long_steps))
    known = Records.load(path) if path.exists() else None
    rows = [] if known is None else list(zip(known.params, known.returns, known.checkpoints))  # noqa: B905
    programs = shared_programs(settings.config, settings.seeds)
    keys = seed_keys(settings.seed, TUNING, settings.seeds)
    for number in range(configurations):
        hyperparameters = settings.space.suggest(study.ask())
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
        tell.print(f"{number + 1} of {configurations}: {checkpoints[-1]:,} steps, {end.mean():.1f}")


class Surrogate:
    """Stands in for the compiled programs of a study; answers from recorded trials.

    The mean learning curve of a configuration comes from a regression on all records; a seed
    deviates from it as one of the recorded seeds did, of configurations whose curves are
    nearest. Means and noise keep within the range of the recorded returns.

    Args:
      records: of the study's environment.
      settings: of the study; its checkpoints are among the recorded ones.
      seeds: the recorded seeds to learn from.
      regressor: of scikit-learn, for several outputs.
    """

    def __init__(self, records: Records, settings: Settings, seeds: slice, regressor: Any) -> None:
        self.seeds = settings.seeds
        self._settings = settings
        self._names = [str(name) for name in records.names]
        curves = records.upto(settings.checkpoints(), seeds)
        self._range = curves.min(), curves.max()
        self._means = curves.mean(axis=2)
        count = curves.shape[2]
        # Around the mean of so few seeds, their spread is smaller than around the true one.
        self._noise = (curves - self._means[..., None]) * math.sqrt(count / max(1, count - 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # A parameter without influence has no length scale.
            self._regressor = regressor.fit(features(settings, records), self._means)
        self._rng = np.random.default_rng(0)

    def reseed(self, seed: int) -> None:
        """Begin the noise anew."""
        self._rng = np.random.default_rng(seed)

    def mean_curve(self, hyperparameters: Hyperparameters) -> np.ndarray:
        """Return the expected return at each checkpoint, but for the noise at the cap."""
        row = np.array([[getattr(hyperparameters, name) for name in self._names]], float)
        scaled = _scaled(self._settings, self._names, row)
        return np.clip(self._regressor.predict(scaled)[0], *self._range)

    def draw(self, hyperparameters: Hyperparameters, seeds: int) -> np.ndarray:
        """Return returns ``[checkpoints, seeds]`` of fresh seeds."""
        mean = self.mean_curve(hyperparameters)
        distance = np.abs(self._means - mean).sum(axis=1)
        near = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        pool = np.concatenate(list(self._noise[near]), axis=1)
        noise = pool[:, self._rng.integers(0, pool.shape[1], seeds)]
        return np.clip(mean[:, None] + noise, *self._range)

    def run(
        self, keys: Any, hyperparameters: Hyperparameters, checkpoints: Sequence[int]
    ) -> Iterator[Checkpoint]:
        """Yield what training would; see :meth:`ppo_jax.programs.Programs.run`."""
        n_steps = hyperparameters.n_steps
        for step, returns in zip(checkpoints, self.draw(hyperparameters, len(keys)), strict=True):
            taken = math.ceil(step / n_steps) * n_steps
            nothing: Any = None
            yield Checkpoint(step, taken, returns, nothing, nothing, 0.0, 0.0)


def regressors(seed: int) -> Mapping[str, Any]:
    """Return the models to choose from."""
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
    """Return model -> R² and rank correlation of scores, on configurations held out.

    Eight-fold: learned from the first half of the seeds, compared with the second half. The
    last row is the best that could be: the recorded scores of the first half themselves.
    """
    from scipy.stats import spearmanr
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold, cross_val_predict

    tuning, judging = halves(records)
    steps = settings.checkpoints()
    known = records.upto(steps, tuning).mean(axis=2)
    truth = records.upto(steps, judging).mean(axis=(1, 2))
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
    """Return the recorded seeds that tuning sees and those that judge."""
    count = records.returns.shape[2]
    return slice(0, count // 2), slice(count // 2, count)


def features(settings: Settings, records: Records) -> np.ndarray:
    """Return the recorded configurations in the unit cube, on the scales of the space."""
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
            low, high, log = min(parameter.values), max(parameter.values), True
        low, high, values = (np.log(x) if log else x for x in (low, high, values))
        columns.append((values - low) / (high - low))
    return np.stack(columns, axis=1)
