"""The one object that terminal, JSON files, pictures, report.html and dashboard are written from.

It holds what a study has found and adds counts and sums. :mod:`tune.report.summary` turns it
into JSON, :mod:`tune.report.files` into the files of a folder.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from optuna.trial import TrialState

from ppo_jax.text import decimals
from ppo_jax.versions import device_description, versions
from tune.analysis.analysis import Analysis, analyse
from tune.evidence.candidate import Candidate
from tune.evidence.finalists import Finalists
from tune.evidence.learning_curve import LearningCurve
from tune.evidence.recommendation import Recommendation
from tune.evidence.statistics import Estimate, difference_of_means
from tune.evidence.validation import Validation
from tune.protocol.settings import Settings
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord, TrialRecord

NOT_VALIDATED = "Not validated on fresh seeds."
"""What stands in place of a verdict before there is one."""


@dataclasses.dataclass(frozen=True, repr=False)
class StudyResults:
    """Everything that is known of a study.

    Attributes:
      study: its trials and what its processes compiled.
      analysis: of the trials.
      finalists: and the winner among them; None if there are none, or they are of an earlier
        state of the study.
      validation: of the winner; None likewise.
      folder: of the study, where it is known.
      films: ``winner`` and ``baseline``, as far as they have been filmed -> a GIF.
      written: the moment of the results.
    """

    study: StudyRecord
    analysis: Analysis
    finalists: Finalists | None = None
    validation: Validation | None = None
    folder: StudyFolder | None = None
    films: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    written: datetime = dataclasses.field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def of(
        cls,
        study: StudyRecord,
        finalists: Finalists | None = None,
        validation: Validation | None = None,
    ) -> "StudyResults":
        """Analyse the trials of `study` and return its results.

        The analysis takes seconds. Once there is more to show of the same trials, use
        :func:`dataclasses.replace` instead of a second call.
        """
        return cls(study, analyse(study.trials, study.settings), finalists, validation)

    @classmethod
    def without_analysis(
        cls,
        study: StudyRecord,
        finalists: Finalists | None = None,
        validation: Validation | None = None,
    ) -> "StudyResults":
        """Return the results of a study that was interrupted, in no time."""
        analysis = Analysis.skipped(study.trials, study.settings)
        return cls(study, analysis, finalists, validation)

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.study.name

    @property
    def settings(self) -> Settings:
        """Settings of the study."""
        return self.study.settings

    @property
    def trials(self) -> Sequence[TrialRecord]:
        """All trials in the order of their numbers, in any state."""
        return self.study.trials

    @property
    def finished(self) -> Sequence[TrialRecord]:
        """The complete and the pruned trials."""
        return self.study.finished

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the best score on tuning seeds; None if no trial is complete."""
        return self.study.best

    @property
    def best_score(self) -> float | None:
        """Score of :attr:`best`."""
        return None if self.best is None else self.best.score

    @property
    def baseline(self) -> TrialRecord | None:
        """The trial of the default hyperparameters; None before it has finished."""
        return self.study.baseline

    @property
    def baseline_score(self) -> float | None:
        """Score of :attr:`baseline`."""
        return None if self.baseline is None else self.baseline.score

    @property
    def decimals(self) -> int:
        """How many its scores, and what is compared with them, are shown with."""
        scores = self.best_score, self.baseline_score
        return decimals(*(score for score in scores if score is not None))

    @functools.cached_property
    def gain(self) -> Estimate | None:
        """By how much the best trial exceeds the baseline on tuning seeds.

        Optimistic, as the best of many is partly luck; None if one of the two is missing, or the
        baseline is the best itself.
        """
        if self.best is None or self.baseline is None or self.best is self.baseline:
            return None
        curves = [LearningCurve.of_trial(trial) for trial in (self.best, self.baseline)]
        best, baseline = (curve.scores(self.settings) for curve in curves)
        if best is None or baseline is None:
            return None
        return difference_of_means(best, baseline)

    @property
    def winner(self) -> Candidate | None:
        """The winner: of the validation or, before one, of the finalists; else None."""
        for proof in (self.validation, self.finalists):
            if proof is not None:
                return proof.winner
        return None

    @property
    def recommendation(self) -> Recommendation | None:
        """The configuration to use; None before a validation."""
        return None if self.validation is None else Recommendation(self.validation.verdict)

    @property
    def verdict(self) -> str | None:
        """The verdict of the validation in a sentence or two; None before a validation."""
        return None if self.validation is None else self.validation.sentence

    @property
    def counts(self) -> dict[str, int]:
        """State in lower case -> number of trials, for the states that occur."""
        counts = dict.fromkeys(TrialState, 0)
        for trial in self.trials:
            counts[trial.state] += 1
        return {state.name.lower(): count for state, count in counts.items() if count}

    @property
    def environment_steps(self) -> int:
        """Environment steps of all trials and seeds together."""
        return sum(trial.environment_steps for trial in self.trials)

    @property
    def seconds(self) -> dict[str, float]:
        """Wall clock of ``trials``, ``compilation``, ``training`` and ``evaluation``."""
        return {
            "trials": sum(trial.seconds or 0 for trial in self.trials),
            "compilation": sum(log["seconds"] for log in self.study.compilations),
            "training": sum(trial.training_seconds or 0 for trial in self.trials),
            "evaluation": sum(trial.evaluation_seconds or 0 for trial in self.trials),
        }

    @property
    def programs_compiled(self) -> dict[str, int]:
        """Program -> compilations, in the process that compiled it most often."""
        logs = [log["programs"] for log in self.study.compilations]
        names = sorted({name for programs in logs for name in programs})
        return {name: max(programs.get(name, 0) for programs in logs) for name in names}

    @property
    def made_with(self) -> Mapping[str, Any]:
        """``versions`` and ``device`` of the last process that worked on the study."""
        here = {"versions": versions(), "device": device_description()}
        return here | dict(self.study.compilations[-1]) if self.study.compilations else here

    def __repr__(self) -> str:
        return f"<StudyResults {self.title}; {self.verdict or NOT_VALIDATED}>"

    @property
    def title(self) -> str:
        """Name of the study, and how many trials it has."""
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        return f"{self.name}: {counts or 'no'} trials"


def shown_score(trial: TrialRecord) -> float | None:
    """Return a trial's score; for a pruned one, its mean return at the last checkpoint.

    None if it has neither, or every seed has diverged.
    """
    if trial.is_complete:
        return trial.score
    value = trial.last_mean if trial.is_pruned else None
    return None if value is None or math.isnan(value) else value
