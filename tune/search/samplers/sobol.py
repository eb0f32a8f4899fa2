"""Quasi-Monte Carlo: a scrambled Sobol sequence whose draw number *i* takes point *i*."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from tune.protocol.settings import Settings
from tune.search.optuna_private import QMCSampler
from tune.search.samplers.seeded import draw_number


def make_sobol(settings: Settings, seed: int) -> "SobolSampler":
    """Return a sampler of one draw: the study's seed scrambles the sequence for all draws."""
    return SobolSampler(
        scramble=True,
        seed=settings.seed,
        warn_independent_sampling=False,
        independent_sampler=RandomSampler(seed=seed),
    )


class SobolSampler(QMCSampler):
    """A Sobol sequence whose point is the number of the draw, not a count in the storage."""

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """See :class:`optuna.samplers.BaseSampler`."""
        self.point = draw_number(study, trial)
        return super().sample_relative(study, trial, search_space)
