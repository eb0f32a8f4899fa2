"""Samplers whose draws depend on the study's seed and the number of the draw, on nothing else.

So a study that was killed and continued draws what it would have drawn without, and
workers side by side never draw the same: no sampler has a state that could be lost or
shared. What a sampler learns from is in the storage alone.
"""

import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.errors import UserError, require_package
from tune.protocol.settings import Settings

_PACKAGES = {"cmaes": "cmaes", "gp": "torch"}
"""Packages that samplers need beyond Optuna's own dependencies; an extra of each sampler's name."""


def require_sampler_package(sampler: str) -> None:
    """Raise a ``UserError`` that says what to install if `sampler` needs a missing package."""
    if sampler in _PACKAGES:
        require_package(_PACKAGES[sampler], sampler, f"sampler {sampler!r}")


def make_sampler(settings: Settings) -> BaseSampler:
    """Return the sampler of a study."""
    startup = settings.sampler_startup_trials
    match settings.sampler:
        case "tpe":
            return _SeededByTrial(
                settings.seed,
                lambda seed: optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed),
            )
        case "random":
            return _SeededByTrial(
                settings.seed, lambda seed: optuna.samplers.RandomSampler(seed=seed)
            )
        case "qmc":
            return _SeededByTrial(settings.seed, functools.partial(_Sobol, settings.seed))
        case "cmaes":
            return _SeededByTrial(
                settings.seed,
                lambda seed: optuna.samplers.CmaEsSampler(
                    n_startup_trials=startup, seed=seed, warn_independent_sampling=False
                ),
            )
        case "gp":
            return _SeededByTrial(
                settings.seed,
                lambda seed: optuna.samplers.GPSampler(n_startup_trials=startup, seed=seed),
            )
        case "grid":
            # Its only draw is the order of the grid, which all trials share.
            grid = settings.space.grid(settings.grid_points)
            return _Grid(grid, seed=settings.seed)
    raise UserError(f"unknown sampler {settings.sampler!r}")


def draw_number(study: optuna.Study, trial: FrozenTrial) -> int:
    """Return how many configurations were drawn before that of `trial`.

    Its number, less the trials that run another one's configuration again.
    """
    earlier = study._storage.get_all_trials(study._study_id, deepcopy=False)[: trial.number]
    return sum("retry_of" not in other.user_attrs for other in earlier)


class _SeededByTrial(BaseSampler):
    """Asks a new sampler, seeded by the number of the draw, at every turn.

    Args:
      seed: of the study.
      make: makes the sampler from a seed.
    """

    def __init__(self, seed: int, make: Callable[[int], BaseSampler]) -> None:
        self._seed = seed
        self._make = make

    def _sampler(self, study: optuna.Study, trial: FrozenTrial, *purpose: int) -> BaseSampler:
        entropy = np.random.SeedSequence([self._seed, draw_number(study, trial), *purpose])
        return self._make(int(entropy.generate_state(1)[0]))

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler(study, trial).before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        return self._sampler(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        # By name as well: a trial that was interrupted between two parameters draws the
        # second as if it drew both.
        sampler = self._sampler(study, trial, zlib.crc32(param_name.encode()))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._sampler(study, trial).after_trial(study, trial, state, values)


class _Sobol(optuna.samplers.QMCSampler):
    """A Sobol sequence whose trial *i* takes point *i*.

    Optuna counts the points in the storage, where a trial that is asked for again counts
    twice and two workers may read the same count.
    """

    def __init__(self, scramble_seed: int, seed: int) -> None:
        super().__init__(
            scramble=True,
            seed=scramble_seed,
            warn_independent_sampling=False,
            independent_sampler=optuna.samplers.RandomSampler(seed=seed),
        )
        self._point = 0

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        self._point = draw_number(study, trial)
        return super().sample_relative(study, trial, search_space)

    def _find_sample_id(
        self, study: optuna.Study, search_space: dict[str, BaseDistribution]
    ) -> int:
        return self._point


class _Grid(optuna.samplers.GridSampler):
    """A grid that leaves it to the study's own loop to stop."""

    def has_points_left(self, study: optuna.Study) -> bool:
        """Return whether there is a point that no trial has or had."""
        taken = {trial.system_attrs.get("grid_id") for trial in study.get_trials(deepcopy=False)}
        return len(taken - {None}) < len(self._all_grids)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Do nothing: Optuna's would stop ``Study.optimize``, which is not running."""


def has_configurations_left(study: optuna.Study) -> bool:
    """Return whether the study's sampler can suggest anything new; only a grid ends."""
    return not isinstance(study.sampler, _Grid) or study.sampler.has_points_left(study)
