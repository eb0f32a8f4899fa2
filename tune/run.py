"""``python -m tune.run``: tune PPO, prove the winner, leave results to look at."""

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ppo_jax import command_line
from tune.options import Arguments

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from tune.protocol.settings import Settings

_HOW_TO_CONTINUE = "; finished trials are kept, the same command continues"


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m tune.run``."""
    args = sys.argv[1:] if args is None else args
    arguments = command_line.parse(Arguments, "python -m tune.run", args)
    if arguments.workers != 1:
        command_line.run(lambda: _share(arguments), _HOW_TO_CONTINUE)
        # With the trials done, one process is left to prove the winner, on all devices. A new
        # one, because this one has no backend and could not start one any more.
        os.execv(sys.executable, [sys.executable, "-m", "tune.run", *args, "--workers", "1"])
    command_line.run(lambda: _run(arguments), _HOW_TO_CONTINUE)


def _share(arguments: Arguments) -> None:
    """Have workers run the trials."""
    plan = arguments.plan()
    import jax

    # The devices are for the workers: in this process not even an import may take one.
    jax.config.update("jax_platforms", "cpu")
    import optuna
    from rich.console import Console

    from tune.report.console import ConsoleProgress
    from tune.report.files import save_optimization_results
    from tune.search.leases import TrialLeases
    from tune.search.study import address_of, open_study
    from tune.workers.launcher import run_workers
    from tune.workers.request import WorkerRequest

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    progress = ConsoleProgress(Console())
    with open_study(
        plan.settings,
        plan.folder,
        storage=plan.storage,
        study_name=plan.study_name,
        workers=arguments.workers,
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
            tracking=arguments.tracking,
        )
        try:
            run_workers(arguments.workers, request, progress.line)
        except KeyboardInterrupt:
            # Of workers that were killed; the others have released their trials.
            TrialLeases(study, plan.worker_timeout, plan.max_retries).fail_stale_trials()
            save_optimization_results(study, plan.folder.path)
            raise


def _run(arguments: Arguments) -> None:
    """Tune and prove in this process."""
    start = time.perf_counter()
    plan = arguments.plan()
    command_line.start_backend()
    # From here on, since importing environments starts the backend.
    import optuna
    from rich.console import Console

    from ppo_jax.programs import Programs
    from tune import session
    from tune.report.console import ConsoleProgress
    from tune.report.tracking import TrackedProgress

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console = Console()
    programs = Programs(plan.settings.config, plan.settings.seeds)
    with (
        ConsoleProgress(console) as progress,
        TrackedProgress(progress, arguments.tracking, plan.folder.path, plan.study_name) as tracked,
    ):
        outcome = session.run(plan, programs, tracked)
    if outcome is not None:
        results, validation = outcome
        _print_summary(
            console,
            plan.settings,
            results,
            None if validation is None else validation.to_dict(),
            plan.folder.path,
            time.perf_counter() - start,
        )


def _print_summary(
    console: "Console",
    settings: "Settings",
    results: dict[str, Any],
    validation: dict[str, Any] | None,
    output: "Path",
    seconds: float,
) -> None:
    """Print what a person wants to know at the end."""
    from tune.report.text import number

    best, baseline = results["best_value"], results["baseline_value"]
    gain = results["improvement_percent"]
    rows = {
        "best": f"{best:.1f} (trial {results['best_trial']})" if best is not None else "–",
        "default": f"{baseline:.1f}" if baseline is not None else "–",
        "gain on tuning seeds": f"{gain:+.1f}%" if gain is not None else "–",
    }
    if settings.reference_score is not None:
        against = "" if best is None else f" ({best - settings.reference_score:+.1f} for the best)"
        rows["reference"] = f"{settings.reference_score:g}{against}"
    if validation is not None:
        rows |= _validation_rows(validation)
    if pressed := results["analysis"]["bounds_hit"]:
        found = (
            f"{name} {number(bound['bound'])}, try {number(bound['widen_to'])}"
            for name, bound in pressed.items()
        )
        rows["best at a bound of the space"] = "; ".join(found)
    counts = results["n_trials"]
    spent = results["seconds"]
    rows |= {
        "trials": f"{counts.get('complete', 0)} complete, {counts.get('pruned', 0)} pruned",
        "time": f"{seconds:.0f} s in all; {spent['compilation']:.0f} s compiling, "
        f"{spent['training']:.0f} s training, {spent['evaluation']:.1f} s evaluating trials",
        "programs compiled": ", ".join(f"{k} {v}" for k, v in results["programs_compiled"].items()),
        "results": str(output),
    }
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  {text}" for name, text in rows.items()]
    verdict = "Not validated on fresh seeds." if validation is None else validation["verdict"]
    text = "\n".join(["", *lines, "", verdict])
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _validation_rows(validation: dict[str, Any]) -> dict[str, str]:
    """Return what a validation has found besides its verdict."""

    def text(estimate: dict[str, Any], form: str) -> str:
        if estimate["interval"] is None:
            return f"{estimate['value']:{form}}"
        low, high = estimate["interval"]
        return f"{estimate['value']:{form}}, 95% interval {low:{form}} to {high:{form}}"

    rows = {"winner": f"trial {validation['trial']}"}
    for name in ("winner", "baseline"):
        known = validation[name]
        scores = {group: known["scores"][group]["summary"] for group in known["scores"]}
        means = [
            f"{s['mean']['value']:.1f} {group}" for group, s in scores.items() if s is not None
        ]
        rows[f"score of the {name} by seeds"] = ", ".join(means)
        if known["optimism"] is not None:
            rows[f"optimism of the {name}"] = text(known["optimism"], "+.1f")
    learning, final = validation["over_training"], validation["comparison"]
    if learning is not None and learning["difference"] is not None:
        rows["winner − baseline over training"] = text(learning["difference"], "+.1f")
    if final is not None:
        rows["P(winner beats baseline)"] = text(final["probability_of_improvement"], ".2f")
    return rows


if __name__ == "__main__":
    main()
