"""What two validated configurations say about each other: comparisons, outcome, sentence.

Two questions are asked: which level does training reach, and how fast? A difference counts if
it is clear, and larger than a margin that matters; see :mod:`tune.evidence.looks` for how
clear it has to be.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ppo_jax.statistics import welch_test
from ppo_jax.text import decimals, estimate_text, fixed
from tune.evidence.candidate import Candidate
from tune.evidence.learning_curve import VALIDATION_SEEDS, LearningCurve
from tune.evidence.looks import (
    LEVEL_ERROR,
    SPEED_ERROR,
    Look,
    error_levels,
    look_at,
    planned_looks,
    repeated,
)
from tune.evidence.statistics import (
    Comparison,
    Estimate,
    compare,
    difference_of_means,
    finite,
    performance_profile,
)

MARGIN_SHARE = 0.01
"""Share of what training gains that a difference must exceed to matter."""
_MOST_SEEDS, _USUAL_SEEDS = 1000, 20


class Outcome(enum.StrEnum):
    """What a comparison of the winner with the baseline says."""

    IMPROVED = "improved"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"
    WORSE = "worse"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Winner against baseline on the validation seeds.

    Attributes:
      winner, baseline: both with returns on equally many validation seeds; one and the same
        candidate where no trial beat the baseline.
      untrained: mean return of untrained policies.
      looks: the numbers of seeds after which the two are compared.
      repetition: how many validations, this one included, the folder has seen.
    """

    winner: Candidate
    baseline: Candidate
    untrained: float
    looks: Sequence[int]
    repetition: int = 1

    @property
    def is_baseline(self) -> bool:
        """Whether the winner is the baseline itself."""
        return self.winner is self.baseline

    @property
    def curves(self) -> tuple[LearningCurve, LearningCurve]:
        """Returns of the winner and of the baseline on the validation seeds."""
        return self.winner.validated, self.baseline.validated

    @property
    def steps(self) -> Sequence[int]:
        """Nominal steps of the checkpoints, ``[checkpoints]``."""
        return self.curves[0].steps

    @property
    def seeds(self) -> int:
        """Number of validation seeds so far."""
        return self.curves[0].seeds

    @property
    def margin(self) -> float:
        """The smallest difference that matters.

        1% of what training gains on an untrained policy, with the better of the two
        configurations.
        """
        means = np.array([finite(c.level).mean() for c in self.curves if len(finite(c.level))])
        gains = finite(np.abs(means - self.untrained))
        return MARGIN_SHARE * float(gains.max(initial=0.0))

    @functools.cached_property
    def level(self) -> Comparison:
        """Comparison of the level reached: the last three checkpoints of each seed."""
        winner, baseline = self.curves
        return compare(winner.level, baseline.level, self._look(LEVEL_ERROR))

    @functools.cached_property
    def speed(self) -> Comparison:
        """Comparison of the mean over all checkpoints: how fast and how steadily they learn."""
        winner, baseline = self.curves
        return compare(winner.over_training, baseline.over_training, self._look(SPEED_ERROR))

    @functools.cached_property
    def at_tuning_steps(self) -> Comparison | None:
        """Comparison of the study's objective over the steps of a trial.

        None where the full budget is no longer than a trial's.
        """
        if self.winner.settings.total_steps >= self.steps[-1]:
            return None
        winner, baseline = self.winner.scores, self.baseline.scores
        return compare(winner[VALIDATION_SEEDS], baseline[VALIDATION_SEEDS])

    @functools.cached_property
    def level_outcome(self) -> Outcome:
        """What :attr:`level` says."""
        winner, baseline = self.curves
        return self._outcome(winner.level, baseline.level, LEVEL_ERROR)

    @functools.cached_property
    def speed_outcome(self) -> Outcome:
        """What :attr:`speed` says."""
        winner, baseline = self.curves
        return self._outcome(winner.over_training, baseline.over_training, SPEED_ERROR)

    @property
    def is_faster_only(self) -> bool:
        """Whether the winner learns faster, and to a level that may be higher but is no lower."""
        is_faster = self.speed_outcome == Outcome.IMPROVED
        return is_faster and self.level_outcome != Outcome.IMPROVED and self._is_no_lower

    @property
    def outcome(self) -> Outcome:
        """The outcome in one word: that of the level; *improved* also where only the speed is."""
        return Outcome.IMPROVED if self.is_faster_only else self.level_outcome

    @property
    def is_settled(self) -> bool:
        """Whether further seeds could not change what the verdict says, as far as is known.

        A winner that is faster and no worse is recommended; more seeds may show that it is better.
        """
        if self.is_baseline or self.level_outcome in (Outcome.IMPROVED, Outcome.WORSE):
            return True
        equivalent = self.level_outcome == Outcome.EQUIVALENT
        return equivalent and self.speed_outcome != Outcome.INCONCLUSIVE

    @property
    def misled(self) -> bool:
        """Whether the winner leads clearly after the steps of a trial, but not at the end."""
        if self.at_tuning_steps is None or self.outcome == Outcome.IMPROVED:
            return False
        return self._leads(self.at_tuning_steps) and not self._leads(self.level)

    @property
    def recommended(self) -> Candidate:
        """The winner if it has improved on the baseline, else the baseline."""
        return self.winner if self.outcome == Outcome.IMPROVED else self.baseline

    @functools.cached_property
    def seeds_to_settle(self) -> int | None:
        """About how many seeds would tell an inconclusive difference in level.

        They would be the next validation in the folder, which is held to a stricter level. None
        where it is not inconclusive, too few seeds have finished to guess, or what is open is
        not the difference but the seeds that have diverged.
        """
        found = self.level.difference
        if self.level_outcome != Outcome.INCONCLUSIVE or found is None or found.interval is None:
            return None
        size, margin = abs(found.value), self.margin
        needed = size if size >= margin else margin - size
        if self._divergence_decides or needed <= 0 or found.interval[0] == found.interval[1]:
            return None
        samples = [finite(curve.level) for curve in self.curves]
        variance = sum(values.var(ddof=1) / len(values) for values in samples) * self.seeds
        freedom = float(welch_test(samples[0], samples[1]).degrees_of_freedom) / (self.seeds - 1)
        # The level of the last look hardly depends on the seeds that are planned.
        planned = tuple(planned_looks(_USUAL_SEEDS))
        error = error_levels(planned, repeated(LEVEL_ERROR, self.repetition + 1))[-1]
        seeds = self.seeds + 1
        while stats.t.isf(error / 2, freedom * (seeds - 1)) * math.sqrt(variance / seeds) > needed:
            seeds += max(1, seeds // 50)
        return seeds

    @functools.cached_property
    def sentence(self) -> str:
        """The verdict with its figures, in a sentence or two.

        The second follows where short training misled the search.
        """
        if self.is_baseline:
            return self._of_baseline()
        sentence = f"{self.outcome.capitalize()}: {self._figures()}{self._advice()}."
        if self.misled and self.at_tuning_steps is not None:
            lead = self.at_tuning_steps.difference
            assert lead is not None, "a clear lead is a difference"
            sentence += (
                f" Short training misled the search: the lead on the same seeds at the budget of a "
                f"trial ({_text(lead)}) did not last to {self.steps[-1]:,} steps."
            )
        return sentence

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as ``validation.json`` holds it."""
        compared = {
            "level": self.level,
            "speed": self.speed,
            "at_tuning_steps": self.at_tuning_steps,
        }
        levels = [curve.level for curve in self.curves]
        values = finite(np.concatenate(levels))
        thresholds = np.linspace(values.min(), values.max(), 101) if len(values) else np.zeros(0)
        alone = self.is_baseline
        return {
            "verdict": self.sentence,
            "outcome": None if alone else self.outcome,
            "level_outcome": None if alone else self.level_outcome,
            "speed_outcome": None if alone else self.speed_outcome,
            "recommended": "baseline" if self.recommended is self.baseline else "winner",
            "short_training_misled": self.misled,
            "winner_is_baseline": alone,
            "untrained": self.untrained,
            "margin": self.margin,
            "looks": list(self.looks),
            "repetition": self.repetition,
            "seeds_to_settle": self.seeds_to_settle,
            **{
                name: None if found is None or alone else dataclasses.asdict(found)
                for name, found in compared.items()
            },
            "performance_profile": {
                "thresholds": thresholds,
                "winner": performance_profile(levels[0], thresholds),
                "baseline": performance_profile(levels[1], thresholds),
            },
        }

    @property
    def _is_no_lower(self) -> bool:
        """Whether the winner's level is not below the baseline's by as much as matters."""
        found = self.level.difference
        return bool(found and found.interval and found.interval[0] >= -self.margin)

    @property
    def _diverged_shares(self) -> tuple[float, float]:
        """The shares of the seeds of the winner and of the baseline that have diverged."""
        winner, baseline = self.curves
        return _share_diverged(winner.level), _share_diverged(baseline.level)

    @property
    def _divergence_decides(self) -> bool:
        """Whether an inconclusive difference stays so however well it is known.

        What diverges more often is neither an improvement nor equivalent.
        """
        winner, baseline = self._diverged_shares
        found = self.level.difference
        if found is None or winner == baseline:
            return False
        return found.value > -self.margin and (winner > baseline or found.value < self.margin)

    def _leads(self, comparison: Comparison) -> bool:
        """Return whether the winner is ahead clearly, and by as much as matters."""
        lead = comparison.difference
        if lead is None or lead.interval is None:
            return False
        return lead.interval[0] > 0 and lead.value >= self.margin

    def _look(self, error: float) -> Look:
        return look_at(self.seeds, self.looks, repeated(error, self.repetition))

    def _outcome(self, winner: np.ndarray, baseline: np.ndarray, error: float) -> Outcome:
        """Return what per-seed values of both say.

        *Improved* asks for more than a higher mean: a winner of whose seeds a larger share
        diverges is no improvement, however good the others are.
        """
        if self.is_baseline:
            return Outcome.EQUIVALENT
        shares = _share_diverged(winner), _share_diverged(baseline)
        found = difference_of_means(winner, baseline, self._look(error))
        if found is None and shares[0] != shares[1]:
            return Outcome.WORSE if shares[0] == 1 else Outcome.IMPROVED
        if found is None or found.interval is None:
            return Outcome.INCONCLUSIVE
        (low, high), margin = found.interval, self.margin
        if low > 0 and found.value >= margin and shares[0] <= shares[1]:
            return Outcome.IMPROVED
        if high < 0 and found.value <= -margin:
            return Outcome.WORSE
        within = -margin <= low and high <= margin and shares[0] == shares[1]
        return Outcome.EQUIVALENT if within else Outcome.INCONCLUSIVE

    def _of_baseline(self) -> str:
        summary = self.baseline.summary
        reached = (
            "diverges on every seed" if summary is None else f"reaches {fixed(summary.mean.value)}"
        )
        return f"No trial beat the baseline, which {reached} ({self._conditions()})."

    def _figures(self) -> str:
        winner, baseline = self.winner.summary, self.baseline.summary
        difference = self.level.difference
        if winner is None or baseline is None or difference is None:
            known = {"winner": winner, "baseline": baseline}
            names = " and of the ".join(name for name, found in known.items() if found is None)
            return f"every seed of the {names} diverged ({self._conditions()})"
        counts = [len(curve.diverged_seeds) for curve in self.curves]
        diverged = f"; diverged: {counts[0]} against {counts[1]}" if any(counts) else ""
        conditions = f"{self._conditions()}{diverged}"
        if self.is_faster_only:
            means = [finite(curve.over_training).mean() for curve in self.curves]
            digits = decimals(*means)
            assert self.speed.difference is not None, "it has improved"
            end = ", to an equivalent level"
            if self.level_outcome != Outcome.EQUIVALENT:
                matters = f"differences below {fixed(self.margin)} do not matter"
                end = f", and ends no lower ({_text(difference)}; {matters})"
            return (
                f"the winner learns faster, {fixed(means[0], digits)} on average over training "
                f"against {fixed(means[1], digits)} for the baseline "
                f"({_text(self.speed.difference, digits)}; {conditions}){end}"
            )
        means = [winner.mean.value, baseline.mean.value]
        digits = decimals(*means)
        return (
            f"the winner reaches {fixed(means[0], digits)} against {fixed(means[1], digits)} "
            f"for the baseline ({_text(difference, digits)}; {conditions})"
        )

    def _advice(self) -> str:
        if self.outcome == Outcome.IMPROVED:
            return ""
        if self.outcome == Outcome.EQUIVALENT:
            return f"; differences below {fixed(self.margin)} do not matter. Keep the baseline"
        more, needed = "", self.seeds_to_settle
        if needed is not None:
            about = f"about {needed}" if needed <= _MOST_SEEDS else f"more than {_MOST_SEEDS:,}"
            more = f"; {about} seeds would tell"
        elif self._divergence_decides:
            winner, baseline = self._diverged_shares
            if winner > baseline:
                more = "; a winner of which more seeds diverge is no improvement"
            else:
                more = "; the two are not equivalent, as more seeds of the baseline diverged"
        return f"{more}. Keep the baseline"

    def _conditions(self) -> str:
        fresh = f"{self.seeds} fresh seed{'s' if self.seeds > 1 else ''}, {self.steps[-1]:,} steps"
        return fresh if self.repetition == 1 else f"{fresh}, validation {self.repetition} here"


def _share_diverged(values: np.ndarray) -> float:
    return float(np.mean(~np.isfinite(values)))


def _text(estimate: Estimate, digits: int | None = None) -> str:
    return estimate_text(
        estimate.value, estimate.interval, digits, signed=True, confidence=estimate.confidence
    )
