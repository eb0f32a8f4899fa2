"""Workers that share a study; their attempts are told in the storage, not died."""

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
from tune.search.samplers import _Grid
from tune.search.storage import open_storage

ALWAYS = lambda: True  # noqa: E731


@pytest.fixture
def study(tmp_path):
    return optuna.create_study(
        study_name="s", storage=open_storage(f"journal:{tmp_path / 'study.journal'}")
    )


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(leases.time, "monotonic", lambda: now.seconds)
    return now


def member(study, timeout=60.0, max_retries=3):
    return TrialLeases(study, timeout, max_retries)


def states(study):
    return [trial.state.name for trial in study.trials]


def ended_process():
    """Return a worker's mark of a process of this host that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = {"host": "here", "pid": child.pid, **leases._identity(child.pid)}
    child.communicate(b"\n")
    return mark


def on_another_host():
    return {"host": "there", "pid": 1, "boot": "another", "pids": "another", "started": 1}


def die_with(study, worker, **attributes):
    """Leave a running trial behind."""
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    for name, value in {"worker": worker, **attributes}.items():
        trial.set_user_attr(name, value)
    return trial


def test_trial_of_an_ended_process_is_failed_at_once_and_run_again(study):
    dead = die_with(study, ended_process(), baseline=True)
    again = member(study).ask(2, ALWAYS)
    assert states(study) == ["FAIL", "RUNNING"]
    assert again.user_attrs == {"retry_of": 0, "attempts": 1, "baseline": True}
    assert again.suggest_float("x", 0, 1) == dead.params["x"]


def test_process_that_lives_is_not_declared_dead_however_slow(study, clock):
    die_with(study, {"host": "here", "pid": os.getpid(), **leases._identity(os.getpid())})
    observer = member(study)
    observer.fail_stale_trials()
    for _ in range(3):
        clock.seconds += 5
        observer.fail_stale_trials()
    assert states(study) == ["RUNNING"]


def test_worker_of_another_host_is_dead_after_the_timeout_of_the_observers_clock(study, clock):
    trial = die_with(study, on_another_host())
    observer = member(study, timeout=60)
    observer.fail_stale_trials()
    for beat in range(20):  # Gives signs of life.
        clock.seconds += 10
        trial.set_user_attr("beat", beat)
        observer.fail_stale_trials()
    assert states(study) == ["RUNNING"]
    for _ in range(6):
        clock.seconds += 10
        observer.fail_stale_trials()
    assert states(study) == ["RUNNING"]
    clock.seconds += 10
    observer.fail_stale_trials()
    assert states(study) == ["FAIL"]


def test_time_in_which_nobody_could_look_kills_nobody(study, clock):
    die_with(study, on_another_host())
    observer = member(study, timeout=60)
    observer.fail_stale_trials()
    clock.seconds += 3600  # The storage was away.
    observer.fail_stale_trials()
    assert states(study) == ["RUNNING"]


def test_running_trial_without_any_worker_is_failed_in_the_end(study, clock):
    study.ask()
    observer = member(study, timeout=60)
    for _ in range(9):
        observer.fail_stale_trials()
        clock.seconds += 10
    assert states(study) == ["FAIL"]
    observer._enqueue_retries()
    assert states(study) == ["FAIL"]  # It had no configuration yet.


def test_point_of_a_grid_whose_worker_died_before_it_drew_is_free_again(study):
    study.sampler = _Grid({"x": [0.25, 0.5]}, seed=0)
    first = study.ask()
    first.suggest_float("x", 0, 1)
    study.tell(first, 1.0)
    study.ask().set_user_attr("worker", ended_process())
    observer = member(study)
    observer.fail_stale_trials()
    trial = observer.ask(2, lambda: study.sampler.has_points_left(study))
    assert states(study) == ["COMPLETE", "FAIL", "RUNNING"]
    assert {first.params["x"], trial.suggest_float("x", 0, 1)} == {0.25, 0.5}


def test_a_configuration_is_given_up_after_its_retries(study):
    die_with(study, ended_process())
    one = member(study, max_retries=2)
    for _ in range(2):
        trial = one.ask(1, ALWAYS)
        assert "retry_of" in trial.user_attrs
        trial.set_user_attr("worker", ended_process())
        trial.suggest_float("x", 0, 1)
    fresh = one.ask(1, ALWAYS)
    assert states(study) == ["FAIL"] * 3 + ["RUNNING"]
    assert "retry_of" not in fresh.user_attrs


def test_worker_that_is_stopped_gives_its_trial_back_without_counting_a_death(study):
    one = member(study, max_retries=0)
    trial = one.ask(1, ALWAYS)

    def stop():
        with one.lease(trial):
            trial.suggest_float("x", 0, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    again = member(study, max_retries=0).ask(1, ALWAYS)
    assert again.user_attrs["attempts"] == 0
    assert again.suggest_float("x", 0, 1) == trial.params["x"]


def test_worker_that_is_stopped_while_it_asks_gives_back_what_it_has_just_got(study, monkeypatch):
    die_with(study, on_another_host())
    study.enqueue_trial({"x": 0.5}, user_attrs={"baseline": True})

    def stop(*_):
        raise KeyboardInterrupt

    stopped = member(study)
    monkeypatch.setattr(stopped, "_has_slot", stop)
    with pytest.raises(KeyboardInterrupt):
        stopped.ask(3, ALWAYS)
    assert states(study) == ["RUNNING", "FAIL"]
    again = member(study).ask(3, ALWAYS)
    assert again.user_attrs == {"retry_of": 1, "attempts": 0, "baseline": True}
    assert again.suggest_float("x", 0, 1) == 0.5


def test_worker_whose_unclaimed_trial_was_given_back_by_another_goes_on(study):
    one = member(study)
    trial = one.ask(2, ALWAYS)
    one._give_back_unclaimed()
    with pytest.raises(UpdateFinishedTrialError), one.lease(trial):
        pytest.fail("it must not train a trial that was given back")
    assert one.ask(2, ALWAYS).number != trial.number


def test_signs_of_life_are_given_while_at_work(study, wait_until):
    one = member(study, timeout=0.06)
    trial = one.ask(1, ALWAYS)
    with one.lease(trial):
        wait_until(lambda: study.trials[0].user_attrs.get("beat", 0) >= 3)
    assert study.trials[0].user_attrs["worker"]["pid"] == os.getpid()


def test_trials_beyond_the_total_and_twins_are_withdrawn(study):
    one = member(study)
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


def test_a_failed_trial_keeps_its_seat_for_the_retry(study):
    dead = die_with(study, ended_process())
    one = member(study)
    one._fail(dead._trial_id, lost=True)
    study.ask()
    assert not one._has_slot(1, n_trials=1)
    one._enqueue_retries()
    assert one._has_slot(2, n_trials=1) is False  # Until the intruder has withdrawn.
    one._fail(study.trials[1]._trial_id, withdrawn=True)
    assert one._has_slot(2, n_trials=1)


def test_a_study_that_has_its_total_gives_nothing(study):
    for _ in range(2):
        study.tell(study.ask(), 1.0)
    assert member(study).ask(2, ALWAYS) is None
    assert member(study).ask(3, lambda: False) is None


def test_many_workers_of_which_some_die_finish_exactly_the_total(tmp_path):
    """Five at once; every third trial is left behind by a worker that goes on as another."""
    address, total = f"journal:{tmp_path / 'study.journal'}", 40
    optuna.create_study(study_name="s", storage=open_storage(address))
    dead = ended_process()

    def work(number):
        study = optuna.load_study(study_name="s", storage=open_storage(address))
        one = member(study, timeout=30, max_retries=100)
        asked = number
        while (trial := one.ask(total, ALWAYS)) is not None:
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
