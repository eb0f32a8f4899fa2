"""Workers that share a study: who is alive, whose trial is run again, and the exact total.

All they know of each other stands in the storage. A worker writes a sign of life with its
trial; whoever looks for work fails the trials of dead workers and enqueues their
configurations again.
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
from tune.protocol.trials import FINISHED, is_baseline


class TrialLeases:
    """A worker's view of all workers on `study`.

    Args:
      study: in a storage that processes share.
      timeout: seconds without a sign of life after which a worker counts as dead. They
        are counted by the clock of the one who looks, and only while it can look: neither
        clocks that differ nor a storage that is away for a while make a worker dead.
      max_retries: how often a configuration whose worker died is run again.
    """

    def __init__(self, study: optuna.Study, timeout: float, max_retries: int) -> None:
        self._study = study
        self._timeout = timeout
        self._interval = timeout / 6
        self._max_retries = max_retries
        self._silence: dict[int, tuple[Any, float]] = {}
        self._last_look = time.monotonic()

    def ask(self, n_trials: int, may_draw: Callable[[], bool]) -> optuna.Trial | None:
        """Return the next trial to run, None when `n_trials` have finished.

        Waits while all that is left is in the hands of others, who may die.

        Args:
          n_trials: the total; never more trials than these finish.
          may_draw: called without arguments; whether the sampler has anything new.
        """
        try:
            return self._ask(n_trials, may_draw)
        except BaseException:
            with contextlib.suppress(Exception):
                self._give_back_unclaimed()
            raise

    def _ask(self, n_trials: int, may_draw: Callable[[], bool]) -> optuna.Trial | None:
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
                self._fail(trial._trial_id, withdrawn=True)
            elif all(trial.state in FINISHED for trial in slots):
                return None  # A grid that is smaller than the total.
            else:
                time.sleep(min(1.0, self._interval))

    @contextlib.contextmanager
    def lease(self, trial: optuna.Trial) -> Iterator[None]:
        """Give signs of life while the block trains `trial`; give the trial back if it stops."""
        stop = threading.Event()

        def beat() -> None:
            beats = 0
            while not stop.wait(self._interval):
                beats += 1
                try:
                    trial.storage.set_trial_user_attr(trial._trial_id, "beat", beats)
                except UpdateFinishedTrialError:
                    return
                except UserError:
                    continue  # The storage was away for long; the main thread tells it.

        try:
            trial.set_user_attr("worker", _this_process())
            threading.Thread(target=beat, name="sign of life", daemon=True).start()
            yield
        except BaseException:
            # Others need not wait until this worker counts as dead.
            with contextlib.suppress(Exception):
                self._fail(trial._trial_id, lost=True, released=True)
            raise
        finally:
            stop.set()

    def _give_back_unclaimed(self) -> None:
        """Fail the running trials that have no worker yet; one of them may be this worker's.

        Another worker that has just asked for one of them moves on to the next.
        """
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "worker" not in trial.user_attrs:
                self._fail(trial._trial_id, lost=True, released=True)

    def fail_stale_trials(self) -> None:
        """Fail the trials whose workers are dead."""
        now = time.monotonic()
        # Not more than a beat: while nobody could look, nobody could give signs either.
        passed = min(now - self._last_look, self._interval)
        self._last_look = now
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        known, self._silence = self._silence, {}
        for trial in running:
            sign = (trial.user_attrs.get("worker"), trial.user_attrs.get("beat"))
            last_sign, silence = known.get(trial.number, (None, 0.0))
            silence = silence + passed if sign == last_sign else 0.0
            self._silence[trial.number] = (sign, silence)
            if silence > self._timeout or _has_ended(trial.user_attrs.get("worker")):
                self._fail(trial._trial_id, lost=True)

    def _fail(self, trial_id: int, **marks: bool) -> None:
        storage = self._study._storage
        with contextlib.suppress(UpdateFinishedTrialError):  # Another was quicker, or it lives.
            for name, value in marks.items():
                storage.set_trial_user_attr(trial_id, name, value)
            if not _configuration(storage.get_trial(trial_id)):
                # Nothing of it can be run again, so its point of a grid is free for another.
                storage.set_trial_system_attr(trial_id, "grid_id", None)
            storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def _pending_retries(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Return the failed trials whose configuration has yet to be run again."""
        succeeded = {
            trial.user_attrs.get("retry_of")
            for trial in trials
            if not trial.user_attrs.get("withdrawn")
        }
        return [
            trial
            for trial in trials
            if trial.state == TrialState.FAIL
            and trial.user_attrs.get("lost")
            and trial.number not in succeeded
            and _attempts(trial) <= self._max_retries
            and _configuration(trial)
        ]

    def _enqueue_retries(self) -> None:
        for trial in self._pending_retries(self._study.get_trials(deepcopy=False)):
            attributes = {"retry_of": trial.number, "attempts": _attempts(trial)}
            if is_baseline(trial):
                attributes["baseline"] = True
            self._study.enqueue_trial(_configuration(trial), user_attrs=attributes)

    def _withdraw_waiting(self, trials: list[FrozenTrial]) -> None:
        """Withdraw what two have enqueued again and nobody needs any more."""
        for trial in trials:
            if trial.state == TrialState.WAITING and "retry_of" in trial.user_attrs:
                self._fail(trial._trial_id, withdrawn=True)

    def _has_slot(self, number: int, n_trials: int) -> bool:
        """Return whether trial `number`, which this worker has just asked for, may run.

        Numbers are given out one after another, so of workers who ask at the same moment
        everyone comes to the same answer on every trial.
        """
        trials = self._study.get_trials(deepcopy=False)
        own = trials[number]
        earlier = [trial for trial in trials[:number] if trial.state != TrialState.FAIL]
        origin = own.user_attrs.get("retry_of")
        if origin is not None:  # Two may have enqueued the same configuration again.
            # One that has failed meanwhile is a twin as well: it is run again on its own account.
            duplicates = [
                trial
                for trial in trials[:number]
                if trial.user_attrs.get("retry_of") == origin
                and not trial.user_attrs.get("withdrawn")
            ]
        elif is_baseline(own):  # Two may have made the study at the same moment.
            duplicates = [trial for trial in trials[:number] if is_baseline(trial)]
        else:  # Two may have taken the same point of a grid.
            point = own.system_attrs.get("grid_id")
            duplicates = [
                trial
                for trial in earlier
                if point is not None and trial.system_attrs.get("grid_id") == point
            ]
        reserved = 0 if origin is not None else len(self._pending_retries(trials))
        return not duplicates and len(earlier) + reserved < n_trials


def _attempts(trial: FrozenTrial) -> int:
    """Return how many workers have died with the configuration of a lost `trial`."""
    died = not trial.user_attrs.get("released")
    return trial.user_attrs.get("attempts", 0) + died


def _configuration(trial: FrozenTrial) -> dict[str, Any]:
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _this_process() -> dict[str, Any]:
    """Return what tells this process from every other; empty places where there is no /proc."""
    return {"host": socket.gethostname(), "pid": os.getpid(), **_identity(os.getpid())}


def _has_ended(worker: dict[str, Any] | None) -> bool:
    """Return whether `worker` was a process of this host that is no more; False if unknown."""
    if worker is None or not worker.get("boot"):
        return False
    here = _identity(os.getpid())
    if any(worker[key] != here[key] for key in ("boot", "pids")):
        return False
    return _identity(worker["pid"])["started"] != worker["started"]


def _identity(pid: int) -> dict[str, Any]:
    """Return boot, PID namespace and start time of a process; None where it does not run."""
    proc = Path("/proc")
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink(proc / "self/ns/pid")
    except OSError:
        return {"boot": None, "pids": None, "started": None}
    try:
        # After the name, which may hold anything: state is field 3, the start time 22.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        started = None if fields[0] in "ZX" else int(fields[19])
    except OSError:
        started = None
    return {"boot": boot, "pids": namespace, "started": started}
