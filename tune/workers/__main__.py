"""``python -m tune.workers``: one worker, its request on standard input."""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppo_jax import command_line


def main() -> None:
    """Entry point of ``python -m tune.workers``: one worker, its request on standard input."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.sched_setaffinity(0, request.pop("cores"))
    command_line.run(lambda: _work(**request))


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _work(
    n_trials: int, settings: Mapping[str, Any], tracking: Mapping[str, Any], **request: Any
) -> None:
    command_line.start_backend()
    import optuna
    from rich.console import Console

    from ppo_jax.tracking import TrackingConfig
    from tune.protocol.settings import Settings
    from tune.report.console import ConsoleProgress
    from tune.report.tracking import TrackedProgress
    from tune.search.study import run_optimization

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    progress = ConsoleProgress(Console(force_terminal=False), heading=False)
    output, name = Path(request["output"]), request["study_name"]
    with TrackedProgress(progress, TrackingConfig(**tracking), output, name) as tracked:
        run_optimization(n_trials, Settings.from_dict(settings), progress=tracked, **request)


if __name__ == "__main__":
    main()
