"""``python -m benchmarks.suggestions``: what the next configuration of a study costs.

A study of many trials is made up, without training. Then each sampler is asked for the next trial,
in CPU time of this process on one core: reading the trials, fitting the model, proposing.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import measuring
from benchmarks.measuring import Table
from ppo_jax import command_line
from ppo_jax.errors import require_choice
from ppo_jax.hyperparameters import Hyperparameters
from tune.protocol.settings import Settings
from tune.protocol.space import SPACES
from tune.search.samplers import SAMPLERS

if TYPE_CHECKING:
    import optuna

    from ppo_jax.programs import Checkpoint


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Print the CPU milliseconds of a suggestion."""

    trials: tuple[int, ...] = (20, 50, 100, 200)
    """Finished trials of the study."""
    samplers: tuple[str, ...] = ("gp", "tpe")
    """Samplers to ask."""
    rounds: int = 5
    """Suggestions, of which the median counts."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.suggestions``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.suggestions", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    measuring.require_counts(arguments, "trials", "rounds")
    for sampler in arguments.samplers:
        require_choice("--samplers", sampler, SAMPLERS)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    command_line.start_backend()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    console = measuring.make_console()
    table = Table(
        "CPU milliseconds of a suggestion, on one core",
        ("sampler, space", *(f"{count} trials" for count in sorted(arguments.trials))),
    )
    for space in SPACES:
        costs: dict[str, list[float]] = {sampler: [] for sampler in arguments.samplers}
        for study in studies_of(Settings(space=space), sorted(arguments.trials)):
            for sampler, found in costs.items():
                settings = Settings(space=space, sampler=sampler)
                found.append(milliseconds(study, settings, arguments.rounds))
        for sampler, found in costs.items():
            table.add(f"{sampler}, {space}", *(f"{cost:.1f}" for cost in found))
    table.print(console)
    console.print(measuring.machine(measuring.setting()), soft_wrap=True)


def milliseconds(study: "optuna.Study", settings: Settings, rounds: int) -> float:
    """Return the median CPU milliseconds that the sampler of `settings` needs for a trial."""
    import optuna

    from tune.search.samplers import make_sampler

    costs = []
    for number in range(rounds):
        copy = optuna.create_study(
            direction="maximize",
            sampler=make_sampler(dataclasses.replace(settings, seed=number)),
        )
        copy.add_trials(study.get_trials(deepcopy=False))
        start = time.process_time()
        settings.space.suggest(copy.ask())
        costs.append(1000 * (time.process_time() - start))
    return statistics.median(costs)


def studies_of(settings: Settings, counts: Sequence[int]) -> Iterator["optuna.Study"]:
    """Yield one study again and again, when it has each number of finished trials."""
    import optuna
    from optuna.trial import TrialState

    from tune.search.objective import objective
    from tune.search.pruners import make_pruner

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=make_pruner(settings),
    )
    study.set_user_attr("settings", settings.to_dict())
    for count in counts:
        while len(study.get_trials(deepcopy=False)) < count:
            trial = study.ask()
            try:
                study.tell(trial, objective(trial, settings, programs=_Formula()))
            except optuna.TrialPruned:
                study.tell(trial, state=TrialState.PRUNED)
        yield study


class _Formula:
    """Takes the place of programs: returns rise to a height that the learning rate sets."""

    def run(
        self, keys: Any, hyperparameters: Hyperparameters, checkpoints: Sequence[int]
    ) -> Iterator["Checkpoint"]:
        """Yield checkpoints as :meth:`ppo_jax.programs.Programs.run` does."""
        from ppo_jax.programs import Checkpoint

        rng = np.random.default_rng(round(1e9 * hyperparameters.gamma))
        height = 100 - 30 * abs(np.log10(hyperparameters.learning_rate / 3e-4))
        for step in checkpoints:
            returns = height * step / checkpoints[-1] + rng.normal(0, 5, len(keys))
            nothing: Any = None
            yield Checkpoint(step, step, returns, nothing, nothing, 0.0, 0.0)


if __name__ == "__main__":
    main()
