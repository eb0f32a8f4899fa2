"""One trial: a configuration trained on all tuning seeds, scored at checkpoints, prunable."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import jax
import numpy as np
import optuna

from ppo_jax.config import TrainConfig
from ppo_jax.environments import require_no_code
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import Checkpoint, Programs
from ppo_jax.seeds import seed_keys
from tune.protocol.purposes import TUNING
from tune.protocol.settings import Settings
from tune.protocol.trials import is_baseline, require_maximize, settings_of

Observer = Callable[[Checkpoint], None]


class RunsSeeds(Protocol):
    """What a trial needs of :class:`ppo_jax.programs.Programs`."""

    def run(
        self, keys: jax.Array, hyperparameters: Hyperparameters, checkpoints: Sequence[int]
    ) -> Iterator[Checkpoint]:
        """Train a seed a key and yield it at each checkpoint."""
        ...


@functools.lru_cache(maxsize=4)
def shared_programs(config: TrainConfig, seeds: int) -> Programs:
    """Return programs that are compiled once in a process, for callers that pass none.

    A script may call :func:`objective` once a trial and validate afterwards: all of it runs
    in the same programs.
    """
    return Programs(config, seeds)


def objective(
    trial: optuna.trial.BaseTrial,
    settings: Settings | None = None,
    observer: Observer | None = None,
    programs: RunsSeeds | None = None,
) -> float:
    """Train the configuration that `trial` suggests and return its score.

    Every trial of a study runs on the same tuning seeds. At each checkpoint the mean
    return over seeds is reported at the nominal step, and the trial may be pruned; the
    baseline never is. A seed that diverges is recorded and left out of the means, and
    its trial is pruned: a configuration that breaks is no candidate.

    Works in a plain ``study.optimize(objective, n_trials=20)`` as well.

    Args:
      trial: an Optuna trial; also a ``FixedTrial`` or a finished one, to run it again.
      settings: of the study; read from the study, else the defaults, when not given.
      observer: called at each checkpoint.
      programs: of the settings' configuration; :func:`shared_programs` when not given.

    Returns:
      The score; see :meth:`tune.protocol.settings.Settings.score`.

    Raises:
      optuna.TrialPruned: when the pruner says so or a seed has diverged.
      UserError: for a study that does not maximize, or has several objectives.
    """
    study = getattr(trial, "study", None)  # Optuna's FixedTrial and FrozenTrial have none.
    if study is not None:
        require_maximize(study)
        settings = settings or _stored_settings(study)
    settings = settings or Settings()
    hyperparameters = settings.space.suggest(trial)
    programs = programs or shared_programs(settings.config, settings.seeds)
    keys = seed_keys(settings.seed, TUNING, settings.seeds)
    trial.set_user_attr("hyperparameters", hyperparameters.to_dict())

    # Reports of a run of this trial that was interrupted. It was not pruned there, so the
    # pruner, which judges by the last report, is asked again only when that has been reached.
    reported = (
        {} if study is None else study.get_trials(deepcopy=False)[trial.number].intermediate_values
    )
    known_until = max(reported, default=0)

    means: list[float] = []
    progress = _Progress()
    try:
        for checkpoint in programs.run(keys, hyperparameters, settings.checkpoints()):
            finite = progress.add(checkpoint)
            trial.set_user_attr("returns", progress.returns)
            if observer is not None:
                observer(checkpoint)
            if not finite.any():
                raise optuna.TrialPruned("every seed has diverged")
            means.append(float(checkpoint.returns[finite].mean()))
            if checkpoint.step not in reported:
                trial.report(means[-1], checkpoint.step)
            judged = known_until <= checkpoint.step < settings.total_steps
            if not is_baseline(trial) and (not finite.all() or (judged and trial.should_prune())):
                raise optuna.TrialPruned
    finally:
        trial.set_user_attr("environment_steps", progress.environment_steps)
        trial.set_user_attr("training_seconds", progress.training_seconds)
        trial.set_user_attr("evaluation_seconds", progress.evaluation_seconds)
        trial.set_user_attr("diverged_seeds", progress.diverged_seeds)
    return settings.score(means)


def _stored_settings(study: optuna.Study) -> Settings | None:
    """Return the settings stored with `study`, unless they name code to import."""
    settings = settings_of(study)
    if settings is not None:
        require_no_code(settings.env, f"study {study.study_name!r}", "pass settings=")
    return settings


@dataclasses.dataclass
class _Progress:
    """What a trial stores as it goes; see :class:`tune.protocol.trials.TrialRecord`."""

    returns: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)
    environment_steps: int = 0
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    diverged_seeds: list[int] = dataclasses.field(default_factory=list)

    def add(self, checkpoint: Checkpoint) -> np.ndarray:
        """Take in a checkpoint and return which seeds are finite, bool ``[seeds]``."""
        returns = checkpoint.returns
        finite: np.ndarray = np.isfinite(returns)
        self.returns[str(checkpoint.step)] = [
            float(r) if math.isfinite(r) else None for r in returns
        ]
        self.environment_steps = checkpoint.environment_steps * len(returns)
        self.training_seconds += checkpoint.training_seconds
        self.evaluation_seconds += checkpoint.evaluation_seconds
        self.diverged_seeds = np.flatnonzero(~finite).tolist()
        return finite
