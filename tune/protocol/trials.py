"""What a study and its trials hold, and the names it is stored under.

The rest of the package sees records: read once, frozen, independent of the storage. Only
:mod:`tune.search` talks to Optuna about trials that are still running.
"""

import dataclasses
import functools
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.config import AgentConfig
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import CompileLog
from ppo_jax.versions import device_description, versions
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration
from tune.protocol.stored import named, number, numbers, table

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

BEGAN = "began_at_block"
"""Attribute of a trial that trained beside others: what the schedule's clock said."""

_FORMER_NAMES = {
    "returns": "scores",
    "heartbeat": "beat",
    "attempts": "deaths",
    "released": "given_back",
}
"""Attribute -> the name under which earlier studies stored it; read, never written."""

_COMPILATIONS = "compilations:"
_PROCESS = uuid.uuid4().hex[:8]


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """A trial as the storage held it at one moment.

    Attributes:
      number: of the trial in its study.
      state: Optuna's.
      is_baseline: whether it runs the default hyperparameters.
      params: what the sampler suggested, parameter -> value.
      distributions: where it suggested from, parameter -> distribution.
      hyperparameters: the whole configuration; None before the trial has begun.
      agent: where the space tunes it; None where it is that of the settings.
      score: the objective's value of a complete trial, else None.
      means: nominal step -> mean return over the seeds that have not diverged.
      returns: nominal step -> return of every seed, float ``[seeds]``; NaN for a diverged one.
      diverged_seeds: seeds whose last return is not finite.
      environment_steps: taken by all seeds together.
      training_seconds, evaluation_seconds: compilation apart; None before the first checkpoint.
      interrupted: how often it was interrupted and run again.
      started, finished: moments, None where they have yet to come.
    """

    number: int
    state: TrialState
    is_baseline: bool
    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    hyperparameters: Hyperparameters | None
    score: float | None
    means: Mapping[int, float]
    returns: Mapping[int, np.ndarray]
    diverged_seeds: Sequence[int]
    environment_steps: int
    training_seconds: float | None
    evaluation_seconds: float | None
    interrupted: int
    started: datetime | None
    finished: datetime | None
    agent: AgentConfig | None = None

    @classmethod
    def of(cls, trial: FrozenTrial) -> "TrialRecord":
        """Return the record of one of Optuna's trials.

        Raises:
          UserError: naming the trial and an attribute that somebody else has stored or edited.
        """
        attributes = trial.user_attrs
        with named(f"trial {trial.number}"):
            configuration = attributes.get("hyperparameters")
            if configuration is not None:
                table(configuration, "hyperparameters")
            agent = attributes.get("agent")
            if agent is not None:
                table(agent, "agent")
            returns = _returns(attribute(trial, "returns", {}))
            if trial.state == TrialState.COMPLETE:
                number(trial.value, "its score")
            numbers(attributes.get("diverged_seeds", []), "diverged_seeds")
            for name in ("environment_steps", "interrupted"):
                number(attributes.get(name, 0), name)
            for name in ("training_seconds", "evaluation_seconds"):
                if attributes.get(name) is not None:
                    number(attributes[name], name)
        return cls(
            number=trial.number,
            state=trial.state,
            is_baseline=is_baseline(trial),
            params=trial.params,
            distributions=trial.distributions,
            hyperparameters=(
                None if configuration is None else Hyperparameters.from_dict(configuration)
            ),
            agent=None if agent is None else AgentConfig.from_dict(agent),
            score=trial.value if trial.state == TrialState.COMPLETE else None,
            means=dict(sorted(trial.intermediate_values.items())),
            returns=returns,
            diverged_seeds=attributes.get("diverged_seeds", []),
            environment_steps=attributes.get("environment_steps", 0),
            training_seconds=attributes.get("training_seconds"),
            evaluation_seconds=attributes.get("evaluation_seconds"),
            interrupted=attributes.get("interrupted", 0),
            started=trial.datetime_start,
            finished=trial.datetime_complete,
        )

    def configuration(self, settings: Settings) -> Configuration | None:
        """Return what it trains; None before it has begun."""
        if self.hyperparameters is None:
            return None
        return Configuration(self.hyperparameters, self.agent or settings.space.fixed_agent)

    def in_space(self, settings: Settings) -> "TrialRecord":
        """Return the same trial with the parameters that the space has for its configuration.

        Those of a trial from before the space was widened are others, and what the space has
        repaired has been suggested otherwise. Unchanged where it lies outside the space.
        """
        configuration = self.configuration(settings)
        if configuration is None or not self.is_finished:
            return self
        params = settings.space.encode(configuration)
        if params is None or params == self.params:
            return self
        return dataclasses.replace(
            self, params=params, distributions=settings.space.distributions()
        )

    @property
    def is_complete(self) -> bool:
        """Whether it was trained to its end and has a score."""
        return self.state == TrialState.COMPLETE

    @property
    def is_pruned(self) -> bool:
        """Whether it was stopped early."""
        return self.state == TrialState.PRUNED

    @property
    def is_finished(self) -> bool:
        """Whether it is complete or pruned."""
        return self.state in FINISHED

    @property
    def last_mean(self) -> float | None:
        """Mean return at its last checkpoint, None before the first."""
        return self.means[max(self.means)] if self.means else None

    @property
    def seconds(self) -> float | None:
        """Wall clock from its start to its end; None where it has none.

        Of a trial that was interrupted, what its last run has trained and evaluated: nobody was
        at work in between.
        """
        if self.started is None or self.finished is None:
            return None
        if self.interrupted and self.training_seconds is not None:
            return self.training_seconds + (self.evaluation_seconds or 0.0)
        return (self.finished - self.started).total_seconds()


def _returns(stored: Any) -> dict[int, np.ndarray]:
    """Return nominal step -> returns, as a trial stores them."""
    for step in table(stored, "returns"):
        if not (str(step).isascii() and str(step).isdecimal()):
            raise UserError(f"returns must have steps as keys, but got {step!r}")
    return {int(s): numbers(stored[s], f"returns.{s}") for s in sorted(stored, key=int)}


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials, the highest score first.

    Of equals, the one with the larger area under its learning curve, then the earlier one.
    """

    def rank(trial: TrialRecord) -> tuple[float, float, int]:
        assert trial.score is not None, "a complete trial has a score"
        means = trial.means or {0: trial.score}  # Another hand may have added it without any.
        area = learning_area(list(means), list(means.values()))
        return trial.score, area, -trial.number

    return sorted((t for t in trials if t.is_complete), key=rank, reverse=True)


@dataclasses.dataclass(frozen=True)
class StudyRecord:
    """A study as its storage held it at one moment.

    Attributes:
      name: of the study.
      settings: its protocol.
      trials: all of them in the order of their numbers, whatever their states.
      compilations: what each process that worked on it has recorded with
        :func:`record_compilations`.
    """

    name: str
    settings: Settings
    trials: Sequence[TrialRecord]
    compilations: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, study: optuna.Study) -> "StudyRecord":
        """Return the record of one of Optuna's studies.

        Raises:
          UserError: for a study that does not maximize, or whose attributes were edited.
        """
        require_maximize(study)
        settings = settings_of(study) or Settings()
        with named(f"study {study.study_name!r}"):
            return cls(
                name=study.study_name,
                settings=settings,
                trials=[
                    TrialRecord.of(trial).in_space(settings)
                    for trial in study.get_trials(deepcopy=False)
                ],
                compilations=compilations(study),
            )

    @functools.cached_property
    def ranked(self) -> Sequence[TrialRecord]:
        """The complete trials, the best first; see :func:`ranked`."""
        return ranked(self.trials)

    @property
    def best(self) -> TrialRecord | None:
        """The best trial on tuning seeds; None where no trial is complete."""
        return next(iter(self.ranked), None)

    @property
    def baseline(self) -> TrialRecord | None:
        """The first finished trial of the default hyperparameters."""
        return next((t for t in self.trials if t.is_baseline and t.is_finished), None)

    @property
    def finished(self) -> Sequence[TrialRecord]:
        """The trials that are complete or pruned."""
        return [trial for trial in self.trials if trial.is_finished]


def record_compilations(study: optuna.Study, log: CompileLog) -> None:
    """Store with `study` what this process has compiled so far, and with what."""
    if log.programs:
        study.set_user_attr(
            _COMPILATIONS + _PROCESS,
            {
                "programs": log.programs,
                "seconds": log.seconds,
                "versions": versions(),
                "device": device_description(),
            },
        )


def compilations(study: optuna.Study) -> list[dict[str, Any]]:
    """Return what each process has recorded with :func:`record_compilations`.

    Raises:
      UserError: naming what somebody else has stored or edited.
    """
    logs = [(name, log) for name, log in study.user_attrs.items() if name.startswith(_COMPILATIONS)]
    for name, log in logs:
        with named(name):
            number(table(log, "the record").get("seconds"), "seconds")
            for program, count in table(log.get("programs"), "programs").items():
                number(count, f"programs.{program}")
            for other in ("versions", "device"):
                table(log.get(other, {}), other)
    return [log for _, log in logs]


def learning_area(steps: Sequence[int], means: Sequence[float]) -> float:
    """Return the area under a learning curve over its width: the mean height.

    >>> learning_area([10, 20, 30], [0.0, 1.0, 1.0])
    0.75
    """
    if len(steps) == 1:
        return float(means[0])
    return float(np.trapezoid(means, steps) / (steps[-1] - steps[0]))


def attribute(trial: FrozenTrial | optuna.Trial, name: str, default: Any = None) -> Any:
    """Return a user attribute of `trial`, also one stored under its former name."""
    attributes = trial.user_attrs
    return attributes.get(name, attributes.get(_FORMER_NAMES.get(name, name), default))


def require_maximize(study: optuna.Study) -> None:
    """Raise a ``UserError`` unless `study` maximizes one objective, as returns ask for."""
    if study.directions != [StudyDirection.MAXIMIZE]:
        found = ", ".join(direction.name.lower() for direction in study.directions)
        raise UserError(
            f"a return is maximized, but study {study.study_name!r} has the direction {found}; "
            f'make it with optuna.create_study(direction="maximize")'
        )


def is_baseline(trial: FrozenTrial | optuna.trial.BaseTrial) -> bool:
    """Return whether `trial` runs the default hyperparameters."""
    return bool(trial.user_attrs.get("baseline"))


def settings_of(study: optuna.Study) -> Settings | None:
    """Return the settings stored with `study`, None where it has none.

    Raises:
      UserError: when they are of another version, or were edited.
    """
    stored = study.user_attrs.get("settings")
    if stored is None:
        return None
    with named(f"study {study.study_name!r}"):
        return Settings.from_dict(stored)
