"""The loop of a study: it asks for trials, trains them by a schedule, judges and tells them.

One loop serves both schedules of :mod:`ppo_jax.schedules`, one trial after another and several
side by side, and both kinds of storage: a :class:`TrialSource` says which trial comes next.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import Checkpoint
from ppo_jax.schedules import Run, Schedule, blocks_for
from tune.protocol.settings import Settings
from tune.protocol.trials import BEGAN, FINISHED, attribute
from tune.search.leases import TrialLeases
from tune.search.objective import JudgedTrial
from tune.search.optuna_private import resume_trial
from tune.search.pool import ProgramPool
from tune.search.samplers import has_configurations_left
from tune.search.samplers.gp import GPSampler


class Progress(Protocol):
    """What a study reports while it runs."""

    def study_started(self, study: optuna.Study, settings: Settings, n_trials: int) -> None:
        """Report a study that starts or continues, until `n_trials` have finished."""

    def trial_started(self, trial: optuna.Trial) -> None:
        """Report a trial before its first checkpoint."""

    def checkpoint(self, trial: optuna.Trial, checkpoint: Checkpoint) -> None:
        """Report a checkpoint of a trial that has started."""

    def trial_finished(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Report a trial that is complete or pruned."""


class TrialSource(Protocol):
    """Where trials come from, and who is told that they are being trained."""

    @property
    def interrupted(self) -> Sequence[FrozenTrial]:
        """Trials that an earlier session of this process began, and that come first."""
        ...

    def ask(self, wait: bool) -> optuna.Trial | None:
        """Return the next trial; None where there is none, or none now and `wait` is False."""
        ...

    def held(self, trial: optuna.Trial) -> contextlib.AbstractContextManager[None]:
        """Hold `trial` while the block trains it."""
        ...


class TimeLimit(Protocol):
    """Ends the trials of a session for lack of time."""

    def has_room(self) -> bool:
        """Return whether another trial fits."""
        ...

    def is_overrun(self, ahead: float) -> bool:
        """Return whether those under way have to stop; a later session continues them.

        Args:
          ahead: seconds until the next checkpoint, about.
        """
        ...


class OwnTrials:
    """The trials of the only process that works on a study.

    Trials that were interrupted come first, in the order of their numbers, each in its place
    with the configuration it had.

    Args:
      study: of :func:`tune.search.study.open_study`.
      n_trials: finished trials in all.
      max_retries: how often a trial that raised an error is run again.
    """

    def __init__(self, study: optuna.Study, n_trials: int, max_retries: int) -> None:
        self._study, self._n_trials, self._max_retries = study, n_trials, max_retries
        self.interrupted = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def ask(self, wait: bool) -> optuna.Trial | None:
        """See :class:`TrialSource`; there is nobody to wait for."""
        del wait
        while self.interrupted and self._begun < self._n_trials:
            frozen = self.interrupted.pop(0)
            if attribute(frozen, "attempts", 0) > self._max_retries:
                self._study.tell(frozen.number, state=TrialState.FAIL)
                continue
            trial = resume_trial(self._study, frozen)
            trial.set_user_attr("interrupted", trial.user_attrs.get("interrupted", 0) + 1)
            return trial
        if self._begun >= self._n_trials or not has_configurations_left(self._study):
            return None
        return self._study.ask()

    @property
    def _begun(self) -> int:
        """Trials that are finished, or that this session trains."""
        states = (*FINISHED, TrialState.RUNNING)
        known = len(self._study.get_trials(deepcopy=False, states=states))
        return known - len(self.interrupted)

    @contextlib.contextmanager
    def held(self, trial: optuna.Trial) -> Iterator[None]:
        """Count an error, so that it does not stop every later process as well."""
        try:
            yield
        except Exception:
            with contextlib.suppress(Exception):  # Where the storage fails, that is the error.
                trial.set_user_attr("attempts", attribute(trial, "attempts", 0) + 1)
            raise


class SharedTrials:
    """The trials of one of the processes that work on a study.

    Args:
      study: of :func:`tune.search.study.open_study`.
      n_trials: finished trials in all.
      worker_timeout: see :class:`tune.search.leases.TrialLeases`.
      max_retries: likewise.
    """

    def __init__(
        self, study: optuna.Study, n_trials: int, worker_timeout: float, max_retries: int
    ) -> None:
        self.interrupted: Sequence[FrozenTrial] = ()
        self._study, self._n_trials = study, n_trials
        self._leases = TrialLeases(study, worker_timeout, max_retries)

    def ask(self, wait: bool) -> optuna.Trial | None:
        """See :class:`TrialSource`."""
        return self._leases.ask(self._n_trials, lambda: has_configurations_left(self._study), wait)

    def held(self, trial: optuna.Trial) -> contextlib.AbstractContextManager[None]:
        """Hold a lease on `trial`."""
        return self._leases.lease(trial)


class _OthersFailed(BaseException):
    """Ends a trial that has done nothing wrong, because another one beside it has failed."""


@dataclasses.dataclass
class _UnderWay:
    """A trial that is being trained.

    Attributes:
      trial: the trial.
      holds: what holds it.
      judged: its judgement, once its configuration has been suggested.
    """

    trial: optuna.Trial
    holds: contextlib.ExitStack
    judged: JudgedTrial | None = None

    def close(self, error: BaseException | None = None) -> None:
        """Let the trial go, because of `error` if there is one."""
        if error is None:
            self.holds.close()
            return
        if self.judged is not None:
            with contextlib.suppress(Exception):
                self.judged.record()
        self.holds.__exit__(type(error), error, error.__traceback__)


def train_trials(
    study: optuna.Study,
    settings: Settings,
    pool: ProgramPool,
    source: TrialSource,
    progress: Progress | None = None,
    limit: TimeLimit | None = None,
) -> None:
    """Train the trials of `source` until there are no more, as many at once as the programs can.

    Side by side, no trial begins before all results of that moment are known. And a killed study
    that is continued ends like one that was not: a trial stores what the schedule's clock said
    when it began. Those that were interrupted begin at the same time again, so that they meet the
    same finished trials at their checkpoints, and the first new one where the clock had come to.

    Args:
      study: of :func:`tune.search.study.open_study`.
      settings: of the study.
      pool: programs of their configurations.
      source: of the trials.
      progress: called as they go on.
      limit: of their time.
    """
    now, latest = _clock(study, pool, source)
    loop = _Loop(study, settings, source, progress, pool, pool.schedule(now), latest, limit)
    loop.side_by_side = pool.has_lanes
    loop.run()


@dataclasses.dataclass
class _Loop:
    """The trials under way, and all that their events concern; see :func:`train_trials`.

    Attributes:
      latest: what the clock said at the last end of a trial before this session.
      side_by_side: whether the schedule has a clock.
      under_way: run -> its trial.
    """

    study: optuna.Study
    settings: Settings
    source: TrialSource
    progress: Progress | None
    pool: ProgramPool
    schedule: Schedule
    latest: int
    limit: TimeLimit | None = None
    side_by_side: bool = False
    under_way: dict[Run, _UnderWay] = dataclasses.field(default_factory=dict)

    def run(self) -> None:
        """Train until there are no more trials."""
        try:
            while True:
                self._fill()
                if not self.under_way:
                    return
                arrived = self._next()
                if arrived is None:
                    continue
                run, checkpoint = arrived
                with self._blaming(self.under_way[run], run) as trial:
                    self._add(run, trial, checkpoint)
                if self.limit is not None and self.under_way:
                    ahead = checkpoint.training_seconds + checkpoint.evaluation_seconds
                    if self.limit.is_overrun(ahead):
                        return
        finally:
            for trial in self.under_way.values():
                trial.close(_OthersFailed())

    def _fill(self) -> None:
        """Start trials where there is room."""
        while self.schedule.room and (self.limit is None or self.limit.has_room()):
            if self._is_behind and not self.source.interrupted:
                return
            asked = self.source.ask(wait=not self.under_way)
            if asked is None:
                return
            with self._blaming(_UnderWay(asked, contextlib.ExitStack())) as trial:
                trial.holds.enter_context(self.source.held(asked))
                if self.progress is not None:
                    self.progress.trial_started(asked)
                trial.judged = JudgedTrial(asked, self.settings)
                run, begins = trial.judged.run, None
                if self.side_by_side:
                    begins = asked.user_attrs.get(BEGAN)
                    if begins is None:
                        begins = max(self.schedule.clock, self.latest)
                        asked.set_user_attr(BEGAN, begins)
                self.schedule.start(run, begins)
                self.under_way[run] = trial

    def _prepare(self) -> None:
        """Compile the programs of what is likely to be the next trial, beside this one.

        From its first checkpoint on: before that its own programs may be compiling.
        """
        sampler, space = self.study.sampler, self.settings.space
        if space.tuned_agent and isinstance(sampler, GPSampler):
            self.pool.prepare(space.decode(sampler.expected(self.study)).agent)

    @property
    def _is_behind(self) -> bool:
        """Whether trials are trained again up to where an earlier session has come to."""
        return self.side_by_side and bool(self.under_way) and self.schedule.clock < self.latest

    def _next(self) -> tuple[Run, Checkpoint] | None:
        """Return the next checkpoint; None where new trials may begin before it."""
        try:
            if self._is_behind and not self.schedule.wait(self.latest):
                return None
            return self.schedule.next()
        except BaseException as error:  # Of no trial, or of all.
            for trial in self.under_way.values():
                trial.close(error)
            self.under_way.clear()
            raise

    @contextlib.contextmanager
    def _blaming(self, trial: _UnderWay, run: Run | None = None) -> Iterator[_UnderWay]:
        """Let `trial` go when the block raises an error.

        Where this process was declared dead meanwhile, its trial has gone to another, and that
        is no error.
        """
        try:
            yield trial
        except BaseException as error:
            if run is not None:
                self.schedule.stop(run)
                self.under_way.pop(run, None)
            trial.close(error)
            if not isinstance(error, UpdateFinishedTrialError):
                raise

    def _add(self, run: Run, under_way: _UnderWay, checkpoint: Checkpoint) -> None:
        """Judge a trial at a checkpoint, and tell it if it ends there."""
        trial, judged, progress = under_way.trial, under_way.judged, self.progress
        assert judged is not None, "it has started"

        def observe(checkpoint: Checkpoint) -> None:
            if progress is not None:
                progress.checkpoint(trial, checkpoint)
            if checkpoint.step == run.checkpoints[0]:
                self._prepare()

        try:
            judged.add(checkpoint, observe)
        except optuna.TrialPruned:
            self.schedule.stop(run)
            judged.record()
            told = self.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            if checkpoint.step < run.checkpoints[-1]:
                return
            judged.record()
            told = self.study.tell(trial, judged.score, skip_if_finished=True)
        if progress is not None and told.state in FINISHED:
            progress.trial_finished(self.study, told)
        del self.under_way[run]
        under_way.close()


def _clock(study: optuna.Study, programs: ProgramPool, source: TrialSource) -> tuple[int, int]:
    """Return what the clock is to begin with, and what it said at the last end of a trial.

    Both are 0 where no trial has trained beside others.
    """
    trials = [t for t in study.get_trials(deepcopy=False) if BEGAN in t.user_attrs]
    ends = [_end(trial, programs) for trial in trials if trial.state in FINISHED]
    latest = max(ends, default=0)
    begins = [t.user_attrs[BEGAN] for t in source.interrupted if BEGAN in t.user_attrs]
    return min(begins, default=latest), latest


def _end(trial: FrozenTrial, programs: ProgramPool) -> int:
    """Return what the clock said when `trial` reached its last checkpoint."""
    hyperparameters = Hyperparameters.from_dict(trial.user_attrs["hyperparameters"])
    step = max((int(step) for step in attribute(trial, "returns", {})), default=0)
    began: int = trial.user_attrs[BEGAN]
    return began + blocks_for(programs.config, hyperparameters, step)
