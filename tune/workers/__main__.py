"""``python -m tune.workers``: one worker of ``python -m tune.run --workers N``.

Reads its request, a line of JSON, from standard input, and ends when that is closed.
"""

import argparse
import os
import signal
import sys
import threading

from ppo_jax import command_line
from ppo_jax.scripts import collect_seldom


def main() -> None:
    """Entry point of ``python -m tune.workers``."""
    collect_seldom()
    parser = argparse.ArgumentParser(prog="python -m tune.workers", description=__doc__)
    parser.add_argument("--cores", help="CPU cores to run on, as 0,2,4; all if not given")
    cores = parser.parse_args().cores
    if cores is not None:
        try:
            _run_on([int(core) for core in cores.split(",")])
        except (ValueError, OverflowError, OSError):
            command_line.fail(
                f"--cores must name CPU cores of this machine, which has {os.cpu_count()}, "
                f"as 0,2,4, but got {cores!r}"
            )
    line = sys.stdin.readline()
    if line:  # Else there is no launcher, and the missing request is reported.
        threading.Thread(target=_end_with_launcher, daemon=True).start()
    command_line.run(lambda: _work(line))


def _run_on(cores: list[int]) -> None:
    """Use these CPU cores, or where a process cannot be bound to cores, as many of any."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    else:  # macOS.
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(len(cores)))


def _end_with_launcher() -> None:
    """Wait for the end of standard input and stop this process as SIGTERM does."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _work(line: str) -> None:
    # All of these import NumPy or JAX, whose thread pools take their sizes from the cores of
    # this process and whose backend must not start before its options are set.
    command_line.start_backend()
    import optuna
    from rich.console import Console

    from tune.report.console import ConsoleProgress
    from tune.report.tracking import TrackedProgress
    from tune.search.storage import PATIENCE, open_storage
    from tune.search.study import run_optimization
    from tune.workers.request import WorkerRequest

    request = WorkerRequest.from_json(line)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The launcher has opened the storage, so its address is right, and it can only be away.
    open_storage(request.storage, patience=PATIENCE)
    progress = ConsoleProgress(Console(force_terminal=False), heading=False)
    with TrackedProgress(progress, request.tracking, request.output, request.study_name) as tracked:
        run_optimization(
            request.n_trials,
            request.settings,
            output=request.output,
            storage=request.storage,
            study_name=request.study_name,
            progress=tracked,
            worker_timeout=request.worker_timeout,
            max_retries=request.max_retries,
            lanes=request.lanes,
        )


if __name__ == "__main__":
    main()
