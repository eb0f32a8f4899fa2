"""One trial: a configuration trained on all tuning seeds, scored at checkpoints, prunable."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
import optuna

from ppo_jax.config import TrainConfig
from ppo_jax.environments import require_no_code
from ppo_jax.programs import Checkpoint
from ppo_jax.schedules import Run, RunsSeeds, choose_lanes
from ppo_jax.seeds import seed_keys
from tune.protocol.purposes import TUNING
from tune.protocol.settings import Settings
from tune.protocol.trials import TrialRecord, is_baseline, require_maximize, settings_of
from tune.search.pool import ProgramPool

Observer = Callable[[Checkpoint], None]


def shared_pool(
    settings: Settings, config: TrainConfig | None = None, lanes: int = 1
) -> ProgramPool:
    """Return programs that are compiled once in a process, for callers that pass none.

    A script may call :func:`objective` once a trial and validate afterwards: all of it runs
    in the same programs.
    """
    compiled = {
        *("env", "env_kwargs", "agent", "space", "seeds", "eval_episodes", "matmul_precision")
    }
    return _pool(
        Settings(**{name: getattr(settings, name) for name in compiled}),
        config or settings.config,
        lanes,
    )


_pool = functools.lru_cache(maxsize=4)(ProgramPool)


TRIALS_A_LANE = 5
"""Trials of a study for each lane at the least. A suggestion is made without the results of the
trials beside it. Of studies over the recorded trials of Pendulum-v1, at equal steps, 4 lanes lose
0.02 of the gap between median and best with 20 trials, 8 lanes 0.065 with 20 and nothing with 40
(``python -m benchmarks.samplers --replays --lanes 4 8``)."""


def make_programs(settings: Settings, n_trials: int, lanes: int | None = None) -> ProgramPool:
    """Return the programs of a study; see :func:`shared_pool`.

    Args:
      settings: of the study.
      n_trials: trials in all.
      lanes: trials that train side by side; as many as suit the device by default, and one
        where agents are tuned, which need several programs.
    """
    if settings.space.tuned_agent:
        lanes = 1
    elif lanes is None:
        lanes = choose_lanes(settings.config, settings.seeds, n_trials // TRIALS_A_LANE)
    return shared_pool(settings, lanes=lanes)


def objective(
    trial: optuna.trial.BaseTrial,
    settings: Settings | None = None,
    observer: Observer | None = None,
    programs: RunsSeeds | ProgramPool | None = None,
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
      programs: of the settings' configuration, or a pool of them; :func:`shared_pool` when not
        given.

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
    pool = shared_pool(settings) if programs is None else ProgramPool.of(programs, settings)
    judged = JudgedTrial(trial, settings)
    run, runner = judged.run, pool.programs(judged.configuration.agent)
    with judged.recorded():
        for checkpoint in runner.run(run.keys, run.hyperparameters, run.checkpoints):
            judged.add(checkpoint, observer)
    return judged.score


class JudgedTrial:
    """A trial from its suggestion to its score, whatever schedule trains it.

    Args:
      trial: that the sampler has begun.
      settings: of the study.

    Attributes:
      trial: the trial.
      configuration: what it trains.
      run: likewise, for a schedule.
    """

    def __init__(self, trial: optuna.trial.BaseTrial, settings: Settings) -> None:
        study = getattr(trial, "study", None)
        stored = None if study is None else study.get_trials(deepcopy=False)[trial.number]
        # What a run of this trial has trained that was interrupted. Asked once more, a space that
        # was widened meanwhile would have something else, under the same number and reports.
        begun = None if stored is None else TrialRecord.of(stored).configuration(settings)
        self.trial = trial
        self.configuration = found = begun or settings.space.suggest(trial)
        keys = seed_keys(settings.seed, TUNING, settings.seeds)
        checkpoints = settings.checkpoints()
        self.run = Run(keys, found.hyperparameters, checkpoints, agent=found.agent)
        self._settings = settings
        self._means: list[float] = []
        self._progress = _Progress()
        trial.set_user_attr("hyperparameters", found.hyperparameters.to_dict())
        if settings.space.tuned_agent or found.agent != settings.agent:
            trial.set_user_attr("agent", found.agent.to_dict())
        # Reports of that run. It was not pruned there, so the pruner, which judges by the last
        # report, is asked again only when that has been reached; and not where it has answered,
        # since other trials may have ended after that.
        self._reported = {} if stored is None else stored.intermediate_values
        self._judged_until: int = trial.user_attrs.get("judged_until", 0)

    @property
    def score(self) -> float:
        """The score of the trial, whose last checkpoint has been passed."""
        return self._settings.score(self._means)

    def add(self, checkpoint: Checkpoint, observer: Observer | None = None) -> None:
        """Report a checkpoint, and ask whether the trial is to go on.

        Raises:
          optuna.TrialPruned: when it is not.
        """
        trial, step = self.trial, checkpoint.step
        finite = self._progress.add(checkpoint)
        trial.set_user_attr("returns", self._progress.returns)
        if observer is not None:
            observer(checkpoint)
        if not finite.any():
            raise optuna.TrialPruned("every seed has diverged")
        self._means.append(float(checkpoint.returns[finite].mean()))
        if step not in self._reported:
            trial.report(self._means[-1], step)
        if is_baseline(trial):
            return
        if not finite.all():
            raise optuna.TrialPruned
        known_until = max(max(self._reported, default=0), self._judged_until + 1)
        if known_until <= step < self._settings.total_steps:
            if trial.should_prune():
                raise optuna.TrialPruned
            trial.set_user_attr("judged_until", step)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Store at the end of the block, however that ends, what the trial has come to."""
        try:
            yield
        finally:
            self.record()

    def record(self) -> None:
        """Store what the trial has come to."""
        progress = self._progress
        self.trial.set_user_attr("environment_steps", progress.environment_steps)
        self.trial.set_user_attr("training_seconds", progress.training_seconds)
        self.trial.set_user_attr("evaluation_seconds", progress.evaluation_seconds)
        self.trial.set_user_attr("diverged_seeds", progress.diverged_seeds)


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
