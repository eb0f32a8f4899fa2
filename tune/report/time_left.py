"""How far a session is and how long the rest takes: arithmetic alone, without clock or terminal.

Work is counted in steps of a group: environment steps that the seeds of a trial, or as many
validation seeds, take at once. A step costs a rollout and so many passes of learning, so those of
a trial are weighted by its `n_epochs`. What a unit of work takes is learned from the seconds that
checkpoints report, from the first one on and compilation apart; what comes on top, such as
suggesting, storing and the report, from the clock. Finalists and validation begin with what trials
have taken, each configuration with what its own trial has, and correct it as they go on.

Whether a trial beats the baseline is known only before the validation, and how many seeds that
takes only at its end. So what is left is an interval: up to the next look at the validation of the
baseline alone, and up to the last one of both.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from tune.evidence.looks import planned_looks
from tune.protocol.plan import NO_LIMIT, Plan
from tune.protocol.settings import Settings
from tune.protocol.trials import TrialRecord

TRIALS, FINALISTS, VALIDATION = "trials", "finalists", "validation"

_ROLLOUT_PASSES = 2.0
"""What a rollout costs, in passes over it; between those of a CPU and an accelerator."""

_REPORT_SECONDS = 6.0
"""For analysis, pictures and report, after the trials and at the end, until the first is done."""

_FINAL_REPORT = 1.3
"""What the report at the end, with a validation and films, takes beside that after the trials."""

_BEST, _BASELINE = "best", "baseline"
"""Runs of phases to come, whose configurations nobody knows yet."""

_DOUBT = 0.03
"""Share of a phase that has to pass before its own pace counts as much as the one expected."""


@dataclasses.dataclass
class _Trial:
    """A trial that this process trains, or has trained.

    Attributes:
      weight: of a step.
      step: it has come to.
      seconds: that took, compilation apart.
      score: None while it has none.
      finished: whether it has ended.
    """

    weight: float
    step: int = 0
    seconds: float = 0.0
    score: float | None = None
    finished: bool = False


@dataclasses.dataclass
class _Group:
    """Seeds of a finalist or of a validation that train at once.

    Attributes:
      seeds: how many.
      base: steps that an earlier session has trained.
      step: it has come to.
    """

    seeds: int
    base: int
    step: int


class Job:
    """The work of a session, and how far it is.

    Moments are seconds of any clock.

    Args:
      settings: of the study.
      n_trials: finished trials in all.
      plan: of the session; None for a process that runs trials alone.
      before: trials that have finished before it.
      now: the moment.
    """

    def __init__(
        self,
        settings: Settings,
        n_trials: int,
        plan: Plan | None,
        before: Sequence[TrialRecord],
        now: float,
    ) -> None:
        self.settings, self.plan, self.n_trials = settings, plan, n_trials
        self.phase = TRIALS
        self._before = len(before)
        self._finished = len(before)  # Of the whole study.
        self._trials: dict[int, _Trial] = {}  # Of this process.
        self._known: dict[int, _Trial] = {}  # Of earlier ones.
        self._steps_before = sum(trial.environment_steps for trial in before)
        self._proof_steps = 0
        self._seconds = self._work = 0.0  # Of checkpoints.
        self._since: tuple[float, float] | None = None
        self._overhead = 1.0
        self._event, self._events = now, 0
        self._began = now
        self._groups: dict[tuple[str, int], _Group] = {}
        self._reached = 0
        self._phase_began = now
        self._runs: Mapping[str, tuple[int | None, int]] = {}
        self._pace = 1.0
        self._report = 0.0 if plan is None else _REPORT_SECONDS
        for trial in before:
            self._learn_from(trial)

    @property
    def phases(self) -> list[str]:
        """What the session consists of, in order."""
        plan = self.plan
        if plan is None or not plan.validate_steps:
            return [TRIALS]
        selects = plan.finalists and plan.validate_steps > self.settings.total_steps
        return [TRIALS, *([FINALISTS] if selects else []), VALIDATION]

    @property
    def finished(self) -> int:
        """Finished trials of the study."""
        return self._finished

    def trial_checkpoint(
        self, number: int, n_epochs: int, step: int, seconds: float, now: float
    ) -> None:
        """Take in that a trial has come to `step`, which took `seconds`, compilation apart."""
        trial = self._trials.setdefault(number, _Trial(_weight(n_epochs)))
        self._work += (step - trial.step) * trial.weight
        self._seconds += seconds
        trial.step = step
        trial.seconds += seconds
        self._pass(now)
        if self._since is None:  # The first one has waited for the compiler.
            self._since = now, self._seconds
        since, before = self._since
        if self._seconds > before:
            self._overhead = max(1.0, (now - since) / (self._seconds - before))

    def trial_finished(self, number: int, score: float | None, finished: int, now: float) -> None:
        """Take in the end of a trial; `finished` of the study have by now."""
        trial = self._trials.setdefault(number, _Trial(self._baseline_weight))
        trial.score, trial.finished = score, True
        self._finished = finished
        self._pass(now)

    def proof_started(
        self, phase: str, plan: Plan, runs: Mapping[str, tuple[int | None, int]], now: float
    ) -> None:
        """Take in that `phase` begins.

        Args:
          phase: ``finalists`` or ``validation``.
          plan: of the session by now.
          runs: name -> number of the trial, if any, and `n_epochs` of each configuration.
          now: the moment.
        """
        if not self._is_proof and self._trials:
            self._report = now - self._event
        self._proof_steps += self._phase_steps
        self._pace *= self._correction
        self.phase, self.plan, self._runs = phase, plan, runs
        self._groups, self._reached = {}, 0
        self._phase_began = now
        self._pass(now)

    def seeds_checkpoint(self, name: str, first: int, stop: int, step: int, now: float) -> None:
        """Take in that the seeds from `first` to `stop` of a run have come to `step`."""
        base = max(0, step - self.settings.eval_every)
        group = self._groups.setdefault((name, first), _Group(stop - first, base, step))
        group.step = step
        self._reached = max(stop, self._reached)
        self._pass(now)

    def steps(self) -> tuple[int, int | None]:
        """Return the environment steps that are done, and those in all, at most.

        None where nobody knows, because a budget ends the trials.
        """
        seeds = self.settings.seeds
        own = sum(trial.step for trial in self._trials.values()) * seeds
        done = self._steps_before + own + self._proof_steps + self._phase_steps
        if self._is_open:
            return done, None
        left = self._trial_steps_left() + self._proof_left(lambda _: 1.0)[1]
        return done, done + round(left * seeds)

    def seconds_left(self, now: float) -> tuple[float, float] | None:
        """Return how long the rest takes, at least and at most; None before it can be known."""
        if not self._work or self._is_open:
            return None
        trials = self._trial_work_left() * self._per_work / self._others
        final = self._report * (_FINAL_REPORT if VALIDATION in self.phases else 0.0)
        reports = final if self._is_proof else self._report + final
        pace = self._pace * self._correction
        low, high = (trials + pace * proof + reports for proof in self._proof_left(self._cost))
        # Until the next event, the clock goes on; an event that is late does not bring the end
        # any nearer.
        usual = (self._event - self._began) / max(1, self._events)
        if self._is_proof and not self._proof_left(lambda _: 1.0)[0]:
            usual = final
        elif not trials and not self._is_proof:
            usual = self._report
        passed = min(now - self._event, usual)
        return max(0.0, low - passed), max(0.0, high - passed)

    def _learn_from(self, trial: TrialRecord) -> None:
        weight = self._baseline_weight
        if trial.hyperparameters is not None:
            weight = _weight(trial.hyperparameters.n_epochs)
        step = max(trial.means, default=0)
        seconds = (trial.training_seconds or 0.0) + (trial.evaluation_seconds or 0.0)
        if step and seconds:
            self._work += step * weight
            self._seconds += seconds
            self._known[trial.number] = _Trial(weight, step, seconds, trial.score, finished=True)

    def _pass(self, now: float) -> None:
        if not self._events:
            self._began = self._event = now
        self._event = now
        self._events += 1

    @property
    def _is_proof(self) -> bool:
        return self.phase != TRIALS

    @property
    def _is_open(self) -> bool:
        return self.phase == TRIALS and self.n_trials >= NO_LIMIT

    @property
    def _baseline_weight(self) -> float:
        return _weight(self.settings.baseline.hyperparameters.n_epochs)

    @property
    def _others(self) -> float:
        """How many times as fast the study is as this process, with others at work on it."""
        own = sum(trial.finished for trial in self._trials.values())
        return max(1.0, (self._finished - self._before) / own) if own else 1.0

    @property
    def _expected(self) -> tuple[float, float]:
        """Steps and weight of a step of a trial to come, as trials so far have been."""
        total = self.settings.total_steps
        # Two trials of the middle of the space stand for what is not known yet.
        middle = self._baseline_weight
        tuned = dict(self.settings.space.tuned).get("n_epochs")
        if tuned is not None:
            values = [float(value) for value in tuned.grid(9, True) if isinstance(value, int)]
            middle = _weight(sum(values) / len(values))
        ended = [trial for trial in self._trials.values() if trial.finished]
        steps = [0.9 * total] * 2 + [float(trial.step) for trial in ended]
        weights = [middle] * 2 + [trial.weight for trial in ended]
        return sum(steps) / len(steps), sum(weights) / len(weights)

    def _under_way(self) -> list[_Trial]:
        return [trial for trial in self._trials.values() if not trial.finished]

    def _trials_to_come(self) -> int:
        if self._is_proof or self._is_open:
            return 0
        return max(0, self.n_trials - self._finished - len(self._under_way()))

    def _trial_steps_left(self) -> float:
        if self._is_proof:
            return 0.0
        under_way = sum(self.settings.total_steps - trial.step for trial in self._under_way())
        return self._trials_to_come() * self._expected[0] + under_way

    def _trial_work_left(self) -> float:
        if self._is_proof:
            return 0.0
        steps, weight = self._expected
        total = self.settings.total_steps
        under_way = sum((total - trial.step) * trial.weight for trial in self._under_way())
        return self._trials_to_come() * steps * weight + under_way

    @property
    def _per_work(self) -> float:
        """Seconds of a unit of work."""
        return self._seconds / self._work * self._overhead

    def _cost(self, name: str) -> float:
        """Return the seconds of a step of a group of a run, as its trial went."""
        every = {**self._known, **self._trials}
        if name in self._runs:
            number, n_epochs = self._runs[name]
            return self._cost_of(None if number is None else every.get(number), _weight(n_epochs))
        if name == _BASELINE:
            return self._baseline_weight * self._per_work
        scored = [trial for trial in every.values() if trial.score is not None]
        best = sorted(scored, key=lambda trial: trial.score or 0.0, reverse=True)[:3]
        if not best:
            return self._expected[1] * self._per_work
        return sum(self._cost_of(trial, trial.weight) for trial in best) / len(best)

    def _cost_of(self, trial: _Trial | None, weight: float) -> float:
        expected = weight * self._per_work
        if trial is None or not trial.seconds:
            return expected
        # What a trial of seconds has taken is as doubtful as the weight.
        return math.sqrt(expected * trial.seconds / trial.step * self._overhead)

    def _proof_left(self, cost: Callable[[str], float]) -> tuple[float, float]:
        """Return what is left of the proof, at least and at most.

        Args:
          cost: of a step of a group of a run.
        """
        low = high = 0.0
        for phase in self.phases[self.phases.index(self.phase) :]:
            if phase == TRIALS or self.plan is None:
                continue
            certain = possible = list(self._runs)
            if phase != self.phase:
                others = [_BEST] * (self.plan.finalists if phase == FINALISTS else 1)
                possible = [*others, _BASELINE]
                # Where no trial beats the baseline, it is validated alone, up to the first look.
                certain = [_BASELINE] if phase == VALIDATION else possible
            nearest, last = self._groups_of(phase)
            if len(possible) == 1:
                last = nearest
            low += nearest * sum(map(cost, certain)) * self.plan.validate_steps
            high += last * sum(map(cost, possible)) * self.plan.validate_steps
        if self._is_proof:
            done = sum(group.step * cost(name) for (name, _), group in self._groups.items())
            low, high = max(0.0, low - done), max(0.0, high - done)
        return low, high

    def _groups_of(self, phase: str) -> tuple[int, int]:
        """Return the groups of a run of `phase`, up to the next look and up to the last."""
        if phase == FINALISTS or self.plan is None:
            return 1, 1
        looks = planned_looks(self.plan.validate_seeds)
        reached = self._reached if phase == self.phase else 0
        upcoming = next((look for look in looks if look >= reached), looks[-1])
        between = itertools.pairwise([0, *looks])
        groups = [math.ceil((stop - start) / self.settings.seeds) for start, stop in between]
        return sum(groups[: looks.index(upcoming) + 1]), sum(groups)

    @property
    def _phase_steps(self) -> int:
        """Environment steps of the present phase of the proof."""
        return sum(group.step * group.seeds for group in self._groups.values())

    @property
    def _correction(self) -> float:
        """How many times as long as expected the present phase of the proof takes."""
        if not self._is_proof or not self._groups or not self._work:
            return 1.0
        groups = self._groups.items()
        done = sum((group.step - group.base) * self._cost(name) for (name, _), group in groups)
        expected = self._pace * done
        doubt = _DOUBT * (expected + self._pace * self._proof_left(self._cost)[0])
        return (self._event - self._phase_began + doubt) / (expected + doubt)


def _weight(n_epochs: float) -> float:
    """Return what a step of a group costs, in passes over it."""
    return _ROLLOUT_PASSES + n_epochs
