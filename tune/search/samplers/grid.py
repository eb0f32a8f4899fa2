"""Grid search, which ends when every point has been taken."""

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from tune.protocol.settings import Settings
from tune.search import optuna_private
from tune.search.optuna_private import grid_point


def make_grid(settings: Settings) -> "GridSampler":
    """Return the grid of a study.

    It needs no seed of a draw: the only random choice is the order of the points, which all
    trials share.
    """
    return GridSampler(settings.space.grid(settings.grid_points), seed=settings.seed)


class GridSampler(optuna_private.GridSampler):
    """A grid that leaves it to the study's own loop to stop."""

    def has_points_left(self, study: optuna.Study) -> bool:
        """Return whether there is a point that no trial of `study` has or had."""
        taken = {grid_point(trial) for trial in study.get_trials(deepcopy=False)}
        return len(taken - {None}) < len(self.points)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Do nothing: Optuna's would stop ``Study.optimize``, which is not running."""
