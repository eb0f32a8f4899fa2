"""Grid search, which ends when every point has been taken."""

import math
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.errors import UserError
from tune.protocol.settings import Settings
from tune.search import optuna_private
from tune.search.optuna_private import grid_point

MOST_POINTS = 1_000_000
"""Of a grid. All of them are in memory, and no study comes near so many trials."""


def make_grid(settings: Settings) -> "GridSampler":
    """Return the grid of a study.

    It needs no seed of a draw: the only random choice is the order of the points, which all
    trials share.

    Raises:
      UserError: when it has more than :data:`MOST_POINTS` points.
    """
    grid = settings.space.grid(min(settings.grid_points, MOST_POINTS + 1))
    points = math.prod(map(len, grid.values()))
    if points > MOST_POINTS:
        raise UserError(
            f"a grid must have at most {MOST_POINTS:,} points, but {settings.grid_points} values "
            f"of each range of {len(grid)} parameters make {points:,}; lower --grid-points, take "
            f"parameters out with --fix, or choose another --sampler"
        )
    return GridSampler(grid, seed=settings.seed)


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
