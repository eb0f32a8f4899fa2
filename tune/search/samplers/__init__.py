"""The samplers of a study, by name.

:data:`SAMPLERS` is the only list of them. To add one, add an entry here, and to
``pyproject.toml`` an extra if it needs a package. Samplers with code of their own have a
module here.

What a sampler draws depends on the study's seed, on the number of the draw and on the trials
in the storage, on nothing else; see :mod:`tune.search.samplers.seeded`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from ppo_jax.errors import require_choice, require_package
from tune.protocol.settings import Settings
from tune.protocol.trials import settings_of
from tune.search.finite import untried
from tune.search.samplers.gp import GPSampler
from tune.search.samplers.grid import make_grid
from tune.search.samplers.seeded import draw_number, seeded_by_draw
from tune.search.samplers.sobol import make_sobol

__all__ = [
    "SAMPLERS",
    "FiniteSampler",
    "Sampler",
    "draw_number",
    "has_configurations_left",
    "make_sampler",
    "require_sampler",
]


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How a sampler is made.

    Attributes:
      make: returns the sampler of a study with these settings. A sampler that can run out of
        configurations is a :class:`FiniteSampler`.
      package: module that it needs beyond Optuna's own dependencies; None for none.
      extra: extra of this project that installs the package.
    """

    make: Callable[[Settings], BaseSampler]
    package: str | None = None
    extra: str = ""


@runtime_checkable
class FiniteSampler(Protocol):
    """A sampler that runs out of configurations."""

    def has_points_left(self, study: optuna.Study) -> bool:
        """Return whether there is a configuration that no trial of `study` has or had."""
        ...


def _tpe(settings: Settings, seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(n_startup_trials=settings.sampler_startup_trials, seed=seed)


def _random(_: Settings, seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _cmaes(settings: Settings, seed: int) -> BaseSampler:
    return optuna.samplers.CmaEsSampler(
        n_startup_trials=settings.sampler_startup_trials, seed=seed, warn_independent_sampling=False
    )


def _optuna_gp(settings: Settings, seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(n_startup_trials=settings.sampler_startup_trials, seed=seed)


SAMPLERS: Mapping[str, Sampler] = {
    "gp": Sampler(GPSampler),
    "tpe": Sampler(seeded_by_draw(_tpe)),
    "random": Sampler(seeded_by_draw(_random)),
    "qmc": Sampler(seeded_by_draw(make_sobol)),
    "cmaes": Sampler(seeded_by_draw(_cmaes), package="cmaes", extra="cmaes"),
    "optuna-gp": Sampler(seeded_by_draw(_optuna_gp), package="torch", extra="optuna-gp"),
    "grid": Sampler(make_grid),
}
"""Name, as in ``--sampler``, -> how it is made."""


def require_sampler(name: str) -> Sampler:
    """Return the sampler of this name.

    Raises:
      UserError: when there is none, or its package is not installed.
    """
    require_choice("sampler", name, SAMPLERS)
    sampler = SAMPLERS[name]
    if sampler.package is not None:
        require_package(sampler.package, sampler.extra, f"sampler {name!r}")
    return sampler


def make_sampler(settings: Settings) -> BaseSampler:
    """Return the sampler of a study; see :func:`require_sampler` for errors."""
    return require_sampler(settings.sampler).make(settings)


def has_configurations_left(study: optuna.Study) -> bool:
    """Return whether a configuration of `study` waits, or its sampler can suggest a new one."""
    sampler, settings = study.sampler, settings_of(study)
    trials = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in trials):
        return True
    if isinstance(sampler, FiniteSampler) and not sampler.has_points_left(study):
        return False
    return settings is None or untried(trials, settings) != set()
