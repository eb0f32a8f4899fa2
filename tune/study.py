"""A study: storage, sampler, pruner, baseline, resume."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.environments import make
from ppo_jax.errors import UserError, require_count
from ppo_jax.files import require_writable, write_json
from ppo_jax.programs import Checkpoint, Programs
from tune.curve import learning_area
from tune.samplers import has_configurations_left, make_sampler, require_sampler_package
from tune.settings import Settings
from tune.trial import is_baseline, objective, programs_for, settings_of

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

_PROCESS = uuid.uuid4().hex[:8]


class Progress(Protocol):
    """What a study tells while it runs."""

    def study_started(self, study: optuna.Study, settings: Settings, n_trials: int) -> None: ...
    def trial_started(self, trial: optuna.Trial) -> None: ...
    def checkpoint(self, checkpoint: Checkpoint) -> None: ...
    def trial_finished(self, study: optuna.Study, trial: FrozenTrial) -> None: ...


def run_optimization(
    n_trials: int = 20,
    settings: Settings | None = None,
    *,
    output: str | Path | None = None,
    storage: str | None = None,
    study_name: str | None = None,
    progress: Progress | None = None,
) -> optuna.Study:
    """Run, or continue, a study until `n_trials` trials have finished.

    Trial 0 is the baseline. A study that exists under the same name is continued: what
    has finished stays, a trial that was interrupted is run again in its place with the
    configuration it had.

    Args:
      n_trials: total of finished (complete or pruned) trials, earlier runs included.
      settings: the protocol; the defaults when not given.
      output: folder of the study; ``runs/<study name>`` by default.
      storage: an Optuna storage URL; ``study.db`` in `output` by default.
      study_name: the environment's name by default.
      progress: told what happens.

    Returns:
      The study.

    Raises:
      UserError: before anything is created or trained, when the request cannot work.
    """
    settings = settings or Settings()
    require_count("n_trials", n_trials)
    study_name = study_name or settings.env
    folder = Path(output) if output is not None else default_output(study_name)
    make(settings.env, settings.env_kwargs)
    require_sampler_package(settings.sampler)
    require_writable(folder)
    backend = None if storage is None else _open_storage(storage)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_process_in(folder):
        if backend is None:
            backend = _open_storage(f"sqlite:///{folder.resolve() / 'study.db'}")
        study = _create_or_load(study_name, backend, settings)
        write_json(folder / "config.json", {"study_name": study_name, **settings.to_dict()})
        if progress is not None:
            progress.study_started(study, settings, n_trials)
        try:
            _run_trials(study, settings, n_trials, progress)
        finally:
            record_compilations(study, programs_for(settings.config, settings.seeds))
    return study


def default_output(study_name: str) -> Path:
    """Return the folder of a study that was given no other."""
    return Path("runs") / study_name.replace("/", "-")


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the first of :func:`ranked_trials`; None where no trial is complete."""
    return next(iter(ranked_trials(study)), None)


def ranked_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the complete trials, the highest score first.

    Of equals, the one with the larger area under its learning curve, then the earlier one.
    """

    def rank(trial: FrozenTrial) -> tuple[float | None, float, int]:
        steps, means = zip(*sorted(trial.intermediate_values.items()), strict=True)
        return trial.value, learning_area(steps, means), -trial.number

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=rank, reverse=True)


def make_pruner(settings: Settings) -> optuna.pruners.BasePruner:
    """Return the pruner; its steps are nominal environment steps."""
    first = settings.checkpoints()[
        min(settings.pruner_warmup_checkpoints, len(settings.checkpoints()) - 1)
    ]
    match settings.pruner:
        case "median":
            return optuna.pruners.MedianPruner(
                n_startup_trials=settings.pruner_startup_trials, n_warmup_steps=first
            )
        case "percentile":
            return optuna.pruners.PercentilePruner(
                settings.pruner_percentile,
                n_startup_trials=settings.pruner_startup_trials,
                n_warmup_steps=first,
            )
        case "hyperband":
            return optuna.pruners.HyperbandPruner(
                min_resource=first, max_resource=settings.total_steps
            )
        case "none":
            return optuna.pruners.NopPruner()
    raise UserError(f"unknown pruner {settings.pruner!r}")


def record_compilations(study: optuna.Study, programs: Programs) -> None:
    """Store with `study` what this process has compiled so far."""
    log = programs.compile_log
    if log.programs:
        recorded = study.user_attrs.get("compilations", {})
        recorded[_PROCESS] = {"programs": log.programs, "seconds": log.seconds}
        study.set_user_attr("compilations", recorded)


def _run_trials(
    study: optuna.Study, settings: Settings, n_trials: int, progress: Progress | None
) -> None:
    interrupted = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for frozen in interrupted:
        trial = optuna.Trial(study, frozen._trial_id)
        trial.set_user_attr("interrupted", trial.user_attrs.get("interrupted", 0) + 1)
        _run_trial(study, trial, settings, progress)
    while len(
        study.get_trials(deepcopy=False, states=FINISHED)
    ) < n_trials and has_configurations_left(study):
        _run_trial(study, study.ask(), settings, progress)


def _run_trial(
    study: optuna.Study, trial: optuna.Trial, settings: Settings, progress: Progress | None
) -> None:
    if progress is not None:
        progress.trial_started(trial)
    try:
        value = objective(trial, settings, progress.checkpoint if progress else None)
    except optuna.TrialPruned:
        finished = study.tell(trial, state=TrialState.PRUNED)
    else:
        finished = study.tell(trial, value)
    if progress is not None:
        progress.trial_finished(study, finished)


def _create_or_load(
    study_name: str, storage: optuna.storages.BaseStorage, settings: Settings
) -> optuna.Study:
    study = optuna.create_study(
        study_name=study_name,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        sampler=make_sampler(settings),
        pruner=make_pruner(settings),
    )
    stored = settings_of(study)
    if stored is None:
        if study.get_trials(deepcopy=False):
            raise UserError(
                f"study {study_name!r} was not made by this tuner; choose another --study-name"
            )
    else:
        _require_same(study_name, stored, settings)
    study.set_user_attr("settings", settings.to_dict())
    trials = study.get_trials(deepcopy=False)
    if not any(is_baseline(trial) for trial in trials):
        study.enqueue_trial(settings.space.baseline(), user_attrs={"baseline": True})
    return study


def _require_same(study_name: str, stored: Settings, asked: Settings) -> None:
    """Refuse to continue a study under another protocol; the reference may change."""
    before, now = stored.to_dict(), asked.to_dict()
    for name in before:
        if name != "reference_score" and before[name] != now[name]:
            before_text, now_text = (
                (before[name], now[name])
                if name != "space"
                else _first_difference(before[name], now[name])
            )
            raise UserError(
                f"study {study_name!r} was started with {name} = {before_text}, "
                f"but got {now_text}; choose another --output or --study-name"
            )


def _first_difference(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, str]:
    name = next(n for n in {**before, **now} if before.get(n) != now.get(n))
    return f"[{name}] {before.get(name)}", f"[{name}] {now.get(name)}"


def _open_storage(url: str) -> optuna.storages.BaseStorage:
    try:
        return optuna.storages.get_storage(url)
    except Exception as error:  # Whatever the database driver raises.
        scheme = url.partition(":")[0]  # The rest may hold a password.
        raise UserError(f"cannot open the storage {scheme}:...: {type(error).__name__}") from error


@contextlib.contextmanager
def _only_process_in(folder: Path) -> Iterator[None]:
    """Hold the folder for this process, so that two runs never mix their trials."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is running a study in {folder}") from error
        yield
    finally:
        os.close(descriptor)
