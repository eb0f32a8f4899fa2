"""Wall clock for a whole command: which trials still fit, and how large the proof may be.

Estimates are learned from what the trials and finalists of the study have taken. Half of the
budget, at most, is kept for the proof: finalists and validation. Where even that is too little
for the proof that was asked for, it gets shorter, then smaller.
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Sequence

import numpy as np

from ppo_jax.errors import UserError
from tune.protocol.plan import Plan
from tune.protocol.trials import TrialRecord

_UNITS = {"s": 1, "m": 60, "h": 3600}

_PROOF_SHARE = 0.5
"""Share of the budget that is kept for the proof, at most."""

_OVERRUN_SHARE = 0.4
"""A trial that leaves less than this share, and less than the proof needs, is stopped; the next
command continues it."""

_MARGIN = 1.2
"""Estimates of what is still to come are multiplied by this."""

_CLOSING_SECONDS = 10.0
"""For analysis, pictures and report."""

_RECENT = 8


def parse_budget(text: str) -> float:
    """Return the seconds of a duration.

    >>> parse_budget("10m"), parse_budget("1.5h"), parse_budget("90s")
    (600.0, 5400.0, 90.0)

    Raises:
      UserError: for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([smh])", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 1 <= seconds < math.inf:
        raise UserError(
            f"--budget must be a duration of at least a second, as 90s, 10m or 1.5h, "
            f"but got {text!r}"
        )
    return seconds


@dataclasses.dataclass(frozen=True)
class Budget:
    """The wall clock of one command.

    Attributes:
      seconds: in all.
      clock: returns seconds; only differences matter.
      began: what it said at the start of the command.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    began: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.began + self.seconds - self.clock()

    def has_room(self, trials: Sequence[TrialRecord], plan: Plan) -> bool:
        """Return whether another trial fits, with the proof after it.

        The first one, the baseline, always does.
        """
        finished = [trial for trial in trials if trial.is_finished]
        durations = [trial.seconds for trial in finished if trial.seconds is not None]
        if not durations:
            return True
        # The first one includes the compilation, so it counts only while it is alone.
        expected = max((durations[1:] or durations)[-_RECENT:])
        return self.left - expected >= self._kept(finished, plan, _PROOF_SHARE)

    def is_overrun(self, trials: Sequence[TrialRecord], plan: Plan, ahead: float = 0.0) -> bool:
        """Return whether a trial under way has to stop for the proof to fit.

        Args:
          trials: of the study.
          plan: of the command.
          ahead: seconds until this can be asked again.
        """
        finished = [trial for trial in trials if trial.is_finished]
        known = any(trial.is_complete for trial in finished)
        return known and self.left - ahead < self._kept(finished, plan, _OVERRUN_SHARE)

    def _kept(self, finished: Sequence[TrialRecord], plan: Plan, share: float) -> float:
        """Return the seconds that trials leave to the proof: what it needs, `share` at most."""
        proof = _MARGIN * proof_seconds(plan, seconds_per_step(finished)) + _CLOSING_SECONDS
        return min(proof, share * self.seconds)

    def fitted(self, plan: Plan, per_step: float, *, steps_are_fixed: bool = False) -> Plan:
        """Return the plan with the largest proof that fits into what is left.

        Args:
          plan: the proof that was asked for.
          per_step: seconds of a step of a group of seeds.
          steps_are_fixed: whether the finalists have been trained already.
        """
        shortest = min(plan.settings.total_steps, plan.validate_steps)
        lengths = [plan.validate_steps] if steps_are_fixed else _shorter(plan, shortest)
        numbers = _fewer(plan.validate_seeds)
        sizes = [(steps, seeds) for steps in lengths for seeds in numbers]
        # Few seeds prove little: rather shorter than with fewer than eight.
        for steps, seeds in sorted(sizes, key=lambda size: size[1] < min(8, numbers[0])):
            finalists = 0 if steps_are_fixed else plan.finalists
            smaller = dataclasses.replace(
                plan, validate_steps=steps, validate_seeds=seeds, finalists=finalists
            )
            needed = _MARGIN * proof_seconds(smaller, per_step) + _CLOSING_SECONDS
            if needed <= self.left:
                return dataclasses.replace(smaller, finalists=plan.finalists)
        steps = plan.validate_steps if steps_are_fixed else shortest
        fewest = _fewer(plan.validate_seeds)[-1]
        return dataclasses.replace(plan, validate_steps=steps, validate_seeds=fewest)

    def allows(self, seconds: float) -> bool:
        """Return whether something that is expected to take `seconds` still fits."""
        return _MARGIN * seconds + _CLOSING_SECONDS <= self.left


def seconds_per_step(trials: Sequence[TrialRecord]) -> float:
    """Return the seconds of a step of all seeds of a trial at once; the upper quartile."""
    speeds = [
        ((trial.training_seconds or 0.0) + (trial.evaluation_seconds or 0.0)) / max(trial.means)
        for trial in trials
        if trial.means
    ]
    return float(np.quantile(speeds, 0.75)) if speeds else 0.0


def proof_seconds(plan: Plan, per_step: float) -> float:
    """Return what finalists and validation of `plan` are expected to take, at most."""
    if not plan.validate_steps:
        return 0.0
    groups = 2 * math.ceil(plan.validate_seeds / plan.settings.seeds)
    if plan.finalists and plan.validate_steps > plan.settings.total_steps:
        groups += plan.finalists + 1
    return groups * plan.validate_steps * per_step


def _shorter(plan: Plan, shortest: int) -> list[int]:
    """Return numbers of steps of a proof, the longest first."""
    steps = {round(plan.validate_steps / part) for part in (1, 1.5, 2, 3, 5, 7, 10, 15, 20, 50)}
    return sorted({shortest, *(step for step in steps if step > shortest)}, reverse=True)


def _fewer(seeds: int) -> list[int]:
    """Return numbers of validation seeds, the most first."""
    return sorted({seeds, *(few for few in (12, 8, 4) if few < seeds)}, reverse=True)
