"""Logging of a study to TensorBoard and Weights & Biases, one run per trial."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.programs import Checkpoint
from ppo_jax.tracking import Tracker, TrackingConfig
from tune.evidence.candidate import Candidate
from tune.protocol.plan import Plan
from tune.protocol.settings import Settings
from tune.report.console import ConsoleProgress


class TrackedProgress:
    """Passes a study's progress on to `progress` and logs its trials to the trackers of `config`.

    A context manager. An interrupted trial ends its run; when it is run again, its run starts
    over.

    Args:
      progress: receives every call.
      config: which trackers there are.
      output: folder of the study.
      study_name: the group of the runs.
    """

    def __init__(
        self, progress: ConsoleProgress, config: TrackingConfig, output: Path, study_name: str
    ) -> None:
        self._progress = progress
        self._config, self._output, self._study_name = config, output, study_name
        self._trackers: dict[int, Tracker] = {}

    def __enter__(self) -> "TrackedProgress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for tracker in self._trackers.values():
            tracker.close()

    def study_started(self, study: optuna.Study, settings: Settings, n_trials: int) -> None:
        """Pass the call on."""
        self._progress.study_started(study, settings, n_trials)

    def trial_started(self, trial: optuna.Trial) -> None:
        """Pass the call on."""
        self._progress.trial_started(trial)

    def checkpoint(self, trial: optuna.Trial, checkpoint: Checkpoint) -> None:
        """Log a checkpoint; the first one of a trial starts its run."""
        if trial.number not in self._trackers:
            self._trackers[trial.number] = Tracker(
                self._config,
                self._output,
                f"trial_{trial.number:03}",
                self._study_name,
                trial.user_attrs["hyperparameters"],
            )
        self._trackers[trial.number].checkpoint(checkpoint)
        self._progress.checkpoint(trial, checkpoint)

    def trial_finished(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Log the score and end the run."""
        tracker = self._trackers.pop(trial.number, None)
        if tracker is not None:
            if trial.state == TrialState.COMPLETE:
                tracker.log({"score": trial.values[0]})
            tracker.close()
        self._progress.trial_finished(study, trial)

    def proof_started(self, phase: str, plan: Plan, runs: Mapping[str, Candidate]) -> None:
        """Pass the call on."""
        self._progress.proof_started(phase, plan, runs)

    def seeds_checkpoint(
        self, name: str, first: int, stop: int, step: int, returns: np.ndarray
    ) -> None:
        """Pass the call on: finalists and validation are not tracked."""
        self._progress.seeds_checkpoint(name, first, stop, step, returns)

    def line(self, text: str) -> None:
        """Pass the call on."""
        self._progress.line(text)
