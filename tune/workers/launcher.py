"""Several processes of this host on one study: ``python -m tune.run --workers N``.

This process starts them, replaces those that die and never starts a backend of its own, so
that all devices are theirs. Run as ``python -m tune.workers`` it is one of them.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ppo_jax.errors import UserError

SECONDS_TO_END = 20.0
"""How long workers may take to give back their trials when the study is interrupted."""


def run_workers(count: int, request: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Run `count` workers until the study is finished, and replace those that are killed.

    Args:
      request: what :func:`tune.search.study.run_optimization` takes and what is tracked, as JSON.
      tell: called with a line when something has happened to a worker.

    Raises:
      UserError: when all have ended with an error.
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
                    tell(f"worker {index} was killed by {name}; another takes its place")
                    workers[index] = _start(index, count, request)
                elif status > 0:
                    failed += 1
                    tell(f"worker {index} has ended with status {status}")
    finally:
        _end(list(workers.values()))
    if failed == count:
        raise UserError("every worker has failed, see above; what has finished is kept")


def _start(index: int, count: int, request: Mapping[str, Any]) -> subprocess.Popen:
    # The request may hold a password, which neither arguments nor environment keep to themselves.
    worker = subprocess.Popen(
        [sys.executable, "-m", "tune.workers.launcher"],
        stdin=subprocess.PIPE,
        env={**os.environ, **_devices(index, count)},
        start_new_session=True,  # Ctrl-C comes to this process, which passes it on.
        text=True,
    )
    assert worker.stdin is not None
    try:
        worker.stdin.write(json.dumps({**request, "cores": _cores(index, count)}) + "\n")
        worker.stdin.flush()  # And stays open: its end tells the worker that this process died.
    except BrokenPipeError:
        pass  # Killed already; its status will tell.
    return worker


def _end(workers: list[subprocess.Popen]) -> None:
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + SECONDS_TO_END
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _cores(index: int, count: int) -> list[int]:
    """Return the CPU cores of a worker; workers share them where there are more workers."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[index::count] or [cores[index % len(cores)]]


def _devices(index: int, count: int) -> dict[str, str]:
    """Return the environment that gives a worker its NVIDIA GPU, if there is any."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        gpus = sorted(p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))
    else:
        gpus = [gpu for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    if not gpus:
        return {}
    chosen = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]}
    sharing = -(-count // len(gpus))
    if sharing > 1:
        chosen["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / sharing:.2f}"
    return chosen
