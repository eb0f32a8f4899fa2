"""``python -m tune.run``: tune PPO, prove the winner, leave results to look at."""

import contextlib
import dataclasses
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ppo_jax import command_line, presets
from ppo_jax.config import AgentConfig
from ppo_jax.errors import LARGEST_STEPS, UserError, require_count
from ppo_jax.tracking import TrackingConfig
from tune.protocol.settings import ADDRESS_VARIABLE, Settings
from tune.protocol.space import SearchSpace

if TYPE_CHECKING:
    from rich.console import Console


_LEFT_TO_ANOTHER = "another process on this study selects and validates at its end"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Tune the hyperparameters of PPO with Optuna and prove the winner on fresh seeds.

    Every trial trains one configuration on several seeds at once; trial 0 is the default
    configuration. The same command continues a study that was stopped.
    """

    preset: str | None = None
    """Start from the preset of this environment: it takes the place of the default
    configuration, and the search space is widened to hold it."""
    env: str = Settings.env
    """Environment to train on."""
    env_kwargs: tuple[str, ...] = ()
    """Environment parameters to override, as name=value: max_steps_in_episode=1000."""
    agent: Annotated[AgentConfig, tyro.conf.arg(name="")] = AgentConfig()
    trials: int = 20
    """Trials in all, the default configuration included."""
    quick: bool = False
    """Five trials, whatever --trials says."""
    seeds: int = Settings.seeds
    """Seeds of a trial, trained at once."""
    total_steps: int = Settings.total_steps
    """Environment steps of each seed."""
    eval_every: int = Settings.eval_every
    """Environment steps between checkpoints, where a trial is scored and may be pruned."""
    eval_episodes: int = Settings.eval_episodes
    """Episodes of each seed at a checkpoint."""
    objective: Literal["mean", "final", "tail"] = "mean"
    """Score of a trial: mean over all checkpoints, the final one, or the last third."""
    sampler: Literal["tpe", "random", "qmc", "cmaes", "gp", "grid"] = "tpe"
    """How configurations are chosen; cmaes and gp need the extra of their name."""
    sampler_startup_trials: int = Settings.sampler_startup_trials
    """Random trials before TPE, CMA-ES or GP begin to model."""
    grid_points: int = Settings.grid_points
    """Values of each range in a grid search."""
    pruner: Literal["median", "percentile", "hyperband", "none"] = "median"
    """How hopeless trials are stopped early."""
    pruner_startup_trials: int = Settings.pruner_startup_trials
    """Complete trials before the median or percentile pruner begins."""
    pruner_warmup_checkpoints: int = Settings.pruner_warmup_checkpoints
    """First checkpoints of a trial at which it is never pruned."""
    pruner_percentile: float = Settings.pruner_percentile
    """Share of trials that the percentile pruner keeps, in percent."""
    space: Path | None = None
    """TOML file that changes the search space."""
    storage: str | None = None
    """Where the study is kept: sqlite:///FILE for one process, journal:FILE for one host,
    postgresql://..., mysql://... or grpc://HOST:PORT for many. SQLite in the output folder if not
    given. An address with a password belongs in the environment variable PPO_JAX_TUNE_STORAGE."""
    study_name: str | None = None
    """Name of the study. The environment's name if not given."""
    workers: int = 1
    """Processes of this host that work on the study, each on its own share of the devices."""
    worker_timeout: float = 60.0
    """Seconds without a sign of life after which a worker counts as dead."""
    max_retries: int = 3
    """How often the configuration of a worker that died is run again by another."""
    output: Path | None = None
    """Folder for all results. runs/STUDY_NAME if not given."""
    seed: int = Settings.seed
    """Root of all random numbers."""
    select_top: int | None = None
    """Best trials that are run once more, with the default, on seeds of their own before one is
    named the winner; 0 to take the best trial as it is. 3 if not given."""
    select_seeds: int = 10
    """Fresh seeds for that choice. Each --seeds of them are trained at once."""
    validate_steps: int = 1_000_000
    """Environment steps of each seed when winner and default are compared; 0 for no comparison."""
    validate_seeds: int = 10
    """Fresh seeds for that comparison. Each --seeds of them are trained at once."""
    tracking: Annotated[TrackingConfig, tyro.conf.arg(name="")] = TrackingConfig()
    reference_score: float | None = None
    """An earlier result to draw and report beside the study's own."""

    def settings(self) -> Settings:
        """Return the protocol of the study."""
        space = SearchSpace()
        if self.preset is not None:
            base = presets.load(self.preset).hyperparameters
            space = SearchSpace.around(base, self.agent.num_envs)
        own = {f.name for f in dataclasses.fields(Settings)} - {"env_kwargs", "space"}
        return Settings(
            env_kwargs=command_line.parse_env_kwargs(self.env_kwargs),
            space=space if self.space is None else space.changed_by_file(self.space),
            **{name: getattr(self, name) for name in own},
        )


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m tune.run``."""
    args = sys.argv[1:] if args is None else args
    arguments = command_line.parse(Arguments, "python -m tune.run", args)
    if arguments.storage is None:
        arguments = dataclasses.replace(arguments, storage=os.environ.get(ADDRESS_VARIABLE))
    how_to_continue = "; what has finished is kept, the same command continues"
    if arguments.workers != 1:
        command_line.run(lambda: _share(arguments), how_to_continue)
        # With the trials done, one process is left to prove the winner, on all devices. A new
        # one, because this one has no backend and could not start one any more.
        os.execv(sys.executable, [sys.executable, "-m", "tune.run", *args, "--workers", "1"])
    command_line.run(lambda: _run(arguments), how_to_continue)


def _checked(arguments: Arguments) -> tuple[Settings, int, int]:
    """Return the settings, the number of trials and how many of the best to select from."""
    n_trials = 5 if arguments.quick else arguments.trials
    require_count("--trials", n_trials)
    arguments.tracking.require_packages()
    select_top = min(3, n_trials) if arguments.select_top is None else arguments.select_top
    require_count("--select-top", select_top, low=0)
    if select_top > n_trials:
        raise UserError(
            f"--select-top must be at most the number of trials, but got --select-top {select_top} "
            f"with {n_trials} trials"
        )
    require_count("--select-seeds", arguments.select_seeds)
    require_count("--validate-steps", arguments.validate_steps, low=0, high=LARGEST_STEPS)
    require_count("--validate-seeds", arguments.validate_seeds)
    require_count("--workers", arguments.workers)
    if arguments.workers > 1 and (arguments.storage or "").startswith("sqlite"):
        raise UserError(
            "SQLite serves one process, but got --workers "
            f"{arguments.workers}; leave --storage out, or use journal:, postgresql: or mysql:"
        )
    require_count("--max-retries", arguments.max_retries, low=0)
    if not 1 <= arguments.worker_timeout < math.inf:
        raise UserError(
            f"--worker-timeout must be at least 1 second, but got {arguments.worker_timeout}"
        )
    settings = arguments.settings()
    settings.checkpoints(arguments.validate_steps)
    return settings, n_trials, select_top


def _share(arguments: Arguments) -> None:
    """Have workers run the trials."""
    settings, n_trials, _ = _checked(arguments)
    import jax

    # The devices are for the workers: in this process not even an import may take one.
    jax.config.update("jax_platforms", "cpu")
    import optuna
    from rich.console import Console

    from tune.report.console import ConsoleProgress
    from tune.report.files import save_optimization_results
    from tune.search.leases import TrialLeases
    from tune.search.study import address_of, default_output, open_study
    from tune.workers.launcher import run_workers

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study_name = arguments.study_name or settings.env
    output = arguments.output or default_output(study_name)
    progress = ConsoleProgress(Console())
    with open_study(
        settings,
        output=output,
        storage=arguments.storage,
        study_name=study_name,
        workers=arguments.workers,
    ) as study:
        progress.study_started(study, settings, n_trials)
        request = {
            "n_trials": n_trials,
            "settings": settings.to_dict(),
            "output": str(output),
            "storage": address_of(study),
            "study_name": study_name,
            "worker_timeout": arguments.worker_timeout,
            "max_retries": arguments.max_retries,
            "tracking": dataclasses.asdict(arguments.tracking),
        }
        try:
            run_workers(arguments.workers, request, progress.line)
        except KeyboardInterrupt:
            # Of workers that were killed; the others have given back their trials.
            TrialLeases(study, arguments.worker_timeout, arguments.max_retries).fail_stale_trials()
            save_optimization_results(study, output)
            raise


def _run(arguments: Arguments) -> None:
    start = time.perf_counter()
    settings, n_trials, select_top = _checked(arguments)

    command_line.start_backend()
    import optuna
    from rich.console import Console

    from tune.evidence.selection import select_winner
    from tune.evidence.validation import train_best_config
    from tune.report.console import ConsoleProgress
    from tune.report.files import save_optimization_results
    from tune.report.tracking import TrackedProgress
    from tune.search.objective import programs_for
    from tune.search.storage import is_shared
    from tune.search.study import (
        HeldError,
        address_of,
        best_trial,
        default_output,
        held,
        record_compilations,
        run_optimization,
    )

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study_name = arguments.study_name or settings.env
    output = arguments.output or default_output(study_name)
    console = Console()
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(ConsoleProgress(console))
        tracked = stack.enter_context(
            TrackedProgress(progress, arguments.tracking, output, study_name)
        )
        try:
            study = run_optimization(
                n_trials,
                settings,
                output=output,
                storage=arguments.storage,
                study_name=study_name,
                progress=tracked,
                worker_timeout=arguments.worker_timeout,
                max_retries=arguments.max_retries,
            )
        except HeldError:
            if arguments.storage is None or not is_shared(arguments.storage):
                raise
            progress.line(_LEFT_TO_ANOTHER)  # It came to the end while this one started.
            return
        except KeyboardInterrupt:
            if progress.study is not None:
                save_optimization_results(progress.study, output)
            raise
        try:
            stack.enter_context(held(output, shared=False))
        except HeldError:
            if not is_shared(address_of(study)):
                raise
            # Its trials may still be running, so only the last one can name the winner.
            progress.line(_LEFT_TO_ANOTHER)
            return
        results = save_optimization_results(study, output)
        best = best_trial(study)
        selection = validation = None
        if best is not None and select_top:
            seeds = arguments.select_seeds
            progress.line(
                f"selection: the {select_top} best trials and the defaults on {seeds} fresh seeds "
                f"× {settings.total_steps:,} steps"
            )
            selection = select_winner(
                study, select_top, seeds, output=output, observer=progress.seeds_checkpoint
            )
        if best is not None and arguments.validate_steps:
            number = best.number if selection is None else selection.winner.trial
            seeds = arguments.validate_seeds
            progress.line(
                f"validation: trial {number} and the defaults on {seeds} fresh seeds "
                f"× {arguments.validate_steps:,} steps"
            )
            validation = train_best_config(
                study.trials[number].user_attrs["hyperparameters"],
                arguments.validate_steps,
                settings=settings,
                seeds=seeds,
                output=output,
                study=study,
                selection=selection,
                observer=progress.seeds_checkpoint,
            ).to_dict()
        if selection is not None or validation is not None:
            record_compilations(study, programs_for(settings.config, settings.seeds))
            results = save_optimization_results(study, output)
    _print_summary(console, settings, results, validation, output, time.perf_counter() - start)


def _print_summary(
    console: "Console",
    settings: Settings,
    results: dict[str, Any],
    validation: dict[str, Any] | None,
    output: Path,
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
