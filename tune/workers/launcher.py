"""Starts the workers of ``python -m tune.run --workers N`` and replaces those that are killed.

The launcher never starts a JAX backend, so that all devices are left to the workers. What a
worker does is in :mod:`tune.workers.__main__`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import optuna
from rich.console import Console

from ppo_jax.errors import UserError
from ppo_jax.tracking import TrackingConfig
from tune.protocol.plan import Plan
from tune.protocol.trials import StudyRecord
from tune.report.console import ConsoleProgress
from tune.report.files import write_report
from tune.report.results import StudyResults
from tune.search.leases import TrialLeases
from tune.search.study import address_of, open_study
from tune.workers.devices import DeviceShare
from tune.workers.request import WorkerRequest

SHUTDOWN_SECONDS = 20.0
"""How long workers may take to release their trials when the study is interrupted."""


def share_trials(plan: Plan, count: int, tracking: TrackingConfig) -> None:
    """Have `count` workers run the trials of a study, and report on the terminal.

    Args:
      plan: of the session.
      count: workers at a time.
      tracking: where trials are logged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    progress = ConsoleProgress(Console())
    with open_study(
        plan.settings,
        plan.folder,
        storage=plan.storage,
        study_name=plan.study_name,
        workers=count,
    ) as study:
        progress.study_started(study, plan.settings, plan.n_trials)
        request = WorkerRequest(
            n_trials=plan.n_trials,
            settings=plan.settings,
            output=plan.folder.path,
            storage=address_of(study),
            study_name=plan.study_name,
            worker_timeout=plan.worker_timeout,
            max_retries=plan.max_retries,
            tracking=tracking,
        )
        try:
            run_workers(count, request, progress.line)
        except KeyboardInterrupt:
            # Workers that were stopped have released their trials, killed ones have not.
            TrialLeases(study, plan.worker_timeout, plan.max_retries).fail_stale_trials()
            write_report(StudyResults.without_analysis(StudyRecord.of(study)), plan.folder)
            raise


def run_workers(count: int, request: WorkerRequest, report: Callable[[str], None]) -> None:
    """Run `count` workers until the study is finished, and replace those that are killed.

    Args:
      count: workers at a time.
      request: of each of them.
      report: called with a line when a worker has died or failed.

    Raises:
      UserError: when every worker has failed.
    """
    workers = {index: _start(index, count, request) for index in range(count)}
    failed = 0
    try:
        while workers:
            time.sleep(0.2)
            for index, worker in list(workers.items()):
                status = worker.poll()
                if status is None:
                    continue
                del workers[index]
                if status < 0:
                    name = signal.Signals(-status).name
                    report(f"worker {index} was killed by {name}; another takes its place")
                    workers[index] = _start(index, count, request)
                elif status > 0:
                    failed += 1
                    report(f"worker {index} failed with status {status}")
    finally:
        _stop(list(workers.values()))
    if failed == count:
        raise UserError("every worker has failed, see above; finished trials are kept")


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
