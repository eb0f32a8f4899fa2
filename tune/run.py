"""``python -m tune.run``: tune PPO, prove the winner, leave results to look at."""

if __name__ == "__main__":  # Before what takes long to import.
    from ppo_jax.scripts import start

    start("tune.run")


import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ppo_jax import command_line

if TYPE_CHECKING:
    from ppo_jax.programs import Programs
    from tune.options import Arguments
    from tune.protocol.settings import Settings

_BEGAN = time.monotonic()
_HOW_TO_CONTINUE = "; finished trials are kept, the same command continues"


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m tune.run``."""
    args = sys.argv[1:] if args is None else args
    command_line.run(lambda: _main(args), _HOW_TO_CONTINUE)


def _main(args: Sequence[str]) -> None:
    # Signals are heeded by now, and importing the options takes a second.
    from tune.options import Arguments, where_it_is_tuned

    arguments = command_line.parse(Arguments, "python -m tune.run", args, where_it_is_tuned)
    if arguments.place.workers != 1:
        _share(arguments)
        # With the trials done, one process is left to prove the winner, on all devices. A new
        # one, because this one has no backend and could not start one any more.
        os.execv(sys.executable, [sys.executable, "-m", "tune.run", *args, "--workers", "1"])
    _run(arguments)


def run(
    arguments: "Arguments",
    programs_for: "Callable[[Settings], Programs] | None" = None,
) -> None:
    """Tune and prove in this process; whatever stops it is one line and an exit status.

    Args:
      arguments: of one process.
      programs_for: from the settings of the study to the programs of its trials;
        :func:`tune.search.objective.make_programs` by default.
    """
    command_line.run(lambda: _run(arguments, programs_for), _HOW_TO_CONTINUE)


def _share(arguments: "Arguments") -> None:
    """Have workers run the trials."""
    plan = arguments.plan()
    import jax

    # The devices are for the workers: in this process not even an import may take one.
    jax.config.update("jax_platforms", "cpu")
    from tune.workers.launcher import share_trials

    share_trials(plan, arguments.place.workers, arguments.tracking)


def _run(
    arguments: "Arguments",
    programs_for: "Callable[[Settings], Programs] | None" = None,
) -> None:
    """Tune and prove in this process."""
    start = time.perf_counter()
    plan = arguments.plan()
    command_line.start_backend()
    # From here on, since importing environments starts the backend.
    import optuna
    from rich.console import Console

    from tune import session
    from tune.protocol.budget import Budget
    from tune.report.console import ConsoleProgress, print_summary
    from tune.report.tracking import TrackedProgress
    from tune.search.objective import make_programs

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console = Console()
    budget = None if plan.budget is None else Budget(plan.budget, began=_BEGAN)
    programs = (
        make_programs(plan.settings, plan.n_trials, plan.lanes)
        if programs_for is None
        else programs_for(plan.settings)
    )
    with (
        ConsoleProgress(
            console,
            plan=plan,
            budget=budget,
            is_compiling=lambda: programs.compile_log.waiting,
        ) as progress,
        TrackedProgress(progress, arguments.tracking, plan.folder.path, plan.study_name) as tracked,
    ):
        results = session.run(plan, programs, tracked, budget)
    if results is not None:
        print_summary(console, results, plan.folder, time.perf_counter() - start)
