"""Peak memory of a process over a study of many small trials: ``python -m benchmarks.memory``."""

import dataclasses
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Table
from ppo_jax import command_line
from ppo_jax.errors import require_count


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Print how the peak memory of a study grows with its trials."""

    first: int = 10
    """Trials before the first measurement."""
    trials: int = 100
    """Trials of the study."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.memory``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.memory", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    require_count("--first", arguments.first)
    require_count("--trials", arguments.trials, low=arguments.first)
    command_line.start_backend()
    console = measuring.make_console()
    peaks = measure(arguments.first, arguments.trials)
    table = Table("Peak resident memory of a study", ("after", "MB"))
    for trials, peak in peaks.items():
        table.add(f"{trials} trials", f"{peak / 1e6:.0f}")
    ratio = peaks[arguments.trials] / peaks[arguments.first]
    table.add("growth", f"{100 * (ratio - 1):+.1f}%")
    table.print(console)
    console.print(measuring.machine(measuring.setting()), soft_wrap=True)


def measure(first: int, trials: int) -> dict[int, int]:
    """Return number of trials -> peak in bytes, at `first` and every tenth of `trials`."""
    import optuna

    from tune.protocol.settings import Settings
    from tune.search.study import run_optimization

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = Settings(total_steps=4096, eval_every=2048, seeds=2, eval_episodes=4, pruner="none")
    memory = _Memory({first, trials, *range(first, trials, max(1, trials // 10))})
    with tempfile.TemporaryDirectory() as folder:
        run_optimization(trials, settings, output=folder, progress=memory)
    return memory.peaks


class _Memory:
    """Progress of a study that records the peak memory of the process."""

    def __init__(self, at: set[int]) -> None:
        self.peaks: dict[int, int] = {}
        self._at = at
        self._finished = 0

    def trial_finished(self, *_: Any) -> None:
        self._finished += 1
        if self._finished in self._at:
            self.peaks[self._finished] = measuring.peak_memory()

    def study_started(self, *_: Any) -> None: ...
    def trial_started(self, *_: Any) -> None: ...
    def checkpoint(self, *_: Any) -> None: ...


if __name__ == "__main__":
    main()
