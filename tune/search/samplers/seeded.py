"""Samplers whose draws depend on the study's seed and the number of the draw.

So a study that was killed and continued draws what it would have drawn without the
interruption, and workers side by side never draw the same configuration: no sampler holds
state that could be lost or shared. Whatever a sampler learns from is in the storage.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from tune.protocol.settings import Settings
from tune.search.optuna_private import all_trials

Make = Callable[[Settings, int], BaseSampler]
"""Returns Optuna's sampler for the settings of a study and the seed of a draw."""


def seeded_by_draw(make: Make) -> Callable[[Settings], BaseSampler]:
    """Return a function of the settings that makes the sampler of a study."""
    return lambda settings: SeededByDraw(settings, make)


def draw_number(study: optuna.Study, trial: FrozenTrial) -> int:
    """Return how many configurations were drawn before that of `trial`.

    Trials that retry another one's configuration draw none.
    """
    earlier = all_trials(study)[: trial.number]
    return sum("retry_of" not in other.user_attrs for other in earlier)


class SeededByDraw(BaseSampler):
    """Delegates every draw to a new sampler that is seeded by the number of the draw.

    Args:
      settings: of the study.
      make: see :data:`Make`.
    """

    def __init__(self, settings: Settings, make: Make) -> None:
        self._settings = settings
        self._make = make
        self._last: tuple[optuna.Study, int, int] | None = None

    def _number(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """Return the number of the draw; it is asked for with every parameter of a trial."""
        match self._last:
            case (known, trial_number, draw) if known is study and trial_number == trial.number:
                return draw
        draw = draw_number(study, trial)
        self._last = (study, trial.number, draw)
        return draw

    def _sampler(self, study: optuna.Study, trial: FrozenTrial, *purpose: int) -> BaseSampler:
        number = self._number(study, trial)
        entropy = np.random.SeedSequence([self._settings.seed, number, *purpose])
        return self._make(self._settings, int(entropy.generate_state(1)[0]))

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """See :class:`optuna.samplers.BaseSampler`."""
        self._sampler(study, trial).before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See :class:`optuna.samplers.BaseSampler`."""
        return self._sampler(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """See :class:`optuna.samplers.BaseSampler`."""
        return self._sampler(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See :class:`optuna.samplers.BaseSampler`.

        The seed also depends on the parameter's name: a trial that was interrupted between two
        parameters draws the second one as if it had not been.
        """
        sampler = self._sampler(study, trial, zlib.crc32(param_name.encode()))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """See :class:`optuna.samplers.BaseSampler`."""
        self._sampler(study, trial).after_trial(study, trial, state, values)
