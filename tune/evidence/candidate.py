"""A configuration that may win, with the trial that found it and its returns on fresh seeds."""

import dataclasses
import functools
from typing import Any

import numpy as np

from ppo_jax.config import AgentConfig
from ppo_jax.hyperparameters import Hyperparameters
from tune.evidence.learning_curve import TUNING_SEEDS, VALIDATION_SEEDS, LearningCurve
from tune.evidence.statistics import Estimate, Summary, compare, summarize
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration
from tune.protocol.trials import TrialRecord


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A configuration and all that is known of it.

    Attributes:
      settings: of the study.
      configuration: what is trained.
      is_baseline: whether it is the default configuration.
      trial: the trial that found it; None for a configuration that no trial has run.
      finalist: returns on the tuning seeds, trained as far as a validation; None where it was
        no finalist.
      validation: returns on the validation seeds; None where it has not been trained there.
    """

    settings: Settings
    configuration: Configuration
    is_baseline: bool = False
    trial: TrialRecord | None = None
    finalist: LearningCurve | None = None
    validation: LearningCurve | None = None

    @classmethod
    def of_trial(cls, trial: TrialRecord, settings: Settings) -> "Candidate":
        """Return the configuration of a complete trial."""
        found = trial.configuration(settings)
        assert found is not None, "a complete trial has a configuration"
        return cls(settings, found, trial.is_baseline, trial)

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The traced half of the configuration."""
        return self.configuration.hyperparameters

    @property
    def agent(self) -> AgentConfig:
        """The static half of the configuration."""
        return self.configuration.agent

    @property
    def own_agent(self) -> dict[str, Any] | None:
        """The agent as results files hold it where the space tunes it, else None."""
        return self.agent.to_dict() if self.settings.space.tuned_agent else None

    @property
    def number(self) -> int | None:
        """Number of its trial, if any."""
        return None if self.trial is None else self.trial.number

    @property
    def finals(self) -> LearningCurve:
        """Returns on the tuning seeds of a candidate that has been trained as a finalist."""
        assert self.finalist is not None, "it has not been trained as a finalist"
        return self.finalist

    @property
    def validated(self) -> LearningCurve:
        """Returns on the validation seeds of a candidate that has been trained there."""
        assert self.validation is not None, "it has not been trained on validation seeds"
        return self.validation

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """The study's objective of each seed, group of seeds -> float ``[seeds]``.

        ``tuning`` and ``validation``, as far as they are known, all at equal steps; NaN for a
        diverged seed.
        """
        curves = {
            TUNING_SEEDS: None if self.trial is None else LearningCurve.of_trial(self.trial),
            VALIDATION_SEEDS: self.validation,
        }
        scores = {
            group: curve.scores(self.settings)
            for group, curve in curves.items()
            if curve is not None
        }
        return {group: values for group, values in scores.items() if values is not None}

    @functools.cached_property
    def summary(self) -> Summary | None:
        """Summary of the levels reached in the validation; None if every seed diverged."""
        return summarize(self.validated.level)

    @property
    def optimism(self) -> Estimate | None:
        """How much better it looked in tuning than on validation seeds, at equal steps."""
        scores = self.scores
        if not {TUNING_SEEDS, VALIDATION_SEEDS} <= set(scores):
            return None
        return compare(scores[TUNING_SEEDS], scores[VALIDATION_SEEDS]).difference
