"""Starts the workers of ``python -m tune.run --workers N`` and replaces those that are killed.

A worker that is killed again and again is replaced after pauses that grow, and then no more:
what kills it, most often a lack of memory, would kill every other one.

The launcher never starts a JAX backend, so that all devices are left to the workers. What a
worker does is in :mod:`tune.workers.__main__`.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import optuna
from optuna.trial import FrozenTrial
from rich.console import Console

from ppo_jax.errors import UserError
from ppo_jax.tracking import TrackingConfig
from tune.protocol.plan import Plan
from tune.protocol.trials import FINISHED
from tune.report.console import ConsoleProgress
from tune.report.files import load_results, write_report
from tune.search.leases import TrialLeases
from tune.search.study import address_of, open_study, own_settings
from tune.workers.devices import DeviceShare, require_divisible
from tune.workers.request import WorkerRequest

SHUTDOWN_SECONDS = 20.0
"""How long workers may take to release their trials when the study is interrupted."""


QUICK_DEATH_SECONDS = 60.0
"""A worker that is killed within these after its start is said to die at once."""

MAX_DEATHS = 6
"""Workers in a row that may die at once, or without any trial having finished meanwhile."""

LONGEST_PAUSE = 60.0
"""Seconds before a worker is replaced, at most. The first pause is one second; each is twice
the last one."""


def share_trials(plan: Plan, count: int, tracking: TrackingConfig) -> None:
    """Have `count` workers run the trials of a study, and report on the terminal.

    Args:
      plan: of the session.
      count: workers at a time.
      tracking: where trials are logged.
    """
    require_divisible(count)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    progress = ConsoleProgress(Console())
    with open_study(
        plan.settings,
        plan.folder,
        storage=plan.storage,
        study_name=plan.study_name,
        workers=count,
    ) as study:
        settings = own_settings(study)
        progress.study_started(study, settings, plan.n_trials)
        request = WorkerRequest(
            n_trials=plan.n_trials,
            settings=settings,
            output=plan.folder.path,
            storage=address_of(study),
            study_name=plan.study_name,
            worker_timeout=plan.worker_timeout,
            max_retries=plan.max_retries,
            lanes=plan.lanes,
            tracking=tracking,
        )
        try:
            run_workers(count, request, progress.line, lambda: len(_finished(study)))
        except KeyboardInterrupt:
            # Workers that were stopped have released their trials, killed ones have not, and one
            # that was killed right after it asked has not even claimed its trial.
            leases = TrialLeases(study, plan.worker_timeout, plan.max_retries)
            leases.fail_stale_trials()
            leases.release_unclaimed()
            write_report(load_results(study, plan.folder, analysed=False), plan.folder)
            raise


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=FINISHED)


@dataclasses.dataclass
class _Slot:
    """The place of one worker at a time.

    Attributes:
      worker: the process; None while the place is empty.
      start: moment at which `worker` was started or is to be replaced.
      deaths: workers in a row that have died at once or without progress of the study.
      finished: trials of the study that had finished at the last death.
    """

    worker: "subprocess.Popen[str] | None"
    start: float
    deaths: int = 0
    finished: int = -1

    def count_death(self, finished: int) -> None:
        """Take in that the worker was killed when `finished` trials of the study were."""
        lived = time.monotonic() - self.start
        goes_on = lived > QUICK_DEATH_SECONDS and finished > self.finished
        self.deaths = 1 if goes_on else self.deaths + 1
        self.finished = finished
        self.worker = None
        self.start = time.monotonic() + min(2.0 ** (self.deaths - 1), LONGEST_PAUSE)


def run_workers(
    count: int,
    request: WorkerRequest,
    report: Callable[[str], None],
    finished: Callable[[], int],
) -> None:
    """Run `count` workers until the study is finished, and replace those that are killed.

    Args:
      count: workers at a time.
      request: of each of them.
      report: called with a line when a worker has died or failed.
      finished: returns how many trials of the study have finished.

    Raises:
      UserError: when every worker has failed.
    """
    slots: dict[int, _Slot] = {}
    failed = 0
    try:
        for index in range(count):
            slots[index] = _Slot(_start(index, count, request), time.monotonic())
        while slots:
            time.sleep(0.2)
            for index, slot in list(slots.items()):
                if slot.worker is None:
                    if time.monotonic() >= slot.start:
                        slot.worker, slot.start = _start(index, count, request), time.monotonic()
                    continue
                status = slot.worker.poll()
                if status is None:
                    continue
                _close_pipe(slot.worker)
                if status < 0:
                    slot.count_death(finished())
                    name = _signal_name(-status)
                    if slot.deaths < MAX_DEATHS:
                        report(f"worker {index} was killed by {name}; another takes its place")
                        continue
                    report(
                        f"worker {index} was killed by {name}, as were the {slot.deaths - 1} "
                        f"before it; no other takes its place"
                    )
                elif status > 0:
                    report(f"worker {index} failed with status {status}")
                failed += status != 0
                del slots[index]
    finally:
        _stop([slot.worker for slot in slots.values() if slot.worker is not None])
    if failed == count:
        raise UserError("every worker has failed, see above; finished trials are kept")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # A real-time signal.
        return f"signal {number}"


def _start(index: int, count: int, request: WorkerRequest) -> "subprocess.Popen[str]":
    share = DeviceShare.of(index, count)
    worker = subprocess.Popen(
        [sys.executable, "-m", "tune.workers", "--cores", ",".join(map(str, share.cores))],
        stdin=subprocess.PIPE,
        env={**os.environ, **share.environment},
        start_new_session=True,  # Ctrl-C only reaches this process, which then stops its workers.
        text=True,
    )
    assert worker.stdin is not None
    try:
        # The request may hold a password: arguments and environment can be read by others.
        worker.stdin.write(request.to_json() + "\n")
        # The pipe stays open: its end tells the worker that this process has died.
        worker.stdin.flush()
    except BrokenPipeError:
        pass  # The worker has died already, which its status will show.
    return worker


def _stop(workers: Sequence["subprocess.Popen[str]"]) -> None:
    """Ask `workers` to end, and kill those that take too long."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + SHUTDOWN_SECONDS
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        _close_pipe(worker)


def _close_pipe(worker: "subprocess.Popen[str]") -> None:
    """Close the pipe to a worker that has ended; it may hold what was not read."""
    if worker.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.close()
