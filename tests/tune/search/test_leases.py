"""Leases on the trials of a shared study, with dead workers that exist in the storage only."""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from tune.protocol.trials import FINISHED
from tune.search import leases
from tune.search.leases import TrialLeases
from tune.search.optuna_private import storage_of, trial_id
from tune.search.samplers.grid import GridSampler
from tune.search.storage import open_storage


def always():
    return True


@pytest.fixture
def study(tmp_path):
    return optuna.create_study(
        study_name="s", storage=open_storage(f"journal:{tmp_path / 'study.journal'}")
    )


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = SimpleNamespace(seconds=1000.0, monotonic=lambda: now.seconds)
    monkeypatch.setattr(leases, "time", now)
    return now


def leases_on(study, timeout=60.0, max_retries=3):
    return TrialLeases(study, timeout, max_retries)


def states(study):
    return [trial.state.name for trial in study.trials]


def ended_process():
    """Return the attribute ``worker`` of a process of this host that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = {"host": "here", "pid": child.pid, **leases._identity(child.pid)}
    child.communicate(b"\n")
    return worker


def on_another_host():
    """Return the attribute ``worker`` of a process that nobody here can see."""
    return {"host": "there", "pid": 1, "boot": "another", "pids": "another", "started": 1}


def left_behind(study, worker, **attributes):
    """Return a running trial of `worker`."""
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    for name, value in {"worker": worker, **attributes}.items():
        trial.set_user_attr(name, value)
    return trial


def test_trial_of_an_ended_process_is_failed_at_once_and_run_again(study):
    dead = left_behind(study, ended_process(), baseline=True)
    again = leases_on(study).ask(2, always)
    assert states(study) == ["FAIL", "RUNNING"]
    assert again.user_attrs == {"retry_of": 0, "attempts": 1, "baseline": True}
    assert again.suggest_float("x", 0, 1) == dead.params["x"]


def test_process_that_lives_is_never_stale_however_slow(study, clock):
    left_behind(study, {"host": "here", "pid": os.getpid(), **leases._identity(os.getpid())})
    observer = leases_on(study)
    observer.fail_stale_trials()
    for _ in range(3):
        clock.seconds += 5
        observer.fail_stale_trials()
    assert states(study) == ["RUNNING"]


def test_worker_of_another_host_is_stale_after_the_timeout_by_the_observers_clock(study, clock):
    trial = left_behind(study, on_another_host())
    observer = leases_on(study, timeout=60)
    observer.fail_stale_trials()
    for heartbeat in range(20):
        clock.seconds += 10
        trial.set_user_attr("heartbeat", heartbeat)
        observer.fail_stale_trials()
    assert states(study) == ["RUNNING"]
    for _ in range(6):
        clock.seconds += 10
        observer.fail_stale_trials()
    assert states(study) == ["RUNNING"]
    clock.seconds += 10
    observer.fail_stale_trials()
    assert states(study) == ["FAIL"]


def test_without_proc_workers_become_stale_by_their_heartbeats_alone(
    study, clock, monkeypatch, tmp_path
):
    """As on macOS, which does not tell whether a process is the one that held the lease."""
    monkeypatch.setattr(leases, "Path", lambda _: tmp_path / "no proc")
    left_behind(study, leases._this_process())
    observer = leases_on(study, timeout=60)
    observer.fail_stale_trials()
    assert states(study) == ["RUNNING"]
    for _ in range(7):
        clock.seconds += 10
        observer.fail_stale_trials()
    assert states(study) == ["FAIL"]


def test_outage_of_the_storage_makes_no_worker_stale(study, clock):
    left_behind(study, on_another_host())
    observer = leases_on(study, timeout=60)
    observer.fail_stale_trials()
    clock.seconds += 3600  # The storage was away.
    observer.fail_stale_trials()
    assert states(study) == ["RUNNING"]


def test_running_trial_that_no_worker_claims_becomes_stale(study, clock):
    study.ask()
    observer = leases_on(study, timeout=60)
    for _ in range(9):
        observer.fail_stale_trials()
        clock.seconds += 10
    assert states(study) == ["FAIL"]
    observer._enqueue_retries()
    assert states(study) == ["FAIL"]  # It had no configuration yet.


def test_point_of_a_grid_whose_worker_died_before_it_drew_is_free_again(study):
    study.sampler = GridSampler({"x": [0.25, 0.5]}, seed=0)
    first = study.ask()
    first.suggest_float("x", 0, 1)
    study.tell(first, 1.0)
    study.ask().set_user_attr("worker", ended_process())
    observer = leases_on(study)
    observer.fail_stale_trials()
    trial = observer.ask(2, lambda: study.sampler.has_points_left(study))
    assert states(study) == ["COMPLETE", "FAIL", "RUNNING"]
    assert {first.params["x"], trial.suggest_float("x", 0, 1)} == {0.25, 0.5}


def test_a_configuration_is_abandoned_after_its_retries(study):
    left_behind(study, ended_process())
    one = leases_on(study, max_retries=2)
    for _ in range(2):
        trial = one.ask(1, always)
        assert "retry_of" in trial.user_attrs
        trial.set_user_attr("worker", ended_process())
        trial.suggest_float("x", 0, 1)
    fresh = one.ask(1, always)
    assert states(study) == ["FAIL"] * 3 + ["RUNNING"]
    assert "retry_of" not in fresh.user_attrs


def test_worker_that_is_stopped_releases_its_trial_without_counting_an_attempt(study):
    one = leases_on(study, max_retries=0)
    trial = one.ask(1, always)

    def stop():
        with one.lease(trial):
            trial.suggest_float("x", 0, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    again = leases_on(study, max_retries=0).ask(1, always)
    assert again.user_attrs["attempts"] == 0
    assert again.suggest_float("x", 0, 1) == trial.params["x"]


def test_trial_that_raises_counts_as_an_attempt_and_is_abandoned_after_its_retries(study):
    one = leases_on(study, max_retries=2)
    seen = []

    def fail():
        trial = one.ask(1, always)
        with one.lease(trial):
            seen.append(trial.suggest_float("x", 0, 1))
            raise RuntimeError("this configuration breaks the environment")

    for _ in range(4):
        with pytest.raises(RuntimeError):
            fail()
    assert seen[0] == seen[1] == seen[2] != seen[3]
    attempts = [trial.user_attrs.get("attempts", 0) for trial in study.trials]
    assert attempts == [0, 1, 2, 0]


def test_worker_that_is_stopped_while_it_asks_releases_the_trial_it_has_just_been_given(
    study, monkeypatch
):
    left_behind(study, on_another_host())
    study.enqueue_trial({"x": 0.5}, user_attrs={"baseline": True})

    def stop(*_):
        raise KeyboardInterrupt

    stopped = leases_on(study)
    monkeypatch.setattr(stopped, "_has_slot", stop)
    with pytest.raises(KeyboardInterrupt):
        stopped.ask(3, always)
    assert states(study) == ["RUNNING", "FAIL"]
    again = leases_on(study).ask(3, always)
    assert again.user_attrs == {"retry_of": 1, "attempts": 0, "baseline": True}
    assert again.suggest_float("x", 0, 1) == 0.5


def test_worker_whose_unclaimed_trial_was_released_by_another_goes_on(study):
    one = leases_on(study)
    trial = one.ask(2, always)
    one.release_unclaimed()
    with pytest.raises(UpdateFinishedTrialError), one.lease(trial):
        pytest.fail("it must not train a trial that was released")
    assert one.ask(2, always).number != trial.number


def test_heartbeats_are_sent_while_a_lease_is_held(study, monkeypatch):
    one = leases_on(study, timeout=0.06)
    trial = one.ask(1, always)
    storage = storage_of(study)
    sent, write, third = [], storage.set_trial_user_attr, threading.Event()

    def observed(identifier, name, value):
        write(identifier, name, value)
        if name == "heartbeat":
            sent.append(value)
            if value == 3:
                third.set()

    monkeypatch.setattr(storage, "set_trial_user_attr", observed)
    with one.lease(trial):
        assert third.wait()
    assert sent[:3] == [1, 2, 3]
    assert study.trials[0].user_attrs["worker"]["pid"] == os.getpid()
    assert study.trials[0].user_attrs["heartbeat"] >= 3


def test_heartbeat_of_an_earlier_version_keeps_a_trial_alive(study, clock):
    trial = left_behind(study, on_another_host())
    observer = leases_on(study, timeout=60)
    observer.fail_stale_trials()
    for heartbeat in range(20):
        clock.seconds += 10
        trial.set_user_attr("beat", heartbeat)
        observer.fail_stale_trials()
    assert states(study) == ["RUNNING"]


@pytest.mark.parametrize(
    ("attributes", "attempts"),
    [
        ({}, 1),
        ({"deaths": 2}, 3),
        ({"given_back": True}, 0),
        ({"deaths": 2, "given_back": True}, 2),
        ({"attempts": 2, "released": True}, 2),
    ],
)
def test_attempts_are_read_under_their_former_names_and_written_under_the_new(
    study, attributes, attempts
):
    trial = left_behind(study, on_another_host(), lost=True, **attributes)
    study.tell(trial, state=TrialState.FAIL)
    retry = leases_on(study).ask(2, always)
    assert retry.user_attrs == {"retry_of": 0, "attempts": attempts}


def test_trials_beyond_the_total_and_duplicates_get_no_slot(study):
    one = leases_on(study)
    for _ in range(3):
        study.ask()
    assert not one._has_slot(2, n_trials=2)
    assert one._has_slot(1, n_trials=2)
    for _ in range(2):
        study.enqueue_trial({"x": 0.5}, user_attrs={"baseline": True})
    assert one._has_slot(3, 10)
    assert not one._has_slot(4, 10)
    for _ in range(2):
        study.enqueue_trial({"x": 0.5}, user_attrs={"retry_of": 0})
    assert one._has_slot(5, 10)
    assert not one._has_slot(6, 10)


def test_a_failed_trial_reserves_its_slot_for_the_retry(study):
    dead = left_behind(study, ended_process())
    one = leases_on(study)
    one._fail(trial_id(dead), lost=True)
    study.ask()
    assert not one._has_slot(1, n_trials=1)
    one._enqueue_retries()
    assert one._has_slot(2, n_trials=1) is False  # Until the trial in its slot has been withdrawn.
    one._fail(trial_id(study.trials[1]), withdrawn=True)
    assert one._has_slot(2, n_trials=1)


def test_a_finished_study_has_no_more_trials(study):
    for _ in range(2):
        study.tell(study.ask(), 1.0)
    assert leases_on(study).ask(2, always) is None
    assert leases_on(study).ask(3, lambda: False) is None


def test_many_workers_of_which_some_die_finish_exactly_the_total(tmp_path):
    """Five at once; each abandons every third of its trials and goes on as a new worker."""
    address, total = f"journal:{tmp_path / 'study.journal'}", 40
    optuna.create_study(study_name="s", storage=open_storage(address))
    dead = ended_process()

    def work(number):
        study = optuna.load_study(study_name="s", storage=open_storage(address))
        one = leases_on(study, timeout=600.0, max_retries=100)
        asked = number
        while (trial := one.ask(total, always)) is not None:
            trial.suggest_float("x", 0, 1)
            asked += 1
            if asked % 3 == 0:
                trial.set_user_attr("worker", dead)
            else:
                with one.lease(trial):
                    study.tell(trial, 1.0)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = optuna.load_study(study_name="s", storage=open_storage(address)).trials
    finished = [trial for trial in trials if trial.state in FINISHED]
    assert len(finished) == total
    assert {trial.state for trial in trials} <= {*FINISHED, TrialState.FAIL}
    values = [trial.params["x"] for trial in finished]
    assert len(set(values)) == total
    lost = {trial.params["x"] for trial in trials if trial.user_attrs.get("lost")}
    assert lost
    assert lost <= set(values)
