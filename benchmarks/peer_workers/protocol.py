"""The protocol of a worker: it writes a JSON line when ready, and one for every ``go`` it reads.

This runs in the virtual environment of a peer, so it imports only the standard library.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version


@dataclasses.dataclass(frozen=True)
class Work:
    """The training to measure; see ``benchmarks/peers.py``."""

    env: str
    seeds: int
    steps: int
    num_envs: int
    n_steps: int
    batch_size: int
    n_epochs: int


def serve(prepare: Callable[[Work], Callable[[], int]], *packages: str) -> None:
    """Prepare the work given on the command line, then do it once for every line on stdin.

    Args:
      prepare: returns a function that trains all seeds once and returns the environment steps
        taken. Its first call is not timed.
      packages: packages whose versions are reported.
    """
    # Keeps the peer's own output out of the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    start = time.perf_counter()
    train = prepare(Work(**json.loads(sys.argv[1])))
    train()
    versions = {package: version(package) for package in packages}
    answer(warmup_seconds=time.perf_counter() - start, versions=versions)
    for _ in sys.stdin:
        start = time.perf_counter()
        steps = train()
        answer(seconds=time.perf_counter() - start, steps=steps)
