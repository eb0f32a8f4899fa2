"""The pruners of a study, by name.

:data:`PRUNERS` is the only list of them. To add one, add an entry here. The steps of a pruner
are nominal environment steps.
"""

from collections.abc import Callable, Mapping

from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
)

from ppo_jax.errors import require_choice
from tune.protocol.settings import Settings


def _median(settings: Settings) -> BasePruner:
    return MedianPruner(
        n_startup_trials=settings.pruner_startup_trials, n_warmup_steps=_warmup_steps(settings)
    )


def _percentile(settings: Settings) -> BasePruner:
    return PercentilePruner(
        settings.pruner_percentile,
        n_startup_trials=settings.pruner_startup_trials,
        n_warmup_steps=_warmup_steps(settings),
    )


def _hyperband(settings: Settings) -> BasePruner:
    return HyperbandPruner(min_resource=_warmup_steps(settings), max_resource=settings.total_steps)


PRUNERS: Mapping[str, Callable[[Settings], BasePruner]] = {
    "median": _median,
    "percentile": _percentile,
    "hyperband": _hyperband,
    "none": lambda _: NopPruner(),
}
"""Name, as in ``--pruner``, -> the function that makes it from the settings of a study."""


def make_pruner(settings: Settings) -> BasePruner:
    """Return the pruner of a study.

    Raises:
      UserError: when there is none of this name.
    """
    require_choice("pruner", settings.pruner, PRUNERS)
    return PRUNERS[settings.pruner](settings)


def _warmup_steps(settings: Settings) -> int:
    """Return the step of the first checkpoint at which a trial may be pruned."""
    checkpoints = settings.checkpoints()
    return checkpoints[min(settings.pruner_warmup_checkpoints, len(checkpoints) - 1)]
