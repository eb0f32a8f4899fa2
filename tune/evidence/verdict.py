"""What two validated configurations say about each other: comparisons and a sentence."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ppo_jax.text import estimate_text, fixed
from tune.evidence.candidate import VALIDATION_SEEDS, Candidate
from tune.evidence.learning_curve import LearningCurve
from tune.evidence.statistics import (
    Comparison,
    Estimate,
    compare,
    finite,
    performance_profile,
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Winner against baseline on the validation seeds.

    Attributes:
      winner, baseline: both with returns on the validation seeds; one and the same candidate
        where no trial beat the baseline.
    """

    winner: Candidate
    baseline: Candidate

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

    @functools.cached_property
    def comparison(self) -> Comparison:
        """Comparison of the final returns; the verdict rests on it."""
        winner, baseline = self.curves
        return compare(winner.final, baseline.final)

    @functools.cached_property
    def over_training(self) -> Comparison:
        """Comparison of the mean over all checkpoints: how fast and how steadily they learn."""
        winner, baseline = self.curves
        return compare(winner.returns.mean(axis=0), baseline.returns.mean(axis=0))

    @functools.cached_property
    def at_tuning_steps(self) -> Comparison | None:
        """Comparison of the study's objective over the steps of a trial.

        None where the full budget is no longer than a trial's.
        """
        if self.winner.settings.total_steps >= self.steps[-1]:
            return None
        winner, baseline = self.winner.scores, self.baseline.scores
        return compare(winner[VALIDATION_SEEDS], baseline[VALIDATION_SEEDS])

    @property
    def outcome(self) -> str:
        """``improved``, ``no clear difference`` or ``worse``."""
        return self.comparison.verdict

    @property
    def misled(self) -> bool:
        """Whether the winner leads clearly after the steps of a trial, but not at the end."""
        return (
            self.at_tuning_steps is not None
            and self.at_tuning_steps.verdict == "improved"
            and self.outcome != "improved"
        )

    @property
    def recommended(self) -> Candidate:
        """The winner if it has improved on the baseline, else the baseline."""
        return self.winner if self.outcome == "improved" else self.baseline

    @functools.cached_property
    def sentence(self) -> str:
        """The verdict with its figures, in a sentence or two.

        The second follows where short training misled the search.
        """
        if self.is_baseline:
            return self._of_baseline()
        what = {"improved": "Improved", "worse": "Worse"}.get(self.outcome, "No clear difference")
        advice = "" if self.outcome == "improved" else "; keep the defaults"
        sentence = f"{what}: {self._figures()}{advice}."
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
            "comparison": self.comparison,
            "over_training": self.over_training,
            "at_tuning_steps": self.at_tuning_steps,
        }
        finals = [curve.final for curve in self.curves]
        values = finite(np.concatenate(finals))
        thresholds = np.linspace(values.min(), values.max(), 101) if len(values) else np.zeros(0)
        return {
            "verdict": self.sentence,
            "recommended": "winner" if self.recommended is self.winner else "baseline",
            "short_training_misled": self.misled,
            "winner_is_baseline": self.is_baseline,
            **{
                name: None if found is None or self.is_baseline else dataclasses.asdict(found)
                for name, found in compared.items()
            },
            "performance_profile": {
                "thresholds": thresholds,
                "winner": performance_profile(finals[0], thresholds),
                "baseline": performance_profile(finals[1], thresholds),
            },
        }

    def _of_baseline(self) -> str:
        summary = self.baseline.summary
        reached = (
            "diverge on every seed" if summary is None else f"reach {fixed(summary.mean.value)}"
        )
        return (
            f"No clear difference: no trial beat the default hyperparameters, which {reached} "
            f"({self._conditions()}); keep them."
        )

    def _figures(self) -> str:
        winner, baseline = self.winner.summary, self.baseline.summary
        difference = self.comparison.difference
        if winner is None or baseline is None or difference is None:
            known = {"best configuration": winner, "defaults": baseline}
            names = " and of the ".join(name for name, found in known.items() if found is None)
            return f"every seed of the {names} diverged ({self._conditions()})"
        counts = [len(curve.diverged_seeds) for curve in self.curves]
        diverged = f"; diverged: {counts[0]} against {counts[1]}" if any(counts) else ""
        return (
            f"the best configuration reaches {fixed(winner.mean.value)} against "
            f"{fixed(baseline.mean.value)} with the defaults "
            f"({_text(difference)}; {self._conditions()}{diverged})"
        )

    def _conditions(self) -> str:
        seeds = self.curves[0].returns.shape[1]
        return f"{seeds} fresh seed{'s' if seeds > 1 else ''}, {self.steps[-1]:,} steps"


def _text(estimate: Estimate) -> str:
    return estimate_text(estimate.value, estimate.interval, signed=True)
