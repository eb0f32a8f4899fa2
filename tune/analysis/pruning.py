"""What pruning has saved. What it hides from a model is estimated in the surrogate."""

import dataclasses
from collections.abc import Sequence

from tune.protocol.settings import Settings
from tune.protocol.trials import TrialRecord


@dataclasses.dataclass(frozen=True)
class Savings:
    """What pruning has saved, compared with running every pruned trial to its end.

    Attributes:
      trials: number of pruned trials.
      environment_steps: not taken, all seeds together.
      seconds: that these steps would have taken, at each trial's own speed.
      share_of_steps: saved steps over the steps of the study without pruning.
    """

    trials: int
    environment_steps: int
    seconds: float
    share_of_steps: float


def savings(finished: Sequence[TrialRecord], settings: Settings) -> Savings:
    """Return what pruning has saved in a study of complete and pruned trials."""
    full = settings.seeds * settings.total_steps
    taken = sum(trial.environment_steps for trial in finished)
    pruned = [trial for trial in finished if trial.is_pruned]
    steps, seconds = 0, 0.0
    for trial in pruned:
        own = trial.environment_steps
        saved = max(full - own, 0)
        spent = (trial.training_seconds or 0.0) + (trial.evaluation_seconds or 0.0)
        steps += saved
        seconds += spent * saved / own if own else 0.0
    return Savings(len(pruned), steps, seconds, steps / (steps + taken) if steps else 0.0)
