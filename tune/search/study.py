"""A study: storage, sampler, pruner, baseline, resume."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.command_line import folder_name
from ppo_jax.environments import make
from ppo_jax.errors import UserError, require_count
from ppo_jax.files import read_json, require_writable, write_json
from ppo_jax.networks import make_network
from ppo_jax.programs import Checkpoint, Programs
from ppo_jax.versions import device_description, versions
from tune.evidence.learning_curve import learning_area
from tune.protocol.settings import Settings
from tune.protocol.trials import FINISHED, is_baseline, settings_of
from tune.search.leases import TrialLeases
from tune.search.objective import objective, programs_for
from tune.search.optuna_private import resume_trial, storage_of
from tune.search.pruners import make_pruner
from tune.search.samplers import has_configurations_left, make_sampler
from tune.search.storage import is_shared, open_storage, sqlite_file

WORKER_TIMEOUT = 60.0
MAX_RETRIES = 3

_CONFIGURATION = "config.json"
_COMPILATIONS = "compilations:"
_PROCESS = uuid.uuid4().hex[:8]


class HeldError(UserError):
    """Another process holds the folder of the study."""


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
    worker_timeout: float = WORKER_TIMEOUT,
    max_retries: int = MAX_RETRIES,
) -> optuna.Study:
    """Run, or continue, a study until `n_trials` trials have finished.

    Trial 0 is the baseline. A study that exists under the same name is continued and what
    has finished stays. With SQLite one process works on a study, and a trial that was
    interrupted is run again in its place with the configuration it had. On any other
    storage this process joins those that work on the study already: a trial whose worker
    has died is failed, and its configuration run again as a new trial.

    Args:
      n_trials: total of finished (complete or pruned) trials, earlier runs and other
        processes included.
      settings: the protocol; the defaults when not given.
      output: folder of the study; ``runs/<study name>`` by default.
      storage: an address, see :func:`tune.search.storage.open_storage`; by default
        :func:`default_storage`.
      study_name: the environment's name by default.
      progress: told what happens.
      worker_timeout: seconds without a sign of life after which another process on the
        study counts as dead.
      max_retries: how often a configuration whose process died is run again, where
        processes share the study.

    Returns:
      The study.

    Raises:
      UserError: before anything is created or trained, when the request cannot work.
    """
    settings = settings or Settings()
    require_count("n_trials", n_trials)
    with open_study(settings, output=output, storage=storage, study_name=study_name) as study:
        if progress is not None:
            progress.study_started(study, settings, n_trials)
        try:
            if is_shared(address_of(study)):
                leases = TrialLeases(study, worker_timeout, max_retries)
                _share_trials(study, settings, n_trials, leases, progress)
            else:
                _run_trials(study, settings, n_trials, progress)
        finally:
            record_compilations(study, programs_for(settings.config, settings.seeds))
    return study


@contextlib.contextmanager
def open_study(
    settings: Settings,
    *,
    output: str | Path | None = None,
    storage: str | None = None,
    study_name: str | None = None,
    workers: int = 1,
) -> Iterator[optuna.Study]:
    """Create or load a study, and hold its folder; see :func:`run_optimization`.

    Args:
      workers: processes that are to work on it; decides what its storage is by default.
    """
    study_name = study_name or settings.env
    folder = Path(output) if output is not None else default_output(study_name)
    make_network(settings.config, make(settings.env, settings.env_kwargs).spaces)
    sampler, pruner = make_sampler(settings), make_pruner(settings)
    require_writable(folder)
    address = storage or default_storage(folder, workers)
    with contextlib.ExitStack() as stack:
        if storage is not None:  # Before anything is created.
            backend = open_storage(address)
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(held(folder, is_shared(address)))
        file = sqlite_file(address)
        if file is not None and file.parent != folder.resolve():
            stack.enter_context(held(file.parent, shared=False))
        _require_folder_of(study_name, folder)
        if storage is None:
            backend = open_storage(address)
        study = _create_or_load(study_name, backend, settings, sampler, pruner)
        write_json(folder / _CONFIGURATION, {"study_name": study_name, **settings.to_dict()})
        yield study


def default_storage(folder: Path, workers: int = 1) -> str:
    """Return the address of the storage in `folder`: SQLite, or a journal that workers share.

    Raises:
      UserError: when `workers` are to share an SQLite file that is there already.
    """
    database, journal = folder.resolve() / "study.db", folder.resolve() / "study.journal"
    if workers > 1 and database.exists():
        raise UserError(
            f"the study in {folder} was begun by one process and is kept in SQLite, which workers "
            f"cannot share; go on without --workers, or choose another --output"
        )
    shared = workers > 1 or journal.exists()
    return f"journal:{journal}" if shared else f"sqlite:///{database}"


def address_of(study: optuna.Study) -> str:
    """Return the address of the storage of a study of :func:`open_study`."""
    address: str = storage_of(study).address  # type: ignore[attr-defined]
    return address


def default_output(study_name: str) -> Path:
    """Return the folder of a study that was given no other."""
    return Path("runs") / folder_name(study_name)


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


def record_compilations(study: optuna.Study, programs: Programs) -> None:
    """Store with `study` what this process has compiled so far, and with what."""
    log = programs.compile_log
    if log.programs:
        study.set_user_attr(
            _COMPILATIONS + _PROCESS,
            {
                "programs": log.programs,
                "seconds": log.seconds,
                "versions": versions(),
                "device": device_description(),
            },
        )


def compilations(study: optuna.Study) -> list[dict[str, Any]]:
    """Return what each process has recorded with :func:`record_compilations`."""
    return [log for name, log in study.user_attrs.items() if name.startswith(_COMPILATIONS)]


def _run_trials(
    study: optuna.Study, settings: Settings, n_trials: int, progress: Progress | None
) -> None:
    """Run trials in the only process that works on the study."""
    interrupted = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for frozen in interrupted:
        trial = resume_trial(study, frozen)
        trial.set_user_attr("interrupted", trial.user_attrs.get("interrupted", 0) + 1)
        _run_trial(study, trial, settings, progress)
    while len(
        study.get_trials(deepcopy=False, states=FINISHED)
    ) < n_trials and has_configurations_left(study):
        _run_trial(study, study.ask(), settings, progress)


def _share_trials(
    study: optuna.Study,
    settings: Settings,
    n_trials: int,
    leases: TrialLeases,
    progress: Progress | None,
) -> None:
    """Run trials in one of the processes that work on the study."""
    while (trial := leases.ask(n_trials, lambda: has_configurations_left(study))) is not None:
        # Where this process was declared dead meanwhile, its trial has gone to another.
        with contextlib.suppress(UpdateFinishedTrialError), leases.lease(trial):
            _run_trial(study, trial, settings, progress)


def _run_trial(
    study: optuna.Study, trial: optuna.Trial, settings: Settings, progress: Progress | None
) -> None:
    if progress is not None:
        progress.trial_started(trial)
    try:
        value = objective(trial, settings, progress.checkpoint if progress else None)
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


def _require_folder_of(study_name: str, folder: Path) -> None:
    """Refuse a folder that holds the results of another study."""
    if (folder / _CONFIGURATION).exists():
        found = read_json(folder / _CONFIGURATION)
        name = found.get("study_name") if isinstance(found, dict) else None
        if name not in (None, study_name):
            raise UserError(
                f"{folder} holds the study {name!r}, but got {study_name!r}; "
                f"choose another --output"
            )


@contextlib.contextmanager
def held(folder: Path, shared: bool) -> Iterator[None]:
    """Hold the folder, so that two studies never mix their files.

    Args:
      shared: let other processes hold it that share as well.

    Raises:
      HeldError: when another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HeldError(
                f"another process is running a study in {folder}; to work on one study together, "
                f"use --workers, or a --storage that processes can share"
            ) from error
        yield
    finally:
        os.close(descriptor)
