"""Workers that share a study: leases on trials, heartbeats, retries and the exact total.

Workers know of each other only through the storage. The worker that runs a trial holds a lease
on it and renews it with heartbeats. Any worker that looks for a trial first fails stale trials,
whose workers are dead, and enqueues their configurations again. How a process is started is
the business of :mod:`tune.workers`.

Why Optuna's own heartbeat is not enough (5.0, ``optuna/storages/_heartbeat.py``):

- Only ``Study.optimize`` sends heartbeats and looks for stale trials; ``Study.ask``, which an
  own loop needs, warns and does neither.
- Only ``RDBStorage`` implements it, neither a journal nor the gRPC proxy.
- A trial whose worker died before its first heartbeat never becomes stale.
- The age of a heartbeat is measured by the database's clock, which goes on while the database
  cannot be reached. After an outage longer than the grace period, the first worker to come
  back fails the trials of all others.
- The trial is failed first and enqueued again by a callback afterwards, so a worker that dies
  in between loses the configuration. ``MaxTrialsCallback`` counts when a trial ends, so trials
  that run at that moment exceed the total.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.errors import UserError
from tune.protocol.trials import FINISHED, TrialRecord, attribute, is_baseline, settings_of
from tune.search.optuna_private import (
    enqueued_params,
    grid_point,
    release_grid_point,
    storage_of,
    trial_id,
)

HEARTBEATS_PER_TIMEOUT = 6
"""A worker counts as dead only after several heartbeats have failed to appear."""


class TrialLeases:
    """One worker's leases on the trials of a study, and its view of those of all others.

    A trial carries its lease in user attributes: ``worker`` (the process that runs it),
    ``heartbeat`` (a count), and once it has failed ``lost`` (to be retried), ``released`` (its
    worker stopped in good order) or ``withdrawn`` (nobody needs it). A retry carries
    ``retry_of`` (number of the failed trial) and ``attempts`` (workers that have died, or
    raised an error, with this configuration).

    Args:
      study: in a storage that processes share.
      timeout: seconds without a heartbeat after which a worker counts as dead. They are
        counted by the observer's clock, and only while the observer can read the storage.
        Neither clocks that differ nor an outage of the storage make a worker stale.
      max_retries: how often a configuration whose worker died is run again.
    """

    def __init__(self, study: optuna.Study, timeout: float, max_retries: int) -> None:
        self._study = study
        self._timeout = timeout
        self._interval = timeout / HEARTBEATS_PER_TIMEOUT
        self._max_retries = max_retries
        self._silence: dict[int, tuple[Any, float]] = {}
        self._last_check = time.monotonic()

    def ask(
        self, n_trials: int, may_draw: Callable[[], bool], wait: bool = True
    ) -> optuna.Trial | None:
        """Return the next trial to run; None when the study is finished.

        While every remaining trial is leased, it waits, since workers may die.

        Args:
          n_trials: the total; never more trials than these finish.
          may_draw: called without arguments; returns whether the sampler has a new
            configuration.
          wait: False to return None in place of waiting, for a worker that has other trials to
            go on with.
        """
        try:
            return self._ask(n_trials, may_draw, wait)
        except BaseException:
            with contextlib.suppress(Exception):
                self.release_unclaimed()
            raise

    def _ask(self, n_trials: int, may_draw: Callable[[], bool], wait: bool) -> optuna.Trial | None:
        while True:
            self.fail_stale_trials()
            self._enqueue_retries()
            trials = self._study.get_trials(deepcopy=False)
            if sum(trial.state in FINISHED for trial in trials) >= n_trials:
                self._withdraw_waiting(trials)
                return None
            slots = [trial for trial in trials if trial.state != TrialState.FAIL][:n_trials]
            waiting = any(trial.state == TrialState.WAITING for trial in slots)
            if waiting or (len(slots) < n_trials and may_draw()):
                trial = self._study.ask()
                if self._has_slot(trial.number, n_trials):
                    return trial
                self._fail(trial_id(trial), withdrawn=True)
            elif all(trial.state in FINISHED for trial in slots):
                return None  # A grid that is smaller than the total.
            elif not wait:
                return None
            else:
                time.sleep(min(1.0, self._interval))

    @contextlib.contextmanager
    def lease(self, trial: optuna.Trial) -> Iterator[None]:
        """Hold a lease on `trial` while the block trains it.

        Sends heartbeats from a thread. A block that is interrupted releases the trial, so that
        another worker can retry it at once. One that raises an error has made an attempt: a
        configuration that always fails is abandoned after its retries.

        Raises:
          UpdateFinishedTrialError: when another worker has failed the trial already.
        """
        storage, identifier = storage_of(self._study), trial_id(trial)
        stop = threading.Event()

        def send_heartbeats() -> None:
            heartbeats = 0
            while not stop.wait(self._interval):
                heartbeats += 1
                try:
                    storage.set_trial_user_attr(identifier, "heartbeat", heartbeats)
                except UpdateFinishedTrialError:
                    return
                except UserError:
                    continue  # The storage is away; the main thread reports it.

        try:
            trial.set_user_attr("worker", _this_process())
            threading.Thread(target=send_heartbeats, name="heartbeat", daemon=True).start()
            yield
        except Exception:
            with contextlib.suppress(Exception):
                self._fail(identifier, lost=True)
            raise
        except BaseException:
            with contextlib.suppress(Exception):
                self._fail(identifier, lost=True, released=True)
            raise
        finally:
            stop.set()

    def fail_stale_trials(self) -> None:
        """Fail the running trials whose workers are dead."""
        now = time.monotonic()
        # At most one interval: while this worker could not reach the storage, neither could
        # the others send heartbeats.
        elapsed = min(now - self._last_check, self._interval)
        self._last_check = now
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        previous, self._silence = self._silence, {}
        for trial in running:
            worker = trial.user_attrs.get("worker")
            lease = (worker, attribute(trial, "heartbeat"))
            last_lease, silence = previous.get(trial.number, (None, 0.0))
            silence = silence + elapsed if lease == last_lease else 0.0
            self._silence[trial.number] = (lease, silence)
            if silence > self._timeout or _has_ended(worker):
                self._fail(trial_id(trial), lost=True)

    def release_unclaimed(self) -> None:
        """Fail the running trials that no worker has claimed; one may have been for this worker.

        Another worker that has just asked for one of them moves on to the next.
        """
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "worker" not in trial.user_attrs:
                self._fail(trial_id(trial), lost=True, released=True)

    def _fail(self, identifier: int, **marks: bool) -> None:
        """Mark a trial and fail it, unless it has ended meanwhile."""
        storage = storage_of(self._study)
        with contextlib.suppress(UpdateFinishedTrialError):  # Another worker was faster.
            for name, value in marks.items():
                storage.set_trial_user_attr(identifier, name, value)
            if not _configuration(storage.get_trial(identifier)):
                # There is nothing to retry, so another trial has to take its point of a grid.
                release_grid_point(storage, identifier)
            storage.set_trial_state_values(identifier, TrialState.FAIL)

    def _pending_retries(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Return the failed trials whose configuration has yet to be enqueued again."""
        retried = {
            trial.user_attrs.get("retry_of")
            for trial in trials
            if not trial.user_attrs.get("withdrawn")
        }
        return [
            trial
            for trial in trials
            if trial.state == TrialState.FAIL
            and trial.user_attrs.get("lost")
            and trial.number not in retried
            and _attempts(trial) <= self._max_retries
            and _configuration(trial)
        ]

    def _enqueue_retries(self) -> None:
        for trial in self._pending_retries(self._study.get_trials(deepcopy=False)):
            attributes = {"retry_of": trial.number, "attempts": _attempts(trial)}
            if is_baseline(trial):
                attributes["baseline"] = True
            self._study.enqueue_trial(self._params(trial), user_attrs=attributes)

    def _params(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return what a retry of `trial` runs, by the names of a space that was widened since."""
        params, settings = _configuration(trial), settings_of(self._study)
        if settings is None:
            return params
        configuration = TrialRecord.of(trial).configuration(settings)
        if configuration is None:
            return settings.space.baseline_params() if is_baseline(trial) else params
        now = settings.space.encode(configuration)
        return params if now is None or now.keys() <= params.keys() else now

    def _withdraw_waiting(self, trials: list[FrozenTrial]) -> None:
        """Withdraw retries that two workers have enqueued and that the total leaves no slot for."""
        for trial in trials:
            if trial.state == TrialState.WAITING and "retry_of" in trial.user_attrs:
                self._fail(trial_id(trial), withdrawn=True)

    def _has_slot(self, number: int, n_trials: int) -> bool:
        """Return whether trial `number`, which this worker has just asked for, may run.

        The storage numbers trials one after another, so workers that ask at the same moment
        all reach the same answer about every trial.
        """
        trials = self._study.get_trials(deepcopy=False)
        own = trials[number]
        earlier = [trial for trial in trials[:number] if trial.state != TrialState.FAIL]
        origin = own.user_attrs.get("retry_of")
        if origin is not None:  # Two workers may have enqueued the same retry.
            # A retry that has failed meanwhile counts too: it will be retried itself.
            duplicates = [
                trial
                for trial in trials[:number]
                if trial.user_attrs.get("retry_of") == origin
                and not trial.user_attrs.get("withdrawn")
            ]
        elif is_baseline(own):  # Two workers may have created the study at the same moment.
            duplicates = [trial for trial in trials[:number] if is_baseline(trial)]
        else:  # Two workers may have drawn the same point of a grid.
            point = grid_point(own)
            duplicates = [
                trial for trial in earlier if point is not None and grid_point(trial) == point
            ]
        reserved = 0 if origin is not None else len(self._pending_retries(trials))
        return not duplicates and len(earlier) + reserved < n_trials


def _attempts(trial: FrozenTrial) -> int:
    """Return how many workers have died or failed with the configuration of a lost `trial`."""
    attempts: int = attribute(trial, "attempts", 0)
    return attempts if attribute(trial, "released") else attempts + 1


def _configuration(trial: FrozenTrial) -> dict[str, Any]:
    """Return what `trial` runs as far as it is known, parameter -> value."""
    return {**enqueued_params(trial), **trial.params}


def _this_process() -> dict[str, Any]:
    """Return what tells this process from every other; None for what needs ``/proc``."""
    return {"host": socket.gethostname(), "pid": os.getpid(), **_identity(os.getpid())}


def _has_ended(worker: dict[str, Any] | None) -> bool:
    """Return whether `worker` was a process of this host that has ended; False if unknown."""
    if worker is None or not worker.get("boot"):
        return False
    here = _identity(os.getpid())
    if any(worker[key] != here[key] for key in ("boot", "pids")):
        return False
    return bool(_identity(worker["pid"])["started"] != worker["started"])


def _identity(pid: int) -> dict[str, Any]:
    """Return boot, PID namespace and start time of a process; None where it does not run."""
    proc = Path("/proc")
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        namespace = str((proc / "self/ns/pid").readlink())
    except OSError:
        return {"boot": None, "pids": None, "started": None}
    try:
        # After the name, which may hold anything: state is field 3, the start time 22.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        started = None if fields[0] in "ZX" else int(fields[19])
    except OSError:
        started = None
    return {"boot": boot, "pids": namespace, "started": started}
