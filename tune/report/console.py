"""What a person sees while a study runs: a line a trial, and a status line on a terminal."""

import time
from types import TracebackType

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.status import Status

from ppo_jax.programs import Checkpoint
from tune.protocol.settings import Settings
from tune.protocol.trials import FINISHED, StudyRecord, is_baseline

_SHORT = {
    "learning_rate": "lr",
    "gamma": "γ",
    "gae_lambda": "λ",
    "clip_epsilon": "ε",
    "value_coef": "vf",
    "entropy_coef": "ent",
    "max_grad_norm": "norm",
    "n_steps": "steps",
    "batch_size": "batch",
    "n_epochs": "epochs",
    "anneal_learning_rate": "anneal-lr",
    "anneal_entropy_coef": "anneal-ent",
    "clip_value_loss": "clip-vf",
}


class ConsoleProgress:
    """Tells a study's progress on a console; plain lines where it is no terminal.

    A context manager: the status line is gone after it.

    Args:
      console: where.
      heading: tell the study before its trials.
    """

    def __init__(self, console: Console, heading: bool = True) -> None:
        self._heading = heading
        self.study: optuna.Study | None = None
        self._console = console
        self._status: Status | None = None
        self._n_trials = self._finished = self._finished_before = 0
        self._new_trials: list[float] = []
        self._best: float | None = None
        self._trial_start = 0.0
        self._title = ""
        self._checkpoints: list[str] = []

    def __enter__(self) -> "ConsoleProgress":
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def study_started(self, study: optuna.Study, settings: Settings, n_trials: int) -> None:
        self.study = study
        self._n_trials = n_trials
        self._finished = self._finished_before = _count_finished(study)
        best = StudyRecord.of(study).best
        self._best = None if best is None else best.score
        if not self._heading:
            return
        self.line(
            f"study {study.study_name!r}: {settings.env}, {n_trials} trials of "
            f"{settings.seeds} seeds × {settings.total_steps:,} steps, "
            f"{settings.sampler} sampler, {settings.pruner} pruner"
        )
        if self._finished:
            self.line(f"{self._finished} trials are already there; continuing")
        for name, (default, value) in settings.space.moved_defaults().items():
            self.line(f"the baseline uses {name} = {value}: the space has no {default}")
        if self._finished < n_trials:
            self.line("compiling the programs, once for the whole study")

    def trial_started(self, trial: optuna.Trial) -> None:
        self._trial_start = time.perf_counter()
        self._title = f"trial {trial.number:>2}"
        self._checkpoints = []
        self._show("training")

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        returns = checkpoint.returns[np.isfinite(checkpoint.returns)]
        mean = f"{returns.mean():.1f}" if len(returns) else "diverged"
        self._checkpoints.append(f"{checkpoint.step // 1000}k {mean}")
        self._show("  ".join(self._checkpoints))

    def trial_finished(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._finished = _count_finished(study)
        self._new_trials.append(time.perf_counter() - self._trial_start)
        best = StudyRecord.of(study).best
        self._best = None if best is None else best.score
        score = f"{trial.value:7.1f}" if trial.state == TrialState.COMPLETE else " pruned"
        configuration = "defaults" if is_baseline(trial) else _in_short(trial)
        diverged = trial.user_attrs.get("diverged_seeds")
        self.line(
            f"{self._title} {score}  {'  '.join(self._checkpoints)}  | {configuration}"
            f"{f' | diverged seeds: {len(diverged)}' if diverged else ''}"
            f" | {self._best_so_far()} | {self._new_trials[-1]:.1f} s, {self._time_left()}"
        )

    def seeds_checkpoint(
        self, name: str, first: int, stop: int, step: int, returns: np.ndarray
    ) -> None:
        """Tell a checkpoint of seeds `first` to `stop` - 1 of a selection or validation run."""
        text = f"{name}, seeds {first}–{stop - 1}: {step:,} steps"
        finite = returns[np.isfinite(returns)]
        text += f", return {finite.mean():.1f}" if len(finite) else ", diverged"
        if self._status is not None:
            self._status.update(text)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _show(self, text: str) -> None:
        if self._status is not None:
            self._status.update(
                f"{self._title} of {self._n_trials}: {text}  ({self._best_so_far()}, "
                f"{self._time_left()})"
            )

    def _best_so_far(self) -> str:
        return "no score yet" if self._best is None else f"best {self._best:.1f}"

    def _time_left(self) -> str:
        if not self._new_trials:
            return "time left unknown"
        # The first trial holds the compilation, so it counts only while it is alone.
        known = self._new_trials[1:] or self._new_trials
        # Others on the same study finish trials as well.
        share = len(self._new_trials) / max(1, self._finished - self._finished_before)
        seconds = max(0, self._n_trials - self._finished) * share * sum(known) / len(known)
        return f"{seconds:.0f} s left" if seconds < 100 else f"{seconds / 60:.0f} min left"


def _count_finished(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def _in_short(trial: FrozenTrial) -> str:
    return " ".join(
        f"{_SHORT.get(name, name)} {f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in trial.params.items()
    )
