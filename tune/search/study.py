"""A study: storage, sampler, pruner, baseline, resume."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import optuna

from ppo_jax.devices import set_up_process
from ppo_jax.environments import make
from ppo_jax.errors import UserError, require_count
from ppo_jax.files import make_folder
from ppo_jax.identity import first_difference
from ppo_jax.networks import make_network
from ppo_jax.programs import Programs
from tune.protocol.plan import MAX_RETRIES, WORKER_TIMEOUT
from tune.protocol.settings import Settings
from tune.protocol.study_folder import StudyFolder, require_study_name
from tune.protocol.trials import (
    is_baseline,
    record_compilations,
    require_maximize,
    settings_of,
)
from tune.search.objective import make_programs
from tune.search.optuna_private import enqueue_also, storage_of
from tune.search.pool import ProgramPool
from tune.search.pruners import make_pruner
from tune.search.samplers import make_sampler
from tune.search.storage import is_shared, open_storage, sqlite_file, storage_file
from tune.search.trial_loop import (
    OwnTrials,
    Progress,
    SharedTrials,
    TimeLimit,
    TrialSource,
    train_trials,
)


def run_optimization(
    n_trials: int = 20,
    settings: Settings | None = None,
    *,
    output: str | Path | None = None,
    storage: str | None = None,
    study_name: str | None = None,
    programs: Programs | ProgramPool | None = None,
    progress: Progress | None = None,
    worker_timeout: float = WORKER_TIMEOUT,
    max_retries: int = MAX_RETRIES,
    lanes: int | None = None,
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
      lanes: trials that train side by side where no programs are given; by default as many as
        suit the device, which is one on CPU.

    Returns:
      The study.

    Raises:
      UserError: before anything is created or trained, when the request cannot work.
    """
    set_up_process()
    settings = Settings.of(settings)
    require_count("n_trials", n_trials)
    folder = StudyFolder.of(output, study_name or settings.env)
    with open_study(settings, folder, storage=storage, study_name=study_name) as study:
        settings = own_settings(study)
        run_trials(
            study,
            n_trials,
            settings,
            programs or make_programs(settings, n_trials, lanes),
            progress=progress,
            worker_timeout=worker_timeout,
            max_retries=max_retries,
        )
    return study


def run_trials(
    study: optuna.Study,
    n_trials: int,
    settings: Settings,
    programs: Programs | ProgramPool,
    *,
    progress: Progress | None = None,
    worker_timeout: float = WORKER_TIMEOUT,
    max_retries: int = MAX_RETRIES,
    limit: TimeLimit | None = None,
) -> None:
    """Run trials of a study of :func:`open_study`; see :func:`run_optimization`."""
    if progress is not None:
        progress.study_started(study, settings, n_trials)
    pool = ProgramPool.of(programs, settings)
    source: TrialSource
    if is_shared(address_of(study)):
        source = SharedTrials(study, n_trials, worker_timeout, max_retries)
    else:
        source = OwnTrials(study, n_trials, max_retries)
    try:
        train_trials(study, settings, pool, source, progress, limit)
    finally:
        record_compilations(study, pool.compile_log)


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

    The study's own settings, :func:`own_settings`, are those to go on with: where its space was
    widened, they know how parameters have been called before.

    Args:
      settings: the protocol.
      folder: of the study; made if it is missing.
      storage: an address; in the folder by default.
      study_name: the environment's name by default.
      workers: processes that are to work on it; decides what its storage is by default.
    """
    study_name = study_name or settings.env
    require_study_name(study_name)
    spaces = make(settings.env, settings.env_kwargs).spaces
    for agent in settings.space.agents():  # What cannot work fails before anything is trained.
        make_network(agent, spaces)
        settings.config_of(agent)
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
        folder.write_config(study_name, own_settings(study))
        yield study


def own_settings(study: optuna.Study) -> Settings:
    """Return the settings of a study of :func:`open_study`."""
    settings = settings_of(study)
    assert settings is not None, "they were stored when it was opened"
    return settings


def address_of(study: optuna.Study) -> str:
    """Return the address of the storage of a study of :func:`open_study`."""
    address: str = storage_of(study).address  # type: ignore[attr-defined]
    return address


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
        settings = _require_same(study_name, stored, settings)
        study.sampler = make_sampler(settings)
    require_maximize(study)
    study.set_user_attr("settings", settings.to_dict())
    baselines = [trial for trial in study.get_trials(deepcopy=False) if is_baseline(trial)]
    if not baselines:
        study.enqueue_trial(settings.space.baseline_params(), user_attrs={"baseline": True})
    for trial in baselines:
        # One that has not begun would draw at random what a space widened since has besides.
        if not trial.state.is_finished() and "hyperparameters" not in trial.user_attrs:
            enqueue_also(study, trial, settings.space.baseline_params())
    return study


def _require_same(study_name: str, stored: Settings, asked: Settings) -> Settings:
    """Return the settings to continue a study with.

    Refuses another protocol; the reference may change, and the space may become wider.
    """
    before, now = ("none" if s.warm_start is None else s.warm_start.source for s in (stored, asked))
    if Path(before).resolve() != Path(now).resolve():
        raise UserError(
            f"study {study_name!r} was started with --from-study {before}, but got {now}; "
            f"choose another --output or --study-name"
        )
    # What the earlier study said then; it may have gone on.
    asked = dataclasses.replace(asked, warm_start=stored.warm_start)
    kept = dataclasses.replace(
        asked,
        reference_score=stored.reference_score,
        space=dataclasses.replace(stored.space, defaults=asked.space.defaults),
    )
    difference = first_difference(stored.to_dict(), kept.to_dict())
    if difference is not None:
        raise UserError(
            f"study {study_name!r} was started with {difference.name} = {difference.stored}, "
            f"but got {difference.asked}; choose another --output or --study-name"
        )
    return dataclasses.replace(asked, space=asked.space.widening(stored.space))
