"""The contract with Optuna's private API: fails where a new release of Optuna breaks it."""

import abc
import inspect
import logging
import sqlite3

import optuna
import pytest
import sqlalchemy
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from tune.search import optuna_private

CHANGED = (
    f"Optuna {optuna.__version__} has changed private API that this project uses: "
    "adapt tune/search/optuna_private.py; "
)


@pytest.fixture
def study():
    """Two trials with identifiers that differ from their numbers."""
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="other").ask()
    study = optuna.create_study(storage=storage, study_name="own")
    for _ in range(2):
        study.ask()
    return study


def test_trials_are_known_to_the_storage_by_trial_id(study):
    trial = study.ask()
    frozen = study.get_trials()[2]
    identifier = optuna_private.trial_id(trial)
    assert identifier != trial.number, "the test needs identifiers that differ from numbers"
    assert optuna_private.trial_id(frozen) == identifier, CHANGED + "trial_id"
    storage = optuna_private.storage_of(study)
    storage.set_trial_state_values(identifier, TrialState.FAIL)
    assert study.trials[2].state == TrialState.FAIL, CHANGED + "trial_id"


def test_storage_of_a_study_is_the_one_that_it_was_created_in():
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage)
    assert optuna_private.storage_of(study) is storage, CHANGED + "storage_of"


def test_all_trials_includes_those_that_hyperband_hides_from_samplers():
    seen = []

    class Spy(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            seen.append((len(study.get_trials()), len(optuna_private.all_trials(study))))
            return super().sample_independent(study, trial, name, distribution)

    study = optuna.create_study(
        sampler=Spy(seed=0), pruner=optuna.pruners.HyperbandPruner(max_resource=9)
    )
    for number in range(12):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(0.0, 1)
        trial.should_prune()  # The first call sets up the brackets.
        study.tell(trial, float(number))
    assert [everyone for _, everyone in seen] == list(range(1, 13)), CHANGED + "all_trials"
    assert any(bracket < everyone for bracket, everyone in seen), "public API would do by now"


def test_running_trial_can_be_resumed(study):
    trial = study.ask()
    drawn = trial.suggest_float("x", 0, 1)
    again = optuna_private.resume_trial(study, study.get_trials()[trial.number])
    assert again.number == trial.number, CHANGED + "resume_trial"
    assert again.suggest_float("x", 0, 1) == drawn, CHANGED + "resume_trial"
    assert study.tell(again, 1.0).number == trial.number, CHANGED + "resume_trial"


def test_enqueued_parameters_are_known_before_they_are_suggested(study):
    study.enqueue_trial({"x": 0.25, "y": 1})
    waiting = study.get_trials()[-1]
    assert waiting.params == {}, "public API would do by now"
    assert optuna_private.enqueued_params(waiting) == {"x": 0.25, "y": 1}, (
        CHANGED + "enqueued_params"
    )


def test_points_of_a_grid_are_counted_and_released():
    sampler = optuna_private.GridSampler({"x": [1, 2], "y": [3]}, seed=0)
    assert sorted(sampler.points) == [(1, 3), (2, 3)], CHANGED + "GridSampler.points"
    study = optuna.create_study(sampler=sampler)
    first, second = study.ask(), study.ask()
    taken = [optuna_private.grid_point(trial) for trial in study.get_trials()]
    assert sorted(taken) == [0, 1], CHANGED + "grid_point"
    for trial, point in zip((first, second), taken, strict=True):
        x = trial.suggest_categorical("x", [1, 2])
        y = trial.suggest_categorical("y", [3])
        assert (x, y) == sampler.points[point], CHANGED + "GridSampler.points"
    storage = optuna_private.storage_of(study)
    optuna_private.release_grid_point(storage, optuna_private.trial_id(second))
    study.tell(first, 1.0)
    study.tell(second, state=TrialState.FAIL)
    study.ask()
    third = study.get_trials()[2]
    assert optuna_private.grid_point(third) == taken[1], CHANGED + "release_grid_point"


def test_point_of_a_sequence_can_be_chosen():
    distribution = {"x": optuna.distributions.FloatDistribution(0, 1)}
    study = optuna.create_study()
    trial = study.ask()
    frozen = study.get_trials()[trial.number]

    def draw(point):
        sampler = optuna_private.QMCSampler(seed=0, scramble=True)
        sampler.point = point
        return sampler.sample_relative(study, frozen, distribution)["x"]

    assert draw(3) == draw(3) != draw(4), CHANGED + "QMCSampler.point"


def test_relational_storage_is_wrapped_in_a_cache(tmp_path):
    backend = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'x.db'}")
    assert type(optuna.storages.get_storage(backend)) is optuna_private.CachedStorage, (
        CHANGED + "CachedStorage"
    )
    study = optuna.create_study(storage=optuna_private.CachedStorage(backend))
    study.tell(study.ask(), 1.0)
    assert study.best_value == 1.0, CHANGED + "CachedStorage"


def test_journal_takes_a_lock_with_these_two_methods(tmp_path):
    lock = optuna_private.BaseJournalFileLock
    assert issubclass(lock, abc.ABC), CHANGED + "BaseJournalFileLock"
    assert lock.__abstractmethods__ == {"acquire", "release"}, CHANGED + "BaseJournalFileLock"
    assert "lock_obj" in inspect.signature(JournalFileBackend).parameters, (
        CHANGED + "BaseJournalFileLock"
    )
    calls = []

    class Lock(lock):
        def acquire(self):
            calls.append("acquire")
            return True

        def release(self):
            calls.append("release")

    backend = JournalFileBackend(str(tmp_path / "j"), lock_obj=Lock())
    optuna.create_study(storage=optuna.storages.JournalStorage(backend))
    assert calls[:2] == ["acquire", "release"], CHANGED + "BaseJournalFileLock"


def test_a_connection_that_has_died_is_not_logged(caplog):
    class Dying(sqlite3.Connection):
        dies = False

        def rollback(self):
            if self.dies:
                raise sqlite3.OperationalError("Lost connection")

    def close_one():
        caplog.clear()
        engine = sqlalchemy.create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(":memory:", factory=Dying),
            poolclass=sqlalchemy.QueuePool,
        )
        connection = engine.connect()
        connection.connection.driver_connection.dies = True
        connection.close()
        return [record.getMessage() for record in caplog.records]

    logger = logging.getLogger("sqlalchemy.pool.impl.QueuePool")
    for known in list(logger.filters):
        logger.removeFilter(known)
    assert close_one() == ["Exception during reset or similar"], CHANGED + "_TOLD_OTHERWISE"
    optuna_private.silence_lost_connections()
    assert close_one() == []
