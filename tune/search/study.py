"""A study: storage, sampler, pruner, baseline, resume."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.environments import make
from ppo_jax.errors import UserError, require_count
from ppo_jax.files import make_folder
from ppo_jax.identity import first_difference
from ppo_jax.networks import make_network
from ppo_jax.programs import Checkpoint, Programs
from tune.protocol.plan import MAX_RETRIES, WORKER_TIMEOUT
from tune.protocol.settings import Settings
from tune.protocol.study_folder import StudyFolder, require_study_name
from tune.protocol.trials import (
    FINISHED,
    attribute,
    is_baseline,
    record_compilations,
    require_maximize,
    settings_of,
)
from tune.search.leases import TrialLeases
from tune.search.objective import objective, shared_programs
from tune.search.optuna_private import resume_trial, storage_of
from tune.search.pruners import make_pruner
from tune.search.samplers import has_configurations_left, make_sampler
from tune.search.storage import is_shared, open_storage, sqlite_file, storage_file


class Progress(Protocol):
    """What a study reports while it runs."""

    def study_started(self, study: optuna.Study, settings: Settings, n_trials: int) -> None:
        """Report a study that starts or continues, until `n_trials` have finished."""

    def trial_started(self, trial: optuna.Trial) -> None:
        """Report a trial before its first checkpoint."""

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Report a checkpoint of the trial that has started last."""

    def trial_finished(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Report a trial that is complete or pruned."""


def run_optimization(
    n_trials: int = 20,
    settings: Settings | None = None,
    *,
    output: str | Path | None = None,
    storage: str | None = None,
    study_name: str | None = None,
    programs: Programs | None = None,
    progress: Progress | None = None,
    worker_timeout: float = WORKER_TIMEOUT,
    max_retries: int = MAX_RETRIES,
) -> optuna.Study:
    """Run, or continue, a study until `n_trials` trials have finished.

    Trial 0 is the baseline. A study that exists under the same name is continued, and its
    finished trials are kept. With SQLite one process works on a study, and a trial that was
    interrupted is run again in its place with the configuration it had. On any other
    storage this process joins those that work on the study already: a trial whose worker
    has died is failed, and its configuration run again as a new trial.

    Args:
      n_trials: total of finished (complete or pruned) trials, earlier runs and other
        processes included.
      settings: the protocol; the defaults when not given.
      output: folder of the study; ``runs/<study name>`` by default.
      storage: an address, see :func:`tune.search.storage.open_storage`; by default
        :meth:`tune.protocol.study_folder.StudyFolder.default_storage`.
      study_name: the environment's name by default.
      programs: of the settings' configuration; compiled in this process when not given.
      progress: called as the study goes on.
      worker_timeout: seconds without a heartbeat after which another process on the study
        counts as dead.
      max_retries: how often a configuration that raised an error is run again; where
        processes share the study, also one whose process died.

    Returns:
      The study.

    Raises:
      UserError: before anything is created or trained, when the request cannot work.
    """
    settings = settings or Settings()
    require_count("n_trials", n_trials)
    folder = StudyFolder.of(output, study_name or settings.env)
    with open_study(settings, folder, storage=storage, study_name=study_name) as study:
        run_trials(
            study,
            n_trials,
            settings,
            programs or shared_programs(settings.config, settings.seeds),
            progress=progress,
            worker_timeout=worker_timeout,
            max_retries=max_retries,
        )
    return study


def run_trials(
    study: optuna.Study,
    n_trials: int,
    settings: Settings,
    programs: Programs,
    *,
    progress: Progress | None = None,
    worker_timeout: float = WORKER_TIMEOUT,
    max_retries: int = MAX_RETRIES,
) -> None:
    """Run trials of a study of :func:`open_study`; see :func:`run_optimization`."""
    if progress is not None:
        progress.study_started(study, settings, n_trials)

    def run(trial: optuna.Trial) -> None:
        _run_trial(study, trial, settings, programs, progress)

    try:
        if is_shared(address_of(study)):
            _share_trials(study, n_trials, TrialLeases(study, worker_timeout, max_retries), run)
        else:
            _run_own_trials(study, n_trials, max_retries, run)
    finally:
        record_compilations(study, programs.compile_log)


@contextlib.contextmanager
def open_study(
    settings: Settings,
    folder: StudyFolder,
    *,
    storage: str | None = None,
    study_name: str | None = None,
    workers: int = 1,
) -> Iterator[optuna.Study]:
    """Create or load a study, and hold its folder; see :func:`run_optimization`.

    Args:
      settings: the protocol.
      folder: of the study; made if it is missing.
      storage: an address; in the folder by default.
      study_name: the environment's name by default.
      workers: processes that are to work on it; decides what its storage is by default.
    """
    study_name = study_name or settings.env
    require_study_name(study_name)
    make_network(settings.config.agent, make(settings.env, settings.env_kwargs).spaces)
    sampler, pruner = make_sampler(settings), make_pruner(settings)
    folder.require_usable(study_name)
    address = storage or folder.default_storage(workers)
    with contextlib.ExitStack() as stack:
        if storage is not None:  # Before anything is created.
            backend = open_storage(address)
        make_folder(folder.path)
        stack.enter_context(folder.held(shared=is_shared(address)))
        file = sqlite_file(address)
        if file is not None and file.parent != folder.path.resolve():
            stack.enter_context(StudyFolder(file.parent).held(shared=False))
        if storage is None:
            own = storage_file(address)
            existed = own is not None and own.exists()
            backend = open_storage(address)
            if existed:
                names = [found.study_name for found in backend.get_all_studies()]
                folder.require_study(study_name, names)
        study = _create_or_load(study_name, backend, settings, sampler, pruner)
        folder.write_config(study_name, settings)
        yield study


def address_of(study: optuna.Study) -> str:
    """Return the address of the storage of a study of :func:`open_study`."""
    address: str = storage_of(study).address  # type: ignore[attr-defined]
    return address


def _run_own_trials(
    study: optuna.Study, n_trials: int, max_retries: int, run: Callable[[optuna.Trial], None]
) -> None:
    """Run trials in the only process that works on the study."""
    interrupted = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for frozen in interrupted:
        if attribute(frozen, "attempts", 0) > max_retries:
            study.tell(frozen.number, state=TrialState.FAIL)
            continue
        trial = resume_trial(study, frozen)
        trial.set_user_attr("interrupted", trial.user_attrs.get("interrupted", 0) + 1)
        _attempt(trial, run)
    while len(
        study.get_trials(deepcopy=False, states=FINISHED)
    ) < n_trials and has_configurations_left(study):
        _attempt(study.ask(), run)


def _attempt(trial: optuna.Trial, run: Callable[[optuna.Trial], None]) -> None:
    """Run `trial`, and count an error, so that it does not stop every later process as well."""
    try:
        run(trial)
    except Exception:
        with contextlib.suppress(Exception):  # Where the storage fails, that is the error.
            trial.set_user_attr("attempts", attribute(trial, "attempts", 0) + 1)
        raise


def _share_trials(
    study: optuna.Study, n_trials: int, leases: TrialLeases, run: Callable[[optuna.Trial], None]
) -> None:
    """Run trials in one of the processes that work on the study."""
    while (trial := leases.ask(n_trials, lambda: has_configurations_left(study))) is not None:
        # Where this process was declared dead meanwhile, its trial has gone to another.
        with contextlib.suppress(UpdateFinishedTrialError), leases.lease(trial):
            run(trial)


def _run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    settings: Settings,
    programs: Programs,
    progress: Progress | None,
) -> None:
    if progress is not None:
        progress.trial_started(trial)
    try:
        observer = None if progress is None else progress.checkpoint
        value = objective(trial, settings, observer, programs)
    except optuna.TrialPruned:
        told = study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
    else:
        told = study.tell(trial, value, skip_if_finished=True)
    if progress is not None and told.state in FINISHED:
        progress.trial_finished(study, told)


def _create_or_load(
    study_name: str,
    storage: optuna.storages.BaseStorage,
    settings: Settings,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
) -> optuna.Study:
    study = optuna.create_study(
        study_name=study_name,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        sampler=sampler,
        pruner=pruner,
    )
    stored = settings_of(study)
    if stored is None:
        if study.get_trials(deepcopy=False):
            raise UserError(
                f"study {study_name!r} was not made by this tuner; choose another --study-name"
            )
    else:
        _require_same(study_name, stored, settings)
    require_maximize(study)
    study.set_user_attr("settings", settings.to_dict())
    trials = study.get_trials(deepcopy=False)
    if not any(is_baseline(trial) for trial in trials):
        study.enqueue_trial(settings.space.baseline(), user_attrs={"baseline": True})
    return study


def _require_same(study_name: str, stored: Settings, asked: Settings) -> None:
    """Refuse to continue a study under another protocol; the reference may change."""
    asked = dataclasses.replace(asked, reference_score=stored.reference_score)
    difference = first_difference(stored.to_dict(), asked.to_dict())
    if difference is not None:
        raise UserError(
            f"study {study_name!r} was started with {difference.name} = {difference.stored}, "
            f"but got {difference.asked}; choose another --output or --study-name"
        )
