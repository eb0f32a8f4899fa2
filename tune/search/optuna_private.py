"""Private API of Optuna that this project relies on, in one place.

Nothing else in the project touches a name of Optuna that begins with an underscore, or an
attribute that Optuna stores for its own use. Each entry says why the public API is not enough.
``tests/tune/search/test_optuna_private.py`` fails when Optuna changes one of them.
"""

# ruff: noqa: SLF001, RUF100
import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.storages import _CachedStorage as CachedStorage
from optuna.storages._rdb.models import BaseModel
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial

__all__ = [
    "BaseJournalFileLock",  # A lock of our own must derive from it; see tune.search.storage.
    "CachedStorage",  # Optuna wraps a relational storage in it, but not a subclass of ours.
    "GridSampler",
    "QMCSampler",
    "all_trials",
    "create_missing_indexes",
    "enqueue_also",
    "enqueued_params",
    "grid_point",
    "release_grid_point",
    "remember_suggestion",
    "resume_trial",
    "silence_lost_connections",
    "storage_of",
    "suggestion",
    "trial_id",
    "without_experimental_warning",
]

_GRID_POINT = "grid_id"
_ENQUEUED_PARAMS = "fixed_params"
_SUGGESTION = "ppo_jax_tune:suggestion"


def trial_id(trial: optuna.Trial | FrozenTrial) -> int:
    """Return the identifier of `trial` in its storage, which differs from its number.

    A storage is written to by identifier; only so may one process fail another's trial.
    """
    return trial._trial_id


def storage_of(study: optuna.Study) -> BaseStorage:
    """Return the storage that holds `study`, for what a study has no method for."""
    return study._storage


def all_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of `study` in the order of their numbers; not to be changed.

    The pruner Hyperband hands samplers a study that is filtered: its ``get_trials`` only
    returns the trials of one bracket.
    """
    return storage_of(study).get_all_trials(study._study_id, deepcopy=False)


def create_missing_indexes(storage: optuna.storages.RDBStorage) -> None:
    """Make the indexes that a process had not come to that was killed while it made the tables.

    SQLAlchemy makes them with their tables, and not later. Without the one of their names, a study
    that is opened again is made a second time.
    """
    for table in BaseModel.metadata.tables.values():
        for index in table.indexes:
            index.create(storage.engine, checkfirst=True)


def resume_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Return a running trial of `study` for another run by this process.

    ``Study.ask`` only returns trials that are new or waiting.
    """
    return optuna.Trial(study, trial_id(trial))


def enqueued_params(trial: FrozenTrial) -> Mapping[str, Any]:
    """Return the parameters that ``Study.enqueue_trial`` has fixed, drawn already or not.

    ``FrozenTrial.params`` only holds those that have been suggested.
    """
    params: Mapping[str, Any] = trial.system_attrs.get(_ENQUEUED_PARAMS, {})
    return params


def enqueue_also(study: optuna.Study, trial: FrozenTrial, params: Mapping[str, Any]) -> None:
    """Fix further parameters of an enqueued `trial` that has yet to draw them."""
    if not params.items() <= (known := enqueued_params(trial)).items():
        storage_of(study).set_trial_system_attr(
            trial_id(trial), _ENQUEUED_PARAMS, {**known, **params}
        )


def grid_point(trial: FrozenTrial) -> int | None:
    """Return which point of its grid `trial` took, None where it took none."""
    point: int | None = trial.system_attrs.get(_GRID_POINT)
    return point


def release_grid_point(storage: BaseStorage, trial_id: int) -> None:
    """Let another trial take the point of the grid that a trial took.

    Optuna counts the point of a failed trial as visited.
    """
    storage.set_trial_system_attr(trial_id, _GRID_POINT, None)


def suggestion(trial: FrozenTrial) -> Mapping[str, Any] | None:
    """Return what :func:`remember_suggestion` has stored with `trial`."""
    params: Mapping[str, Any] | None = trial.system_attrs.get(_SUGGESTION)
    return params


def remember_suggestion(study: optuna.Study, trial: FrozenTrial, params: Mapping[str, Any]) -> None:
    """Store what a sampler suggests for `trial`, parameter -> value.

    Optuna stores a parameter only when the objective asks for it, too late for a sampler of
    another process that draws at the same moment.
    """
    storage_of(study).set_trial_system_attr(trial_id(trial), _SUGGESTION, dict(params))


_TOLD_OTHERWISE = {
    "optuna.storages._rdb.storage": "Caught an error from sqlalchemy",
    "sqlalchemy.pool.impl.QueuePool": "Exception during reset or similar",
}
"""Logger -> the beginning of what it says of a connection that has died."""


def silence_lost_connections() -> None:
    """Do not log that a connection has died: a dozen lines, with the statement or a traceback.

    The call is tried once more, and where that fails as well, the storage's own line says so.
    """
    for logger in _TOLD_OTHERWISE:
        logging.getLogger(logger).addFilter(_is_told_here)


def _is_told_here(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_TOLD_OTHERWISE[record.name])


@contextlib.contextmanager
def without_experimental_warning() -> Iterator[None]:
    """Silence Optuna's warning that the interface of what is made may change.

    It is meant for whoever depends on that interface: this project, not its users.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


class QMCSampler(optuna.samplers.QMCSampler):
    """A quasi-Monte Carlo sampler that is told which point of its sequence to draw.

    Optuna counts the points in the storage. There a trial that is asked for again counts
    twice, and two workers may read the same count.

    Attributes:
      point: index in the sequence of the next draw.
    """

    point: int = 0

    def __init__(self, **kwargs: Any) -> None:
        with without_experimental_warning():
            super().__init__(**kwargs)

    def _find_sample_id(self, *_: object, **__: object) -> int:
        return self.point


class GridSampler(optuna.samplers.GridSampler):
    """A grid sampler whose points can be counted."""

    @property
    def points(self) -> Sequence[tuple[Any, ...]]:
        """The points of the grid; a trial's :func:`grid_point` is an index into them."""
        return self._all_grids
